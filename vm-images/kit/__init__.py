"""The machinery that the recipes share. It takes the cache's place from minicontainer.paths, from
this clone, whichever Python runs.
"""

import os
import sys

sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

#!/usr/bin/python3 -IS
"""`minicontainer-runtime`, started by its path: `python -I -S …/runtime_main.py`.

-S leaves site-packages out, which this runtime does not need and which would cost a start 10 ms.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from minicontainer.runtime_cli import main

sys.exit(main())

"""`python -m minicontainer`; `python -I -S …/minicontainer/__main__.py` starts faster."""

import os
import sys

if not __package__:  # run by its path, without site: make the package importable by its name
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from minicontainer.cli import main

sys.exit(main())

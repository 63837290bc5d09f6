#!/usr/bin/python3 -IS
"""`minicontainer-runtime`, started by its path: `python -I -S …/runtime_main.py`.

-S leaves site-packages out, which this runtime does not need and which would cost a start 10 ms.
"""

import gc
import os
import sys

gc.disable()  # a short life: collecting costs more than it gives back
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from minicontainer.runtime_cli import main  # noqa: E402

code = main()
try:
    sys.stdout.flush()
    sys.stderr.flush()
finally:
    os._exit(code)  # without taking the interpreter down piece by piece, which takes 2 ms

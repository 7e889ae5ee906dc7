"""`python -m metarun` is `metarun`."""

import os
import sys

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
if __name__ == "__main__":
    # Python puts the current folder first, so that a `random.py` there would take the place of the library's. See `metarun.wiring`.
    if not sys.flags.safe_path and sys.path[:1] == [os.getcwd()] != [HERE]:
        del sys.path[0]

    from metarun.cli.main import entry

    entry()

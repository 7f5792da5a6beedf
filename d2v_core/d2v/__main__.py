"""`python -m d2v` is the command `d2v`."""

import sys

from d2v.core.cli import main

if __name__ == "__main__":
    sys.exit(main())

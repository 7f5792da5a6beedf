"""The command `d2v`, also as `python -m d2v`. Shell completion is answered without importing PyTorch."""

import os
import sys


def main() -> int:
    """Run `d2v` with the arguments of the process; return the exit code."""
    try:
        if "_ARGCOMPLETE" in os.environ:
            from d2v._completion import complete

            complete()
        from d2v.core.cli import main as run

        code = run()
        if code == 0 and sys.argv[1:2] == ["completion"]:
            from d2v._completion import table

            table()  # create the table now, so that the first TAB is fast
        return code
    except KeyboardInterrupt:  # during the import of the packages, which takes seconds
        print("d2v: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())

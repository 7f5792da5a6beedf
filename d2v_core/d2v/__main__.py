"""The command `d2v`, also as `python -m d2v`; completion in a shell is answered before PyTorch would be imported."""

import os
import sys


def main() -> int:
    """Run `d2v` with the arguments of the process; gives the exit code."""
    try:
        if "_ARGCOMPLETE" in os.environ:
            from d2v._completion import complete

            complete()
        from d2v.core.cli import main as run

        code = run()
        if code == 0 and sys.argv[1:2] == ["completion"]:
            from d2v._completion import table

            table()  # so that the first TAB is as fast as all others
        return code
    except KeyboardInterrupt:  # while the packages are imported, which takes seconds
        print("d2v: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())

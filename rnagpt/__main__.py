"""`python -m rnagpt` is the `rnagpt` command."""

import sys

from rnagpt.cli import main

if __name__ == "__main__":
    sys.exit(main())

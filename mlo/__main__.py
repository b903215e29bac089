"""`python -m mlo`: the command line, where the script `mlo` is not on the path."""

from __future__ import annotations

import sys

from mlo.cli import main

if __name__ == "__main__":
    sys.exit(main())

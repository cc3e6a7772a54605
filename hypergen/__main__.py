"""Lets `python -m hypergen` stand for `hypergen`."""

import sys

from hypergen.cli import main

if __name__ == "__main__":
    sys.exit(main())

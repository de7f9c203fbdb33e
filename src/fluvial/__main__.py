"""Runs the command line: ``python -m fluvial``."""

import sys

from fluvial.cli import main

if __name__ == "__main__":
    sys.exit(main())

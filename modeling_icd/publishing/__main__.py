"""Runs `modeling-icd publish`; the commands themselves are in `cli.py`."""

import sys

from .cli import main


if __name__ == "__main__":
    sys.exit(main())

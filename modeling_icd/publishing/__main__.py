"""Runs `python -m modeling_icd.publishing`; the commands themselves are in `cli.py`."""

import sys

from .cli import main


if __name__ == "__main__":
    sys.exit(main())

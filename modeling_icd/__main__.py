"""`python -m modeling_icd`, which is the command `modeling-icd`: see `dataset_scripts/console.py`."""

import sys

from dataset_scripts.console import main


def train(arguments: list[str]) -> int:
    """Training may end in a push, but the parts that train and that push know nothing of each other."""
    from .publishing.after_training import plan_push
    from .training.run import main

    return main(arguments, plan_push)


if __name__ == "__main__":
    sys.exit(main())

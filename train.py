"""Trains one model, as `modeling-icd train` does: `python train.py configs/NAME.yaml [--data_dir DIR] [--any_argument value]`."""

import sys

from dataset_scripts.console import main


if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))

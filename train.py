"""Trains one model: `python train.py configs/NAME.yaml [--data_dir DIR] [--output_dir OUT] [--any_argument value]`."""

import sys

from modeling_icd.publishing.after_training import plan_push
from modeling_icd.training.run import main


if __name__ == "__main__":
    sys.exit(main(plan_push=plan_push))

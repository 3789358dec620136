"""Processor time of the training steps of a head over cached hidden states, of this checkout beside another one.

    python -m benchmarks.training_steps --against FOLDER --data_dir CODIESP codiesp_direct diagnoses_en_top50
    python -m benchmarks.training_steps --against FOLDER --data_dir CMC cmc_direct fold0

FOLDER holds another version of this project. Both train the same configuration in a process of their own, on one thread, by
turns: while one runs its block of steps the other waits. What counts is each one's own processor time, so that other work on
the machine changes little. How much of a step is arithmetic grows with the notes' tokens; the rest of it does not.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="name of a file in configs/")
    parser.add_argument("dataset_config")
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--against", type=Path, help="another checkout; by default this one is measured alone")
    parser.add_argument("--folder", type=Path, default=Path("runs/training_steps"), help="for caches and output")
    parser.add_argument(
        "--options", nargs="*", default=[], help="of `modeling-icd train` of this checkout, NAME=VALUE"
    )
    parser.add_argument("--block", type=int, default=20, help="steps of a turn")
    parser.add_argument("--blocks", type=int, default=10, help="turns of each")
    parser.add_argument("--output", type=Path, help="a JSON file for the figures")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.one:
        train(args)
        return 0
    figures = measure(args)
    print(json.dumps(figures, indent=2))
    if args.output:
        args.output.write_text(json.dumps(figures, indent=2))
    return 0


def measure(args: argparse.Namespace) -> dict[str, float]:
    """Milliseconds of processor time of a step, the median and the least of the blocks, on each side."""
    here = Path(__file__).resolve().parents[1]
    sides = {"now": here, **({"before": args.against.resolve()} if args.against else {})}
    processes = {name: start(name, root, args) for name, root in sides.items()}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(args.blocks + 1):
        for name, process in processes.items():
            given, printed = process.stdin, process.stdout
            assert given is not None and printed is not None  # both are pipes
            given.write("go\n")
            given.flush()
            for line in printed:  # beside what the Trainer prints
                if line.startswith("block "):
                    seconds[name].append(float(line.split()[1]) / args.block)
                    break
            else:
                raise RuntimeError(f"The training of {name} has ended: see {args.folder / name}.log.")
    for process in processes.values():
        process.kill()
    figures = {}
    for name, of_blocks in seconds.items():
        figures[f"{name}_ms"] = 1000 * float(np.median(of_blocks[1:]))  # the first block warms up
        figures[f"{name}_least_ms"] = 1000 * min(of_blocks[1:])
    if args.against:
        ratios = [before / now for before, now in zip(seconds["before"][1:], seconds["now"][1:], strict=True)]
        figures["times_the_steps_per_second"] = float(np.median(ratios))
    return figures


def start(name: str, root: Path, args: argparse.Namespace) -> subprocess.Popen:
    """A process that trains with the code of a checkout, and waits before each block."""
    args.folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, __file__, args.config, args.dataset_config, "--data_dir", args.data_dir, "--one"]
    command += ["--folder", str((args.folder / name).resolve()), "--block", str(args.block)]
    command += ["--blocks", str(args.blocks), "--options", *(args.options if name == "now" else [])]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    with open(args.folder / f"{name}.log", "w") as log:  # the process keeps it open
        return subprocess.Popen(command, cwd=root, env=environment, text=True, stdin=pipe, stdout=pipe, stderr=log)


def train(args: argparse.Namespace) -> None:
    """Train with the code that is imported, which may be of another version, and print the seconds of every block."""
    import torch
    from transformers import TrainerCallback
    from trl import TrlParser

    from modeling_icd.training import run
    from modeling_icd.training.arguments import DataArguments, ICDTrainingArguments, ModelArguments

    torch.set_num_threads(1)

    class Blocks(TrainerCallback):
        began = None

        def on_step_begin(self, arguments, state, control, **kwargs):
            if state.global_step % args.block:
                return
            if self.began is not None:
                print("block", time.process_time() - self.began, flush=True)
            sys.stdin.readline()
            self.began = time.process_time()

    make = run.make_trainer

    def make_trainer(*given, **named):
        trainer = make(*given, **named)
        trainer.add_callback(Blocks())
        return trainer

    run.make_trainer = make_trainer
    options = [*args.options, f"data_dir={args.data_dir}", f"dataset_config={args.dataset_config}"]
    options += [f"output_dir={args.folder / 'model'}", f"data_cache_dir={args.folder / 'cache'}"]
    options += [f"hidden_states_dir={args.folder / 'states'}", f"max_steps={args.block * (args.blocks + 2)}"]
    options += ["eval_strategy=no", "save_strategy=no", "load_best_model_at_end=false", "disable_tqdm=true"]
    options += ["head_start=prior", "overwrite_output_dir=true"]  # a start from notes takes no step
    parser = TrlParser([ModelArguments, DataArguments, ICDTrainingArguments])
    config = ["--config", f"configs/{args.config}.yaml"]
    run.train(*parser.parse_args_and_config([*config, *(f"--{option}" for option in options)]))


if __name__ == "__main__":
    sys.exit(main())

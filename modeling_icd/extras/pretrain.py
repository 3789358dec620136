"""Lets a language model read notes without codes, so that it knows their language before it learns to code (continued pretraining).

    modeling-icd pretrain BACKBONE OUTPUT_DIR --notes NOTES [NOTES ...]
    modeling-icd pretrain smollm2 runs/domain --notes background_en.jsonl --layers_from 20 --lora_r 16
    modeling-icd train files_direct --backbone runs/domain ...

NOTES is a csv, tsv, jsonl (each also .gz) or parquet file with a column `text`, or a folder of .txt files. Notes are read whole, one
after another, in rows of `--length` tokens; empty ones are left out. Every twentieth note is held out: the loss on these is
printed before and after, and if it has not fallen, nothing is written. An interrupted run goes on from its last checkpoint with `--resume`.
OUTPUT_DIR-private keeps digests of the notes that were learned from: evaluating a coder that is made from the folder on them gives a warning.

What reads notes can learn them by heart. So the folder, and every model that is made from it, counts as one of restricted data:
the folder cannot be published, and of a coder that is made from it `modeling-icd publish` leaves the weights at home.
"""

import argparse
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from torch.utils.data import Dataset
from transformers import AutoTokenizer, Trainer, TrainingArguments, set_seed
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from dataset_scripts.arguments import command_parser
from dataset_scripts.command import run_command
from dataset_scripts.files import check_writable, make_folder, read_json, whole_folder, write_json

from ..generative_icd import is_generative
from ..inference.adapters import lora_targets
from ..inference.gguf import convert_smollm2
from ..inference.learned_notes import EARLIER, copy_learned, forget_learned, write_learned
from ..inference.loading import load_config, load_language_model
from ..inference.predict_notes import NO_TEXT, open_notes


HELD_OUT = 20  # one note of so many
OPTIONS_FILE = "options.json"  # beside the checkpoints
RECORD = {"dataset": "files", "open": False}


class TokenRows(Dataset):
    """Notes as rows of `length` tokens; the last tokens, too few for a row, are left out.

    Args:
        tokens (`np.ndarray` of shape `(T,)`): of all notes, each with the token that ends it.
        length (`int`): of a row.
    """

    def __init__(self, tokens: np.ndarray, length: int):
        self.rows = tokens[: len(tokens) // length * length].reshape(-1, length)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        row = torch.from_numpy(self.rows[index].astype(np.int64))
        return {"input_ids": row, "labels": row}


def make_parser() -> argparse.ArgumentParser:
    parser = command_parser("pretrain", __doc__)
    parser.add_argument("backbone", help="folder or Hub id of a language model, or `smollm2`")
    parser.add_argument("output_dir", type=Path)
    parser.add_argument("--notes", nargs="+", required=True, metavar="NOTES")
    parser.add_argument("--text_column", default=None, metavar="NAME", help="of the tables; default: text")
    parser.add_argument("--length", type=int, default=512, metavar="N", help="tokens of a row (default: 512)")
    parser.add_argument("--epochs", type=float, default=1.0, metavar="N")
    parser.add_argument("--max_steps", type=int, default=-1, metavar="N", help="end after so many steps")
    parser.add_argument("--batch_size", type=int, default=8, metavar="N", help="rows of a step (default: 8)")
    parser.add_argument("--learning_rate", type=float, default=1e-4, metavar="RATE")
    parser.add_argument(
        "--lora_r", type=int, default=0, metavar="RANK", help="of LoRA; 0, the default: all weights learn"
    )
    parser.add_argument(
        "--layers_from", type=int, default=0, metavar="N", help="with --lora_r: layers below stay as they are"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    return parser


def main(arguments: list[str] | None = None) -> int:
    args = make_parser().parse_args(arguments)
    return run_command(lambda: pretrain(args))


def pretrain(args: argparse.Namespace) -> int:
    """What the command line asks for."""
    check_arguments(args)
    set_seed(args.seed)
    backbone = str(convert_smollm2()) if args.backbone == "smollm2" else args.backbone
    model, tokenizer = load_backbone(backbone)
    private_dir = Path(f"{args.output_dir}-private")
    checkpoints = private_dir / "checkpoints"
    checkpoint = last_checkpoint(checkpoints, args) if args.resume else None
    learned, held_out = read_rows(args.notes, args.text_column, tokenizer, args.length)
    print(f"{len(learned):,} rows of {args.length} tokens to learn from, {len(held_out):,} held out")
    make_folder(private_dir, private=True)
    remember_notes(args, backbone, private_dir)
    if checkpoint is None:
        shutil.rmtree(checkpoints, ignore_errors=True)  # of an earlier run, which `--resume` must not find
        write_json(options_of(args), checkpoints / OPTIONS_FILE, private=True)
    trained = read_to_end(model, learned, held_out, args, private_dir, checkpoint)
    trained.config.training_data = {**RECORD, "seed": args.seed}
    with whole_folder(args.output_dir, private=True) as folder:
        trained.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    remove_checkpoints(checkpoints)  # which are what is left of the run where the folder cannot be written
    print(args.output_dir)
    return 0


def load_backbone(backbone: str) -> tuple[Any, Any]:
    """A language model, and its tokenizer.

    Raises:
        ValueError: where it codes notes already, or no token ends a text.
    """
    if is_generative(load_config(backbone)):
        raise ValueError(
            f"{backbone} codes notes already, and reading others would spoil its answers: let its backbone read them, and train a coder on that."
        )
    model, tokenizer = load_language_model(backbone, dtype=torch.float32), AutoTokenizer.from_pretrained(backbone)
    if tokenizer.eos_token_id is None:
        raise ValueError(
            f"The tokenizer of {backbone} has no token that ends a text (`eos_token`): take another backbone."
        )
    return model, tokenizer


def read_to_end(
    model: Any,
    learned: TokenRows,
    held_out: TokenRows,
    args: argparse.Namespace,
    private_dir: Path,
    checkpoint: str | None,
) -> Any:
    """The language model once it has read the notes, LoRA merged into it.

    Raises:
        ValueError: where the loss on the notes that are held out has not fallen; nothing of the run is then kept.
    """
    checkpoints = private_dir / "checkpoints"
    trainer = Trainer(
        with_lora(model, args.lora_r, args.layers_from) if args.lora_r else model,
        training_arguments(args, checkpoints),
        train_dataset=learned,
        eval_dataset=held_out,
    )
    before = trainer.evaluate()["eval_loss"]
    trainer.train(resume_from_checkpoint=checkpoint)
    after = trainer.evaluate()["eval_loss"]
    print(f"loss of a token of held-out notes: {before:.3f} before, {after:.3f} after")
    if not after < before:
        forget_learned(private_dir)
        remove_checkpoints(checkpoints)
        raise ValueError(
            f"The loss on held-out notes has not fallen ({before:.3f} before, {after:.3f} after), so nothing was written to "
            f"{args.output_dir}: lower --learning_rate or --epochs, or give more notes."
        )
    trained = trainer.accelerator.unwrap_model(trainer.model)
    return trained.merge_and_unload() if args.lora_r else trained


def remember_notes(args: argparse.Namespace, backbone: str, private_dir: Path) -> None:
    """Write down which notes are learned from, and copy what the backbone remembers of those before, so that a coder that is made from
    the folder is not evaluated on them unseen."""
    learned = (text for number, text in enumerate(texts_of(args.notes, args.text_column)) if not is_held_out(number))
    write_learned(learned, private_dir)
    copy_learned(backbone, private_dir / EARLIER)


def is_held_out(number: int) -> bool:
    """Whether the loss is measured on a note, in place of learning from it."""
    return number % HELD_OUT == HELD_OUT - 1


def remove_checkpoints(folder: Path) -> None:
    """Remove the checkpoints, and the private folder around them where nothing else is in it."""
    shutil.rmtree(folder)
    with suppress(OSError):  # where it holds something else, which is not ours to remove
        folder.parent.rmdir()


def check_arguments(args: argparse.Namespace) -> None:
    """Raise an error for options that do not fit, before anything is read."""
    for name, least in (("length", 1), ("batch_size", 1), ("lora_r", 0), ("layers_from", 0)):
        if getattr(args, name) < least:
            raise ValueError(f"--{name} must be at least {least}, got {getattr(args, name)}.")
    for name in ("epochs", "learning_rate"):
        if not getattr(args, name) > 0:
            raise ValueError(f"--{name} must be above 0, got {getattr(args, name)}.")
    if args.max_steps < 1 and args.max_steps != -1:
        raise ValueError(
            f"--max_steps must be at least 1, got {args.max_steps}: leave it out to read `--epochs` times."
        )
    if args.layers_from and not args.lora_r:
        raise ValueError("--layers_from chooses the layers of LoRA: give --lora_r, too.")
    if args.output_dir.exists() and any(args.output_dir.iterdir()):
        raise FileExistsError(f"{args.output_dir} is there already and is not empty: give another folder.")
    check_writable(args.output_dir)


def training_arguments(args: argparse.Namespace, folder: Path) -> TrainingArguments:
    """As `Trainer` takes them; checkpoints hold what was learned from notes, so they lie in the private folder."""
    return TrainingArguments(
        str(folder),
        seed=args.seed,
        num_train_epochs=args.epochs,
        max_steps=args.max_steps,
        per_device_train_batch_size=args.batch_size,
        per_device_eval_batch_size=args.batch_size,
        learning_rate=args.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=0.05,
        weight_decay=0.01,
        bf16=torch.cuda.is_available() and torch.cuda.is_bf16_supported(),
        logging_steps=20,
        save_strategy="steps",
        save_steps=200,
        save_total_limit=1,
        report_to="none",
    )


def options_of(args: argparse.Namespace) -> dict[str, Any]:
    """What a run that goes on must have in common with the one that was interrupted."""
    return {name: value for name, value in vars(args).items() if name not in ("output_dir", "resume")}


def last_checkpoint(folder: Path, args: argparse.Namespace) -> str:
    """The complete checkpoint to go on from.

    Raises:
        FileNotFoundError: where there is none.
        ValueError: where it is of a run with other options.
    """
    # What is written last tells one that is complete.
    complete = [path.parent for path in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*/{TRAINER_STATE_NAME}")]
    if not complete:
        raise FileNotFoundError(f"{folder} has no checkpoint to go on from: leave --resume out.")
    begun, given = read_json(folder / OPTIONS_FILE, "leave --resume out."), options_of(args)
    differing = sorted(name for name in given if begun.get(name) != given[name])
    if differing:
        raise ValueError(
            f"The run in {folder} was begun with other options ({', '.join(differing)}): give the same ones, or leave --resume out."
        )
    return str(max(complete, key=lambda path: int(path.name.rpartition("-")[2])))


def read_rows(
    paths: Sequence[str], text_column: str | None, tokenizer: Any, length: int
) -> tuple[TokenRows, TokenRows]:
    """Rows to learn from, and rows of the notes that are held out.

    Raises:
        ValueError: where there are too few notes for a row of each.
    """
    parts: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for number, text in enumerate(texts_of(paths, text_column)):
        tokens = [*tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"], tokenizer.eos_token_id]
        parts[is_held_out(number)].append(np.array(tokens, dtype=np.int32))
    rows = [TokenRows(np.concatenate([np.empty(0, np.int32), *part]), length) for part in parts]
    if not all(map(len, rows)):
        raise ValueError(
            f"{len(parts[0]) + len(parts[1])} notes are too few: {len(rows[0])} rows of {length} tokens to learn from, {len(rows[1])} of "
            f"every {HELD_OUT}th note, which is held out. Give more notes, or a smaller --length."
        )
    return rows[0], rows[1]


def texts_of(paths: Sequence[str], text_column: str | None) -> Iterator[str]:
    """The texts of the notes, in their order; empty ones are left out.

    Raises:
        ValueError: names the file and row of a note that cannot be read.
    """
    for path in paths:
        is_folder = Path(path).is_dir()
        notes = open_notes(path, None if is_folder or text_column is None else [text_column])
        for row in notes.rows():
            if row.reason == NO_TEXT:
                continue
            if row.reason:
                raise ValueError(f"{path}, note {row.row}, {row.reason}.")
            if row.text.strip():
                yield row.text


def with_lora(model: Any, rank: int, first: int) -> Any:
    """The language model with LoRA on the linear layers from layer `first` on.

    Raises:
        ValueError: where it has no such layer.
    """
    targets = lora_targets(model, first, "--layers_from")
    config = LoraConfig(task_type="CAUSAL_LM", r=rank, lora_alpha=2 * rank, target_modules=targets)
    return get_peft_model(model, config)


if __name__ == "__main__":
    sys.exit(main())

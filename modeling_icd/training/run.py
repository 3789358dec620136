"""`python train.py configs/NAME.yaml`: data set -> tokens -> model -> Trainer -> a folder that `from_pretrained` loads."""

import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

import datasets
from huggingface_hub import constants
from peft import PeftModel
from transformers import AutoTokenizer, set_seed
from transformers.integrations import get_reporting_integration_callbacks
from trl import TrlParser

from dataset_scripts import ICDBuilder, load_builder, parse_options
from dataset_scripts.files import make_folder, whole_folder, write_text
from dataset_scripts.marker import is_synthetic
from dataset_scripts.public_files import is_public

from ..evaluation.data import RUN_FILE, load_config
from ..evaluation.decisions import check_notes, fit_decision
from ..evaluation.provenance import weights_digest
from ..modeling_icd import LlamaICDPreTrainedModel
from ..publishing.folder import ADAPTER_DIR
from ..publishing.hub import PushError
from ..publishing.release import ADAPTER_WEIGHTS
from ..sharing_icd import seal_training_data
from .arguments import DataArguments, ICDTrainingArguments, ModelArguments
from .checkpoints import check_same_data, clear_write_errors, how_to_go_on, last_complete_checkpoint
from .collator import ICDCollator
from .convert_gguf import convert_gguf, find_smollm2
from .hidden_states import HiddenStates
from .models import build_model
from .processes import (
    OtherProcessFailed,
    end_processes,
    every_process,
    first_process_first,
    first_process_only,
    is_lost_process,
)
from .push import evaluate_and_push, take_push_plan
from .tokens import code_vocabulary, count_codes, readable_notes, tokenize_split
from .trainer import make_trainer, predict_logits


# A converted backbone is public and the same for every run, so it lies with the other downloaded models.
SMOLLM2_DIR = Path(constants.HF_HOME, "modeling_icd", "smollm2-135m-instruct")


def train(model_args: ModelArguments, data_args: DataArguments, args: ICDTrainingArguments) -> Path:
    """Trains one model and writes it, its tokenizer and `run.json` to `args.output_dir`.

    How scores become decisions (calibration, thresholds, what is to be reviewed) is fitted on the validation split and
    saved in the model's configuration. With `refit_on_validation` the model that is saved has learned from validation too,
    after that was fitted.

    Several processes (`torchrun`) share training, hidden states and prediction; the first one alone writes the rest.
    """
    if args.push_to_hub:
        raise ValueError("`train` uploads nothing: push the model with `python -m modeling_icd.publishing`.")
    check_report_to(args)
    set_seed(args.seed)
    is_first = args.process_index == 0
    if not is_first:
        datasets.disable_progress_bars()
    output_dir = make_folder(args.output_dir)
    # What can be turned back into notes never lies in the folder that is published.
    private_dir = Path(f"{output_dir}-private")
    options = data_args.dataset_options or []
    builder = first_process_first(args, lambda: build_dataset(data_args, private_dir / "cache"))
    train_split, validation_split = builder.as_dataset(split="train"), builder.as_dataset(split="validation")
    if data_args.max_train_notes is not None:
        train_split = train_split.select(range(min(data_args.max_train_notes, len(train_split))))
    learned_splits = [train_split, *([validation_split] if args.refit_on_validation else [])]
    codes = code_vocabulary(*learned_splits)
    backbone = model_args.backbone
    if backbone == "smollm2":
        backbone = first_process_first(args, lambda: str(convert_gguf(find_smollm2(), SMOLLM2_DIR)))
    load_config(backbone)
    tokenizer = AutoTokenizer.from_pretrained(backbone)
    training_data = {
        "dataset": data_args.dataset,
        "config": builder.config.name,
        # Evaluation reads its notes in the same way. A path is of this machine alone.
        "options": [pair for pair in options if not pair.partition("=")[0].endswith(("_dir", "_file"))],
        "synthetic": is_synthetic(builder.config.data_dir),
        "open": is_public(builder),
        "code_counts": count_codes(*learned_splits),
    }
    model = build_model(model_args, backbone, codes, builder.code_descriptions, training_data)
    training, validation = (
        readable_notes(split, tokenize_split(split, tokenizer, model.config.label2id), name)
        for split, name in ((train_split, "training"), (validation_split, "validation"))
    )
    gold = list(validation.tokens["label_ids"])
    check_notes(gold, args, validation.num_unknown)  # before training
    if is_first:
        warn_of_empty_notes(len(training.empty_gold), len(validation.empty_gold))
        print(
            f"{len(training.tokens)} notes to train on, {len(validation_split)} to validate on, {len(codes)} codes; "
            f"{sum(p.numel() for p in model.parameters() if p.requires_grad):,} trained weights"
        )
    store = None
    if model_args.freeze_backbone:
        folder = Path(data_args.hidden_states_dir or private_dir / "hidden_states")
        notes = (ids for part in (training, validation) for ids in part.tokens["input_ids"])
        store = fill_store(folder, model, data_args.hidden_states_dtype, notes, args)
    collator = ICDCollator(len(codes), padding_token(model, tokenizer), store)
    resume = first_process_only(args, lambda: checkpoint_to_resume(args, model.config.training_data))
    trainer = make_trainer(model, args, training.tokens, validation.tokens, collator, tokenizer, validation.empty_gold)
    trainer.train(resume_from_checkpoint=resume)
    logits = predict_logits(trainer, validation.tokens)
    counts = [training_data["code_counts"].get(code, 0) for code in codes]
    decision = first_process_only(
        args, lambda: fit_decision(logits, gold, args, training_counts=counts, num_unknown=validation.num_unknown)
    )
    log = trainer.state.log_history
    if args.refit_on_validation:
        set_seed(args.seed)
        model = build_model(model_args, backbone, codes, builder.code_descriptions, training_data)
        both = datasets.concatenate_datasets([training.tokens, validation.tokens])
        trainer = make_trainer(model, args, both, None, collator, tokenizer)
        trainer.train()
        log = [*log, *trainer.state.log_history]
    final = trainer.accelerator.unwrap_model(trainer.model)
    final.config.update(decision)
    final.config.training_data["seed"] = args.seed
    run = {"model": asdict(model_args), "data": asdict(data_args), "training": args.to_dict(), "log": log}
    first_process_only(args, lambda: save_run(final, tokenizer, run, output_dir))
    return output_dir


def check_report_to(args: ICDTrainingArguments) -> None:
    """Refuse a report to a tool that is not installed, before anything is read.

    Raises:
        ValueError: names the tool.
    """
    for name in args.report_to or []:
        for callback in get_reporting_integration_callbacks([name]):
            # Without a tool, some of these fail once more when they are deleted.
            probe = type(callback.__name__, (callback,), {"__del__": lambda self: None})
            try:
                probe()
            except (ImportError, RuntimeError) as error:
                reason = str(error).splitlines()[0]
                raise ValueError(f"`report_to` {name}: {reason} Install it, or leave `--report_to` out.") from None


def build_dataset(data_args: DataArguments, default_cache: Path) -> ICDBuilder:
    """The data set, built where the cache does not hold it; the cache is its owner's alone, since it holds the notes."""
    cache = make_folder(data_args.data_cache_dir or default_cache, private=True)
    options = parse_options(data_args.dataset, data_args.dataset_options or [], "--dataset_options")
    umask = os.umask(0o077)
    try:
        return load_builder(
            data_args.dataset, data_args.dataset_config, data_dir=data_args.data_dir, cache_dir=cache, **options
        )
    finally:
        os.umask(umask)


def fill_store(
    folder: Path, model: LlamaICDPreTrainedModel, dtype: str, notes: Iterable[list[int]], args: ICDTrainingArguments
) -> HiddenStates:
    """The store of a frozen backbone's hidden states, with those of all these notes; each process computes a share."""
    model.to(args.device)
    store = HiddenStates(folder, model, dtype)
    every_process(args, lambda: store.fill(notes, args.process_index, args.world_size))
    store.reload()
    return store


def warn_of_empty_notes(num_train: int, num_validation: int) -> None:
    """Say how many notes no model can read."""
    if num_train:
        print(f"warning: {num_train} training notes have no text: they are left out.", file=sys.stderr)
    if num_validation:
        print(
            f"warning: {num_validation} validation notes have no text: no code is predicted for them, so each of theirs "
            "counts as missed; thresholds are fitted on the other notes.",
            file=sys.stderr,
        )


def padding_token(model: LlamaICDPreTrainedModel | PeftModel, tokenizer) -> int:
    """What batches are padded with: the mask says where, so any token that the backbone knows will do (some say -1)."""
    vocabulary = range(model.config.vocab_size)
    return next(x for x in (model.config.pad_token_id, tokenizer.pad_token_id, 0) if x is not None and x in vocabulary)


def checkpoint_to_resume(args: ICDTrainingArguments, training_data: dict) -> str | None:
    """The checkpoint that `resume_from_checkpoint` names; `last` and `true`: the last complete one, if there is one."""
    resume = args.resume_from_checkpoint
    if isinstance(resume, str) and resume.lower() in ("true", "last"):
        resume = last_complete_checkpoint(Path(args.output_dir))
        print(f"resuming from {resume}" if resume else f"no complete checkpoint in {args.output_dir}: starting anew")
    if resume:
        check_same_data(Path(resume), training_data)
    return resume


def save_run(model, tokenizer, run: dict, output_dir: Path) -> None:
    """Write a trained model, merged where LoRA trained it, its tokenizer and `run.json`.

    Raises:
        OSError: where they cannot be written, e.g. on a full disk; the checkpoints are left as they are.
    """
    with clear_write_errors(output_dir):
        if isinstance(model, PeftModel):
            if run["model"]["save_adapter"]:
                save_adapter(model, output_dir / ADAPTER_DIR)
                model.config.training_data["adapter"] = weights_digest(output_dir / ADAPTER_DIR, ADAPTER_WEIGHTS)
            model = model.merge_and_unload()
        save(model, tokenizer, output_dir)
        write_text(json.dumps(run, indent=2, default=str), output_dir / RUN_FILE)


def save(model: LlamaICDPreTrainedModel, tokenizer, output_dir: Path) -> None:
    """The folder that `from_pretrained`, `pipeline` and the Hub read; an earlier model stays until this one is complete."""
    model.config.use_cache = False
    with whole_folder(output_dir / "complete") as partial:
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        # Binds what the configuration says of the training data to these weights and no others.
        record = {**(model.config.training_data or {}), "weights": weights_digest(partial)}
        model.config.training_data = seal_training_data(record)
        model.config.save_pretrained(partial)
    for path in output_dir.glob("model*.safetensors*"):
        path.unlink()  # of an earlier run: cut into other files than these, it would stay among them
    for path in (output_dir / "complete").iterdir():
        path.replace(output_dir / path.name)
    (output_dir / "complete").rmdir()


def save_adapter(model: PeftModel, folder: Path) -> None:
    """LoRA's matrices and the head, which load over the pretrained backbone."""
    with whole_folder(folder) as partial:
        model.save_pretrained(partial, save_embedding_layers=False)


class Terminated(BaseException):
    """The system asks this process to end (SIGTERM)."""


@contextlib.contextmanager
def terminated_as_exception() -> Iterator[None]:
    """Within the block, SIGTERM is an exception as Ctrl-C is, so that what is half written is removed."""

    def end(number, frame):
        raise Terminated

    if threading.current_thread() is not threading.main_thread():  # where no signal arrives
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def main(arguments: list[str] | None = None) -> int:
    """The command line: a YAML file first, then any field of the three argument classes.

    Returns:
        0 where the model is trained, and pushed if that was asked for; 2 after an error; 130 after Ctrl-C and 143 after
        SIGTERM. 1 where publishing found something that must not go out.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    parser = TrlParser([ModelArguments, DataArguments, ICDTrainingArguments])
    if arguments and not arguments[0].startswith("-"):
        arguments = ["--config", *arguments]
    training_args: ICDTrainingArguments | None = None
    try:
        with terminated_as_exception():
            try:
                if "--config" in arguments[:1] and not Path(arguments[1]).is_file():
                    raise FileNotFoundError(
                        f"No configuration file {arguments[1]}; configs/ holds those of this project."
                    )
                model_args, data_args, training_args = parser.parse_args_and_config(arguments)
                plan = take_push_plan(model_args, training_args)
                output_dir = train(model_args, data_args, training_args)
            except OtherProcessFailed:  # which says why
                return 2
            except (ValueError, OSError, PushError) as error:  # transformers reports a missing backbone as an OSError
                print(f"error: {error}", file=sys.stderr)
                return 2
            except RuntimeError as error:
                if training_args is None or not is_lost_process(training_args, error):
                    raise
                hint = how_to_go_on(Path(training_args.output_dir))
                print(f"error: another process of this training has ended. {hint}", file=sys.stderr)
                return 2
    except (KeyboardInterrupt, Terminated) as reason:
        by, code = ("SIGTERM", 143) if isinstance(reason, Terminated) else ("Ctrl-C", 130)
        if training_args is None:
            print(f"\nstopped by {by}", file=sys.stderr)
        elif training_args.process_index == 0:
            print(f"\nstopped by {by}. {how_to_go_on(Path(training_args.output_dir))}", file=sys.stderr)
        return code
    end_processes()
    if not training_args.should_save:  # one of several processes says where it is, and pushes
        return 0
    print(output_dir)
    if plan is None:
        return 0
    return evaluate_and_push(plan, output_dir, data_args, training_args.per_device_eval_batch_size)


if __name__ == "__main__":
    sys.exit(main())

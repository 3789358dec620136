"""Trains a model: data set -> tokens -> model -> Trainer -> a folder that `from_pretrained` loads.

    modeling-icd train files_direct --data_dir DIR --output_dir runs/mine
    modeling-icd train files_direct --train_file train.csv --validation_file validation.csv --output_dir runs/mine
    modeling-icd train my_own.yaml --num_train_epochs 5

A configuration is a YAML file, or the name of one that comes with this project. Each of its fields, and each field of
`TrainingArguments` of transformers, is an option, too, and the command line comes before the file.
"""

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import datasets
from datasets.exceptions import DatasetsError
from transformers import AutoTokenizer, TrainingArguments, set_seed
from trl import TrlParser

from dataset_scripts import ICDBuilder
from dataset_scripts.arguments import PROGRAM
from dataset_scripts.command import Ended, run_command
from dataset_scripts.counts import counted
from dataset_scripts.files import check_writable, make_folder

from ..evaluation.decisions import check_notes, fit_decision
from ..heads import find_head, members_of
from ..inference.gguf import convert_smollm2
from ..inference.hidden_states import HiddenStates
from ..inference.learned_notes import EARLIER, admissions_of, copy_learned, write_learned
from ..inference.loading import load_config, prepare_backbone, to_device
from ..inference.processes import OtherProcessFailed, first_process_first, first_process_only
from ..inference.tokens import texts_of_notes
from ..modeling_icd import ModelForICDCoding
from .arguments import DataArguments, ICDTrainingArguments, ModelArguments, check_report_to, nothing_to_start
from .checkpoints import checkpoint_to_resume, how_to_go_on
from .collator import ICDCollator
from .config_files import USAGE, find_config, help_text, trainer_of
from .diagnostics import measure_yardsticks, warn_of_yardsticks
from .further_texts import further_texts, terms_of_codes, tokenize_texts
from .label_graph import give_graph
from .models import add_lora, build_model, give_titles
from .notes import (
    TokenizedNotes,
    build_dataset,
    describe_training_data,
    marked_evidence,
    notes_per_code,
    readable_notes,
    say_who_may_have,
    warn_of_empty_notes,
)
from .output_folder import check_output_dir, check_same_notes, remove_checkpoints
from .processes import end_processes, fill_states, is_lost_process
from .saving import save_run
from .sharding import whole_weights
from .start import check_codes_to_start, queries_per_code, start_head
from .trainer import ICDTrainer, make_trainer, predict_split
from .word_reader import find_word_reader
from .word_vectors import check_vectors


# What is done with a model once it is trained: it is given the folder, and returns an exit status.
AfterTraining = Callable[[Path], int]
PlanPush = Callable[[ModelArguments, DataArguments, ICDTrainingArguments], AfterTraining | None]


def train(model_args: ModelArguments, data_args: DataArguments, args: ICDTrainingArguments) -> Path:
    """Trains one model and writes it, its tokenizer and `run.json` to `args.output_dir`.

    How scores become decisions (calibration, thresholds, what is to be reviewed) is fitted on the validation split and
    saved in the model's configuration. With `refit_on_validation` the model that is saved has learned from validation too,
    after that was fitted.

    Several processes (`torchrun`) share training, hidden states and prediction; the first one alone writes the rest.
    """
    check_arguments(model_args, args)
    run = {"model": asdict(model_args), "data": asdict(data_args), "training": args.to_dict()}
    output_dir, private_dir = open_folders(run, args)
    set_seed(args.seed)
    is_first = args.process_index == 0
    if not is_first:
        datasets.disable_progress_bars()
    splits, training_data, tokenizer, new_model = gather(model_args, data_args, args, private_dir)
    codes = list(training_data["code_counts"])
    model = new_model()
    training, validation = read_splits(splits, model, tokenizer, model_args, data_args, args)
    gold = list(validation.tokens["label_ids"])
    make = partial(make_further, model_args, data_args, args, model, tokenizer)
    further = make(splits["training"], training.tokens)
    store = None
    if model_args.freeze_backbone and not model_args.layer_mix:
        folder = Path(data_args.hidden_states_dir or private_dir / "hidden_states")
        parts = [training.tokens, validation.tokens, *further]
        store = fill_store(folder, model, data_args.hidden_states_format, parts, args)
    collator = ICDCollator(len(codes), hidden_states=store)
    resume = find_checkpoint(args, model.config.training_data)
    model = ready_to_learn(model, model_args, training.tokens, store, tokenizer, args, is_resumed=resume is not None)
    if is_first:
        say_sizes(training.tokens, splits["validation"], model)
    trainer = make_trainer(
        model, args, training.tokens, validation.tokens, collator, tokenizer, validation.empty_gold, further
    )
    trainer.train(resume_from_checkpoint=resume)
    logits = predict_split(trainer, validation.tokens)
    counts = [training_data["code_counts"][code] for code in codes]
    decision = first_process_only(
        lambda: fit_decision(logits, gold, args, training_counts=counts, num_unknown=validation.num_unknown)
    )
    yardsticks = first_process_only(
        lambda: measure_yardsticks(splits, training, validation, logits, args.tfidf_yardstick)
    )
    log = trainer.state.log_history
    if args.refit_on_validation:
        set_seed(args.seed)
        both = datasets.concatenate_datasets([training.tokens, validation.tokens])
        further = make(datasets.concatenate_datasets([*splits.values()]), both)
        trainer = refit(new_model, model_args, args, both, further, collator, tokenizer)
        log = [*log, *trainer.state.log_history]
    final = trainer.accelerator.unwrap_model(trainer.model)
    final.config.update(decision)
    final.config.training_data["seed"] = args.seed
    if yardsticks is not None:
        final.config.training_data["yardsticks"] = yardsticks
    weights = whole_weights(trainer)
    first_process_only(lambda: save_run(final, tokenizer, {**run, "log": log}, output_dir, weights))
    if is_first:
        warn_of_yardsticks(training_data | {"yardsticks": yardsticks})
    return output_dir


def read_splits(
    splits: dict[str, datasets.Dataset],
    model: ModelForICDCoding,
    tokenizer,
    model_args: ModelArguments,
    data_args: DataArguments,
    args: ICDTrainingArguments,
) -> tuple[TokenizedNotes, TokenizedNotes]:
    """The notes of training and of validation as tokens. Raises, before training, a `ValueError` where they are not enough for
    what was asked for, and says what is not read of them."""
    if model_args.start_titles:
        check_can_start(model, model_args.backbone)
    evidence = marked_evidence(splits, model_args, data_args)
    training, validation = (
        readable_notes(split, tokenizer, model.config.label2id or {}, name, evidence.get(name))
        for name, split in splits.items()
    )
    if model_args.start_titles:
        started_with = [training.tokens, *([validation.tokens] if args.refit_on_validation else [])]
        label_ids = chain.from_iterable(notes["label_ids"] for notes in started_with)
        check_codes_to_start(model, label_ids, model_args.start_titles_up_to)
    check_notes(list(validation.tokens["label_ids"]), args, validation.num_unknown)
    if args.process_index == 0:
        warn_of_empty_notes(len(training.empty_gold), len(validation.empty_gold))
        say_who_may_have(data_args, model.config.training_data or {})
        say_pairs(training.tokens, model, args.per_device_train_batch_size)
    return training, validation


def refit(
    new_model: Callable[[], Any],
    model_args: ModelArguments,
    args: ICDTrainingArguments,
    notes: datasets.Dataset,
    further: list[datasets.Dataset],
    collator: ICDCollator,
    tokenizer,
) -> ICDTrainer:
    """The Trainer of a new model that has learned from the notes of training and validation, and from what is learned beside them."""
    store = collator.hidden_states
    if further and store is not None:
        fill_states(store, further, args)
    model = ready_to_learn(new_model(), model_args, notes, store, tokenizer, args)
    trainer = make_trainer(model, args, notes, None, collator, tokenizer, further=further)
    trainer.train()
    return trainer


def open_folders(run: dict[str, Any], args: TrainingArguments) -> tuple[Path, Path]:
    """The folder of the model, which is made, and the private one beside it: what can be turned back into notes never lies in the
    folder that is published. Both are checked before anything is computed. What the backbone remembers of notes that it learned from
    in an earlier run is copied into it.

    Args:
        run (`dict`): the arguments, as they will be in `run.json`.
    """
    output_dir = Path(args.output_dir)
    private_dir = Path(f"{output_dir}-private")
    for folder in (output_dir, private_dir):
        check_writable(folder, is_folder=True)
    first_process_only(lambda: check_output_dir(run, args))
    first_process_only(lambda: copy_learned(run["model"]["backbone"], private_dir / EARLIER))
    return make_folder(output_dir), private_dir


def find_checkpoint(args: TrainingArguments, training_data: dict[str, Any]) -> str | None:
    """The checkpoint to go on from, if that was asked for. Otherwise those of an earlier run are removed."""
    resume = first_process_only(lambda: checkpoint_to_resume(args, training_data))
    if resume is None:
        first_process_only(lambda: remove_checkpoints(Path(args.output_dir)))
    return resume


def check_arguments(model_args: ModelArguments, args: ICDTrainingArguments) -> None:
    """Raise a `ValueError` where arguments cannot be followed, which is to be known before anything is written."""
    if args.push_to_hub:
        raise ValueError("`train` uploads nothing: push the model with `modeling-icd publish`.")
    check_report_to(args)
    if model_args.contrast_weight and args.per_device_train_batch_size < 3:
        raise ValueError(
            "`contrast_weight` compares two notes that have a code with one that has it not, and a batch holds "
            f"{args.per_device_train_batch_size} (`per_device_train_batch_size`): give at least 3, better many more."
        )
    if (words := model_args.parsed_reader_options()) is not None:
        check_vectors(words.vectors)


def say_sizes(training: datasets.Dataset, validation: datasets.Dataset, model: ModelForICDCoding) -> None:
    """Print how much is learned from, and how much learns."""
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    print(
        f"{counted(len(training), 'note')} to train on, {len(validation):,} to validate on, "
        f"{counted(model.config.num_labels, 'code')}; {counted(trained, 'trained weight')}"
    )


def say_pairs(notes: datasets.Dataset, model: ModelForICDCoding, batch_size: int) -> None:
    """Print, where a head learns by contrast, how many codes have a pair in a batch: its mean, were batches drawn at random."""
    if not model.config.contrast_weight:
        return
    shares = notes_per_code(notes["label_ids"], model.config.num_labels) / len(notes)
    none, one, all_ = (1 - shares) ** batch_size, shares * (1 - shares) ** (batch_size - 1), shares**batch_size
    mean = float((1 - none - batch_size * one - all_).clip(min=0).sum())
    print(
        f"To contrast: in a batch of {batch_size} notes about {mean:.1f} codes are those of two notes or more, and not of all."
    )


class Materials(NamedTuple):
    """What a run is made from.

    Args:
        splits (`dict[str, datasets.Dataset]`): `training` and `validation`.
        training_data (`dict`): the record of what is learned from; see `describe_training_data`.
        tokenizer: the backbone's.
        new_model (`Callable`): builds the model; see `build_model`.
    """

    splits: dict[str, datasets.Dataset]
    training_data: dict[str, Any]
    tokenizer: Any
    new_model: Callable[[], Any]


def gather(
    model_args: ModelArguments, data_args: DataArguments, args: ICDTrainingArguments, private_dir: Path
) -> Materials:
    """Build the data set, find the backbone and its tokenizer, and say how the model is made of them."""
    builder, splits, learned_splits, training_data = notes_to_learn(
        data_args, args, private_dir, with_validation=args.refit_on_validation
    )
    codes = list(training_data["code_counts"])
    if model_args.start_titles:
        check_titles(codes, builder.code_descriptions)

    def texts() -> Iterator[str]:
        return (text for split in learned_splits for text in texts_of_notes(split))

    remember_notes(learned_splits, data_args, training_data, private_dir)
    backbone = find_backbone(model_args, args, texts, private_dir)
    new_model = partial(build_model, model_args, backbone, codes, builder.code_descriptions, training_data)
    return Materials(splits, training_data, AutoTokenizer.from_pretrained(backbone), new_model)


def notes_to_learn(
    data_args: DataArguments, args: TrainingArguments, private_dir: Path, with_validation: bool = False
) -> tuple[ICDBuilder, dict[str, datasets.Dataset], list[datasets.Dataset], dict[str, Any]]:
    """Build the data set: its builder, its splits (see [`learning_splits`]), those of them that are learned from, and the record of
    what is learned from."""
    builder = first_process_first(lambda: build_dataset(data_args, private_dir / "cache"))
    splits = learning_splits(builder, data_args)
    learned_splits = [splits["training"], *([splits["validation"]] if with_validation else [])]
    training_data = describe_training_data(data_args, builder, learned_splits)
    first_process_only(lambda: check_same_notes(training_data, args))
    return builder, splits, learned_splits, training_data


def remember_notes(
    learned_splits: Sequence[datasets.Dataset],
    data_args: DataArguments,
    training_data: Mapping[str, Any],
    private_dir: Path,
) -> None:
    """Write down which notes and admissions are learned from; see learned_notes.py."""
    texts = (text for split in learned_splits for text in texts_of_notes(split))
    named = (admissions_of(split, data_args.dataset, training_data["synthetic"]) for split in learned_splits)
    first_process_only(lambda: write_learned(texts, private_dir, chain.from_iterable(named)))


def learning_splits(builder: ICDBuilder, data_args: DataArguments) -> dict[str, datasets.Dataset]:
    """The notes to learn from and those to validate on, by their names in messages."""
    training, validation = builder.as_dataset(split="train"), builder.as_dataset(split="validation")
    if data_args.max_train_notes is not None:
        training = training.select(range(min(data_args.max_train_notes, len(training))))
    return {"training": training, "validation": validation}


def find_backbone(
    model_args: ModelArguments, args: ICDTrainingArguments, texts: Callable[[], Iterable[str]], private_dir: Path
) -> str:
    """Folder or Hub id of the backbone, whose configuration can be read; `smollm2` is converted first, and a reader of words
    made of the `texts` that are learned from."""
    backbone, words = model_args.backbone, model_args.parsed_reader_options()
    if backbone == "smollm2":
        backbone = first_process_first(lambda: str(convert_smollm2()))
    elif words is not None:
        say = args.process_index == 0
        backbone = first_process_first(lambda: find_word_reader(words, texts, private_dir, args.seed, say))
    config = load_config(backbone)
    first_process_first(lambda: prepare_backbone(config))
    return backbone


def check_titles(codes: Iterable[str], titles: Mapping[str, str]) -> None:
    """Raise a `ValueError` where `start_titles` has no title to start from."""
    if not any(code in titles for code in codes):
        raise nothing_to_start("this data set has none")


def check_can_start(model: ModelForICDCoding, backbone: str) -> None:
    """Raise a `ValueError` where titles cannot start the head: it came with the backbone, or does not attend."""
    if not model.head_is_new:
        raise nothing_to_start(f"that of {backbone} is not new")
    if not find_head(model.config.head).attends:
        raise nothing_to_start(f"the head {model.config.head!r} has no queries")


def ready_to_learn(
    model: ModelForICDCoding,
    model_args: ModelArguments,
    notes: datasets.Dataset,
    store: HiddenStates | None,
    tokenizer,
    args: ICDTrainingArguments,
    is_resumed: bool = False,
):
    """The model with its new head started, unless a checkpoint brings its weights, and with LoRA, if that is asked for."""
    give_titles(model, tokenizer)
    if model.head_is_new:
        give_graph(model, notes, say=args.process_index == 0)
    if model.head_is_new and not is_resumed and model_args.head_start != "random":
        to_device(model, args.device)
        max_notes = model_args.start_notes if model_args.head_start == "notes" else 0
        read = None if store is None else store.read
        texts = texts_to_start_from(model, tokenizer) if model_args.start_titles else {}
        start_head(
            model,
            notes,
            read,
            max_notes,
            args.seed,
            {code: own[0] for code, own in texts.items()},
            show_progress=not args.disable_tqdm,
            titles_up_to=model_args.start_titles_up_to,
            terms={code: own[1:] for code, own in texts.items()},
        )
    return add_lora(model, model_args)


def texts_to_start_from(model: ModelForICDCoding, tokenizer) -> dict[int, list[list[int]]]:
    """The `input_ids` of the title of each code that has one, and, where the head has several queries for each code, of as many of
    its other terms as there are further queries."""
    titles, label2id = model.config.code_descriptions or {}, model.config.label2id or {}
    number = queries_per_code(members_of(model.score)[0])
    terms = terms_of_codes(titles, titles) if number > 1 else {code: [title] for code, title in titles.items()}
    return {label2id[code]: [tokenizer(term)["input_ids"] for term in own[:number]] for code, own in terms.items()}


def make_further(
    model_args: ModelArguments,
    data_args: DataArguments,
    args: ICDTrainingArguments,
    model: ModelForICDCoding,
    tokenizer,
    notes: datasets.Dataset,
    tokens: datasets.Dataset,
) -> list[datasets.Dataset]:
    """What is learned from beside notes, tokenized as they are; nothing, unless that is asked for. See further_texts.py."""
    is_first = args.process_index == 0
    titles = model.config.code_descriptions or {}
    texts = further_texts(notes, model_args, data_args.data_dir, titles, args.seed, say=is_first)
    return [tokenize_texts(texts, tokens, tokenizer, model.config.label2id or {})] if texts else []


def fill_store(
    folder: Path, model: ModelForICDCoding, format: str, parts: Sequence[datasets.Dataset], args: ICDTrainingArguments
) -> HiddenStates:
    """The cache of a frozen backbone's hidden states, filled with those of these notes; each process computes a share.

    Args:
        format (`str`): in which form they are kept; see state_formats.py.
        parts (`Sequence[datasets.Dataset]`): tokenized, the notes of training first, on which a format is fitted.

    Raises:
        ValueError: where the model's head cannot be trained on states in this form.
    """
    to_device(model, args.device)
    store = HiddenStates(folder, model, format)
    fill_states(store, parts, args)
    store.check_head(model.score)
    return store


def main(arguments: list[str] | None = None, plan_push: PlanPush | None = None) -> int:
    """The command line: a YAML file first, then any field of the three argument classes.

    Args:
        arguments (`list[str]`, *optional*): in place of those of the process.
        plan_push (`Callable`, *optional*):
            Called before training: removes the arguments about the Hub, and returns a function that publishes the
            trained model, or `None`. Without it nothing is uploaded, and asking for an upload is an error.

    Returns:
        0 where the model is trained, and pushed if that was asked for; 2 after an error; 130 after Ctrl-C and 143 after
        SIGTERM. 1 where publishing found something that must not go out.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    return run_command(lambda: run(arguments, plan_push), DatasetsError)


def run(arguments: list[str], plan_push: PlanPush | None) -> int:
    """Parse the arguments, train, and publish if that was asked for; see [`main`] for the exit status."""
    if {"-h", "--help"} & {*arguments}:
        print(help_text(__doc__), end="")
        return 0
    parser = TrlParser(
        [ModelArguments, DataArguments, ICDTrainingArguments], prog=f"{PROGRAM} train", add_help=False, usage=USAGE
    )
    if arguments and not arguments[0].startswith("-"):
        arguments = ["--config", *arguments]
    if arguments and arguments[0].startswith("--config="):
        arguments = ["--config", arguments[0].partition("=")[2], *arguments[1:]]
    if arguments[:1] == ["--config"] and len(arguments) > 1:
        arguments[1] = str(find_config(arguments[1]))
    if not arguments:
        raise ValueError("Give a configuration: `modeling-icd train files_direct --data_dir DIR`, or see `--help`.")
    if (train_other := trainer_of(arguments)) is not None:
        return train_other(arguments)
    model_args, data_args, args = parse(parser, arguments)
    after_training = None if plan_push is None else plan_push(model_args, data_args, args)
    return train_to_end(lambda: train(model_args, data_args, args), args, after_training)


def parse(parser: TrlParser, arguments: list[str]) -> tuple[Any, ...]:
    """The arguments of a run, by their classes. `--help_all` lists the options of these, and ends the process.

    Raises:
        ValueError: where there is no such option, or one is out of range.
    """
    if "--help_all" in arguments:
        parser.print_help()
        raise SystemExit(0)
    try:
        return parser.parse_args_and_config(arguments)
    except ValueError as error:
        unknown = re.findall(r"'(--[\w-]+)", str(error)) if "HfArgumentParser" in str(error) else []
        if not unknown:
            raise
        raise ValueError(
            f"`train` has no option {', '.join(unknown)}: `--help_all` lists all of them. Those of the data set, such as "
            "`code_system`, are given as `--dataset_options NAME=VALUE`."
        ) from None


def train_to_end(
    train_one: Callable[[], Path], args: TrainingArguments, after_training: AfterTraining | None = None
) -> int:
    """Train, and publish if that was asked for; a run that ends early says how to go on. See [`main`] for the exit status."""
    try:
        output_dir = train_one()
    except (KeyboardInterrupt, Ended) as end:
        by, status = ("Ctrl-C", 130) if isinstance(end, KeyboardInterrupt) else (str(end), 128 + end.number)
        if args.process_index == 0:
            print(f"\nstopped by {by}. {how_to_go_on(Path(args.output_dir))}", file=sys.stderr)
        return status
    except OtherProcessFailed:  # which says why
        return 2
    except RuntimeError as error:
        if not is_lost_process(args, error):
            raise
        hint = how_to_go_on(Path(args.output_dir))
        print(f"error: another process of this training has ended. {hint}", file=sys.stderr)
        return 2
    end_processes()
    if not args.should_save:  # one of several processes says where it is, and pushes
        return 0
    print(output_dir)
    return 0 if after_training is None else after_training(output_dir)


if __name__ == "__main__":
    sys.exit(main())

"""Streams the user's own training notes, with which the privacy check compares everything that is published."""

import argparse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from dataset_scripts import ICDBuilder, OwnFiles, load_builder, parse_options
from dataset_scripts.arguments import FILE_OPTIONS

from ..evaluation.model_data import as_in_training, private_cache
from .fields import records_of
from .folder import ModelFolder, real_datasets


CHOICES_OF_CODES = ("codes", "num_codes", "min_count")


@dataclass
class TrainingNotes:
    """The user's own notes, streamed: records with `text`, and `hadm_id` and `subject_id` where the data have such ids; gone through once
    for each purpose."""

    records: Iterable[Mapping[str, Any]] = field(repr=False)
    titles: Sequence[str] = ()  # of codes, which are public though notes may quote them
    codes: Sequence[str] = ()  # which are no ids though some are numbers


@dataclass
class OneAfterAnother:
    """Records of several data sets, whose ids may be numbers in one and text in another."""

    parts: Sequence[Iterable[Mapping[str, Any]]] = field(repr=False)

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return chain.from_iterable(self.parts)


def load_notes(
    dataset: str,
    config: str | None,
    data_dir: str | None,
    cache_dir: str | Path,
    options: Sequence[str] = (),
    least: Mapping[str, int] | None = None,
) -> TrainingNotes:
    """Every record of the user's own copy of a data set, whichever its split, through its builder.

    Args:
        least (`Mapping[str, int]`, *optional*): how many notes of the user's own files must have each code.

    Raises:
        ValueError, FileNotFoundError: where the builder finds a fault in the files, or they are not all that were learned from.
    """
    given = parse_options(dataset, options, "--dataset_options")
    builder = load_builder(dataset, config, data_dir=data_dir, cache_dir=cache_dir, unsplit=True, **given)
    check_completeness(builder, least or {})
    records = builder.as_dataset(split="all").select_columns(["text", *columns_of_ids(builder)])
    titles = builder.code_descriptions
    # Where the titles are those of a whole classification, most numbers of a record would be one of its codes.
    codes = builder.code2id.keys() if isinstance(builder, OwnFiles) else builder.code2id.keys() | titles.keys()
    return TrainingNotes(records, list(titles.values()), list(codes))


def check_completeness(builder: ICDBuilder, least: Mapping[str, int]) -> None:
    """Raise a `ValueError` where the user's own files hold fewer notes with a code than a model learned from: what goes out
    would be compared with a part of its notes alone."""
    if not isinstance(builder, OwnFiles):
        return
    (there,) = builder.code_counts.values()
    lacking = [code for code, count in least.items() if there.get(code, 0) < count]
    if lacking:
        raise ValueError(
            f"These files are not all that the model learned from: of {len(lacking)} codes, such as {lacking[0]}, they have fewer "
            "notes. Give the folder, or every file, that it was trained with."
        )


def columns_of_ids(builder: ICDBuilder) -> list[str]:
    """The fields of a record that hold ids of the data; where the user's own files have none, a row's number stands there."""
    if not isinstance(builder, OwnFiles):
        return ["hadm_id", "subject_id"]
    fields_of = {"hadm_id": "id", "subject_id": "subject"}
    return [name for name, own in fields_of.items() if any(getattr(columns, own) for columns in builder.columns)]


def notes_of_model(folder: ModelFolder, args: argparse.Namespace, is_required: bool = True) -> TrainingNotes | None:
    """The training notes to compare with; a model of invented notes needs none.

    Raises:
        ValueError: where the notes were real and it is not said where they are.
    """
    training_data = folder.config.get("training_data") or {}
    real = real_datasets(folder.config.get("training_data"))
    given = args.data_dir or []
    own_files = [pair for pair in args.dataset_options if pair.partition("=")[0] in FILE_OPTIONS]
    if not given and not own_files:
        if real and is_required:
            raise ValueError(
                f"The model was trained on {', '.join(sorted(real))}: name the folder of these data with `--data_dir`, so "
                "that what goes out can be compared with the notes. Nothing of them leaves this machine."
            )
        print("Not compared with training notes" + (": no `--data_dir`." if real else ", which were invented."))
        return None
    if len(real) < 2:
        name = args.dataset or next(iter(real), training_data.get("dataset", "unknown"))
        folders = {name: given[-1] if given else None}
    else:
        folders = dict(pair.split("=", 1) for pair in given if "=" in pair)
        folders |= {"files": None} if own_files and "files" not in folders else {}
        if folders.keys() != real:
            raise ValueError(
                f"The model was trained on {' and '.join(sorted(real))}: name the folder of each, "
                f"`{' '.join(f'--data_dir {name}=DIR' for name in sorted(real))}`."
            )
    cache_dir = args.cache_dir or private_cache(folder.path)
    notes = []
    for name, path in folders.items():
        config, options = _as_read(training_data, name, args)
        least = training_data.get("code_counts") if training_data.get("dataset") == name else None
        notes.append(load_notes(name, config, path, cache_dir, options, least))
    return TrainingNotes(
        notes[0].records if len(notes) == 1 else OneAfterAnother([of_one.records for of_one in notes]),
        [title for of_one in notes for title in of_one.titles],
        [code for of_one in notes for code in of_one.codes],
    )


def _as_read(
    training_data: dict[str, Any], dataset: str, args: argparse.Namespace
) -> tuple[str | None, Sequence[str]]:
    """Configuration and options by which all notes of a data set are read that the model was trained on.

    Raises:
        ValueError: where no configuration has them all.
    """
    is_meant = args.dataset in (None, dataset)
    config, options = (args.dataset_config, args.dataset_options) if is_meant else (None, [])
    if dataset != "files":
        options = [pair for pair in options if pair.partition("=")[0] not in FILE_OPTIONS]
    if config is not None or "earlier" not in training_data:
        config, options = as_in_training(training_data, dataset, config, options)
    if config is None and dataset == "mimic4":  # no configuration of it has the notes of both editions of ICD
        records = [record for record in records_of(training_data) if record.get("dataset") == dataset]
        editions = {record["config"].removesuffix("_top50") for record in records}
        if len(editions) != 1:
            raise ValueError(
                f"The model was trained on {' and '.join(sorted(editions)) or 'an unknown configuration'} of mimic4: only "
                "one edition of ICD can be compared. Name it with `--dataset_config`, and check the other one yourself."
            )
        config, options = editions.pop(), ["min_count=1"]
    if dataset == "files":
        # All notes with codes, whichever of them are learned; and titles that the user wrote are not public.
        options = [pair for pair in options if pair.partition("=")[0] not in (*CHOICES_OF_CODES, "descriptions_file")]
    return config, options

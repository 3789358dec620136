"""Reads a model folder for publishing: configuration, runs, results, weights, and what the model was trained on."""

import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open

from dataset_scripts.codes.classification import classification_of
from dataset_scripts.codes.grouping import GROUP_NAMES, grouping_of
from dataset_scripts.files import read_json
from dataset_scripts.licenses import OPEN_LICENSES

from ..evaluation.results import MEMBERSHIP_FILE
from ..fusion_icd import FusionConfig
from ..inference.model_folder import SMOLLM2, WORDS, check_weights
from ..sharing_icd import SEAL, Access, claimed_access, data_access, is_sealed
from ..terms_icd import TermsConfig
from ..words_icd import WordReaderConfig
from .fields import (
    BACKBONE,
    CONFIG,
    CONFIG_REQUIRED,
    MEMBERSHIP,
    RESULTS,
    RUN,
    RUN_REQUIRED,
    STEMS,
    WORD_READER,
    check_fields,
    config_kinds,
    granularity_of,
    records_of,
)


REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
OF_ICD = (
    "a model of other codes is not published, since nothing tells its codes from words or numbers of a note, and the privacy check "
    "takes no code for an id. If they are of ICD, train it with `--dataset_options code_system=icd9cm` (or icd10cm, icd10pcs), which "
    "checks them and puts their dots in. If they are a hospital's own, or of more than one edition, put the code of one edition of ICD "
    "that each stands for in its place in the table of codes, and train on that; without it the folder can be used, and handed on within "
    "the house, as it is."
)
RESULTS_FILES = ("results.json", "evaluation/test/results.json")


def real_datasets(training_data: dict[str, Any] | None) -> set[str]:
    """Names of the data sets of real notes that a model was trained on; `unknown` where it does not say, or not reliably."""
    says_more = SEAL in (training_data or {}) or claimed_access(training_data) != "restricted"
    if says_more and not is_sealed(training_data):
        return {"unknown"}
    return {
        record.get("dataset", "unknown") for record in records_of(training_data) if record.get("synthetic") is not True
    }


def check_repo_id(repo_id: str) -> None:
    """Raise a `ValueError` where this is not the name of a repository."""
    if not REPO_ID.fullmatch(repo_id):
        raise ValueError(f"`--repo_id` must be OWNER/NAME, got {repo_id!r}.")


def check_groups(config: Mapping[str, Any]) -> None:
    """Raise a `ValueError` where the classes of a model are called as groups of codes are, and its record does not say that they
    are: a hospital's own codes may be `1`, `2` and `3`, as chapters of ICD-10-PCS."""
    codes = list(config["id2label"].values())
    grouping = None if classification_of(codes) is not None else grouping_of(codes)
    if grouping is not None and granularity_of(config.get("training_data")) != grouping[0]:
        granularity, classification = grouping
        raise ValueError(
            f"`id2label` of config.json looks like {GROUP_NAMES[granularity]} of {classification.name}, but the record of training has "
            f"no `granularity={granularity}`: {OF_ICD}"
        )


@dataclass(frozen=True)
class ModelFolder:
    """What `modeling-icd train` and `modeling-icd evaluate` wrote: the JSON files of a folder, by their names."""

    path: Path
    config: dict[str, Any]
    # Its own run behind those of the models that it was trained further from, the first one first.
    runs: tuple[dict[str, Any], ...]
    results: dict[str, Any]
    membership: dict[str, Any] | None = None

    @classmethod
    def read(cls, path: str | Path, results: str | Path | None = None) -> "ModelFolder":
        """Read a folder; by default its results are `results.json` in it, or in its `evaluation/test`: the later one.

        Raises:
            FileNotFoundError: where there is no such folder, configuration, run or result.
            ValueError: where one of the files is not JSON, or the weights are others than those that were trained.
        """
        path = Path(path)
        if not path.is_dir():
            raise FileNotFoundError(f"No model folder {path}: give the `output_dir` of a training run.")
        config = read_json(path / "config.json", "is this the `output_dir` of a training run?")
        refuse_holding_notes(config)
        refuse_examples(config)
        refuse_verifying(config)
        # First, since the record of training data is not what it must be, either, where the codes are not of ICD.
        check_fields("config.json", config, {"id2label": CONFIG["id2label"]}, OF_ICD)
        remedy = "save the model again with `save_pretrained`."
        check_fields("config.json", config, config_kinds(config), remedy, CONFIG_REQUIRED)
        check_groups(config)
        backbone = config.get("backbone_config", config)
        of_backbone = WORD_READER if reads_words(config) else BACKBONE
        if config["model_type"] == TermsConfig.model_type:
            of_backbone = STEMS
        check_fields("config.json", backbone, of_backbone, remedy, tuple(of_backbone))
        runs = _read_runs(path)
        check_weights(config.get("training_data"), path)
        candidates = [Path(results)] if results else [path / name for name in RESULTS_FILES]
        present = [file for file in candidates if file.is_file()]
        found = max(present, key=lambda file: file.stat().st_mtime_ns, default=candidates[-1])
        remedy = f"run `modeling-icd evaluate {path} --dataset NAME --data_dir DIR --split test` first"
        measured = path / MEMBERSHIP_FILE
        membership = None
        if measured.is_file():
            membership = read_json(measured, "measure it again.")
            check_fields(MEMBERSHIP_FILE, membership, MEMBERSHIP, "measure it again.", tuple(MEMBERSHIP))
        measurements = read_json(found, remedy)
        check_fields(found.name, measurements, RESULTS, f"{remedy}.")
        return cls(path, config, runs, measurements, membership)

    @cached_property
    def weights(self) -> list[Path]:
        """The safetensors files, in order."""
        return sorted(self.path.glob("model*.safetensors"))

    @property
    def embedding_size(self) -> int:
        """Width of the vector of a token."""
        backbone = self.config.get("backbone_config", self.config)
        return backbone.get("embedding_size", backbone.get("hidden_size"))

    @property
    def codes(self) -> list[str]:
        return [self.config["id2label"][str(i)] for i in range(len(self.config["id2label"]))]

    @property
    def access(self) -> Access:
        return data_access(self.config.get("training_data"))

    @property
    def is_of_own_notes(self) -> bool:
        """Whether the weights are restricted, and by nothing but its trainer's own notes (data set `files`)."""
        record = self.config.get("training_data")
        if self.access != "restricted" or not is_sealed(record):
            return False
        alone = [{**of_run, "earlier": {"open": True}} for of_run in records_of(record)]
        return all(of_run.get("dataset") == "files" for of_run in alone if claimed_access(of_run) == "restricted")

    def num_weights(self) -> int:
        """How many numbers the safetensors files hold; 0 where there are none."""
        return sum(math.prod(shape) for file in self.weights for shape in weights_header(file).shapes.values())


# Models whose tensors, vocabulary or tables may hold words of their training notes, and what is said of one whose notes may not go out.
HOLD_NOTES = {
    TermsConfig.model_type: (
        "This coder by terms learned from restricted notes or has synonyms of your own, and its terms may be phrases of notes, so "
        "nothing of it is published. Build one that has read neither (`modeling-icd terms build` with `--codes_only`, or without a data set)."
    ),
    FusionConfig.model_type: (
        "This fused model learned from restricted notes, and its tensors hold phrases or pairs of words of them and which words each "
        "has: nothing of it is published. Publish a model without such tables, such as that of `--model direct`."
    ),
}
APACHE = "apache-2.0"
# Under which license anyone may pass on words of an open data set, by its name; the terms of another one say nothing of that.
LICENSES_OF_NOTES = {"codiesp": "cc-by-4.0"}


def holds_notes(config: Mapping[str, Any]) -> bool:
    """Whether the files of a model hold words of its training notes; see `HOLD_NOTES`."""
    return str(config.get("model_type")) in HOLD_NOTES


def license_of_notes(config: Mapping[str, Any]) -> str | None:
    """The license under which the words of notes in a model may be passed on; `None` where no license is known to allow it. A coder
    by terms whose record names no data set read no note."""
    record = config.get("training_data") or {}
    if data_access(record) == "restricted" or "earlier" in record:
        return None
    if "dataset" not in record:
        return APACHE if config.get("model_type") == TermsConfig.model_type else None
    if record.get("synthetic") is True:
        return APACHE
    if record.get("license") in OPEN_LICENSES:
        return record["license"]
    return LICENSES_OF_NOTES.get(record["dataset"])


def refuse_holding_notes(config: Mapping[str, Any]) -> None:
    """Refuse a model that holds words of its training notes, unless these are open under a license that lets anyone pass them on.

    Raises:
        ValueError: where this is one; it says what can go out.
    """
    record = config.get("training_data") or {}
    if not holds_notes(config) or license_of_notes(config) is not None:
        return
    if data_access(record) == "restricted":
        raise ValueError(HOLD_NOTES[config["model_type"]])
    raise ValueError(
        f"This model holds words of its training notes, and the terms of {record.get('dataset', 'their data set')} are not known to let anyone pass these on: "
        "nothing of it is published. Publish a model that holds none, such as that of `--model direct`."
    )


def refuse_examples(config: Mapping[str, Any]) -> None:
    """Refuse a generative coder that has notes in its prompt.

    Raises:
        ValueError: where this is one.
    """
    settings = config.get("generative")
    if isinstance(settings, Mapping) and settings.get("examples"):
        raise ValueError(
            "This coder has training notes in its prompt, which `config.json` holds word by word, so nothing of it is published: make "
            "one with `shots` 0."
        )


def refuse_verifying(config: Mapping[str, Any]) -> None:
    """Refuse a generative coder that verifies the candidates of a retriever.

    Raises:
        ValueError: where this is one.
    """
    settings = config.get("generative")
    if isinstance(settings, Mapping) and settings.get("mode") == "verify":
        raise ValueError(
            "This coder verifies the candidates of a second model, its retriever, which is in its folder and would have to be checked "
            "and published with it. That is not possible yet, so nothing of it is published: publish a coder of `mode` list, or the "
            "retriever's own folder."
        )


def reads_words(config: Mapping[str, Any]) -> bool:
    """Whether the backbone of a model, by its `config.json`, is a reader of words, which was made from the training notes."""
    return config.get("backbone_config", {}).get("model_type") == WordReaderConfig.model_type


def name_base_model(runs: Sequence[Mapping[str, Any]]) -> str | None:
    """The Hub id of the pretrained backbone that the first of these runs started from; `None` of a reader of words, which is not
    pretrained.

    Raises:
        ValueError: where it started from a local folder, and does not name what is in it.
    """
    model = runs[0]["model"]
    backbone = model.get("base_model") or model["backbone"]
    if backbone == WORDS:
        return None
    if backbone == "smollm2":
        return SMOLLM2
    if not REPO_ID.fullmatch(backbone) or Path(backbone).exists():
        raise ValueError(
            "The model was trained from a local folder, so its pretrained backbone is not known: name it with "
            "`--base_model ORGANISATION/NAME`."
        )
    return backbone


def _read_runs(path: Path) -> tuple[dict[str, Any], ...]:
    remedy = (
        "a model that was trained from Python has none, so that nothing says what it learned from, and it cannot be checked. "
        "Train it with `modeling-icd train` (`--train_file`, `--validation_file` and `--test_file` take your notes, and each "
        "field of `TrainingArguments` is an option), evaluate it, and publish that."
    )
    run = read_json(path / "run.json", remedy)
    check_fields(f"run.json of {path}", run, RUN, remedy, RUN_REQUIRED)
    backbone = Path(run["model"]["backbone"])
    return (*(earlier_runs(backbone) if backbone.resolve() != path.resolve() else ()), run)


def earlier_runs(backbone: str | Path) -> tuple[dict[str, Any], ...]:
    """The runs of ours that a backbone went through, the first one first; none for a pretrained one."""
    return _read_runs(Path(backbone)) if Path(backbone, "run.json").is_file() else ()


def read_content(content: Path | bytes) -> bytes:
    """What goes out under a name: a file as it is, or what was written for it."""
    return content.read_bytes() if isinstance(content, Path) else content


class WeightsHeader(NamedTuple):
    shapes: dict[str, list[int]]  # by the name of the tensor
    metadata: dict[str, str]


def weights_header(path: Path) -> WeightsHeader:
    """What a safetensors file says of its tensors; none of them is loaded.

    Raises:
        ValueError: where it is not a safetensors file.
    """
    try:
        with safe_open(path, "numpy") as file:
            shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 - no dictionary
            return WeightsHeader(shapes, file.metadata() or {})
    except SafetensorError:
        raise ValueError(f"{path} is not a safetensors file: save the model again.") from None


def project_file(name: str) -> Path:
    """Find a file of the project's root, in a checkout or as the installed distribution brought it.

    Raises:
        FileNotFoundError: where neither has it.
    """
    in_checkout = Path(__file__).resolve().parents[2] / name
    if in_checkout.is_file():
        return in_checkout
    with suppress(metadata.PackageNotFoundError):
        for file in metadata.files("modeling-icd") or ():
            if file.name == name:
                return Path(str(file.locate()))
    raise FileNotFoundError(
        f"{name} is neither beside the package nor in its distribution: install modeling-icd again."
    )

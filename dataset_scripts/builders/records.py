"""The record that every builder yields (`record_features`), and the base class of all builders (`ICDBuilder`)."""

import errno
import inspect
import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import datasets
import numpy as np
import pyarrow.compute as pc

from .. import counts, facts, files, marker
from ..codes.classification import ICD9, Classification
from ..codes.icd9_hierarchy import CodeFamily
from .sources import absolute_path, fingerprint


logger = logging.getLogger(__name__)

VERSION = datasets.Version("1.0.0")  # of the records

# With the modules of a builder and of its base classes, all the code that shapes a record or the report of what was left out.
BUILDERS_FOLDER = Path(__file__).parent
SHARED_CODE = [
    *(
        BUILDERS_FOLDER / name
        for name in (
            "admissions.py",
            "caml_splits.py",
            "edin_splits.py",
            "mdace.py",
            "note_text.py",
            "published_lists.py",
            "releases.py",
            "sections.py",
            "sources.py",
            "stratify.py",
        )
    ),
    *sorted(BUILDERS_FOLDER.with_name("codes").glob("*.py")),
    Path(files.__file__),
    Path(facts.__file__),
    Path(counts.__file__),
    Path(marker.__file__),
]


def record_features(codes: Iterable[str], id_type: str = "int64") -> datasets.Features:
    """Describe a record: one admission's text and its codes, as ids into the sorted `codes` of the data set.

    Args:
        codes (`Iterable[str]`): The codes of the data set, in any order.
        id_type (`str`): What `subject_id` and `hadm_id` are: `"int64"`, or `"string"` in the user's own notes.
    """
    return datasets.Features(
        {
            "subject_id": datasets.Value(id_type),
            "hadm_id": datasets.Value(id_type),
            "text": datasets.Value("large_string"),
            "codes": datasets.List(datasets.ClassLabel(names=sorted(codes))),
        }
    )


@dataclass
class ICDConfig(datasets.BuilderConfig):
    """What every data set can be asked for.

    Args:
        unsplit (`bool`): In place of the splits, make one, `unsplit`, of every record with codes in the folder.
    """

    version: datasets.Version | str | None = VERSION
    unsplit: bool = False


def check_positive(config: ICDConfig, option: str) -> None:
    value = getattr(config, option)
    if value is not None and value < 1:
        raise ValueError(f"`{option}` ({value}) must be at least 1.")


def find_given_file(config: ICDConfig, option: str) -> Path | None:
    """Find the file that an option gives; None if it gives none."""
    path = getattr(config, option)
    if path is not None and not Path(path).is_file():
        raise FileNotFoundError(f"`{option}` ({path}) is not a file.")
    return None if path is None else Path(path)


class ICDBuilder(datasets.GeneratorBasedBuilder):
    """A builder over files on the user's disk, whose cache is as fresh as they are.

    `builder.download_and_prepare()` reads the files and writes the data set into `cache_dir`,
    `builder.as_dataset(split=...)` returns it, and `builder.as_streaming_dataset(split=...)` gives the same records
    without building anything. A fault in the files is raised before anything is cached.

    Args:
        config_name (`str`, *optional*): One of the names in `BUILDER_CONFIGS`; the first if left out.
        data_dir (`str` or `Path`): Where the source files are. A data set whose files are given by options needs none.
        cache_dir (`str` or `Path`, *optional*):
            Where the built data set, text included, is kept; `~/.cache/huggingface/datasets` (or `HF_DATASETS_CACHE`)
            if left out. Text under a data use agreement must stay on a disk that the agreement allows. Each change of
            an option, of this package's code, or of a source file's name, size or time makes a new folder there. The
            folder of the data set in it, and what that holds, is its owner's alone (0700, files 0600), and so is
            `cache_dir` where it is made here.
        **options: Fields of the configuration class.
    """

    BUILDER_CONFIG_CLASS = ICDConfig
    BUILDER_CONFIGS: ClassVar[list[datasets.BuilderConfig]] = []
    ABOUT: ClassVar[facts.Facts]
    PUBLIC_CONTENT: ClassVar[frozenset[str]] = frozenset()  # digests of copies that anyone may have; see `is_public`

    def __init__(
        self,
        config_name: str | None = None,
        *,
        data_dir: str | Path | None = None,
        cache_dir: str | Path | None = None,
        **options: Any,
    ):
        configs = [config.name for config in self.BUILDER_CONFIGS]
        config_name = config_name or configs[0]
        if config_name not in configs:
            raise ValueError(
                f"{type(self).__name__} has no configuration {config_name!r}: choose from {', '.join(configs)}."
            )
        known = {field.name for field in fields(self.BUILDER_CONFIG_CLASS)}
        known -= {field.name for field in fields(datasets.BuilderConfig)}
        unknown = sorted(options.keys() - known)
        if unknown:
            raise ValueError(
                f"{type(self).__name__} has no option {', '.join(unknown)}: choose from {', '.join(sorted(known))}."
            )
        defaults = {field.name: field.default for field in fields(self.BUILDER_CONFIG_CLASS)}
        # Saying what is the default anyway names the same data set, and so the same folder of the cache.
        options = {name: value for name, value in options.items() if value is not None and value != defaults[name]}
        self.options = options
        place = self._find_data_dir(data_dir)
        config = self.BUILDER_CONFIG_CLASS(name=config_name, data_dir=place, **options)
        self.downloads_dir = Path(absolute_path(cache_dir or datasets.config.HF_DATASETS_CACHE), "downloads")
        if cache_dir:
            files.make_folder(absolute_path(cache_dir), private=True)
        super().__init__(
            config_name=config_name,
            data_dir=config.data_dir,
            cache_dir=absolute_path(cache_dir) if cache_dir else None,
            hash=fingerprint([*SHARED_CODE, *self.own_code()], self._find_sources(config)),
            **{name: getattr(config, name) for name in options},
        )

    def _find_data_dir(self, data_dir: str | Path | None) -> str | None:
        if not data_dir:
            raise ValueError(f"{type(self).__name__} needs `data_dir`, the folder or file that it is built from.")
        return absolute_path(data_dir)

    @classmethod
    def own_code(cls) -> list[Path]:
        """The modules of a builder and of its base classes."""
        return [Path(inspect.getfile(base)) for base in cls.__mro__ if issubclass(base, ICDBuilder)]

    def _find_sources(self, config: Any) -> list[Path]:
        """Find every file that the data set is made from, and remember it; one that is missing is an error."""
        raise NotImplementedError

    @property
    def code_descriptions(self) -> Mapping[str, str]:
        """Long titles by dotted code; a code without a known title is not in it."""
        raise NotImplementedError

    @property
    def classification(self) -> Classification | None:
        """What the codes are of; None where that is not known."""
        return ICD9

    def _describe(self) -> str:
        """Say in words what the configuration and its options make; nothing if left out."""
        return ""

    def _info(self) -> datasets.DatasetInfo:
        about, described = self.ABOUT, self._describe()
        own = f"\n\nConfiguration {self.config.name}: {described}" if described else ""
        return datasets.DatasetInfo(
            description=f"{about.description}{own}",
            citation=about.all_citations,
            homepage=about.homepage,
            license=about.license,
        )

    @cached_property
    def code2id(self) -> dict[str, int]:
        """The id of each code in `features["codes"]`, once these are known."""
        return {code: i for i, code in enumerate(self.info.features["codes"].feature.names)}

    @cached_property
    def code_families(self) -> dict[str, CodeFamily]:
        """Chapter, block and category of each code of the data set, once it is built; none where no classification is known."""
        family_of = None if self.classification is None else self.classification.family_of
        return {code: family_of(code) for code in self.code2id} if family_of else {}

    @cached_property
    def code_counts(self) -> dict[str, dict[str, int]]:
        """How many records of each split have each code; the data set must have been built."""
        counts = {}
        for split, dataset in self.as_dataset().items():
            names = dataset.features["codes"].feature.names
            ids = pc.list_flatten(dataset.data.column("codes")).to_numpy()
            counts[split] = dict(zip(names, np.bincount(ids, minlength=len(names)).tolist(), strict=True))
        return counts

    def download_and_prepare(self, *args, **kwargs):
        try:
            # Closed to others before the first note is written, and whatever is added to it later.
            files.make_folder(Path(self._cache_dir_root, self.dataset_name), private=True, ours=True)
            super().download_and_prepare(*args, **kwargs)
            files.close_folder(self._output_dir)
        except (OSError, datasets.exceptions.DatasetGenerationError) as error:
            if not is_disk_full(error):
                raise
        else:
            return
        raise OSError(
            errno.ENOSPC,
            f"The disk of `cache_dir` ({self._cache_dir_root}) is full: free some space on it or give another folder. "
            "Nothing of the unfinished data set was kept",
        )

    def as_dataset(self, split=None, in_memory=False):
        splits = self.info.splits
        if splits is not None and isinstance(split, str) and re.fullmatch(r"\w+", split):
            check_split(split, [*splits, "all"], f"configuration {self.config.name!r} of {type(self).__name__}")
        return super().as_dataset(split=split, in_memory=in_memory)

    def _report(self, counts: Mapping[str, int], splits: Mapping[str, Iterable[Iterable[str]]]) -> None:
        """Say once, when a data set is built, what was left out of it; keep it with the data set's info.

        Args:
            counts (`Mapping[str, int]`): What was counted; what was not found is not said.
            splits (`Mapping[str, Iterable[Iterable[str]]]`): The codes of each record of each split.
        """
        counts = {
            **counts,
            "codes without a description": len(self.code2id.keys() - self.code_descriptions.keys()),
            "codes of other splits missing from train": count_unseen_codes(splits),
        }
        said = [f"{what}: {count:,}" for what, count in counts.items() if count]
        if said:
            report = f"{type(self).__name__}/{self.config.name}: {'; '.join(said)}."
            logger.warning(report)
            self.info.description = f"{self._info().description}\n\n{report}"


def is_disk_full(error: BaseException | None) -> bool:
    """Tell whether an error, or one that it was raised for, is that of a full disk."""
    while error is not None:
        # `datasets` refuses to begin on a disk without a byte left, by an error that has no number.
        if isinstance(error, OSError) and (error.errno == errno.ENOSPC or "Not enough disk space" in str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def check_split(split: str, splits: Iterable[str], where: str) -> None:
    if split not in splits:
        raise ValueError(f"No split {split!r} in {where}: choose from {', '.join(splits)}.")


def most_frequent(counts: Mapping[str, int], k: int) -> list[str]:
    """Choose the k codes with the highest counts; of two with the same count the one that sorts first wins."""
    return sorted(counts, key=lambda code: (-counts[code], code))[:k]


def count_unseen_codes(splits: Mapping[str, Iterable[Iterable[str]]]) -> int:
    """Count the codes of validation and test records that no train record has: no model can learn them."""
    seen = {name: {code for codes in records for code in codes} for name, records in splits.items()}
    return len(set().union(*seen.values()) - seen["train"]) if "train" in seen else 0

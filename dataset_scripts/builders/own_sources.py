"""Finds the user's own notes (tables, a folder of `datasets`, a data set of the Hub), and reads them row by row.

A csv, tsv, jsonl or parquet file is read by `tables.py` and not by `datasets`, which reads csv through data frames: they
make numbers of codes, stop at the first malformed row with a message that quotes it, and know no number of a row.
"""

import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
from huggingface_hub import HfApi
from huggingface_hub.errors import RepositoryNotFoundError

from ..files import make_folder
from ..tables import FORMATS, BadRow, column_names, is_table, read_table, table_stem, to_rows
from .sources import list_folder


SPLITS = ("train", "validation", "test")
SPLIT_OF = {**dict.fromkeys(("train", "training"), "train"), **dict.fromkeys(("test", "testing"), "test")}
SPLIT_OF.update(dict.fromkeys(("validation", "valid", "val", "dev"), "validation"))
# `train.csv`, `valid_2.jsonl.gz`, `test-00000-of-00002.parquet`
SPLIT_FILE = re.compile(rf"({'|'.join(SPLIT_OF)})([-_.].*)?")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
FILE_SUFFIX = re.compile(r"\.[A-Za-z]\w*")  # `.txt`, and not what is behind the dot of a version
HUB_SECONDS = 10  # to wait for the Hub's first answer
BATCH_ROWS = 64
SHOWN = 5  # names of tables in a message
SAVED_FILES = ("dataset_dict.json", "state.json")  # one of which is in a folder of `save_to_disk`
MIMIC3_STEMS = {"noteevents", "diagnoses_icd", "procedures_icd", "d_icd_diagnoses", "d_icd_procedures", "admissions"}
REMEDY = "Name the files train, validation and test, or give them as `train_file`, `validation_file` and `test_file`."


@dataclass(frozen=True)
class NotRead:
    """What is beside the sources and is not read, since no split has its name.

    Args:
        what (`str`): `"tables"` or `"splits"`.
        names (`list[str]`): Their names, without folders.
        files (`list[Path]`): The tables.
    """

    what: str = "tables"
    names: list[str] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, int]:
        """How many they are, by words that name them, for the report of what was left out."""
        said = f"{self.what} that are not read, since no split has their name ({shorten(self.names)})"
        return {said: len(self.names)} if self.names else {}


@dataclass(frozen=True)
class Source:
    """Rows of notes: a table, or a split of a data set that `datasets` has loaded.

    Args:
        split (`str`, *optional*): Which split they are; None if they are yet to be divided.
        name (`str`): In messages: a path, or the id of a data set and its split.
        encoding (`str`): Of a table.
        path (`Path`, *optional*): The table.
        dataset (`datasets.Dataset`, *optional*): The split.
    """

    split: str | None
    name: str
    encoding: str = "utf-8"
    path: Path | None = None
    dataset: datasets.Dataset | None = field(default=None, repr=False)

    @property
    def files(self) -> list[Path]:
        """What is on the disk; it changes whenever the rows do."""
        if self.path is not None:
            return [self.path]
        return [Path(file["filename"]) for file in self.dataset.cache_files] if self.dataset is not None else []

    def column_names(self) -> list[str]:
        if self.path is not None:
            return column_names(self.path, self.encoding)
        return list(self.dataset.column_names) if self.dataset is not None else []

    def read(
        self, columns: Collection[str], absent: Collection[str], counts: Counter[str]
    ) -> Iterator[dict[str, Any] | BadRow]:
        """Yield the rows, of which these columns; see [`~dataset_scripts.tables.read_table`]."""
        if self.path is not None:
            yield from read_table(self.path, self.encoding, columns=columns, absent=absent, counts=counts)
        elif self.dataset is not None:
            wanted = [name for name in self.dataset.column_names if name in columns]
            dataset = self.dataset.select_columns(wanted).with_format("arrow")
            decoders = {name: _find_decoder(dataset.features[name]) for name in wanted}
            for batch in dataset.iter(batch_size=BATCH_ROWS):
                for row in to_rows(batch):
                    yield {name: decoders[name](row[name]) for name in wanted}


def _find_decoder(feature: Any) -> Callable[[Any], Any]:
    """What turns the class ids of a column into names; others stay as they are."""
    inner = getattr(feature, "feature", feature)
    if not isinstance(inner, datasets.ClassLabel):
        return lambda value: value
    names = inner.names

    def decode(value: Any) -> Any:
        if isinstance(value, list):
            return [decode(item) for item in value]
        return None if value is None or value < 0 else names[value]

    return decode


def find_given_sources(files: Mapping[str, str | None], encoding: str) -> list[Source]:
    """The files that options give, by their splits.

    Raises:
        FileNotFoundError: where one of them is not there.
        ValueError: where one file is given for two splits.
    """
    sources = []
    for split, path in files.items():
        if path is not None:
            if not Path(path).is_file():
                raise FileNotFoundError(f"`{split}_file` ({path}) is not a file.")
            sources.append(Source(split, path, encoding, path=Path(path)))
    if len({source.path for source in sources}) < len(sources):
        raise ValueError(f"One file is given for two splits: {', '.join(source.name for source in sources)}.")
    return sources


def find_sources(
    data_dir: str, encoding: str, apart: Collection[Path], hub_cache: Path
) -> tuple[list[Source], NotRead]:
    """Find the notes that `data_dir` gives.

    Args:
        data_dir (`str`): A table, a folder of tables, a folder of `save_to_disk`, or the id of a data set of the Hub.
        encoding (`str`): Of tables.
        apart (`Collection[Path]`): Tables that hold no notes, and may lie in the folder.
        hub_cache (`Path`): Folder for what comes from the Hub, its owner's alone.

    Returns:
        The sources, train before validation before test, and what is beside them and is not read. A single table, or the
        single split of a data set, has no split, unless it is named as one.
    """
    path = Path(data_dir)
    if path.is_file():
        return [Source(None, data_dir, encoding, path=path)], NotRead()
    if path.is_dir() and any((path / name).is_file() for name in SAVED_FILES):
        return _as_sources(_load_from_disk(path), data_dir)
    if path.is_dir():
        return _find_tables(path, encoding, apart)
    if is_hub_id(data_dir):
        return _as_sources(_load_from_hub(data_dir, hub_cache), data_dir)
    raise FileNotFoundError(
        f"`data_dir` ({data_dir}) does not exist: expected a folder or file of notes ({', '.join(FORMATS)}), a folder of "
        "`save_to_disk`, or the id of a data set of the Hub, OWNER/NAME (where no folder OWNER is here, and NAME does not end as a file's name)."
    )


def is_hub_id(data_dir: str | Path) -> bool:
    """Whether a `data_dir` is taken for the id of a data set of the Hub: it looks like one, and not like a path here, which
    begins with a folder that is there or ends as the name of a file does."""
    path = Path(data_dir)
    looks_like_file = FILE_SUFFIX.fullmatch(path.suffix) is not None
    return HUB_ID.fullmatch(str(data_dir)) is not None and not path.parent.exists() and not looks_like_file


def looks_like_own_notes(data_dir: str | Path) -> bool:
    """Whether a path is a table, or a folder that holds tables (or a data set of `save_to_disk`) and none named as one of
    MIMIC-III's."""
    path = Path(data_dir)
    if path.is_file():
        return is_table(path)
    if not path.is_dir():
        return False
    tables = [file for file in path.iterdir() if file.is_file() and is_table(file)]
    saved = any((path / name).is_file() for name in SAVED_FILES)
    return saved or (bool(tables) and not any(table_stem(file) in MIMIC3_STEMS for file in tables))


def _find_tables(folder: Path, encoding: str, apart: Collection[Path]) -> tuple[list[Source], NotRead]:
    tables = [file for file in list_folder(str(folder), "data_dir", "notes") if is_table(file) and file not in apart]
    if not tables:
        raise FileNotFoundError(
            f"No notes in `data_dir` ({folder}): expected files that end in {', '.join(FORMATS)}. {REMEDY}"
        )
    named = {file: SPLIT_FILE.fullmatch(file.name.lower()) for file in tables}
    of_split = [(SPLIT_OF[match[1]], file) for file, match in named.items() if match]
    if len(tables) > 1 and not of_split:
        listed = shorten([file.name for file in tables])
        raise ValueError(f"{folder} holds {len(tables)} tables ({listed}), and none is named as a split. {REMEDY}")
    if not of_split:
        return [Source(None, str(tables[0]), encoding, path=tables[0])], NotRead()
    for name, files in _group_by(table_stem, (file for _, file in of_split)).items():
        if len(files) > 1:
            raise ValueError(
                f"{folder} holds {name!r} in {len(files)} formats ({shorten([file.name for file in files])}): expected each table "
                "once, so that no note is read twice. Move the others out of the folder."
            )
    of_split.sort(key=lambda pair: (SPLITS.index(pair[0]), pair[1]))
    not_read = [file for file in tables if not named[file]]
    sources = [Source(split, str(file), encoding, path=file) for split, file in of_split]
    return sources, NotRead("tables", [file.name for file in not_read], not_read)


def _group_by(key: Callable[[Path], str], files: Iterable[Path]) -> dict[str, list[Path]]:
    groups: dict[str, list[Path]] = {}
    for file in files:
        groups.setdefault(key(file), []).append(file)
    return groups


def shorten(names: Sequence[str]) -> str:
    """The first few names as a list in words."""
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def _as_sources(loaded: datasets.Dataset | datasets.DatasetDict, name: str) -> tuple[list[Source], NotRead]:
    """The splits of a data set that `datasets` has loaded, and how many others it has."""
    if isinstance(loaded, datasets.Dataset):
        return [Source(None, name, dataset=loaded)], NotRead()
    found = {split: SPLIT_OF.get(str(split).lower()) for split in loaded}
    if len(loaded) == 1 and next(iter(found.values())) in (None, "train"):
        return [Source(None, name, dataset=next(iter(loaded.values())))], NotRead()
    known = [split for split in found.values() if split is not None]
    if not known or len(known) > len(set(known)):
        raise ValueError(
            f"{name} has the splits {', '.join(map(str, loaded))}: expected train, validation and test, each once, or one alone."
        )
    sources = [Source(split, f"{name}, split {key}", dataset=loaded[key]) for key, split in found.items() if split]
    sources.sort(key=lambda source: SPLITS.index(source.split or ""))
    return sources, NotRead("splits", [str(key) for key, split in found.items() if split is None])


def _load_from_disk(path: Path) -> datasets.Dataset | datasets.DatasetDict:
    loaded = None
    with suppress(Exception):  # of a damaged folder it raises whatever comes
        loaded = datasets.load_from_disk(str(path))
    if loaded is None:
        raise ValueError(f"{path} cannot be read by `datasets.load_from_disk`: save it again with `save_to_disk`.")
    return loaded


def _load_from_hub(repo_id: str, cache: Path) -> datasets.DatasetDict:
    print(f"{repo_id} is no path here: asking the Hub for a data set of this name.", file=sys.stderr)
    make_folder(cache, private=True, ours=True)
    fault = "" if (cache / repo_id.replace("/", "___")).is_dir() else _ask_hub(repo_id)
    if fault:
        raise ValueError(f"{repo_id} {fault}.")
    umask = os.umask(0o077)  # for what is downloaded, too, which lies in the cache of huggingface_hub
    try:
        loaded = datasets.load_dataset(repo_id, cache_dir=str(cache))
    except (FileNotFoundError, ConnectionError) as error:
        fault = _not_found(error)
    except Exception as error:  # the messages of parsers quote rows
        fault = f"cannot be loaded from the Hub by `datasets.load_dataset` ({type(error).__name__})"
    finally:
        os.umask(umask)
    if fault:
        raise ValueError(f"{repo_id} {fault}.")
    return loaded


def _ask_hub(repo_id: str) -> str:
    """Ask the Hub once whether it has a data set, which `datasets` does six times; returns what is wrong, if something is."""
    try:
        HfApi().dataset_info(repo_id, timeout=HUB_SECONDS)
    except RepositoryNotFoundError as error:
        return _not_found(error)
    except Exception as error:
        return (
            f"is no path here, and the Hub could not be asked for a data set of this name ({type(error).__name__}): correct "
            "the path, or try again with a network"
        )
    return ""


def _not_found(error: Exception) -> str:
    return (
        f"cannot be found ({type(error).__name__}): no path here leads to it, and the Hub has no data set of this name that "
        "you may read. Correct the path, or the name and the account that you are logged in with"
    )

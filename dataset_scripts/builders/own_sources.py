"""Finds the user's own notes (tables, a folder of `datasets`, a data set of the Hub), and reads them row by row.

A csv, tsv, jsonl or parquet file is read by `tables.py` and not by `datasets`, which reads csv through data frames: they
make numbers of codes, stop at the first malformed row with a message that quotes it, and know no number of a row.
"""

import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets

from ..files import make_folder
from ..tables import FORMATS, BadRow, column_names, is_table, read_table
from .sources import list_folder


SPLITS = ("train", "validation", "test")
SPLIT_OF = {**dict.fromkeys(("train", "training"), "train"), **dict.fromkeys(("test", "testing"), "test")}
SPLIT_OF.update(dict.fromkeys(("validation", "valid", "val", "dev"), "validation"))
# `train.csv`, `valid_2.jsonl.gz`, `test-00000-of-00002.parquet`
SPLIT_FILE = re.compile(rf"({'|'.join(SPLIT_OF)})([-_.].*)?")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
BATCH_ROWS = 64
REMEDY = "Name the files train, validation and test, or give them as `train_file`, `validation_file` and `test_file`."


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

    def read(self, columns: Collection[str], counts: Counter[str]) -> Iterator[dict[str, Any] | BadRow]:
        """Yield the rows, of which these columns; see [`~dataset_scripts.tables.read_table`]."""
        if self.path is not None:
            yield from read_table(self.path, self.encoding, columns=columns, counts=counts)
        elif self.dataset is not None:
            wanted = [name for name in self.dataset.column_names if name in columns]
            dataset = self.dataset.with_format(None).select_columns(wanted)
            decoders = {name: _find_decoder(dataset.features[name]) for name in wanted}
            for batch in dataset.iter(batch_size=BATCH_ROWS):
                for values in zip(*(map(decoders[name], batch[name]) for name in wanted), strict=True):
                    yield dict(zip(wanted, values, strict=True))


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


def find_sources(data_dir: str, encoding: str, apart: Collection[Path], hub_cache: Path) -> list[Source]:
    """Find the notes that `data_dir` gives.

    Args:
        data_dir (`str`): A table, a folder of tables, a folder of `save_to_disk`, or the id of a data set of the Hub.
        encoding (`str`): Of tables.
        apart (`Collection[Path]`): Tables that hold no notes, and may lie in the folder.
        hub_cache (`Path`): Folder for what comes from the Hub, its owner's alone.

    Returns:
        The sources, train before validation before test. A single table, or the single split of a data set, is one to be
        divided, unless it is named as validation or test.
    """
    path = Path(data_dir)
    if path.is_file():
        return [Source(None, data_dir, encoding, path=path)]
    if path.is_dir() and ((path / "dataset_dict.json").is_file() or (path / "state.json").is_file()):
        return _as_sources(_load_from_disk(path), data_dir)
    if path.is_dir():
        return _find_tables(path, encoding, apart)
    if is_hub_id(data_dir):
        return _as_sources(_load_from_hub(data_dir, hub_cache), data_dir)
    raise FileNotFoundError(
        f"`data_dir` ({data_dir}) does not exist: expected a folder or file of notes ({', '.join(FORMATS)}), a folder of "
        "`save_to_disk`, or the id of a data set of the Hub, OWNER/NAME."
    )


def is_hub_id(data_dir: str | Path) -> bool:
    """Whether a `data_dir` is taken for the id of a data set of the Hub: no path leads to it, and it looks like one and
    not like a table."""
    path = Path(data_dir)
    return HUB_ID.fullmatch(str(data_dir)) is not None and not path.exists() and not is_table(path)


def _find_tables(folder: Path, encoding: str, apart: Collection[Path]) -> list[Source]:
    tables = [file for file in list_folder(str(folder), "data_dir", "notes") if is_table(file) and file not in apart]
    if not tables:
        raise FileNotFoundError(
            f"No notes in `data_dir` ({folder}): expected files that end in {', '.join(FORMATS)}. {REMEDY}"
        )
    named = {file: SPLIT_FILE.fullmatch(file.name.lower()) for file in tables}
    of_split = [(SPLIT_OF[match[1]], file) for file, match in named.items() if match]
    if len(tables) > 1 and not of_split:
        listed = ", ".join(file.name for file in tables[:5])
        raise ValueError(f"{folder} holds {len(tables)} tables ({listed}), and none is named as a split. {REMEDY}")
    if not of_split or (len(of_split) == 1 and of_split[0][0] == "train" and len(tables) == 1):
        return [Source(None, str(tables[0]), encoding, path=tables[0])]
    of_split.sort(key=lambda pair: (SPLITS.index(pair[0]), pair[1]))
    return [Source(split, str(file), encoding, path=file) for split, file in of_split]


def _as_sources(loaded: datasets.Dataset | datasets.DatasetDict, name: str) -> list[Source]:
    """The splits of a data set that `datasets` has loaded."""
    if isinstance(loaded, datasets.Dataset):
        return [Source(None, name, dataset=loaded)]
    found = {split: SPLIT_OF.get(str(split).lower()) for split in loaded}
    if len(loaded) == 1 and next(iter(found.values())) in (None, "train"):
        return [Source(None, name, dataset=next(iter(loaded.values())))]
    known = [split for split in found.values() if split is not None]
    if not known or len(known) > len(set(known)):
        raise ValueError(
            f"{name} has the splits {', '.join(map(str, loaded))}: expected train, validation and test, each once, or one alone."
        )
    sources = [Source(split, f"{name}, split {key}", dataset=loaded[key]) for key, split in found.items() if split]
    return sorted(sources, key=lambda source: SPLITS.index(source.split or ""))


def _load_from_disk(path: Path) -> datasets.Dataset | datasets.DatasetDict:
    loaded = None
    with suppress(Exception):  # of a damaged folder it raises whatever comes
        loaded = datasets.load_from_disk(str(path))
    if loaded is None:
        raise ValueError(f"{path} cannot be read by `datasets.load_from_disk`: save it again with `save_to_disk`.")
    return loaded


def _load_from_hub(repo_id: str, cache: Path) -> datasets.DatasetDict:
    make_folder(cache, private=True, ours=True)
    fault = ""
    umask = os.umask(0o077)  # for what is downloaded, too, which lies in the cache of huggingface_hub
    try:
        loaded = datasets.load_dataset(repo_id, cache_dir=str(cache))
    except (FileNotFoundError, ConnectionError) as error:
        fault = f"cannot be found ({type(error).__name__}): no path here leads to it, and the Hub has no such data set for you"
    except Exception as error:  # the messages of parsers quote rows
        fault = f"cannot be loaded from the Hub by `datasets.load_dataset` ({type(error).__name__})"
    finally:
        os.umask(umask)
    if fault:
        raise ValueError(f"{repo_id} {fault}.")
    return loaded

"""Data sets of notes and ICD codes, built from the user's own files: `load_split`, `load_builder`, `BUILDERS`.

A record is `{"subject_id", "hadm_id", "text", "codes"}`, `codes` being ids into `features["codes"].feature.names`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args, get_type_hints

import datasets

from .builders.cmc2007 import CMC2007
from .builders.codiesp import CodiEsp
from .builders.mimic3 import MIMIC3
from .builders.mimic4 import MIMIC4
from .builders.own_files import OwnFiles
from .builders.records import ICDBuilder, record_features
from .codes.icd9 import add_dot, kind_of


__all__ = [
    "CMC2007",
    "MIMIC3",
    "MIMIC4",
    "CodiEsp",
    "ICDBuilder",
    "OwnFiles",
    "add_dot",
    "kind_of",
    "load_builder",
    "load_split",
    "parse_options",
    "record_features",
]

# The data sets by name. One more is a module in builders/ and a row here; commands and their help read this table.
BUILDERS: dict[str, type[ICDBuilder]] = {
    "mimic3": MIMIC3,
    "mimic4": MIMIC4,
    "cmc2007": CMC2007,
    "codiesp": CodiEsp,
    "files": OwnFiles,
}


def load_builder(
    dataset: str,
    config: str | None = None,
    *,
    data_dir: str | Path | None = None,
    cache_dir: str | Path | None = None,
    **options: Any,
) -> ICDBuilder:
    """Build a data set, or find it in the cache.

    Args:
        dataset (`str`): A name in `BUILDERS`, such as `"mimic3"`.
        config (`str`, *optional*): A configuration of it, the first of `BUILDER_CONFIGS` if left out.
        data_dir (`str` or `Path`, *optional*): The source files; left out where options give them, as of `files`.
        cache_dir (`str` or `Path`, *optional*): Where the built data set, text included, is kept; see [`ICDBuilder`].
        **options: The fields of the builder's `BUILDER_CONFIG_CLASS`.

    Returns:
        The prepared builder: `builder.as_dataset(split=...)`, `builder.code_descriptions`.
    """
    builder = _builder_class(dataset)(config, data_dir=data_dir, cache_dir=cache_dir, **options)
    builder.download_and_prepare()
    return builder


def load_split(
    dataset: str,
    split: str,
    config: str | None = None,
    *,
    data_dir: str | Path | None = None,
    cache_dir: str | Path | None = None,
    streaming: bool = False,
    **options: Any,
) -> datasets.Dataset | datasets.IterableDataset:
    """Load one split of a data set: `train`, `validation`, `test`, or `all` for every record of the folder.

    `all` ignores the split lists or folds, and needs none. With `streaming`, the records are read from the source files
    for a first look, and no data set is built: nothing is kept in the cache but split lists that had to be downloaded.
    They are the records of the built data set, in its order. The other arguments are those of [`load_builder`].
    """
    if split == "all":
        options["unsplit"] = True
    if streaming:
        builder = _builder_class(dataset)(config, data_dir=data_dir, cache_dir=cache_dir, **options)
        return builder.as_streaming_dataset(split=split)
    builder = load_builder(dataset, config, data_dir=data_dir, cache_dir=cache_dir, **options)
    return builder.as_dataset(split=split)


def _builder_class(dataset: str) -> type[ICDBuilder]:
    if dataset not in BUILDERS:
        raise ValueError(f"Unknown data set {dataset!r}: choose from {', '.join(BUILDERS)}.")
    return BUILDERS[dataset]


def parse_options(dataset: str, pairs: Sequence[str], argument: str = "--option") -> dict[str, Any]:
    """Read `NAME=VALUE` as options of a data set's configurations, for [`load_builder`]; a list is divided at commas.

    Args:
        argument (`str`): What the pairs were given as, for messages.

    Raises:
        ValueError: where a pair is none, or its value is not of the option's type.
    """
    hints = get_type_hints(_builder_class(dataset).BUILDER_CONFIG_CLASS)
    options: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"`{argument} {pair}` must be NAME=VALUE, such as text=caml.")
        # An unknown name is left to the builder, which says what there is.
        types = [hint for hint in get_args(hints.get(name)) or [hints.get(name)] if hint is not type(None)]
        try:
            options[name] = _convert(value, types[0])
        except ValueError as error:
            raise ValueError(f"`{argument} {pair}` must be {error}.") from None
    return options


def _convert(value: str, kind: Any) -> Any:
    if kind is bool:
        if value not in ("true", "false"):
            raise ValueError("true or false")
        return value == "true"
    if kind is int:
        if not value.lstrip("-").isdecimal():
            raise ValueError("a whole number")
        return int(value)
    return value.split(",") if kind == list[str] else value

"""Reads and checks the YAML files of this folder, which hold the concepts, rules and phrases of the synthetic corpus."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path

from .checks import CONCEPTS_FILE, LABS_FILE, PHRASES_FILE, RULES_FILE, check_content
from .entries import ConceptFile, Content, LabsAndDrugs, Phrases, Rules
from .long_tail import add_long_tail
from .more_concepts import add_concepts
from .schema import read_yaml


FOLDER = Path(__file__).parent
FILES = (CONCEPTS_FILE, RULES_FILE, LABS_FILE, PHRASES_FILE)


_extended: ContextVar[Content | None] = ContextVar("extended", default=None)


def read_content(folder: Path | None = None) -> Content:
    """What the corpus can say: what is in the files of a folder, by default of this one, or while it is extended, that."""
    extended = _extended.get()
    return extended if folder is None and extended is not None else _read_files(folder or FOLDER)


@contextmanager
def extended_content(num_codes: int | None, is_full: bool = False) -> Iterator[None]:
    """Let there be so many codes while a corpus is written, see more_concepts.py, or as many as MIMIC-III has, see
    long_tail.py. With `None` nothing changes."""
    content = _full_content() if is_full else None
    token = _extended.set(content if num_codes is None else add_concepts(_read_files(FOLDER), num_codes))
    try:
        yield
    finally:
        _extended.reset(token)


@cache
def _full_content() -> Content:
    return add_long_tail(_read_files(FOLDER))


@cache
def _read_files(folder: Path) -> Content:
    """Read and check the four files.

    Raises:
        FileNotFoundError: where one is missing, as in an installed package.
        ValueError: where one is wrong; names the file and the entry.
    """
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"What the synthetic corpus says is not in {folder} ({', '.join(missing)}): the installed package does not "
            "carry it. Write the corpus in a checkout of the project, where `modeling-icd synthetic` finds it."
        )
    listed = read_yaml(folder / CONCEPTS_FILE, ConceptFile)
    measured = read_yaml(folder / LABS_FILE, LabsAndDrugs)
    content = Content(
        concepts={concept.code: concept for concept in listed.concepts},
        procedure_tables=listed.procedure_tables,
        rules=read_yaml(folder / RULES_FILE, Rules),
        labs=measured.labs,
        doses=measured.doses,
        phrases=read_yaml(folder / PHRASES_FILE, Phrases),
    )
    check_content(content, listed.concepts)
    return content

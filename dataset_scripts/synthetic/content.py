"""Reads and checks the YAML files of this folder, which hold the concepts, rules and phrases of the synthetic corpus."""

from functools import cache
from pathlib import Path

from .checks import CONCEPTS_FILE, LABS_FILE, PHRASES_FILE, RULES_FILE, check_content
from .entries import ConceptFile, Content, LabsAndDrugs, Phrases, Rules
from .schema import read_yaml


FOLDER = Path(__file__).parent
FILES = (CONCEPTS_FILE, RULES_FILE, LABS_FILE, PHRASES_FILE)


@cache
def read_content(folder: Path = FOLDER) -> Content:
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

"""Lists and checks the files of the data set's repository: its card, the builders and the metric, and no data.

`check_dataset` looks into every file of the list: no record, note, cache, split list or vocabulary may be in it,
not even pasted into a Python file.
"""

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from .folder import project_file, read_content
from .privacy import DEIDENTIFIED, LOCAL_PATH, Finding, LocalNames, TrainingNotes, check_files


ROOT = Path(__file__).resolve().parents[2]
# Where the files lie, by where they go.
FOLDERS = {
    **{name: ROOT / name for name in ("dataset_scripts", "dataset_scripts/builders", "dataset_scripts/codes")},
    "icd_metrics": ROOT / "modeling_icd/evaluation/icd_metrics",
}
ALLOWED = re.compile(
    r"(?!.*\d{5})"  # an id in a name
    r"(README\.md|LICENSE|requirements\.txt|dataset_scripts/((builders|codes)/)?[a-z0-9_]+\.py"
    r"|icd_metrics/([a-z0-9_]+\.py|README\.md|requirements\.txt))"
)
REQUIREMENTS = (
    "datasets>=5.2",
    "evaluate>=0.4.6",
    "iterative-stratification>=0.1.9",
    "matplotlib>=3.10",
    "pyarrow>=20",
    "rich>=14",
    "simple-icd-10-cm>=1.5",
)

NOT_LISTED = "not on the list of what goes out"
NO_TEXT = "not text: records, a cache or an archive"
ID_LIST = "list of numbers like admission or subject ids"
LONG_TEXT = "text as long as a note"
VOCABULARY = "list of words as long as a vocabulary"
# The longest string that is no docstring is the metric's description; the longest list names 160 blocks of ICD-9-CM.
# Notes and vocabularies are many times as long.
MAX_WORDS, MAX_STRINGS, MIN_IDS = 200, 300, 5
LONG_NUMBER = re.compile(r"(?<![\w.+-])\d{5,18}(?![\w-]|\.\d)")
# What these files hold by their nature: the patterns that find marks, the library's cache in a docstring.
EXPECTED = {
    "README.md": {DEIDENTIFIED},
    "dataset_scripts/builders/mimic.py": {DEIDENTIFIED},
    "dataset_scripts/builders/mimic3.py": {DEIDENTIFIED},
    "dataset_scripts/builders/records.py": {LOCAL_PATH},
}


def dataset_files() -> dict[str, Path | bytes]:
    """Every file of the repository by its name there.

    Raises:
        FileNotFoundError: outside of a checkout, since the card is in it alone.
    """
    card = FOLDERS["dataset_scripts"] / "README.md"
    if not card.is_file():
        raise FileNotFoundError(f"No {card}: publish the data set from a checkout of this project.")
    files: dict[str, Path | bytes] = {"README.md": card, "LICENSE": project_file("LICENSE")}
    files["requirements.txt"] = ("\n".join(REQUIREMENTS) + "\n").encode()
    for name, folder in FOLDERS.items():
        listed = {f"{name}/{path.name}": path for path in sorted(folder.iterdir()) if path.is_file()}
        files |= {target: path for target, path in listed.items() if ALLOWED.fullmatch(target)}
    return files


def check_dataset(
    files: Mapping[str, Path | bytes], names: LocalNames, notes: TrainingNotes | None = None
) -> list[Finding]:
    """Look for data in what goes out; none found is a pass.

    With the user's own notes, their spans and ids are looked for everywhere; without them, a short piece of a note in a
    docstring or comment is not found.
    """
    marks = check_files(files, names)
    of_notes = [] if notes is None else set(check_files(files, names, notes)) - set(marks)
    unexpected = [finding for finding in marks if finding.kind not in EXPECTED.get(finding.file, ())]
    own = [Finding(name, kind, times) for name in files for kind, times in _find_data(name, files[name]) if times]
    return sorted({*own, *unexpected, *of_notes})


def _find_data(name: str, content: Path | bytes) -> Iterator[tuple[str, int]]:
    data = read_content(content)
    yield NOT_LISTED, int(ALLOWED.fullmatch(name) is None)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        yield NO_TEXT, 1
        return
    yield NO_TEXT, int("\0" in text)
    numbers = set(LONG_NUMBER.findall(text))
    yield ID_LIST, len(numbers) if len(numbers) >= MIN_IDS else 0
    if name.endswith(".py"):
        yield from _find_data_in_code(text)


def _find_data_in_code(text: str) -> Iterator[tuple[str, int]]:
    try:
        nodes = list(ast.walk(ast.parse(text)))
    except (SyntaxError, ValueError):
        yield NO_TEXT, 1  # whatever it is, it is not the Python that its name says
        return
    documented = [
        node for node in nodes if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and node.body
    ]
    documentation = {id(node.body[0].value) for node in documented if isinstance(node.body[0], ast.Expr)}
    texts = [node for node in nodes if is_string(node) and id(node) not in documentation]
    yield LONG_TEXT, sum(len(node.value.split()) > MAX_WORDS for node in texts)  # type: ignore[attr-defined]
    sizes = [sum(is_string(item) for item in items_of(node)) for node in nodes]
    yield VOCABULARY, sum(size > MAX_STRINGS for size in sizes)


def is_string(node: ast.AST | None) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def items_of(node: ast.AST) -> Sequence[ast.expr | None]:
    """The members of a literal list, tuple or set, the keys of a literal dictionary, else nothing."""
    if isinstance(node, ast.Dict):
        return node.keys
    return node.elts if isinstance(node, ast.List | ast.Set | ast.Tuple) else ()

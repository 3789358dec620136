"""Which part of the project may import which: in one direction, from the notes to the card."""

import ast
import importlib.util
from pathlib import Path

import pytest
from own_process import run_python


ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "modeling_icd"
# Of each part of `modeling_icd` the parts that it may import beside itself; `flat` stands for the files of its top folder.
PARTS = {
    "flat": set(),
    "coders": set(),  # models that come with the package, as files
    "inference": {"flat", "coders", "dataset_scripts"},
    "knowledge": {"flat", "inference", "dataset_scripts"},
    # `train` and `evaluate` offer a side feature each as an option, and import it where it is asked for; no module
    # of theirs imports one at its top (tests/extras/test_apart.py).
    "training": {"flat", "inference", "knowledge", "evaluation", "extras", "dataset_scripts"},
    "generative": {"flat", "inference", "evaluation", "training", "dataset_scripts"},
    "evaluation": {"flat", "inference", "knowledge", "extras", "dataset_scripts"},
    "publishing": {"flat", "inference", "evaluation", "dataset_scripts"},
    "extras": {"flat", "inference", "evaluation", "publishing", "dataset_scripts"},
    "space": {"flat", "coders", "inference", "extras", "dataset_scripts"},
}
# What is run from the outside, and what must not have been imported once it is.
LEFT_OUT = {
    "modeling_icd": ("inference", "training", "evaluation", "publishing", "extras", "space", "dataset_scripts"),
    "modeling_icd.inference.loop": ("training", "evaluation", "publishing"),
    "modeling_icd.inference.predict": ("training", "evaluation", "publishing", "extras"),
    "modeling_icd.inference.try_note": ("training", "evaluation", "publishing", "extras"),
    "modeling_icd.evaluation.cli": ("training", "publishing", "extras"),
    "modeling_icd.evaluation.decide": ("training", "publishing", "extras"),
    "modeling_icd.training.run": ("publishing", "extras"),
    "modeling_icd.publishing.cli": ("training", "extras"),
    "modeling_icd.publishing.after_training": ("training",),
    "modeling_icd.space.cli": ("training", "evaluation", "publishing", "extras", "inference"),
    "modeling_icd.space.server": ("training", "publishing"),
}


def imported_by(path: Path) -> set[str]:
    """Modules that a file imports, at its top or within a function, by their full names."""
    package = ".".join(path.relative_to(ROOT).parent.parts)
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            names.update(f"{module}.{alias.name}" for alias in node.names)
    return names


def part_of(name: str) -> str | None:
    """The part that a module, or a name in one, belongs to; `None` where it is none of this project's."""
    first, *rest = name.split(".")
    if first == "dataset_scripts":
        return first
    if first != "modeling_icd":
        return None
    return rest[0] if rest and (PACKAGE / rest[0]).is_dir() else "flat"


@pytest.mark.parametrize("part", PARTS)
def test_every_part_imports_only_what_comes_before_it(part):
    files = list(PACKAGE.glob("*.py") if part == "flat" else (PACKAGE / part).rglob("*.py"))
    if part == "flat":
        files.remove(PACKAGE / "__main__.py")  # the console command, which reaches every part
    assert files
    wrong = {
        (path.relative_to(ROOT).as_posix(), name)
        for path in files
        for name in imported_by(path)
        if part_of(name) not in {None, part, *PARTS[part]}
    }
    assert wrong == set()


# Imports each module in a fork, after the libraries, which take seconds, and before it any part of the project.
LOAD_EACH = """
import os, sys
import datasets, peft, torch, transformers.modeling_utils, transformers.pipelines, trl
for module in sys.argv[1:]:
    child = os.fork()
    if not child:
        __import__(module)
        print(module, *sys.modules, flush=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, module
"""


def test_what_a_command_needs_is_all_that_it_loads():
    run = run_python("-c", LOAD_EACH, *LEFT_OUT, cwd=ROOT)
    assert run.returncode == 0, run.stderr[-2000:]
    loaded = {module: names for module, *names in map(str.split, run.stdout.splitlines())}
    assert loaded.keys() == LEFT_OUT.keys()
    parts = {module: {part_of(name) for name in names} for module, names in loaded.items()}
    assert {module: left for module in parts if (left := parts[module] & set(LEFT_OUT[module]))} == {}
    # Who reads an invented corpus needs its marker, and not the generator that wrote it.
    assert [module for module, names in loaded.items() if any("synthetic" in name for name in names)] == []

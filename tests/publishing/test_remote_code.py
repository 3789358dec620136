"""The Python files that a repository carries, read as syntax: what they must not contain."""

import ast
from pathlib import Path

import pytest

import modeling_icd
from modeling_icd.publishing.release import COPIED, HANDLER


PACKAGE = Path(modeling_icd.__file__).parent
REMOTE = sorted(path for path in PACKAGE.glob("*.py") if path.name != "__init__.py")
IMPORTS = {
    "collections",
    "collections.abc",
    "dataclasses",
    "itertools",
    "math",
    "re",
    "torch",
    "transformers",
    "transformers.utils",
    "typing",
}
NAMES = {
    *("eval", "exec", "compile", "open", "__import__", "__builtins__", "input", "breakpoint"),
    *("getattr", "setattr", "delattr", "globals", "locals", "vars"),
}
ATTRIBUTES = {
    *("load", "loads", "save", "dump", "dumps", "hub", "classes", "ops", "jit"),
    *("system", "popen", "run", "Popen", "urlopen", "request", "urlretrieve", "load_state_dict_from_url"),
    *("write", "writelines", "write_text", "write_bytes", "tofile", "unlink", "rename", "mkdir", "rmtree", "remove"),
    *("__globals__", "__builtins__", "__subclasses__", "__bases__", "__code__", "__import__"),
}


def faults(source: str) -> set[str]:
    """What in a file could run other code, read or write files, or reach the network."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} - IMPORTS
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found |= {node.module} - IMPORTS
        elif isinstance(node, ast.Name) and node.id in NAMES:
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and node.attr in ATTRIBUTES:
            found.add(node.attr)
    return found


@pytest.mark.parametrize("path", REMOTE, ids=lambda path: path.name)
def test_remote_code_runs_nothing_and_touches_no_file_or_network(path):
    assert faults(path.read_text()) == set()


@pytest.mark.parametrize(
    "source",
    [
        "exec('x')",
        "f = eval",
        "import pickle",
        "from os import system",
        "import torch; torch.load('x')",
        "import torch.hub",
        "open('x', 'w')",
        "().__class__.__base__.__subclasses__()",
        "getattr(torch, 'lo' + 'ad')('x')",
        "x.write_text('')",
        "import socket",
    ],
)
def test_the_walk_finds(source):
    assert faults(source)


def test_remote_code_is_flat_and_all_of_it_goes_out():
    names = {path.stem for path in REMOTE}
    for path in REMOTE:
        assert COPIED.fullmatch(path.name) or path == HANDLER
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level:
                assert node.level == 1
                assert node.module in names


def test_publishing_imports_no_training_code():
    for path in (PACKAGE / "publishing").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert "training" not in (node.module or "")
            elif isinstance(node, ast.Import):
                assert not any("training" in alias.name for alias in node.names)

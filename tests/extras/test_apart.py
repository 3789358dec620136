"""Side features are apart: nothing else loads them until it is asked for one."""

import ast
from pathlib import Path

import modeling_icd


PACKAGE = Path(modeling_icd.__file__).parent


def test_no_other_part_loads_a_side_feature_when_it_is_imported():
    for path in PACKAGE.rglob("*.py"):
        if {"extras", "space"} & {*path.relative_to(PACKAGE).parts}:  # the page is asked for, too
            continue
        for node in ast.parse(path.read_text()).body:  # of functions, which import when they are called, not
            if isinstance(node, ast.ImportFrom):
                assert "extras" not in f"{node.module} {[alias.name for alias in node.names]}", path
            elif isinstance(node, ast.Import):
                assert not any("extras" in alias.name for alias in node.names), path


def test_every_side_feature_is_a_command():
    for path in (PACKAGE / "extras").glob("[a-z]*.py"):
        assert f"    modeling-icd {path.stem} " in ast.get_docstring(ast.parse(path.read_text()))

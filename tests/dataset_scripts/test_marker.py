"""Who reads an invented corpus needs its marker, and not the generator that wrote it."""

import ast
from pathlib import Path


ROOT = Path(__file__).resolve().parents[2]


def imported_by(path):
    """Modules that a file imports, at its top or within a function, by their full names."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*above, *filter(None, [node.module])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def test_nothing_but_the_generator_imports_the_generator():
    generator = ROOT / "dataset_scripts" / "synthetic"
    files = [path for name in ("modeling_icd", "dataset_scripts") for path in (ROOT / name).rglob("*.py")]
    importers = [
        path.relative_to(ROOT).as_posix()
        for path in [*files, ROOT / "train.py", ROOT / "evaluate.py"]
        if not path.is_relative_to(generator)
        and any(name.startswith("dataset_scripts.synthetic") for name in imported_by(path))
    ]
    assert len(files) > 50 and importers == []
    assert "dataset_scripts.marker.is_synthetic" in set(imported_by(ROOT / "dataset_scripts/builders/public_files.py"))
    assert "dataset_scripts.marker.MARKER_FILE" in set(imported_by(generator / "mimic4.py"))


def test_codes_import_no_builder_and_neither_imports_the_models():
    for folder, others in (("codes", ("dataset_scripts.builders", "modeling_icd")), ("builders", ("modeling_icd",))):
        for path in (ROOT / "dataset_scripts" / folder).glob("*.py"):
            assert not [name for name in imported_by(path) if name.startswith((*others, "torch", "transformers"))], (
                path
            )

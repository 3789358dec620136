"""The root `evaluate.py` runs our command and still lets everyone else import the `evaluate` library."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import own_process
import pytest


ROOT = Path(__file__).resolve().parents[1]
IS_LIBRARY = (
    "import evaluate, sys; assert callable(evaluate.load); assert sys.modules['evaluate'] is evaluate; "
    "import evaluate.module; print(evaluate.__file__)"
)


def run_python(*arguments: str, cwd: Path, library: Path | None = None, code: int = 0) -> str:
    """Run Python and return what it printed. `library`: a folder with a stand-in for the library, which takes seconds to import."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if library:
        environment["PYTHONPATH"] = str(library)
    done = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == code, done.stderr
    return (done.stdout + done.stderr).strip()


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A folder on the path with a stand-in for the `evaluate` library."""
    package = tmp_path / "site" / "evaluate"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("from .loading import load\n")
    (package / "loading.py").write_text("def load():\n    pass\n")
    (package / "module.py").touch()
    return package.parent


@pytest.fixture
def root_copy(tmp_path: Path) -> Path:
    """A folder with our `evaluate.py` and a command that only reports what `import evaluate` gives it."""
    root = tmp_path / "root"
    package = root / "modeling_icd" / "evaluation"
    package.mkdir(parents=True)
    shutil.copy(ROOT / "evaluate.py", root)
    for folder in (package, package.parent):
        (folder / "__init__.py").touch()
    (package / "cli.py").write_text("import evaluate\n\n\ndef main():\n    print(evaluate.__file__)\n    return 3\n")
    return root


def test_import_from_the_root_gives_the_installed_library():
    """Of the library itself, which takes seconds to import, so that the process is forked from one that has torch."""
    done = own_process.run_python("-c", IS_LIBRARY, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    path = Path(done.stdout.strip())
    assert path.parts[-3:] == ("site-packages", "evaluate", "__init__.py")


def test_import_from_elsewhere_with_the_root_on_the_path(tmp_path, root_copy, library):
    (root_copy / "tests").mkdir()
    detour = f"import sys; sys.path.insert(0, {str(root_copy / 'tests' / '..')!r}); {IS_LIBRARY}"
    assert run_python("-c", detour, cwd=tmp_path, library=library) == str(library / "evaluate" / "__init__.py")


def test_from_import_in_a_script_beside_it(tmp_path, root_copy, library):
    (root_copy / "beside.py").write_text("from evaluate import load\nprint(load.__module__)\n")
    assert run_python("beside.py", cwd=root_copy, library=library) == "evaluate.loading"
    assert run_python(str(root_copy / "beside.py"), cwd=tmp_path, library=library) == "evaluate.loading"


def test_python_m_from_the_root(root_copy, library):
    (root_copy / "tool.py").write_text(IS_LIBRARY + "\n")
    assert run_python("-m", "tool", cwd=root_copy, library=library) == str(library / "evaluate" / "__init__.py")


def test_pytest_from_the_root(root_copy, library):
    (root_copy / "test_import.py").write_text("import evaluate\n\n\ndef test_load():\n    assert evaluate.load\n")
    arguments = ("-m", "pytest", "-p", "no:cacheprovider", "test_import.py")
    assert "1 passed" in run_python(*arguments, cwd=root_copy, library=library)


def test_spawned_process_gives_the_library(root_copy, library):
    (root_copy / "spawn.py").write_text(
        "import multiprocessing\n\n\ndef child():\n    import evaluate\n    print(evaluate.__file__, flush=True)\n\n\n"
        "if __name__ == '__main__':\n    process = multiprocessing.get_context('spawn').Process(target=child)\n"
        "    process.start()\n    process.join()\n"
    )
    assert run_python("spawn.py", cwd=root_copy, library=library) == str(library / "evaluate" / "__init__.py")


@pytest.mark.parametrize("folder", [".", "modeling_icd"])
def test_run_as_a_script_calls_our_command_which_gets_the_library(root_copy, library, folder):
    printed = run_python(str(root_copy / "evaluate.py"), cwd=root_copy / folder, library=library, code=3)
    assert printed == str(library / "evaluate" / "__init__.py")


def test_says_what_to_install_where_there_is_no_library(root_copy):
    assert "pip install evaluate" in run_python("-S", "-c", "import evaluate", cwd=root_copy, code=1)

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Real data and golden outputs, which are not part of the project."""
    folder = Path(os.environ.get("ICD_SHARED") or Path(__file__).resolve().parents[1] / ".." / "shared").resolve()
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder}: set ICD_SHARED to the folder that holds data/ and golden/")
    return folder

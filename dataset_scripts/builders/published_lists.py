"""Downloads lists of admission ids that a public repository holds, checks them, and refuses lists that do not divide a data set."""

import hashlib
import http.client
import itertools
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

from datasets import config as datasets_config

from ..files import whole_file


TIMEOUT = 30  # seconds without an answer


def sha256_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def has_digest(path: Path, digest: str | None) -> bool:
    """Tell whether a file is the published one, byte for byte; `digest` is its SHA-256."""
    return path.is_file() and sha256_of(path.read_bytes()) == digest


def download_list(path: Path, url: str, digest: str | None, advice: str) -> None:
    """Download a list.

    Args:
        path (`Path`): Where it is to be.
        url (`str`): Where it comes from.
        digest (`str`, *optional*): Its SHA-256, in hexadecimal; None where its content is checked once it is read.
        advice (`str`): What to do in place of a download, as whole sentences.

    Raises:
        ConnectionError: where it cannot be downloaded, or must not be.
        ValueError: where what was downloaded is another file; nothing is kept of it.
    """
    if datasets_config.HF_HUB_OFFLINE:
        raise ConnectionError(f"No {path.name} in `data_dir`, and HF_HUB_OFFLINE forbids to download it. {advice}")
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
            content = response.read()
        if digest is None or sha256_of(content) == digest:
            with whole_file(path, "wb") as file:
                file.write(content)
            return
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        reason = getattr(error, "reason", error)
        raise ConnectionError(
            f"No {path.name} in `data_dir`, and it cannot be downloaded from {url} ({reason}). {advice}"
        ) from None
    raise ValueError(f"{url} is not the list that papers report on: its SHA-256 is another one. {advice}")


def check_subjects(subjects: Mapping[str, set[int]], names: Mapping[str, object]) -> None:
    """Refuse splits that share a subject: a model would be tested on a patient it has seen.

    Args:
        subjects (`Mapping[str, set[int]]`): The subjects of each split.
        names (`Mapping[str, object]`): What to call each split in the message, such as the path of its list.
    """
    for first, second, shared in _shared(subjects):
        raise ValueError(
            f"{len(shared):,} subjects have admissions in both {names[first]} and {names[second]}, e.g. "
            f"SUBJECT_ID {min(shared)}. Move each subject's admissions to one list."
        )


def check_admissions(admissions: Mapping[str, set[int]], names: Mapping[str, object]) -> None:
    """Refuse split lists that share an admission, with a note or without; the arguments are those of [`check_subjects`]."""
    for first, second, shared in _shared(admissions):
        raise ValueError(
            f"{len(shared):,} admissions are in both {names[first]} and {names[second]}, e.g. HADM_ID {min(shared)}. "
            "Remove each of them from all lists but one."
        )


def _shared(ids: Mapping[str, set[int]]) -> Iterator[tuple[str, str, set[int]]]:
    """Two splits and the ids that both have, for each two splits that share any."""
    for first, second in itertools.combinations(ids, 2):
        if ids[first] & ids[second]:
            yield first, second, ids[first] & ids[second]

"""The synthetic corpora of a version: their bytes stay the same whatever becomes of the code that writes them."""

import gzip
import hashlib
import json

import pytest

from dataset_scripts.marker import MARKER_FILE
from dataset_scripts.synthetic import mimic3, mimic4
from dataset_scripts.synthetic.folder import CORPUS_VERSION


def digest_of(folder):
    """SHA-256 of all files by name, unpacked: how well zlib packs is its own affair, also within the marker."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        if path.name == MARKER_FILE:
            content = json.dumps({**json.loads(content), "sha256": None}).encode()
        digest.update(f"{path.relative_to(folder).as_posix()}\n".encode())
        digest.update(gzip.decompress(content) if path.suffix == ".gz" else content)
    return digest.hexdigest()


@pytest.mark.parametrize(
    ("corpus", "arguments", "expected"),
    [
        (
            mimic3,
            {"num_admissions": 60, "seed": 0, "length": "short"},
            "1f10a96f59e23187005dd875142a2dd7a744d55c55afa8bead2a416435a7f176",
        ),
        (
            mimic3,
            {"num_admissions": 30, "seed": 7, "other_rows_rate": 1.0, "addendum_rate": 0.5},
            "45ecd1acb0f8924bd981a04503c1798b5c9a75d245d7dff09408c8af79b8e2e9",
        ),
        (
            mimic3,
            {"num_admissions": 6, "seed": 11, "length": "long", "split_fractions": (0.5, 0.25, 0.25)},
            "eba3be4996c66c5dc36e70d8b3498551853cea7d3e5040755f6305e2262e2707",
        ),
        (
            mimic4,
            {"num_admissions": 60, "seed": 0, "length": "short"},
            "a062b04ba8f6e18bb286c8eb4442c68bf004f6b7272be2e7bf9172cbed8ddbea",
        ),
        (
            mimic4,
            {"num_admissions": 20, "seed": 5, "length": "long", "mixed_rate": 0.5},
            "a6177383309eadbe11105ae207643dc421eceba2f54e4fda9ebfafbfa55f570a",
        ),
    ],
)
def test_a_version_of_the_corpus_has_the_same_bytes_for_ever(corpus, arguments, expected, tmp_path):
    assert CORPUS_VERSION == "1.0"
    corpus.write_corpus(tmp_path, show_progress=False, **arguments)
    assert digest_of(tmp_path) == expected

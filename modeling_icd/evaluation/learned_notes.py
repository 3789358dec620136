"""Remembers which notes a model learned from, so that evaluating or deciding on them does not go unseen.

Splits of the user's own files may be made again from files that have grown, or were given in another way. The digests lie in
`OUTPUT_DIR-private`, never in the model's folder: whoever has a note could tell from them that it was learned from.
"""

import hashlib
import sys
from collections.abc import Iterable
from pathlib import Path

from dataset_scripts.files import whole_file


FILE = "learned-notes.txt"


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def write_learned(texts: Iterable[str], private_dir: Path) -> None:
    """Write the digests of the notes that a model learns from; its owner alone may read them."""
    with whole_file(private_dir / FILE, private=True) as file:
        for text in texts:
            file.write(f"{_digest(text)}\n")


def warn_of_learned(model_id: str | Path, texts: Iterable[str]) -> int:
    """Count the notes that a model learned from, and warn where there are some; 0 where nothing was remembered."""
    path = Path(f"{model_id}-private") / FILE
    if not path.is_file():
        return 0
    learned = set(path.read_text(encoding="utf-8").split())
    is_learned = [_digest(text) in learned for text in texts]
    if any(is_learned):
        print(
            f"warning: the model learned from {sum(is_learned):,} of these {len(is_learned):,} notes, or from notes of the same "
            "text: figures and thresholds that come from them are too good. Give notes that it has not seen, such as a file "
            "that was set apart before training.",
            file=sys.stderr,
        )
    return sum(is_learned)

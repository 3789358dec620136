"""Remembers which notes and admissions a model learned from, so that evaluating or deciding on them does not go unseen.

Splits of the user's own files may be made again from files that have grown, or were given in another way, and the splits of
one configuration of a data set may share admissions with another's. The digests lie in `OUTPUT_DIR-private`, never in the
model's folder: whoever has a note, or its id, could tell from them that it was learned from. A model that is trained further has
a copy of what its backbone remembers, so that nothing is forgotten where that is moved or trained anew.
"""

import hashlib
import secrets
import shutil
import sys
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from dataset_scripts.counts import counted
from dataset_scripts.files import whole_file, write_text

from ..sharing_icd import RETRIEVER
from .tokens import texts_of_notes


FILE = "learned-notes.txt"
ADMISSIONS_FILE = "learned-admissions.txt"  # its first line is the salt
EARLIER = "earlier"  # the folder with the files of the model that a training started from
HOLD_LEARNED = ("train", "all")  # splits that hold what was learned, as their names say


def _private_dir(model_id: str | Path) -> Path:
    """The neighbour of a model's folder, however its path is written; of a Hub id there is none."""
    return Path(f"{Path(model_id).resolve()}-private")


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _salted(name: str, salt: str) -> str:
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), key=bytes.fromhex(salt), digest_size=16).hexdigest()


def admissions_of(records, dataset: str, is_synthetic: bool) -> Iterator[str]:
    """What tells the admission of each record from all others, in every configuration and split of its data set.

    The ids of a published data set do. Those of the user's own files may be numbers of rows, and two invented corpora may
    have the same ones: there an admission is its id and its text.

    Args:
        records (`datasets.Dataset`): with `hadm_id` and the text.
        dataset (`str`): the name of the data set.
        is_synthetic (`bool`): whether they are of an invented corpus.
    """
    if dataset != "files" and not is_synthetic:
        return (f"{dataset}\0{hadm_id}" for hadm_id in records["hadm_id"])
    pairs = zip(records["hadm_id"], texts_of_notes(records), strict=True)
    return (f"{dataset}\0{hadm_id}\0{text}" for hadm_id, text in pairs)


def write_learned(texts: Iterable[str], private_dir: Path, admissions: Iterable[str] = ()) -> None:
    """Write the digests of the notes that a model learns from, and of their admissions; its owner alone may read them.

    Args:
        admissions (`Iterable[str]`): see [`admissions_of`]. Their digests are salted, since ids are few enough to try all. Notes
            that no data set names have none.
    """
    with whole_file(private_dir / FILE, private=True) as file:
        for text in texts:
            file.write(f"{_digest(text)}\n")
    named = iter(admissions)
    if (first := next(named, None)) is None:
        (private_dir / ADMISSIONS_FILE).unlink(missing_ok=True)  # of an earlier run
        return
    salt = secrets.token_hex(16)
    with whole_file(private_dir / ADMISSIONS_FILE, private=True) as file:
        file.write(f"{salt}\n")
        for admission in chain([first], named):
            file.write(f"{_salted(admission, salt)}\n")


def forget_learned(private_dir: Path) -> None:
    """Remove what was written of a model that is not there: one whose training gave nothing."""
    for name in (FILE, ADMISSIONS_FILE):
        (private_dir / name).unlink(missing_ok=True)
    shutil.rmtree(private_dir / EARLIER, ignore_errors=True)


def copy_learned(model_id: str | Path, folder: Path) -> None:
    """Copy what is remembered of a model into the private folder of one that is made from it, where it is looked up, too: of the
    retriever of a coder that verifies, and of the backbone of any model, which may have learned from notes in an earlier run.

    Args:
        model_id (`str` or `Path`): the model; it may itself be in the folder of such a coder, or have a folder of that name. Of one
            on the Hub nothing is remembered.
        folder (`Path`): `OUTPUT_DIR-private/retriever` or `OUTPUT_DIR-private/earlier`; what is in it is replaced.
    """
    path = Path(model_id)
    private = _private_dir(path)
    if path.resolve().name == RETRIEVER and not private.is_dir():
        private = _private_dir(path.parent) / RETRIEVER
    files = [place / name for place in _places(private) for name in (FILE, ADMISSIONS_FILE)]
    texts = {file.relative_to(private): file.read_text(encoding="utf-8") for file in files if file.is_file()}
    shutil.rmtree(folder, ignore_errors=True)  # of another model
    for name, text in texts.items():
        write_text(text, folder / name, private=True)


def _places(private: Path) -> Iterator[Path]:
    """A private folder, and those in it that speak of a retriever and of earlier stages, which may have such folders, too."""
    yield private
    for name in (RETRIEVER, EARLIER):
        if (private / name).is_dir():
            yield from _places(private / name)


def _remembered(model_id: str | Path, name: str) -> list[list[str]]:
    """The lines of the files of that name of a model, of its retriever, if it has one, and of the earlier stages of both."""
    paths = [folder / name for folder in _places(_private_dir(model_id))]
    return [path.read_text(encoding="utf-8").split() for path in paths if path.is_file()]


def warn_of_learned(model_id: str | Path, texts: Iterable[str]) -> int:
    """Count the notes that a model learned from, and warn where there are some; 0 where nothing was remembered.

    A note without text is none that it learned from: all of them are alike."""
    learned = set(chain.from_iterable(_remembered(model_id, FILE)))
    is_learned = [bool(text.strip()) and _digest(text) in learned for text in texts]
    if any(is_learned):
        print(
            f"warning: the model learned from {sum(is_learned):,} of these {len(is_learned):,} notes, or from notes of the same "
            "text: figures and thresholds that come from them are too good. Give notes that it has not seen, such as a file "
            "that was set apart before training.",
            file=sys.stderr,
        )
    return sum(is_learned)


def count_learned_admissions(model_id: str | Path, admissions: Iterable[str]) -> int | None:
    """How many of these admissions a model learned from, see [`admissions_of`]; `None` where that was not remembered."""
    known = [(salt, set(learned)) for salt, *learned in _remembered(model_id, ADMISSIONS_FILE)]
    if not known:
        return None
    return sum(any(_salted(admission, salt) in learned for salt, learned in known) for admission in admissions)


def check_overlap(
    model_id: str | Path, records, dataset: str, config: str, split: str, *, is_synthetic: bool, allow: bool
) -> int | None:
    """Count the admissions of a split that a model learned from; `None` where it is not remembered which these were.

    Args:
        records, dataset, is_synthetic: see [`admissions_of`].
        config, split (`str`): for messages; a split of `HOLD_LEARNED` may hold such admissions.
        allow (`bool`): whether any other may, too.

    Raises:
        ValueError: where a split holds some and must not.
    """
    shared = count_learned_admissions(model_id, admissions_of(records, dataset, is_synthetic))
    if not shared:
        return shared
    said = (
        f"the model learned from {shared:,} of the {counted(len(records), 'admission')} of the split {split!r} of {dataset} "
        f"({config})"
    )
    if not allow and split not in HOLD_LEARNED:
        raise ValueError(
            f"{said[0].upper()}{said[1:]}: figures on them are too good. Evaluate it on the configuration that it was trained on, or "
            "on admissions that it has not seen; or give `--allow_overlap`, and results, report and card say so."
        )
    print(f"warning: {said}: figures on them are too good.", file=sys.stderr)
    return shared


def overlap_text(num_shared: int | None, num_notes: int) -> str | None:
    """The sentence of reports and cards on the admissions that were learned from; `None` where there are none."""
    if not num_shared:
        return None
    return (
        f"The model learned from {num_shared:,} of the {counted(num_notes, 'admission')} of this split: its figures are better "
        "than on notes that it has not seen."
    )

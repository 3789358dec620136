"""The words of the training notes, and the vectors that they start from: word2vec, a file, or random numbers."""

import gzip
import pickle
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dataset_scripts.tables import UNPACKING_ERRORS


WORD2VEC, RANDOM = "word2vec", "random"
INSTALL = 'install it (`pip install "modeling-icd[words]"`)'
# gensim reads no more words of a text than these, and drops the others without a word.
GENSIM_WORDS = 10_000


class TrainingWords(NamedTuple):
    """The words of the training notes.

    Args:
        words (`list[str]`): each once.
        notes (`list[np.ndarray]`): of each note its words, as places in `words`.
    """

    words: list[str]
    notes: list[np.ndarray]

    @classmethod
    def read(cls, texts: Iterable[str], words_of: Callable[[str], str]) -> "TrainingWords":
        """The words of notes; `words_of` gives those of one, with white space between them."""
        place: dict[str, int] = {}
        notes = [
            np.array([place.setdefault(word, len(place)) for word in words_of(text).split()], np.int32)
            for text in texts
        ]
        return cls(list(place), notes)

    @property
    def lengths(self) -> np.ndarray:
        """Words of each note, `(N,)`."""
        return np.array([len(note) for note in self.notes], np.int64)

    def in_notes(self, min_count: int) -> list[str]:
        """The words that so many notes have, those of most notes first, and in the order of the alphabet where these are as many."""
        counts = np.zeros(len(self.words), np.int64)
        for note in self.notes:
            counts[np.unique(note)] += 1
        frequent = np.flatnonzero(counts >= min_count)
        return [self.words[i] for i in sorted(frequent, key=lambda i: (-counts[i], self.words[i]))]


def check_vectors(vectors: str) -> None:
    """See, before any notes are read, that vectors can be found as `reader_options` say.

    Raises:
        ValueError: where gensim is needed and not installed.
        FileNotFoundError: where there is no such file.
    """
    if vectors == WORD2VEC and find_spec("gensim") is None:
        raise ValueError(
            f"Word vectors are trained by gensim, which is not installed: {INSTALL}, or start from random ones "
            f"(`reader_options vectors={RANDOM}`) or from a file (`vectors=PATH`)."
        )
    if vectors not in (WORD2VEC, RANDOM) and not Path(vectors).is_file():
        raise FileNotFoundError(
            f"`reader_options vectors` must be {WORD2VEC}, {RANDOM} or a file, and {vectors} is none: is the path right?"
        )


class _Sentences:
    """The notes as gensim reads them, several times over: as lists of words, long ones in parts."""

    def __init__(self, words: TrainingWords):
        self.words, self.notes = words

    def __iter__(self) -> Iterator[list[str]]:
        for note in self.notes:
            for start in range(0, len(note), GENSIM_WORDS):
                yield [self.words[i] for i in note[start : start + GENSIM_WORDS]]


def train_word2vec(
    words: TrainingWords, size: int, seed: int, *, epochs: int, window: int, skip_gram: bool
) -> dict[str, np.ndarray]:
    """Vectors of all words of the notes, also of the rare ones, which are context of the others. One worker and a seed: so
    they are the same from run to run.

    Args:
        size (`int`): their width.
        epochs (`int`): how often the notes are read.
        window (`int`): how many words around each word are its context, at most.
        skip_gram (`bool`): whether it is skip-gram in place of CBOW.
    """
    from gensim.models import Word2Vec  # an extra

    model = Word2Vec(
        _Sentences(words),
        vector_size=size,
        window=window,
        sg=int(skip_gram),
        epochs=epochs,
        min_count=1,
        workers=1,
        seed=seed,
    )
    return {word: model.wv[word] for word in model.wv.key_to_index}


def read_vectors(path: Path, wanted: frozenset[str], size: int) -> dict[str, np.ndarray]:
    """The vectors of some words from a file: saved by gensim (a `KeyedVectors`, or a model that has one), or the text format of
    word2vec and fastText, also gzipped.

    A file that gensim has saved is a pickle, which can run code while it is read: take none from people you do not trust.

    Raises:
        ValueError: where it is neither, or its vectors are of another width than `size`; where it is a file of gensim, which is
            not installed.
    """
    with path.open("rb") as file:
        start = file.read(2)
    if start[:1] == pickle.PROTO:
        found = _read_gensim(path, wanted)
    else:
        found = _read_text(path, wanted, size, is_packed=start == b"\x1f\x8b")
    width = next((vector.shape[-1] for vector in found.values()), size)
    if width != size:
        raise _other_width(path, width, size)
    return found


def _other_width(path: Path, width: int, size: int) -> ValueError:
    return ValueError(
        f"The vectors in {path} are {width} wide, and `embedding_size` is {size}: give `reader_options embedding_size={width}`."
    )


def _read_gensim(path: Path, wanted: frozenset[str]) -> dict[str, np.ndarray]:
    try:
        from gensim.models import KeyedVectors
    except ImportError:
        raise ValueError(
            f"{path} was saved by gensim, which is not installed: {INSTALL}, or save the vectors as text."
        ) from None
    saved: Any = None
    try:
        saved = KeyedVectors.load(str(path))
    except Exception as error:  # of any class that a damaged pickle, or one of other libraries, raises
        raise ValueError(
            f"{path} cannot be read as vectors of gensim ({type(error).__name__}): save them again."
        ) from None
    vectors = getattr(saved, "wv", saved)
    if not isinstance(vectors, KeyedVectors):
        raise ValueError(f"{path} holds a {type(saved).__name__}, and no vectors of gensim: save its `KeyedVectors`.")
    return {word: vectors[word] for word in wanted if word in vectors.key_to_index}


def _read_text(path: Path, wanted: frozenset[str], size: int, is_packed: bool) -> dict[str, np.ndarray]:
    options: dict[str, Any] = {"encoding": "utf-8", "errors": "replace", "newline": "\n"}
    try:
        with gzip.open(path, "rt", **options) if is_packed else path.open(**options) as lines:
            return dict(_read_lines(lines, path, wanted, size))
    except UNPACKING_ERRORS:
        raise ValueError(f"{path} has a gzip stream that is cut short or damaged: copy it again.") from None


def _read_lines(
    lines: Iterable[str], path: Path, wanted: frozenset[str], size: int
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield wanted words and their vectors, from lines of a word and its numbers."""
    for number, line in enumerate(lines, start=1):
        word, *values = line.rstrip(" \r\n").split(" ")
        if number == 1 and len(values) == 1:  # how many words there are, and how wide their vectors
            continue
        if len(values) == size and word not in wanted:
            continue
        vector = None
        with suppress(ValueError):
            vector = np.array(values, np.float32)
        if vector is None or len(vector) < 2:
            raise ValueError(
                f"{path}: line {number} is no word with its numbers behind it, divided by single spaces: give the text format of "
                "word2vec or fastText, or what gensim's `KeyedVectors.save` wrote."
            )
        if len(vector) != size:
            raise _other_width(path, len(vector), size)
        yield word, vector

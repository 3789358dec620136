"""The honest yardstick: TF-IDF of a note's words, and one linear classifier per code; a plain one and a strong one.

Both are LinearSVC over words and word pairs. The strong one also knows what is denied, in which section a word stands, and
parts of words (character n-grams); and a rare code weighs in it as much as a frequent one.
"""

import re
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_union
from sklearn.svm import LinearSVC

from ..knowledge.cues import BUT, DENIALS, SCOPE


WORD = r"(?u)\b\w+\b"
# A heading is a short line, or beginning of a line, that ends with a colon.
_HEADING = re.compile(r"^[ \t]*([^\W\d_][\w /&'()-]{1,48}):(?=\s|$)", re.MULTILINE)
_PIECES = re.compile(rf"{WORD}|[.;:!?]+(?=\s|$)|\n[ \t]*\n")


def sections_of(note: str) -> Iterator[tuple[str, str]]:
    """Yields each section of a note: its heading in lower case, empty before the first one, and its text."""
    heading, start = "", 0
    for found in _HEADING.finditer(note):
        yield heading, note[start : found.start()]
        heading, start = " ".join(found[1].lower().split()), found.end()
    yield heading, note[start:]


def marked_words(text: str) -> list[str]:
    """The words of a text in lower case, those after a denial with `not_` before them.

    A denial reaches to the end of its sentence or to a word such as "but", and over 8 words at most.
    """
    words: list[str] = []
    left = 0  # words that the denial still reaches
    for piece in _PIECES.findall(text.lower()):
        if not re.match(r"\w", piece):  # the end of a sentence or of a paragraph
            left = 0
            continue
        if piece in BUT:
            left = 0
        words.append(f"not_{piece}" if left else piece)
        left = SCOPE if piece in DENIALS else max(left - 1, 0)
    return words


def words_in_sections(note: str) -> list[str]:
    """What the strong TF-IDF counts: the words and word pairs of a note, and each once more with the heading above it."""
    terms = []
    for heading, text in sections_of(note):
        words = marked_words(text)
        grams = words + [f"{first} {second}" for first, second in pairwise(words)]
        terms += grams
        if heading:
            terms += [f"{heading}: {gram}" for gram in grams]
    return terms


def _features(strong: bool):
    """What makes features of notes; not fitted."""
    if not strong:
        return TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2, token_pattern=WORD)
    return make_union(
        TfidfVectorizer(analyzer=words_in_sections, sublinear_tf=True, min_df=2),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True, min_df=2),
    )


def tfidf_scores(
    train_notes: list[str], train_labels: np.ndarray, notes: list[str], *, strong: bool = False
) -> np.ndarray:
    """Decision values `(N, C)` of LinearSVC. A code that no training note has gets the lowest of all, one that all have the
    highest.

    Args:
        train_notes (`list[str]`) and train_labels (`(N_train, C)`, 0/1): what it is fitted on.
        notes (`list[str]`): what it scores.
        strong (`bool`): whether to take the strong one.
    """
    features = _features(strong)
    fitted, scored = features.fit_transform(train_notes), features.transform(notes)
    options = {"class_weight": "balanced", "random_state": 0} if strong else {}
    counts = np.asarray(train_labels).sum(axis=0)
    decisions = np.zeros((len(notes), len(counts)))
    is_learned = (counts > 0) & (counts < len(train_notes))
    for code in np.flatnonzero(is_learned):
        classifier = LinearSVC(C=1.0, **options).fit(fitted, train_labels[:, code])
        decisions[:, code] = classifier.decision_function(scored)
    learned = decisions[:, is_learned]
    decisions[:, counts == 0] = learned.min(initial=0)
    decisions[:, counts == len(train_notes)] = learned.max(initial=0)
    return decisions

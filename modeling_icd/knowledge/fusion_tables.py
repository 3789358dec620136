"""Makes the tables that a fused model looks up: of training notes, their codes and marked evidence, and of titles."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from functools import cache
from itertools import takewhile
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from dataset_scripts.codes.classification import ICD9, Classification, classification_of

from ..fusion_features_icd import is_clean
from ..fusion_tables_icd import Tables, row_starts
from ..fusion_text_icd import UNKNOWN, NoteWords, StemReader, TermFinder
from ..fusion_titles_icd import TitleFinder
from ..fusion_words_icd import grams_of
from ..terms_icd import END, SMALL
from .build import MAX_WORDS, ROLES
from .fusion_words import NO_WORDS, fit_words
from .sources import INCLUSION, TITLE, further_icd9_terms, variants
from .stems import SENTENCE_ENDS
from .translations import Translations


PRIOR_NOTES = 2.0
"""How many notes the prior of a term's precision is worth."""
PRIOR = 0.5
MOST_TITLE_STEMS, LONGEST_NEW_CODE = 8, 7
"""Stems of a title at most; letters, the dot among them, of codes that are told by their titles alone: those of an encounter
are longer."""
FEW_BELOW = 4
OTHER_PHRASE = 3
"""Source of a term that is marked in a note in another language; see [`TitleTerm`]."""
_NO_MORE_KNOWN = re.compile(r"unspecified|\bNOS\b|\bNEC\b", re.IGNORECASE)
_EMPTY_WORDS = (
    "other specified unspecified with without type site due elsewhere classified not nos nec and or of in the to by for diseases "
    "otro otros otra otras especificado especificada especificados especificadas no con sin tipo sitio lugar parte debido "
    "clasificado clasificada clasificados clasificadas organismo y o de del la las el los en por a que"
)
_OPEN_END = frozenset(["of", "using", "with", "to", "from", "and", "or", "in", "for", "the", "into"])
_LATER = re.compile(r"subsequent encounter", re.IGNORECASE)

Rows = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class Notes(NamedTuple):
    """Training notes.

    Args:
        texts (`list[str]`), codes (`list[list[str]]`): of each note.
        phrases (`list[list[tuple[str, str]]]`): of each note, codes with the words that were marked for them.
        stems (`list[list[str]]`): of each note, as [`StemReader`] gives them.
    """

    texts: list[str]
    codes: list[list[str]]
    phrases: list[list[tuple[str, str]]]
    stems: list[list[str]]

    @classmethod
    def read(cls, texts: list[str], codes: list[list[str]], phrases: list[list[tuple[str, str]]]) -> "Notes":
        reader = StemReader()
        return cls(texts, codes, phrases, [reader.read(text).stems for text in texts])

    def take(self, rows: Iterable[int]) -> "Notes":
        rows = list(rows)
        return Notes(
            [self.texts[row] for row in rows],
            [self.codes[row] for row in rows],
            [self.phrases[row] for row in rows],
            [self.stems[row] for row in rows],
        )


class TitleTerm(NamedTuple):
    """A title or an inclusion term, as stems.

    Args:
        code (`str`), stems (`frozenset[str]`).
        source (`int`): 0 for a title, 1 for an inclusion term, 2 for a title in another language, 3 for words that are marked in a
            note in another language.
    """

    code: str
    stems: frozenset[str]
    source: int


@cache
def cue_stems() -> dict[int, frozenset[str]]:
    """The stems, as [`StemReader`] makes them, of the words that change what is said of a condition, by their role."""
    reader = StemReader()
    return {role: frozenset(reader.read(" ".join(sorted(words))).stems) for role, words in ROLES.items()}


def small_stems() -> frozenset[str]:
    """Stems that no term needs."""
    return cue_stems()[SMALL]


def marked_terms(
    texts: Sequence[str], marked: Sequence[Sequence[tuple[str, Sequence[Sequence[int]]]]]
) -> list[list[TitleTerm]]:
    """Of each note the words that are marked in it, as terms that are looked for like titles.

    Args:
        texts: in another language than that of the notes that are coded.
        marked: of each text, codes with the characters that justify them.
    """
    reader, left_out = StemReader(), small_stems() | set(SENTENCE_ENDS)
    found = []
    for text, of_note in zip(texts, marked, strict=True):
        terms: dict[TitleTerm, None] = {}
        for code, places in of_note:
            stems = stems_of_term(reader, " ".join(text[start:end] for start, end in places), left_out)
            if stems is not None:
                terms[TitleTerm(code, stems, OTHER_PHRASE)] = None
        found.append(list(terms))
    return found


def stems_of_term(reader: StemReader, phrase: str, left_out: Set[str]) -> frozenset[str] | None:
    """The stems of marked words; `None` where they are no term: without a word that is more than a number or a letter, or too many."""
    stems = frozenset(stem for stem in reader.read(phrase).stems if stem not in left_out)
    is_term = len(stems) <= MAX_WORDS and any(len(stem) > 1 and not stem.isdigit() for stem in stems)
    return stems if is_term else None


def categories_of(codes: Sequence[str]) -> dict[str, str]:
    """The category of each code; of a procedure of ICD-10-PCS its table, which says what is done in which body system."""
    classification = classification_of(codes)
    if classification is None:
        return {code: code.partition(".")[0] for code in codes}
    return {code: classification.family_of(code).category for code in codes}


def procedure_headings(titles: Mapping[str, str]) -> dict[str, str]:
    """Titles of the first four characters of procedures of ICD-10-PCS: the words with which the titles of all procedures below
    begin, such as `Resection of Bladder`."""
    below: dict[str, list[list[str]]] = {}
    for code, title in titles.items():
        if len(code) == 7 and "." not in code:
            below.setdefault(code[:4], []).append(title.partition(", ")[0].split())
    found = {}
    for code, of_code in below.items():
        words = [column[0] for column in takewhile(lambda column: len(set(column)) == 1, zip(*of_code, strict=False))]
        while words and words[-1].lower() in _OPEN_END:
            words.pop()
        if words:
            found[code] = " ".join(words)
    return found


def _is_like_known(code: str, known: Set[str], endings: Set[tuple[str, str]]) -> bool:
    """Whether a code may be given though no training note has it: of procedures those of four characters, and those that end as
    one of their table that is known does; of other codes all."""
    if "." in code or len(code) < 7 or code in known:
        return True
    return (code[:3], code[4:]) in endings


def title_terms(
    labels: Sequence[str], with_new: bool, other_titles: Mapping[str, str] | None = None, with_mapped: bool = False
) -> tuple[list[TitleTerm], dict[str, str]]:
    """The titles and inclusion terms of codes, and their titles.

    Args:
        labels (`Sequence[str]`): codes that training notes have.
        with_new (`bool`): whether those of all other codes of their classification and kind, too.
        other_titles (`Mapping[str, str]`, *optional*): titles in another language. One of a code that has others below it is one of
            these, too, where they are few or say that nothing more is known.
        with_mapped (`bool`): whether short titles and mapped terms are inclusion terms, too, of codes of ICD-9-CM, which has none
            of its own.
    """
    classification = classification_of(labels)
    if classification is None:
        return [], {}
    titles = {code: title for code, title in classification.load_titles().items() if _is_code(code, classification)}
    titles = {**procedure_headings(titles), **titles}
    kinds = {classification.kind_of(code) for code in labels if code in titles}
    known = set(labels)
    endings = {(code[:3], code[4:]) for code in known if len(code) == 7 and "." not in code}
    titles = {
        code: title
        for code, title in titles.items()
        if code in known
        or (
            with_new
            and len(code) <= LONGEST_NEW_CODE
            and not _LATER.search(title)
            and classification.kind_of(code) in kinds
            and _is_like_known(code, known, endings)
        )
    }
    others = further_icd9_terms() if with_mapped and classification is ICD9 else classification.load_terms()
    reader, small = StemReader(), small_stems()
    left_out = small | set(reader.read(_EMPTY_WORDS).stems) | set(SENTENCE_ENDS)
    found: dict[tuple[str, frozenset[str]], TitleTerm] = {}
    for code, title in titles.items():
        for text, source in ((title, TITLE), *((term, INCLUSION) for term in others.get(code, ()))):
            for variant, _ in variants(text, source):
                stems = frozenset(stem for stem in reader.read(variant).stems if stem not in left_out)
                if 0 < len(stems) <= MOST_TITLE_STEMS and any(len(stem) > 2 for stem in stems):
                    found.setdefault((code, stems), TitleTerm(code, stems, int(source == INCLUSION)))
    below: dict[str, list[str]] = {}
    for code in titles:
        for length in range(4, len(code)):
            below.setdefault(code[:length], []).append(code)
    for code, title in (other_titles or {}).items():
        for code_below in _codes_of(code, below, titles):
            stems = frozenset(stem for stem in reader.read(title).stems if stem not in left_out)
            if 0 < len(stems) <= MOST_TITLE_STEMS and any(len(stem) > 2 for stem in stems):
                found.setdefault((code_below, stems), TitleTerm(code_below, stems, 2))
    return list(found.values()), titles


def phrases_with_titles(
    phrases: Iterable[Sequence[tuple[str, str]]], titles: Iterable[TitleTerm]
) -> list[list[tuple[list[str], list[str]]]]:
    """Of each note the stems of its marked words, each with those of the title of their code: from these is learned what a word
    stands for in titles, such as `carcinoma` for `malignant neoplasm`."""
    title_of: dict[str, list[str]] = {}
    for term in titles:
        if term.source == 0 and len(term.stems) > len(title_of.get(term.code, ())):
            title_of[term.code] = sorted(term.stems)
    reader, left_out = StemReader(), small_stems() | set(SENTENCE_ENDS)
    found = []
    for of_note in phrases:
        pairs = [
            ([stem for stem in reader.read(phrase).stems if stem not in left_out], title_of[code])
            for code, phrase in of_note
            if code in title_of
        ]
        found.append([(own, title) for own, title in pairs if own])
    return found


def _codes_of(code: str, below: Mapping[str, Sequence[str]], titles: Mapping[str, str]) -> list[str]:
    """The codes that a title of another edition may be one of; `below` has the codes by their first letters."""
    own = below.get(code, []) if len(code) > 3 else [f"{code}.9", f"{code}.90"]
    few = own if len(own) <= FEW_BELOW else [other for other in own if _NO_MORE_KNOWN.search(titles[other])]
    return [other for other in dict.fromkeys((code, *few)) if other in titles]


def _is_code(code: str, classification: Classification) -> bool:
    return "-" not in code and code not in classification.chapters and (classification is ICD9 or len(code) > 2)


class Knowledge:
    """What a fused model looks up, made of training notes.

    Args:
        notes (`Notes`): to learn from.
        labels (`Sequence[str]`): the codes that they have, in the order of the scores.
        titles (`Sequence[TitleTerm]`): of any codes; those that no note has come behind the labels, sorted.
        title_texts (`Mapping[str, str]`): the titles.
        translations (`Translations`, *optional*): from the stems of notes to those of titles.
        parts (`Sequence[str]`): which words each note has is kept for `neighbours` alone, and linear classifiers are fitted for `words`.
    """

    def __init__(
        self,
        notes: Notes,
        labels: Sequence[str],
        titles: Sequence[TitleTerm] = (),
        title_texts: Mapping[str, str] | None = None,
        translations: Translations | None = None,
        parts: Sequence[str] = ("neighbours",),
    ):
        self.num_known = len(labels)
        known = set(labels)
        self.labels = [*labels, *sorted({term.code for term in titles} - known)]
        self.ids = {code: i for i, code in enumerate(self.labels)}
        self.category_of = categories_of(self.labels)
        self.reader, self.small = StemReader(), small_stems()
        self.stems_of_notes = notes.stems
        self.terms = self._marked_terms(notes)
        self.stems = self._vocabulary()
        self.stem_ids = {stem: i for i, stem in enumerate(self.stems)}
        self.terms.sort(key=lambda term: (self.stem_ids[term[0][0]], term[0]))
        documents = Counter(stem for stems in self.stems_of_notes for stem in set(stems))
        self.rarity = np.array([_rarity(len(notes.texts), documents[stem]) for stem in self.stems])
        self.finder = self._finder()
        self.parts = parts
        self.tables = self._tables(notes, titles, title_texts or {}, translations or Translations({}))
        self.stems_of_notes = []  # of no use any more, and as large as the notes

    def words_of(self, stems: list[str]) -> NoteWords:
        """A note, given its stems, as terms are looked for in it."""
        return self.finder.words_of(stems, [self.stem_ids.get(stem, 0) for stem in stems])

    def _marked_terms(self, notes: Notes) -> list[tuple[tuple[str, ...], dict[str, int]]]:
        """The terms, the rarest stem of each first, each with its codes and how many notes mark it for them."""
        marked: dict[frozenset[str], Counter] = {}
        left_out = self.small | set(SENTENCE_ENDS)
        for of_note in notes.phrases:
            own = set()
            for code, phrase in of_note:
                stems = stems_of_term(self.reader, phrase, left_out)
                if code in self.ids and stems is not None:
                    own.add((stems, code))
            for stems, code in own:
                marked.setdefault(stems, Counter())[code] += 1
        frequency = Counter(stem for stems in marked for stem in stems)
        return [
            (tuple(sorted(stems, key=lambda stem: (frequency[stem], stem))), dict(sorted(codes.items())))
            for stems, codes in marked.items()
        ]

    def _vocabulary(self) -> list[str]:
        cues = sorted({stem for stems in cue_stems().values() for stem in stems})
        of_terms = sorted({stem for stems, _ in self.terms for stem in stems})
        of_notes = sorted({stem for stems in self.stems_of_notes for stem in stems})
        return list(dict.fromkeys((UNKNOWN, *SENTENCE_ENDS, *cues, *of_terms, *of_notes)))

    def _finder(self) -> TermFinder:
        longest = max((len(stems) for stems, _ in self.terms), default=1)
        finder = TermFinder(len(self.stems), max(len(self.terms), 1), longest).eval()
        for role, stems in {**cue_stems(), END: frozenset(SENTENCE_ENDS)}.items():
            for stem in stems:
                finder.roles[self.stem_ids[stem]] |= role
        if self.terms:
            rows = [[self.stem_ids[stem] for stem in stems] for stems, _ in self.terms]
            anchors = torch.tensor([row[0] for row in rows])
            finder.starts.copy_(torch.searchsorted(anchors, torch.arange(len(self.stems) + 1)))
            finder.words.copy_(torch.tensor([row + [-1] * (longest - len(row)) for row in rows]))
        finder.forget_tables()
        return finder

    def _tables(
        self, notes: Notes, titles: Sequence[TitleTerm], title_texts: Mapping[str, str], translations: Translations
    ) -> Tables:
        title_stems = sorted({stem for term in titles for stem in term.stems})
        stem_ids = {stem: i for i, stem in enumerate(title_stems)}
        of_stem = [
            {stem_ids[other]: share for other, share in translations.shares.get(stem, {}).items() if other in stem_ids}
            for stem in self.stems
        ]
        categories = {name: i for i, name in enumerate(sorted(set(self.category_of.values())))}
        codes_of_notes = [{self.ids[code] for code in codes if code in self.ids} for codes in notes.codes]
        keeps_notes = "neighbours" in self.parts
        tables = Tables(
            stems=self.stems,
            rarity=_floats(self.rarity),
            terms=self._weighed([[self.stem_ids[stem] for stem in stems] for stems, _ in self.terms], self.rarity),
            pair_starts=row_starts([len(codes) for _, codes in self.terms]),
            pair_codes=torch.tensor([self.ids[code] for _, codes in self.terms for code in codes], dtype=torch.int32),
            pairs=self._pairs(notes),
            codes=self._codes(notes, title_texts),
            category=torch.tensor([categories[self.category_of[code]] for code in self.labels], dtype=torch.int32),
            notes=self._tfidf() if keeps_notes else _rows([]),
            note_codes=_rows([dict.fromkeys(codes, 1.0) for codes in codes_of_notes] if keeps_notes else []),
            title_stems=title_stems,
            title_rarity=torch.ones(len(title_stems)),
            titles=_rows([]),
            title_codes=torch.tensor([self.ids[term.code] for term in titles], dtype=torch.int32),
            title_sources=torch.tensor([term.source for term in titles], dtype=torch.int32),
            translations=_rows(of_stem),
            **(self._words(codes_of_notes) if "words" in self.parts else NO_WORDS),
        )
        if not titles:
            return tables
        rarity = self._rarity_of_titles(tables)
        stems = [[stem_ids[stem] for stem in sorted(term.stems)] for term in titles]
        return tables._replace(title_rarity=_floats(rarity), titles=self._weighed(stems, rarity))

    def _rarity_of_titles(self, tables: Tables) -> np.ndarray:
        """How rare each stem of titles is in what the training notes mean."""
        titles = TitleFinder(tables)
        counts = np.zeros(len(tables.title_stems))
        for stems in self.stems_of_notes:
            meant = {
                other
                for stem in set(stems)
                for other, weight in titles.meanings(stem, self.stem_ids.get(stem, 0)).items()
                if weight > 0.3
            }
            counts[list(meant)] += 1
        return np.array([_rarity(len(self.stems_of_notes), count) for count in counts])

    def _weighed(self, rows: Sequence[Sequence[int]], rarity: np.ndarray) -> Rows:
        """Rows of stems, each with the share of the row's rarity that it has."""
        shares = []
        for row in rows:
            own = rarity[list(row)]
            shares.append(dict(zip(row, (own / own.sum()).tolist(), strict=True)))
        return _rows(shares)

    def _pairs(self, notes: Notes) -> torch.Tensor:
        """The numbers of each pair of a term and a code; a term that was taken from notes is not tried on one of them."""
        tried: dict[bool, Counter] = {False: Counter(), True: Counter()}  # anyhow; cleanly
        right: dict[bool, Counter] = {False: Counter(), True: Counter()}
        for stems, codes in zip(self.stems_of_notes, notes.codes, strict=True):
            own, matches = set(codes), self.finder.find_all(self.words_of(stems))
            for cleanly in (False, True):
                for number in {found.term for found in matches if is_clean(found) or not cleanly}:
                    tried[cleanly][number] += 1
                    right[cleanly].update((number, code) for code in self.terms[number][1] if code in own)
        rows, clean = [], []
        for number, (term, of_term) in enumerate(self.terms):
            total, rarity = sum(of_term.values()), float(self.rarity[[self.stem_ids[stem] for stem in term]].sum())
            for code, marked in of_term.items():
                others, hits = (
                    [max(counts[cleanly][key] - 1, 0) for cleanly in (False, True)]
                    for counts, key in ((tried, number), (right, (number, code)))
                )
                rows.append((others[0], hits[0], marked, marked / total, len(term), rarity))
                clean.append((others[1], hits[1]))
        if not rows:
            return torch.zeros(0, 9)
        table, cleanly_said = np.array(rows), np.array(clean)
        priors = self._priors(table)
        precision, clean_precision = (
            (counts[:, 1] + PRIOR_NOTES * priors) / (counts[:, 0] + PRIOR_NOTES) for counts in (table, cleanly_said)
        )
        return _floats(np.column_stack([precision, table, clean_precision, cleanly_said[:, 0]]))

    @staticmethod
    def _priors(table: np.ndarray) -> np.ndarray:
        """The prior of a term's precision: that of terms of as many stems, and less where its words mark other codes, too."""
        others, hits, _, share, words, _ = table.T
        priors = np.full(MAX_WORDS + 1, PRIOR)
        for length in range(1, MAX_WORDS + 1):
            own = words == length
            if own.any():
                priors[length] = (hits[own].sum() + 5 * PRIOR * share[own].mean()) / (others[own].sum() + 5)
        return priors[words.astype(int)] * np.sqrt(share)

    def _codes(self, notes: Notes, titles: Mapping[str, str]) -> torch.Tensor:
        counts = Counter(code for codes in notes.codes for code in codes)
        of_category = Counter(
            name for codes in notes.codes for name in {self.category_of[code] for code in codes if code in self.ids}
        )
        above = {code[:length] for code in (*titles, *self.labels) for length in range(3, len(code))}
        rows = [
            (
                math.log1p(counts[code]),
                math.log1p(of_category[self.category_of[code]]),
                counts[code] / max(of_category[self.category_of[code]], 1),
                bool(_NO_MORE_KNOWN.search(titles.get(code, ""))),
                len(code),
                int(code[-1]) if code[-1].isdigit() else 10,
                code in above or f"{code}." in above,
                i < self.num_known,
                ord(code[0]),
            )
            for i, code in enumerate(self.labels)
        ]
        return _floats(np.array(rows, dtype=float))

    def _words(self, codes_of_notes: Sequence[Set[int]]) -> dict[str, Any]:
        return fit_words([grams_of(self.words_of(stems)) for stems in self.stems_of_notes], codes_of_notes)

    def _tfidf(self) -> Rows:
        columns, values = [np.zeros(0, np.int32)], [np.zeros(0, np.float32)]
        left_out = self.small | set(SENTENCE_ENDS)
        for stems in self.stems_of_notes:
            counts = Counter(stem for stem in stems if stem not in left_out)
            ids = np.array([self.stem_ids[stem] for stem in counts], np.int32)
            own = np.array([1 + math.log(count) for count in counts.values()]) * self.rarity[ids]
            order = ids.argsort()
            columns.append(ids[order])
            values.append((own / max(np.linalg.norm(own), 1e-9))[order].astype(np.float32))
        starts = row_starts([len(ids) for ids in columns[1:]])
        return starts, torch.from_numpy(np.concatenate(columns)), torch.from_numpy(np.concatenate(values))


def _rarity(num_notes: int, num_with: float) -> float:
    return math.log((num_notes + 1) / (num_with + 1)) + 1


def _floats(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))


def _rows(rows: Sequence[Mapping[int, float]]) -> Rows:
    """A matrix with few entries; see [`Tables`]."""
    ordered = [sorted(row.items()) for row in rows]
    columns = [column for row in ordered for column, _ in row]
    values = [value for row in ordered for _, value in row]
    starts = row_starts([len(row) for row in ordered])
    return starts, torch.tensor(columns, dtype=torch.int32), torch.tensor(values, dtype=torch.float32)


def token_bytes(tokenizer: PreTrainedTokenizerBase) -> list[bytes]:
    """The bytes that each token of a byte-level vocabulary stands for; of a special one, none.

    Raises:
        ValueError: where the vocabulary is not one of bytes, so that a note cannot be read from its tokens.
    """
    letters = _byte_letters()
    special, parts = set(tokenizer.all_special_ids), [b""] * len(tokenizer)
    for token, number in tokenizer.get_vocab().items():
        if number in special:
            continue
        unknown = [letter for letter in token if letter not in letters]
        if unknown:
            if number in tokenizer.added_tokens_decoder:
                continue
            raise ValueError(
                "A fused model reads the words of a note from its tokens, and this backbone's are not made of bytes: take one with a "
                "byte-level tokenizer, such as `smollm2`."
            )
        parts[number] = bytes(letters[letter] for letter in token)
    return parts


def _byte_letters() -> dict[str, int]:
    """The letters that stand for bytes in byte-level vocabularies, as GPT-2 has them."""
    own = [*range(ord("!"), ord("~") + 1), *range(ord("\xa1"), ord("\xac") + 1), *range(ord("\xae"), ord("\xff") + 1)]
    others = [byte for byte in range(256) if byte not in own]
    return {chr(byte): byte for byte in own} | {chr(256 + i): byte for i, byte in enumerate(others)}

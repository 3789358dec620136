"""What a fused model knows of a note and a code: terms that the note says, notes like it, and what is known of the code.

All of it comes from tables of integers and numbers that were made of training notes and of titles. The same code makes the
features that the model was fitted on and those that it scores.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import log, log1p
from typing import NamedTuple

import torch
from torch.nn.functional import embedding_bag

from .fusion_tables_icd import Tables, sparse_rows
from .fusion_text_icd import SYNONYM, SYNONYMS, Alike, Found, NoteWords, TermFinder
from .fusion_titles_icd import TitleFinder
from .fusion_words_icd import WordScorer


FEATURES = (
    # Of the terms of the code that the note says: how often the best one was right, and what else is known of it.
    *("precision", "precision_uncovered", "log_tried", "right", "marked", "share", "words", "rarity", "spread"),
    *(
        "num_found",
        "num_terms",
        "noisy_or",
        "first",
        "denied",
        "all_denied",
        "family",
        "covered",
        "competition",
        "repeated",
    ),
    *("covered_share", "longer", "longer_at_best", "clean_precision", "log_clean_tried", "clean_found"),
    # Of those of which a sentence has a part, by stems and by stems like them.
    *("part", "part_precision", "part_rarity", "like", "like_precision"),
    # Of the other codes of its category.
    *("sibling", "sibling_part", "ahead_of_sibling"),
    # Of the code itself.
    *("log_count", "log_category", "category_share", "unspecified", "length", "last_digit", "has_below", "is_known"),
    "chapter",
    # Of training notes like this one.
    *("nearest_10", "nearest_50", "nearest_with"),
    # Of the note.
    *("log_length", "num_codes_found", "sum_precision"),
    # Of the titles of the code.
    *("title", "title_rarity", "title_words", "title_source", "title_spread", "title_denied", "title_competition"),
    *("title_missing", "title_first", "title_covered", "title_rivals", "title_sure", "title_word_rarity"),
    *("title_explained", "title_rank", "title_sibling_rank", "title_sibling", "title_ahead", "category_precision"),
    # Of the head over hidden states.
    *("head_logit", "head_rank", "head_margin"),
)
AT = {name: place for place, name in enumerate(FEATURES)}
PARTS = ("phrases", "titles", "neighbours", "words", "head")
"""What can be left out: terms of training notes, titles, training notes like this one, linear scores of words, the head over hidden
states."""
NOWHERE = (9.0, 2.0, 300.0)
"""Spread, first place and rank of what is not found."""
MOST_NEW = 60
"""Codes that no training note has and that are scored in a note, at most."""
LEAST_ALIKE = 0.55
"""How alike two stems are at least, for one to count as a part of the other; see `Alike`."""
HEAD_CODES = 30
"""The best codes of the head, all of which are scored."""
FREQUENT_NOTES, FREQUENT_CODES = 7, 300
"""A code that more training notes have is scored in every note, where it is one of so many most frequent codes."""


class Scored(NamedTuple):
    """The codes of a note that are scored.

    Args:
        codes (`torch.LongTensor` of shape `(K,)`): their numbers.
        features (`torch.FloatTensor` of shape `(K, F)`): see `FEATURES`.
        evidence (`dict[int, list[tuple[float, tuple[int, ...], str]]]`): of each code the places among the note's stems that say
            one of its terms or titles, each with a score and with `"term"` or `"title"`.
        word_scores (`torch.FloatTensor` of shape `(K,)`): what is added to what the trees give.
    """

    codes: torch.Tensor
    features: torch.Tensor
    evidence: dict[int, list[tuple[float, tuple[int, ...], str]]]
    word_scores: torch.Tensor


def best_of(places: torch.Tensor, values: torch.Tensor, size: int) -> torch.Tensor:
    """The highest of the values at each place, `(size,)`; 0 where there is none above it."""
    return torch.zeros(size).scatter_reduce(0, places.long(), values.float(), "amax")


class FeatureMaker:
    """Makes the features of notes.

    Args:
        tables (`Tables`): what is looked up.
        finder (`TermFinder`): finds its terms.
        num_known (`int`): S.
        parts (`Sequence[str]`): of `PARTS`; the features of the others are 0.
    """

    def __init__(self, tables: Tables, finder: TermFinder, num_known: int, parts: Sequence[str] = PARTS):
        self.tables, self.finder, self.num_known, self.parts = tables, finder, num_known, parts
        self.ids = {stem: i for i, stem in enumerate(tables.stems)}
        starts, columns, values = tables.terms
        of_terms = columns.unique()  # of all stems these alone can be a part of a term
        self.place_of_stem = {stem: place for place, stem in enumerate(of_terms.tolist())}
        self.terms = sparse_rows((starts, torch.searchsorted(of_terms, columns), values), len(of_terms))
        self.alike = Alike([tables.stems[i] for i in self.place_of_stem], LEAST_ALIKE)
        self._alike: dict[str, dict[int, float]] = {}
        self.longer = _longer_terms(tables)
        self.codes_of_notes = tables.note_codes[1].long()
        lengths = tables.note_codes[0].diff().long()
        self.note_of_code = torch.arange(len(lengths)).repeat_interleave(lengths)
        counts = tables.codes[:num_known, 0]  # the log of their training notes
        self.is_frequent = torch.zeros(num_known, dtype=torch.bool)
        self.is_frequent[counts.argsort(descending=True, stable=True)[:FREQUENT_CODES]] = True
        self.is_frequent &= counts > log1p(FREQUENT_NOTES)
        self.pair_terms = torch.arange(len(tables.pair_starts) - 1).repeat_interleave(tables.pair_starts.diff().long())
        self.pair_starts, self.pair_codes, self.pairs = (
            tensor.tolist() for tensor in (tables.pair_starts, tables.pair_codes, tables.pairs)
        )
        self.titles = TitleFinder(tables) if "titles" in parts and len(tables.title_codes) else None
        self.words = WordScorer(tables) if "words" in parts and len(tables.gram_codes) else None

    def make(self, stems: list[str], head_logits: torch.Tensor | None = None) -> Scored:
        """The features of a note.

        Args:
            stems (`list[str]`): of the note.
            head_logits (`torch.Tensor` of shape `(S,)`, *optional*): of the head.
        """
        note = self.finder.words_of(stems, [self.ids.get(stem, 0) for stem in stems])
        known = torch.zeros(self.num_known, len(FEATURES))
        known[:, AT["spread"]], known[:, AT["first"]], known[:, AT["title_rank"]] = NOWHERE
        first = AT["log_count"]
        known[:, first : AT["chapter"] + 1] = self.tables.codes[: self.num_known]
        found = self.finder.find_all(note) if "phrases" in self.parts else []
        shares = self._add_parts(known, note) if "phrases" in self.parts else torch.zeros(0, 0)
        evidence = self._add_terms(known, note, found, shares)
        self._add_siblings(known)
        if "neighbours" in self.parts:
            self._add_neighbours(known, note)
        known[:, AT["log_length"]] = log(max(len(stems), 1))
        known[:, AT["num_codes_found"]] = float((known[:, AT["precision"]] > 0).sum())
        known[:, AT["sum_precision"]] = known[:, AT["precision_uncovered"]].sum()
        if head_logits is not None and "head" in self.parts:
            known[:, AT["head_logit"]] = head_logits
            known[head_logits.argsort(descending=True, stable=True), AT["head_rank"]] = torch.arange(
                len(known)
            ).float()
            tenth = head_logits.sort(descending=True).values[min(9, len(head_logits) - 1)]
            known[:, AT["head_margin"]] = head_logits - tenth
        word_scores = torch.zeros(len(self.tables.codes)) if self.words is None else self.words.score(note)
        new = self._add_titles(known, note, found, evidence)
        is_scored = are_told(known, word_scores[: self.num_known]) | self.is_frequent
        codes = torch.tensor([*is_scored.nonzero().flatten().tolist(), *new], dtype=torch.long)
        return Scored(codes, torch.cat([known[is_scored], *new.values()]), evidence, word_scores[codes])

    def _add_terms(
        self, known: torch.Tensor, note: NoteWords, found: list[Found], shares: torch.Tensor
    ) -> dict[int, list]:
        """The features of the terms that are found; and their places, by code. `shares` `(T, sentences)` is what each sentence has of
        each term."""
        starts, codes, stats = self.pair_starts, self.pair_codes, self.pairs
        best_at = self._precision_at(found)
        by_code: dict[int, list[_Pair]] = {}
        for match in found:
            highest = max(max(best_at[place].values()) for place in match.positions)
            others = self.longer.get(match.term)
            longer = 0.0 if others is None else float(shares[others, note.sentences[match.positions[0]]].max())
            for pair in range(starts[match.term], starts[match.term + 1]):
                precision = stats[pair][0]
                by_code.setdefault(codes[pair], []).append(_Pair(precision, pair, match, highest, longer))
        length = max(len(note.stems), 1)
        occurrences: dict[int, int] = {}
        for match in found:
            occurrences[match.term] = occurrences.get(match.term, 0) + 1
        for code, own in by_code.items():
            values = _of_terms(own, stats, length, occurrences)
            known[code, [AT[name] for name in values]] = torch.tensor([*values.values()], dtype=torch.float)
        return {
            code: [(pair.precision, pair.match.positions, "term") for pair in own] for code, own in by_code.items()
        }

    def _precision_at(self, found: list[Found]) -> dict[int, dict[int, float]]:
        """Of each place of a note the codes of terms that are found there, each with the highest precision of these."""
        at: dict[int, dict[int, float]] = {}
        for match in found:
            for pair in range(self.pair_starts[match.term], self.pair_starts[match.term + 1]):
                code, precision = self.pair_codes[pair], self.pairs[pair][0]
                for place in match.positions:
                    own = at.setdefault(place, {})
                    own[code] = max(own.get(code, 0.0), precision)
        return at

    def _add_parts(self, known: torch.Tensor, note: NoteWords) -> torch.Tensor:
        """The features of terms of which a sentence has a part. Returns what each sentence has of each term, `(T, sentences)`."""
        size, stats = self.num_known, self.tables.pairs
        places = [i for i, is_content in enumerate(note.is_content) if is_content]
        said = torch.zeros(len(self.place_of_stem), max(note.sentences, default=0) + 1)
        best: dict[tuple[int, int], float] = {}
        for place in places:
            stem, sentence = note.stems[place], note.sentences[place]
            own = self.place_of_stem.get(note.ids[place])
            if own is not None:
                said[own, sentence] = 1.0
            if stem not in self._alike:
                same = {self.place_of_stem.get(self.ids.get(other, -1)): SYNONYM for other in SYNONYMS.get(stem, ())}
                alike = {**self.alike.find(stem), **same, own: 1.0}
                self._alike[stem] = {place: likeness for place, likeness in alike.items() if place is not None}
            for other, likeness in self._alike[stem].items():
                best[other, sentence] = max(best.get((other, sentence), 0.0), likeness)
        like = torch.zeros_like(said)
        if best:
            rows, columns = torch.tensor([*best]).T
            like[rows, columns] = torch.tensor([*best.values()])
        shares = self.terms @ said
        share = shares.amax(dim=1)[self.pair_terms]  # (P,)
        known[:, AT["part"]] = best_of(self.tables.pair_codes, share, size)
        known[:, AT["part_precision"]] = best_of(self.tables.pair_codes, share * stats[:, 0], size)
        known[:, AT["part_rarity"]] = best_of(self.tables.pair_codes, share**2 * stats[:, 6], size)
        share = (self.terms @ like).amax(dim=1)[self.pair_terms]
        known[:, AT["like"]] = best_of(self.tables.pair_codes, share, size)
        known[:, AT["like_precision"]] = best_of(self.tables.pair_codes, share**2 * stats[:, 0], size)
        return shares

    def _add_siblings(self, known: torch.Tensor) -> None:
        """The best of the other codes of a category."""
        category = self.tables.category[: self.num_known].long()
        for source, target in (("precision_uncovered", "sibling"), ("part_precision", "sibling_part")):
            known[:, AT[target]] = best_sibling(known[:, AT[source]], category)
        known[:, AT["ahead_of_sibling"]] = known[:, AT["precision_uncovered"]] - known[:, AT["sibling"]]
        of_category = best_of(category, known[:, AT["precision_uncovered"]], int(self.tables.category.max()) + 1)
        known[:, AT["category_precision"]] = of_category[category]

    def _add_neighbours(self, known: torch.Tensor, note: NoteWords) -> None:
        """Which codes the training notes have whose words are those of this one."""
        counts: dict[int, int] = {}
        for place, stem in enumerate(note.ids):
            if stem and note.is_content[place]:
                counts[stem] = counts.get(stem, 0) + 1
        vector = torch.zeros(len(self.tables.stems))
        for stem, count in counts.items():
            vector[stem] = (1 + log(count)) * self.tables.rarity[stem]
        starts, columns, values = self.tables.notes
        # The product of the table and the vector, many times faster than by a sparse matrix of torch.
        vector = (vector / vector.norm().clamp(min=1e-9))[:, None]
        likeness = embedding_bag(columns, vector, starts[:-1], mode="sum", per_sample_weights=values)[:, 0]  # (N,)
        codes, of_note = self.codes_of_notes, self.note_of_code
        known[:, AT["nearest_with"]] = best_of(codes, likeness[of_note], self.num_known)
        order = likeness.argsort(descending=True, stable=True)
        for name, number in (("nearest_10", 10), ("nearest_50", 50)):
            weights = torch.zeros(len(likeness))
            weights[order[:number]] = likeness[order[:number]]
            sums = torch.zeros(self.num_known).index_add(0, codes, weights[of_note])
            known[:, AT[name]] = sums / weights.sum().clamp(min=1e-9)

    def _add_titles(
        self, known: torch.Tensor, note: NoteWords, found: list[Found], evidence: dict[int, list]
    ) -> dict[int, torch.Tensor]:
        """The features of titles. Returns the features `(1, F)` of codes that no training note has."""
        said = {} if self.titles is None else self.titles.find(note, self._precision_at(found))
        rows: dict[int, torch.Tensor] = {}
        for code, (values, positions) in said.items():
            if code >= self.num_known and len(rows) == MOST_NEW:
                continue
            if code < self.num_known:
                row = known[code]
            else:
                row = rows[code] = self._row_of_new(code, known)
            row[[AT[name] for name in values]] = torch.tensor([*values.values()], dtype=torch.float)
            evidence.setdefault(code, []).append((values["title"] / 2, positions, "title"))
        return {code: row[None] for code, row in rows.items()}

    def _row_of_new(self, code: int, known: torch.Tensor) -> torch.Tensor:
        """The features of a code that no training note has, but for those of its title."""
        row = torch.zeros(len(FEATURES))
        row[AT["spread"]], row[AT["first"]], row[AT["title_rank"]] = NOWHERE
        row[AT["log_count"] : AT["chapter"] + 1] = self.tables.codes[code]
        for name in ("log_length", "num_codes_found", "sum_precision"):
            row[AT[name]] = known[0, AT[name]]
        siblings = self.tables.category[: self.num_known] == self.tables.category[code]
        best = float(known[siblings, AT["precision_uncovered"]].max()) if siblings.any() else 0.0
        row[AT["sibling"]], row[AT["ahead_of_sibling"]], row[AT["category_precision"]] = best, -best, best
        return row


def are_told(features: torch.Tensor, word_scores: torch.Tensor) -> torch.Tensor:
    """Of which codes something in a note speaks for them, bool `(K,)`, given their features `(K, F)` and the scores of words `(K,)`: a
    term or a title, or a part of one, notes like it, its words, or the head, whose logits are 0 where there is none."""
    told = (features[:, AT["precision"]] > 0) | (features[:, AT["part"]] > 0.5) | (features[:, AT["like"]] > 0.6)
    told |= (features[:, AT["title"]] > 0) | (features[:, AT["nearest_10"]] > 0.1)
    told |= word_scores > 0
    return told | ((features[:, AT["head_rank"]] < HEAD_CODES) & (features[:, AT["head_logit"]] != 0))


def best_sibling(values: torch.Tensor, category: torch.Tensor) -> torch.Tensor:
    """For each code the highest value of the other codes of its category, `(S,)`; 0 where there is none."""
    size = int(category.max()) + 1
    best = best_of(category, values, size)[category]
    order = values.argsort(stable=True)  # so that the last one of a category stays
    first = torch.full((size,), -1, dtype=torch.long)
    first[category[order]] = order
    is_first = torch.arange(len(values)) == first[category]
    return torch.where(is_first, best_of(category, values.masked_fill(is_first, 0.0), size)[category], best)


class _Pair(NamedTuple):
    """A term of a code that is found: its precision, the number of the pair, where it is, the highest precision there, and the largest
    share that the sentence has of a longer term with all of its stems."""

    precision: float
    pair: int
    match: Found
    highest: float
    longer: float


def _longer_terms(tables: Tables) -> dict[int, list[int]]:
    """Of each term those that have all of its stems and more."""
    starts, columns, _ = tables.terms
    rows = [set(columns[start:end].tolist()) for start, end in pairwise(starts.tolist())]
    with_stem: dict[int, set[int]] = {}
    for number, row in enumerate(rows):
        for stem in row:
            with_stem.setdefault(stem, set()).add(number)
    found = {}
    for number, row in enumerate(rows):
        others = set.intersection(*(with_stem[stem] for stem in row)) - {number}
        if others:
            found[number] = sorted(others)
    return found


def _of_terms(
    own: list[_Pair], stats: list[list[float]], length: int, occurrences: Mapping[int, int]
) -> dict[str, float]:
    """The features of the terms of one code."""
    best = max(own, key=_worth)
    _, tried, right, marked, share, words, rarity, *_ = stats[best.pair]
    clean = [pair for pair in own if is_clean(pair.match)]
    cleanest = max(clean, key=lambda pair: stats[pair.pair][7], default=None)
    by_term = {pair.match.term: pair.precision for pair in own}
    missed = 1.0
    for precision in by_term.values():
        missed *= 1 - precision
    matches = [pair.match for pair in own]
    denied, covered = [match.is_denied for match in matches], [match.is_covered for match in matches]
    return {
        "precision": max(pair.precision for pair in own),
        "precision_uncovered": max((pair.precision for pair in own if not pair.match.is_covered), default=0.0),
        "log_tried": log1p(tried),
        "right": right,
        "marked": marked,
        "share": share,
        "words": words,
        "rarity": rarity,
        "spread": min(match.spread for match in matches),
        "num_found": len(own),
        "num_terms": len(by_term),
        "noisy_or": 1 - missed,
        "first": min(match.positions[0] for match in matches) / length,
        "denied": sum(denied) / len(denied),
        "all_denied": float(all(denied)),
        "family": sum(match.is_of_family for match in matches) / len(own),
        "covered": float(all(covered)),
        "competition": best.highest - best.precision,
        "repeated": occurrences[best.match.term],
        "covered_share": sum(covered) / len(covered),
        "longer": min(pair.longer for pair in own),
        "longer_at_best": min(pair.longer for pair in own if pair.pair == best.pair),
        "clean_precision": stats[cleanest.pair][7] if cleanest else 0.0,
        "log_clean_tried": log1p(stats[cleanest.pair][8]) if cleanest else 0.0,
        "clean_found": len(clean),
    }


def is_clean(match: Found) -> bool:
    """Whether a term is said for itself: neither denied, nor of a relative, nor within a longer term."""
    return not (match.is_covered or match.is_denied or match.is_of_family)


def _worth(pair: _Pair) -> tuple[float, float]:
    """By which the best of a code's terms is chosen."""
    of_place = 0.5 if pair.match.is_covered else 1.0
    return pair.precision * of_place / (0.8 + 0.2 * pair.match.spread), -pair.match.spread

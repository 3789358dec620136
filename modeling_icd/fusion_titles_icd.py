"""Finds the codes whose titles a note says, by its own words, by words of the same meaning and by translations."""

from collections.abc import Mapping

import torch

from .fusion_tables_icd import Tables, sparse_rows
from .fusion_text_icd import SYNONYM, SYNONYMS, Alike, NoteWords, cognate_of


LEAST_TITLE = 0.6
"""Of a title's stems, weighed by their rarity, the share that a note must have close together."""
MOST_TITLES = 400
"""Titles that are looked at in a note, at most."""
WINDOW, STEP = 14, 7
"""Words, small ones not counted, that a title is looked for in, and from one such window to the next."""
LEAST_MEANT = 0.3
"""How surely a word means one of a title's, for that not to count as missing."""
LEAST_COGNATE = 0.7
"""The same of a stem of a note and one of a title, as cognates are written."""


class TitleFinder:
    """Looks for titles: in windows of a sentence, each the stems of titles that its words mean."""

    def __init__(self, tables: Tables):
        self.tables = tables
        self.ids = {stem: i for i, stem in enumerate(tables.title_stems)}
        self.cognates: dict[str, list[int]] = {}
        for i, stem in enumerate(tables.title_stems):
            if len(cognate_of(stem)) >= 4:
                self.cognates.setdefault(cognate_of(stem), []).append(i)
        self.alike = Alike([cognate_of(stem) for stem in tables.title_stems], LEAST_COGNATE)
        self.matrix = sparse_rows(tables.titles, len(tables.title_stems))
        starts, columns, shares = tables.titles
        self.starts, self.columns, self.shares = starts.tolist(), columns.tolist(), shares.tolist()
        self.codes, self.sources, self.category = (
            tensor.tolist() for tensor in (tables.title_codes, tables.title_sources, tables.category)
        )
        rows = torch.arange(len(starts) - 1).repeat_interleave(starts.diff().long())
        sums = torch.zeros(len(starts) - 1).index_add(0, rows, tables.title_rarity[columns.long()])
        self.rarity = sums  # (U,)
        self._known: dict[str, dict[int, float]] = {}
        self._sure: dict[str, frozenset[int]] = {}
        self.note_rarity = tables.rarity.tolist()
        self.highest_rarity = max(self.note_rarity, default=1.0)

    def meanings(self, stem: str, number: int) -> dict[int, float]:
        """The stems of titles that a stem of a note means, each with a weight in [0, 1].

        Args:
            number (`int`): of the stem among those that are known; 0: of none.
        """
        if stem not in self._known:
            starts, columns, values = self.tables.translations
            own = range(int(starts[number]), int(starts[number + 1])) if number else ()
            found = {int(columns[i]): min(1.0, 1.5 * float(values[i])) for i in own}
            sure = set(self.cognates.get(cognate_of(stem), ()))
            for i in sure:
                found[i] = max(found.get(i, 0.0), 0.9)
            for i, likeness in self.alike.find(cognate_of(stem)).items():
                found[i] = max(found.get(i, 0.0), 0.9 * likeness)
            for other in SYNONYMS.get(stem, ()):
                if other in self.ids:
                    found[self.ids[other]] = max(found.get(self.ids[other], 0.0), SYNONYM)
                    sure.add(self.ids[other])
            if stem in self.ids:
                found[self.ids[stem]] = 1.0
                sure.add(self.ids[stem])
            self._known[stem], self._sure[stem] = found, frozenset(sure)
        return self._known[stem]

    def find(
        self, note: NoteWords, precision: Mapping[int, Mapping[int, float]]
    ) -> dict[int, tuple[dict[str, float], tuple[int, ...]]]:
        """Of the codes whose titles a note says, the most likely first: the features, and the places that say the title.

        Args:
            precision (`Mapping[int, Mapping[int, float]]`): of each place of the note the codes of terms that are found there, each
                with the highest precision of these.
        """
        windows = list(self._windows(note))
        if not windows:
            return {}
        meant = torch.zeros(len(self.ids), len(windows))
        for column, (weights, _) in enumerate(windows):
            meant[list(weights), column] = torch.tensor(list(weights.values()))
        shares, best = (self.matrix @ meant).max(dim=1)  # (U,)
        rows = (shares > LEAST_TITLE).nonzero().flatten()
        worth = shares[rows] ** 2 * self.rarity[rows]
        found: dict[int, tuple[dict[str, float], tuple[int, ...]]] = {}
        seen: dict[int, tuple[int, float]] = {}
        for row in rows[worth.argsort(descending=True, stable=True)][:MOST_TITLES].tolist():
            code = self.codes[row]
            if code in found:
                continue
            stems, place_of = range(self.starts[row], self.starts[row + 1]), windows[int(best[row])][1]
            places = tuple(sorted({place_of[self.columns[i]] for i in stems if self.columns[i] in place_of}))
            values = self._values(row, float(shares[row]), places, note, precision)
            values["title_missing"] = sum(float(meant[self.columns[i], best[row]]) < LEAST_MEANT for i in stems)
            values["title_sure"] = sum(
                self.shares[i]
                for i in stems
                if (place := place_of.get(self.columns[i])) is not None
                and self.columns[i] in self._sure[note.stems[place]]
            )
            category = self.category[code]
            number, highest = seen.get(category, (0, 0.0))
            values |= {"title_rank": len(found), "title_sibling_rank": number, "title_sibling": highest}
            seen[category] = (number + 1, max(highest, values["title_rarity"]))
            found[code] = values, places
        _add_competition(found)
        _add_rivals(found)
        return found

    def _windows(self, note: NoteWords):
        """Of each window the stems of titles that its words mean, with their weights, and where each stands."""
        sentences: dict[int, list[int]] = {}
        for place, is_content in enumerate(note.is_content):
            if is_content:
                sentences.setdefault(note.sentences[place], []).append(place)
        for places in sentences.values():
            for start in range(0, max(1, len(places) - WINDOW + STEP), STEP):
                weights: dict[int, float] = {}
                where: dict[int, int] = {}
                for place in places[start : start + WINDOW]:
                    for stem, weight in self.meanings(note.stems[place], note.ids[place]).items():
                        if weight > weights.get(stem, 0.0):
                            weights[stem], where[stem] = weight, place
                if weights:
                    yield weights, where

    def _values(
        self,
        row: int,
        share: float,
        places: tuple[int, ...],
        note: NoteWords,
        precision: Mapping[int, Mapping[int, float]],
    ) -> dict[str, float]:
        code = self.codes[row]
        at = [
            max((value for other, value in precision.get(place, {}).items() if other != code), default=0.0)
            for place in places
        ]
        return {
            "title": share,
            "title_rarity": share**2 * float(self.rarity[row]),
            "title_words": self.starts[row + 1] - self.starts[row],
            "title_source": self.sources[row],
            "title_spread": (note.order[places[-1]] - note.order[places[0]] + 1) / len(places),
            "title_first": places[0] / len(note.stems),
            "title_word_rarity": sum(self._rarity_at(note, place) for place in places) / len(places),
            "title_denied": sum(note.denied[place] for place in places) / len(places),
            "title_competition": max(at),
            "title_explained": sum(value > 0.4 for value in at) / len(at),
        }

    def _rarity_at(self, note: NoteWords, place: int) -> float:
        """How rare a word is in training notes; one that they lack is as rare as any."""
        return self.note_rarity[note.ids[place]] if note.ids[place] else self.highest_rarity


def _add_competition(found: dict[int, tuple[dict[str, float], tuple[int, ...]]]) -> None:
    """How much rarer the words of a title are than those of the best other title that some of the same words say."""
    best: dict[int, list[tuple[float, int]]] = {}
    for code, (values, places) in found.items():
        for place in places:
            best[place] = sorted([*best.get(place, []), (values["title_rarity"], code)], reverse=True)[:2]
    for code, (values, places) in found.items():
        others = [rarity for place in places for rarity, other in best[place] if other != code]
        values["title_ahead"] = values["title_rarity"] - max(others, default=0.0)


def _add_rivals(found: dict[int, tuple[dict[str, float], tuple[int, ...]]]) -> None:
    """How many other titles are said by all the words that say a title, and how many of these by further words, too."""
    with_place: dict[int, set[int]] = {}
    for code, (_, places) in found.items():
        for place in places:
            with_place.setdefault(place, set()).add(code)
    for values, places in found.values():
        over_all = set.intersection(*(with_place[place] for place in places))
        values["title_covered"] = sum(len(found[other][1]) > len(places) for other in over_all)
        values["title_rivals"] = len(over_all) - 1

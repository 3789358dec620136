"""Write an invented corpus in the shape of MIMIC-III v1.4, with the words that justify each code.

    python -m dataset_scripts.synthetic --output_dir DIR --num_admissions 1000 --seed 0

The folder then holds the tables that the MIMIC-III builder reads (same names, columns, quoting and compression), split
lists in the form of caml-mimic, and `evidence.jsonl.gz`: for each discharge summary and addendum, the character spans of
its TEXT that justify each code, and those that only mention a code which does not apply. No patient, hospital or note in
it is real.

One subject at a time: `plan_admissions` draws who is admitted and with which codes, `NoteWriter` puts that into words,
`write_corpus` writes the files. The words are in `synthetic_phrases.py`, the codes in `synthetic_concepts.py`.
"""

import argparse
import gzip
import hashlib
import io
import json
import os
import random
import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from tqdm import tqdm

from . import synthetic_phrases as phrases
from .sources import find_tables, read_table
from .synthetic_concepts import (
    CHRONIC,
    COMBINES,
    CONCEPTS,
    DOSES,
    EVENT,
    EXCLUSIVE,
    EXTERNAL,
    FAMILIAL_CODES,
    FAMILY_CODES,
    IMAGING,
    INFECTION,
    KIN,
    LABS,
    METABOLIC,
    MIN_DAYS,
    NOT_FAMILIAL_CODES,
    PAST_HAS_CODE,
    PROCEDURE,
    REQUIRES,
    SOCIAL_CODES,
    STATUS,
    THEMES,
    Concept,
)


CORPUS_VERSION = "1.0"
MARKER_FILE, EVIDENCE_FILE = "SYNTHETIC", "evidence.jsonl.gz"
PARTIAL_FOLDER = ".synthetic-partial"
SPLITS = ("train", "dev", "test")
NUM_TOP_CODES = 50

TABLES: dict[str, tuple[str, ...]] = {
    "NOTEEVENTS": (
        "ROW_ID",
        "SUBJECT_ID",
        "HADM_ID",
        "CHARTDATE",
        "CHARTTIME",
        "STORETIME",
        "CATEGORY",
        "DESCRIPTION",
        "CGID",
        "ISERROR",
        "TEXT",
    ),
    "DIAGNOSES_ICD": ("ROW_ID", "SUBJECT_ID", "HADM_ID", "SEQ_NUM", "ICD9_CODE"),
    "PROCEDURES_ICD": ("ROW_ID", "SUBJECT_ID", "HADM_ID", "SEQ_NUM", "ICD9_CODE"),
    "D_ICD_DIAGNOSES": ("ROW_ID", "ICD9_CODE", "SHORT_TITLE", "LONG_TITLE"),
    "D_ICD_PROCEDURES": ("ROW_ID", "ICD9_CODE", "SHORT_TITLE", "LONG_TITLE"),
}
CORPUS_FILES = (
    MARKER_FILE,
    *(f"{table}.csv.gz" for table in TABLES),
    EVIDENCE_FILE,
    *(f"{split}_{code_set}_hadm_ids.csv" for code_set in ("full", "50") for split in SPLITS),
    "TOP_50_CODES.csv",
)


@dataclass(frozen=True)
class Length:
    """How long a note is, and how much it says about each code.

    Args:
        words (`tuple[int, int]`): Range that plain text is added to reach; evidence alone may exceed it.
        repeats (`float`): Chance that a code is shown in each further place, after the first.
        distractors (`float`): Mentions that justify nothing, per assigned code.
        lab_lines (`int`): Rounds of blood results.
        plain_drugs (`int`): Home drugs that show no code.
    """

    words: tuple[int, int]
    repeats: float
    distractors: float
    lab_lines: int
    plain_drugs: int


LENGTHS: dict[str, Length] = {
    "short": Length(words=(180, 250), repeats=0.06, distractors=0.6, lab_lines=1, plain_drugs=1),
    "default": Length(words=(350, 450), repeats=0.2, distractors=0.95, lab_lines=1, plain_drugs=4),
    "long": Length(words=(1500, 2100), repeats=0.6, distractors=1.7, lab_lines=5, plain_drugs=12),
}


# ----------------------------------------------------------------------------------------------------------------------
# Who is admitted, and with which codes


@dataclass(frozen=True)
class Admission:
    """One stay: whom, when, and the codes in the order of their SEQ_NUM (diagnoses and procedures together)."""

    subject_id: int
    hadm_id: int
    split: str
    sex: str
    age: int
    admitted: date
    days: int
    themes: tuple[str, ...]
    codes: tuple[str, ...]


def _groups_of(groups: Sequence[tuple[str, ...]]) -> dict[str, set[str]]:
    """Each code with all the codes that it shares a group with."""
    together: dict[str, set[str]] = {}
    for group in groups:
        for code in group:
            together.setdefault(code, set()).update(group)
    return together


_NEIGHBOURS = _groups_of(EXCLUSIVE)
_KIN = _groups_of((*EXCLUSIVE, *KIN))


def _theme_coverage(themes: tuple[str, ...]) -> float:
    """Share of admissions that have at least one of these themes, second themes included."""
    total = sum(THEMES.values())
    inside = sum(THEMES[theme] for theme in themes) / total
    return inside + (1 - inside) * _SECOND_THEME_RATE * inside


_SECOND_THEME_RATE = 0.35
_CHRONIC_KEPT_RATE = 0.85
_SHARE_SCALE = 1.15  # exclusions take codes away again; this brings the mean back


@cache
def _code_chances(themes: tuple[str, ...]) -> tuple[tuple[str, float], ...]:
    """The chance of each code in an admission with these themes; averaged over admissions it is the code's share.

    Three quarters of a code's admissions fall within its themes, so that codes of one theme come together.
    """
    chances = []
    for concept in CONCEPTS.values():
        share = concept.share / 100 * _SHARE_SCALE
        if concept.themes:
            coverage = _theme_coverage(concept.themes)
            inside = min(0.75 * share / coverage, 0.9)
            outside = (share - inside * coverage) / (1 - coverage)
            share = inside if set(themes) & set(concept.themes) else outside
        chances.append((concept.code, share))
    return tuple(chances)


def _befalls(concept: Concept, sex: str, age: int) -> bool:
    return concept.sex in ("", sex) and concept.min_age <= age <= concept.max_age


def _settle(codes: set[str]) -> set[str]:
    """Apply the coding rules until nothing changes: combination codes, one code of a group, what a code needs."""
    for _ in range(4):
        before = set(codes)
        for code, companion, combined in COMBINES:
            if code in codes and companion in codes:
                codes = (codes - {code}) | {combined}
        for code, needed in REQUIRES.items():
            if code in codes and not codes.intersection(needed):
                codes.add(needed[0])
        for group in EXCLUSIVE:
            present = [code for code in group if code in codes]
            codes.difference_update(present[1:])
        if codes == before:
            break
    # Where two rules pull in opposite directions, the code that cannot have what it needs goes.
    while unmet := {code for code in codes if code in REQUIRES and codes.isdisjoint(REQUIRES[code])}:
        codes -= unmet
    return codes


def _sample_codes(rng: random.Random, sex: str, age: int, themes: tuple[str, ...], kept: set[str]) -> tuple[str, ...]:
    """Draw the codes of one admission; `kept` are the chronic codes of an earlier one."""
    while True:
        codes = {code for code, chance in _code_chances(themes) if rng.random() < chance}
        if kept:
            codes = {code for code in codes if CONCEPTS[code].kind != CHRONIC} | kept
        codes = {code for code in codes if _befalls(CONCEPTS[code], sex, age)}
        codes = _settle(codes)
        if codes:
            break
    # The main problem first: acute before chronic before status and cause, in MIMIC-III's manner.
    rank = {EVENT: 0, INFECTION: 0, IMAGING: 0, METABOLIC: 1, CHRONIC: 2, STATUS: 3, EXTERNAL: 4, PROCEDURE: 5}
    keyed = [(rank[CONCEPTS[code].kind], rng.random(), code) for code in sorted(codes)]
    return tuple(code for _, _, code in sorted(keyed))


def plan_admissions(
    num_admissions: int, seed: int, split_fractions: tuple[float, float, float]
) -> Iterator[tuple[Admission, random.Random]]:
    """Yield every admission, subjects in order, with the generator that its note is to be drawn from.

    The same arguments give the same admissions, so it can be run again in place of being remembered. A subject goes
    whole to the split that is furthest behind its fraction.
    """
    in_split = dict.fromkeys(SPLITS, 0)
    id_range = max(100_000, 10 ** len(str(2 * num_admissions)))
    planned = 0
    subject_id = 0
    while planned < num_admissions:
        subject_id += 1
        rng = random.Random(f"{seed}/{subject_id}")
        sex = rng.choice("MF")
        age = min(max(round(rng.gauss(64, 16)), 19), 89)
        stays = min(rng.choices((1, 2, 3), weights=(80, 14, 6))[0], num_admissions - planned)
        behind = [
            fraction * (planned + stays) - in_split[split]
            for split, fraction in zip(SPLITS, split_fractions, strict=True)
        ]
        split = SPLITS[behind.index(max(behind))]
        in_split[split] += stays
        admitted = date(2100, 1, 1) + timedelta(days=rng.randrange(36_500))
        kept: set[str] = set()
        for _ in range(stays):
            names, weights = tuple(THEMES), tuple(THEMES.values())
            theme = rng.choices(names, weights)[0]
            second = rng.choices(names, weights)[0] if rng.random() < _SECOND_THEME_RATE else theme
            themes = tuple(sorted({theme, second}))
            codes = _sample_codes(rng, sex, age, themes, kept)
            days = 3 + min(int(rng.expovariate(1 / 6)), 40)
            days = max(days, *(MIN_DAYS.get(code, 0) for code in codes))
            # 61,803 shares no factor with a power of ten, so ids are scattered and never repeat.
            hadm_id = id_range + (planned * 61_803 + seed * 7_919) % id_range
            yield (
                Admission(subject_id, hadm_id, split, sex, age, admitted, days, themes, codes),
                random.Random(rng.getrandbits(64)),
            )
            planned += 1
            kept = {c for c in codes if CONCEPTS[c].kind == CHRONIC and rng.random() < _CHRONIC_KEPT_RATE}
            admitted += timedelta(days=days + rng.randrange(20, 700))


# ----------------------------------------------------------------------------------------------------------------------
# From codes to words


@dataclass(frozen=True)
class Note:
    """The text of one row of NOTEEVENTS and where in it the codes are.

    Args:
        text (`str`): The TEXT.
        evidence (`dict[str, list[list[int]]]`): Assigned code to `[start, end]` spans that justify it.
        distractors (`dict[str, list[list[int]]]`): Code to spans that mention it without justifying it: negated, ruled
            out, of a relative, in the past, not done. The code may be assigned for another reason.
    """

    text: str
    evidence: dict[str, list[list[int]]]
    distractors: dict[str, list[list[int]]]


# A mention within a text in the making: \x01 code, "+" or "-" \x02 words \x03.
_MENTION = re.compile("\x01([^\x02]+)([+-])\x02([^\x03]*)\x03")
_MENTION_WHOLE = re.compile("(\x01[^\x03]*\x03)")
_LONG_WORD = re.compile(r"\b([a-z]{4})([a-z])([a-z])([a-z]+)\b")
_SLOT = re.compile(r"\{(\w+)\}")
_BRACKETED = re.compile(r"\[\[(.*?)\]\](?!\])")
_FIRST_LETTER = re.compile("^((?:\x01[^\x02]+\x02)?)([a-z])(?=[a-z ])")


def _mark(code: str, justifies: bool, words: str) -> str:
    return f"\x01{code}{'+' if justifies else '-'}\x02{words}\x03"


def _capitalized(sentence: str) -> str:
    return _FIRST_LETTER.sub(lambda match: match[1] + match[2].upper(), sentence)


def _wrapped(text: str, width: int) -> str:
    """Break lines at `width` by turning single spaces into newlines, so that no offset moves."""
    lines = []
    for line in text.split("\n"):
        start = 0
        while len(line) - start > width:
            space = line.rfind(" ", start + 1, start + width)
            if space < 0:
                break
            lines.append(line[start:space])
            start = space + 1
        lines.append(line[start:])
    return "\n".join(lines)


def finish_note(marked: str, width: int) -> Note:
    """Take the marks out of a text, keeping where they were, and wrap its lines."""
    pieces: list[str] = []
    spans: dict[str, dict[str, list[list[int]]]] = {"+": {}, "-": {}}
    position = end_of_last = 0
    for match in _MENTION.finditer(marked):
        before = marked[end_of_last : match.start()]
        code, sign, words = match.groups()
        pieces += (before, words)
        position += len(before)
        spans[sign].setdefault(code, []).append([position, position + len(words)])
        position += len(words)
        end_of_last = match.end()
    pieces.append(marked[end_of_last:])
    return Note(_wrapped("".join(pieces), width), spans["+"], spans["-"])


# Where a code of each kind can be shown, with weights: (place, weight). "drug" and "lab" join where the concept has them.
_PLACES: dict[str, tuple[tuple[str, float], ...]] = {
    CHRONIC: (("history", 5), ("hpi", 2), ("course", 2), ("diagnoses", 1)),
    IMAGING: (("results", 3), ("course", 4), ("hpi", 1), ("diagnoses", 1)),
    METABOLIC: (("course", 4), ("hpi", 1), ("diagnoses", 1)),
    INFECTION: (("course", 5), ("diagnoses", 1)),
    EVENT: (("course", 4), ("hpi", 2), ("diagnoses", 1)),
    STATUS: (("history", 4), ("hpi", 1)),
    EXTERNAL: (("hpi", 1),),
    PROCEDURE: (("procedures", 3), ("course", 4)),
}
_DRUG_WEIGHT = 5
_LAB_WEIGHT = 6
_RARE_NAME_RATE = 0.15
_HURRIED_RATE = 0.35  # of notes, written with shorthand and slips
_LISTED_RATE = 0.45  # of diagnoses, in the list of discharge diagnoses


class NoteWriter:
    """Words for one admission: gathers sentences by section, then joins them into the summary and the addendum.

    Args:
        admission (`Admission`): What is to be told.
        rng (`random.Random`): Makes every choice.
        length (`Length`): How much is to be told.
        addendum_rate (`float`): Chance of an addendum, which takes over some of the evidence.
    """

    def __init__(self, admission: Admission, rng: random.Random, length: Length, addendum_rate: float):
        self.admission = admission
        self.rng = rng
        self.length = length
        self.has_addendum = rng.random() < addendum_rate
        self.sections: dict[str, list[str]] = {name: [] for name in (*phrases.HEADINGS, "opening", "addendum")}
        self.pools: dict[tuple[str, ...], list[str]] = {}
        self.told_labs: list[str] = []
        self.told_lab_names: set[str] = set()

    def write(self) -> list[Note]:
        """The discharge summary and, for some admissions, its addendum."""
        positives = [CONCEPTS[code] for code in self.admission.codes]
        self.rng.shuffle(positives)
        distractors = self._choose_distractors()
        self._place_positives(positives)
        self._place_distractors(distractors)
        self._add_labs()
        self._add_frame()
        self._pad()
        width = self.rng.choice((70, 78, 95))
        texts = [self._join()]
        if self.has_addendum:
            texts.append(self._join_addendum())
        if self.rng.random() < _HURRIED_RATE:
            texts = [self._hurried(text) for text in texts]
        return [finish_note(text, width) for text in texts]

    # Choosing ---------------------------------------------------------------------------------------------------------

    def _choose_distractors(self) -> list[Concept]:
        """Codes to be mentioned though they do not apply: frequent ones and those of the same themes first."""
        admission = self.admission
        closed = set(admission.codes).union(*(_KIN.get(code, ()) for code in admission.codes))
        wanted = round(self.length.distractors * len(admission.codes) + self.rng.uniform(1, 2.5))
        names, weights = _distractor_weights(admission.themes)
        chosen: dict[str, Concept] = {}
        for code in self.rng.choices(names, cum_weights=weights, k=2 * wanted):
            concept = CONCEPTS[code]
            if code not in closed and code not in chosen and _befalls(concept, admission.sex, admission.age):
                chosen[code] = concept
        return list(chosen.values())[:wanted]

    def _place_positives(self, positives: list[Concept]) -> None:
        """Show every code at least once: give each its places, then write the sentences."""
        for concept in positives:
            places = dict(_PLACES[concept.kind])
            if concept.drugs:
                places["drug"] = _DRUG_WEIGHT
            if concept.lab:
                places["lab"] = _LAB_WEIGHT
            if concept.code in SOCIAL_CODES:
                places["social"] = 6
            if concept.code in FAMILY_CODES:
                places = {"family": 1}
            first = self.rng.choices(tuple(places), tuple(places.values()))[0]
            if self.has_addendum and first == "course" and self.rng.random() < 0.4:
                first = "addendum"
            chosen = {first} | {place for place in places if self.rng.random() < self.length.repeats}
            if "diagnoses" in places and self.rng.random() < _LISTED_RATE:
                chosen.add("diagnoses")
            for place in sorted(chosen):
                self._show(concept, place)
            if concept.treated_with and self.rng.random() < 0.5:
                self.sections["home drugs"].append(self._plain_drug(_dosed(self.rng.choice(concept.treated_with))))

    def _show(self, concept: Concept, place: str) -> None:
        """Write one piece of evidence for a code into a section."""
        rng = self.rng
        mention = self._mention(concept, True)
        if place == "history":
            template = "{p}" if concept.kind == STATUS else rng.choice(phrases.HISTORY_POSITIVE)
            text = self._fill(template, p=mention)
        elif place == "diagnoses":
            text = self._fill(rng.choice(phrases.LIST_POSITIVE), p=mention)
        elif place == "procedures":
            text = self._fill(rng.choice(phrases.PROCEDURE_LIST_POSITIVE), p=mention)
        elif place == "drug":
            place = "home drugs" if rng.random() < 0.75 else "discharge drugs"
            drug = rng.choice(concept.drugs)
            text = self._fill(
                rng.choice(phrases.DRUG_POSITIVE), p=_mark(concept.code, True, drug), **self._dosing(drug)
            )
        elif place == "lab":
            self._show_lab(concept)
            return
        elif place == "family":
            text = self._fill(self._bracketed(concept, True, rng.choice(concept.says)) + ".")
        elif place == "hpi" and concept.kind in (CHRONIC, STATUS):
            place, text = "opening", mention
        elif place == "social":
            text = mention + "."
        elif concept.says and rng.random() < 0.65:
            text = self._fill(self._bracketed(concept, True, rng.choice(concept.says)) + ".")
        else:
            text = self._fill(rng.choice(phrases.POSITIVE[concept.kind]), p=mention)
            if concept.kind in phrases.MIXED and rng.random() < 0.3:
                text = self._mixed(concept, mention) or text
        self.sections[place].append(text)

    def _mixed(self, concept: Concept, mention: str) -> str | None:
        """A sentence that asserts this code and denies others of its kind; None when none suits."""
        rng = self.rng
        admission = self.admission
        neighbours = [
            CONCEPTS[code]
            for code in sorted(_NEIGHBOURS.get(concept.code, ()))
            if code not in admission.codes
            and CONCEPTS[code].kind == concept.kind
            and _befalls(CONCEPTS[code], admission.sex, admission.age)
        ]
        if neighbours and concept.kind in (EVENT, IMAGING, INFECTION) and rng.random() < 0.5:
            return self._fill(rng.choice(phrases.RATHER), p=mention, n=[self._mention(rng.choice(neighbours), False)])
        others = [other for other in self._choose_distractors() if other.kind == concept.kind]
        if not others:
            return None
        template = self._choose(phrases.MIXED[concept.kind], others[0], len(others) - 1)
        return self._fill(template, p=mention, n=[self._mention(other, False) for other in others])

    def _place_distractors(self, distractors: list[Concept]) -> None:
        """Mention each of these codes once, in a way that does not justify it."""
        rng = self.rng
        waiting = list(distractors)
        while waiting:
            concept = waiting.pop()
            ways = _ways_to_reject(concept)
            way = rng.choices(tuple(ways), tuple(ways.values()))[0]
            mention = self._mention(concept, False)
            if way == "sentence":
                place = "results" if concept.kind == IMAGING and rng.random() < 0.4 else "course"
                if concept.kind in (CHRONIC, EVENT) and rng.random() < 0.4:
                    place = "hpi"
                others = [other for other in waiting if other.kind == concept.kind]
                template = self._choose(phrases.NEGATIVE[concept.kind], concept, len(others))
                others = others[: template.count("{n}") - 1]
                waiting = [other for other in waiting if other not in others]
                text = self._fill(template, n=[mention, *(self._mention(other, False) for other in others)])
            elif way == "rejects":
                place = rng.choice(("hpi", "course"))
                if concept.code in SOCIAL_CODES:
                    place = "social"
                if concept.code in FAMILY_CODES:
                    place = "family"
                text = self._fill(self._bracketed(concept, False, rng.choice(concept.rejects)) + ".")
            elif way == "drug":
                drug = rng.choice(concept.drugs)
                place = rng.choice(("allergies", "home drugs"))
                template = rng.choice(phrases.ALLERGY if place == "allergies" else phrases.DRUG_NEGATIVE)
                text = self._fill(template, n=[_mark(concept.code, False, drug)], **self._dosing(drug))
            elif way == "family":
                place, text = "family", self._of_relatives(concept)
            else:
                place = way
                text = self._fill(self._choose(_REJECTING_ITEMS[way], concept), n=[mention])
            self.sections[place].append(text)
        inherited = [CONCEPTS[code] for code in self.admission.codes if "family" in _ways_to_reject(CONCEPTS[code])]
        if inherited and rng.random() < _INHERITED_RATE:
            self.sections["family"].append(self._of_relatives(rng.choice(inherited)))

    def _of_relatives(self, concept: Concept) -> str:
        mentions = [self._mention(concept, False), self._mention(concept, False)]
        return self._fill(self.rng.choice(phrases.FAMILY), n=mentions)

    # Laboratory results -----------------------------------------------------------------------------------------------

    def _show_lab(self, concept: Concept) -> None:
        """A result that justifies the code, among the results or told in the narrative."""
        name, direction = concept.lab.split(":")
        self.told_lab_names.add(name)
        result = _mark(concept.code, True, self._lab_result(name, direction))
        if self.rng.random() < 0.3:
            self.sections["hpi"].append(self._fill(self.rng.choice(phrases.LAB_POSITIVE), p=result))
        else:
            self.told_labs.append(result)

    def _lab_result(self, name: str, direction: str = "") -> str:
        """A printed result: of the disease for a direction, otherwise normal for this patient."""
        lab = LABS[name]
        rng = self.rng
        shifted = not set(lab.shifted_by).isdisjoint(self.admission.codes)
        low, high = lab.shifted if shifted else lab.normal
        before = rng.uniform(low, high)
        after = rng.uniform(*lab.abnormal[direction]) if direction else before
        if direction == "rise":
            after += before
        joint = rng.choice(("-", " ", " ", ": "))
        printed = f"{rng.choice(lab.names)}{joint}"
        if not lab.trend:
            return f"{printed}{after:.{lab.decimals}f}"
        if not direction:
            after = before * rng.uniform(0.97, 1.03)
        first, last = f"{before:.{lab.decimals}f}", f"{after:.{lab.decimals}f}"
        return printed + rng.choice(
            (
                f"{first} on admission, {last} on day {rng.randint(2, 4)}",
                f"{first} then {last}",
                f"{last} (from {first})",
            )
        )

    def _add_labs(self) -> None:
        """Normal results, and the abnormal ones of codes that are shown elsewhere."""
        rng = self.rng
        directions = {}
        for code in self.admission.codes:
            if CONCEPTS[code].lab:
                name, direction = CONCEPTS[code].lab.split(":")
                directions[name] = (code, direction)
        dated = rng.random() < 0.5
        joint = rng.choice((", ", " ", "  "))
        for _ in range(self.length.lab_lines):
            results, self.told_labs = self.told_labs, []
            for name in rng.sample(sorted(LABS), 5 if self.length.lab_lines == 1 else 12):
                if name in self.told_lab_names:
                    continue
                result = self._lab_result(name, directions[name][1] if name in directions else "")
                if name in directions:
                    result = _mark(directions[name][0], True, result)
                results.append(result)
            rng.shuffle(results)
            prefix = self._fill("[**{date}**] 0{small}:{minute}AM BLOOD ") if dated else ""
            self.sections["results"].insert(0, prefix + joint.join(results))

    # The rest of the note ---------------------------------------------------------------------------------------------

    def _add_frame(self) -> None:
        """What every summary has: service, complaint, a word on allergies and on the family, some home drugs."""
        rng = self.rng
        sections = self.sections
        theme = rng.choice(self.admission.themes)
        complaint = rng.choice(phrases.COMPLAINTS[theme])
        sections["complaint"].append(complaint)
        history = sections.pop("opening")
        who = re.sub(r"\ba (?=8|18)", "an ", self._fill(rng.choice(phrases.OPENINGS)))
        if history:
            listed = ", ".join(history[:-1]) + (" and " if len(history) > 1 else "") + history[-1]
            told = self._fill(rng.choice(phrases.OPENING_LINKS), history=listed, complaint=complaint)
        else:
            told = self._fill(rng.choice(phrases.OPENINGS_PLAIN), complaint=complaint)
        rng.shuffle(sections["hpi"])
        sections["hpi"].insert(0, f"{who} {told}")
        for name, plain in (("allergies", phrases.ALLERGY_PLAIN), ("family", phrases.FAMILY_PLAIN)):
            if not sections[name] or rng.random() < 0.2:
                sections[name].append(rng.choice(plain))
        if not sections["history"] or rng.random() < 0.5:
            sections["history"].append(rng.choice(phrases.HISTORY_PLAIN))
        for _ in range(rng.randint(0, self.length.plain_drugs)):
            drug = self._draw(phrases.DRUG_PLAIN)
            if drug is not None and not any(drug.split()[0] in line for line in sections["home drugs"]):
                sections["home drugs"].append(self._plain_drug(drug))
        if not sections["procedures"]:
            sections["procedures"].append("None")
        sections["disposition"].append(self._fill(rng.choice(phrases.DISPOSITIONS)))
        if not sections["diagnoses"]:
            sections["diagnoses"].append("As above")
        for name in ("history", "social", "family", "course", "home drugs", "diagnoses", "addendum"):
            rng.shuffle(sections[name])

    def _pad(self) -> None:
        """Add plain sentences until the note has the words it should have."""
        rng = self.rng
        target = rng.randint(*self.length.words) - len(phrases.HEADINGS) * 2
        words = sum(len(line.split()) for name, lines in self.sections.items() for line in lines if name != "addendum")
        places = tuple(name for name in _PADDING if name != "social" or "V60.0" not in self.admission.codes)
        weights = tuple(_PADDING[name][0] for name in places)
        while words < target:
            name = rng.choices(places, weights)[0]
            text = self._draw(_PADDING[name][1])
            if text is None:
                name, text = "course", rng.choice(phrases.PROGRESS)
            if name == "discharge drugs":
                text = self._fill(rng.choice(phrases.SIGS), drug=text, frequency=rng.choice(phrases.FREQUENCIES))
            else:
                text = self._fill(text)
            lines = self.sections[name]
            first_place = 1 if name in ("hpi", "results") else 0
            lines.insert(rng.randint(min(first_place, len(lines)), len(lines)), text)
            words += len(text.split())

    def _join(self) -> str:
        """The discharge summary with its marks, sections in one of the usual orders."""
        rng = self.rng
        admission = self.admission
        discharged = admission.admitted + timedelta(days=admission.days)
        theme = rng.choice(admission.themes)
        service = rng.choice(phrases.SERVICES.get(theme, ("MEDICINE",)))
        birth = f"[**{admission.admitted.year - admission.age}-{rng.randint(1, 12)}-{rng.randint(1, 28)}**]"
        parts = [
            f"Admission Date:  {_deid_date(admission.admitted)}     Discharge Date:  {_deid_date(discharged)}",
            f"Date of Birth:  {birth}             Sex:   {admission.sex}",
            f"Service: {service}",
        ]
        gap = rng.choice(("\n\n", "\n\n", "\n"))
        for name in rng.choice(phrases.ORDERS):
            lines = self.sections[name]
            if not lines:
                continue
            heading = rng.choice(phrases.HEADINGS[name])
            joint = "\n" if name not in ("allergies", "complaint") or rng.random() < 0.5 else " "
            parts.append(f"{heading}{joint}{self._body(name, lines)}")
        if rng.random() < 0.4:
            parts.append(
                f"Completed by:[**First Name8 (NamePattern2) **] [**Last Name (NamePattern1) {rng.randint(1, 9999)}**]"
            )
        return gap.join(parts) + "\n"

    def _hurried(self, marked: str) -> str:
        """Shorthand and slips of the pen, outside mentions and headings."""
        rng = self.rng
        pieces = _MENTION_WHOLE.split(marked)
        replaced = {word: short for word, short in phrases.SHORTHAND if rng.random() < 0.6}
        words = re.compile(r"(?<![\w/])(" + "|".join(map(re.escape, replaced)) + r")(?!\w)") if replaced else None
        for index in range(0, len(pieces), 2):  # the odd ones are mentions
            if words:
                pieces[index] = words.sub(lambda match: replaced[match[1]], pieces[index])
            if rng.random() < 0.15:
                pieces[index] = _LONG_WORD.sub(r"\1\3\2\4", pieces[index], count=1)
        return "".join(pieces)

    def _body(self, name: str, lines: list[str]) -> str:
        """The lines of a section as prose, as a numbered, dashed or plain list, or run on with commas."""
        rng = self.rng
        if name in ("hpi", "course", "social", "family", "addendum", "instructions"):
            if name == "course" and rng.random() < 0.25:
                return "\n".join(f"# {_capitalized(line)}" for line in lines)
            return " ".join(_capitalized(line) for line in lines)
        if name == "allergies":
            return ", ".join(lines)
        if name == "results":
            return "\n".join(_capitalized(line) for line in lines)
        style = rng.random()
        if name in ("exam", "followup", "condition", "disposition", "complaint"):
            return "\n".join(_capitalized(line) for line in lines)
        if style < 0.35:
            return "\n".join(f"{number}. {_capitalized(line)}" for number, line in enumerate(lines, 1))
        if style < 0.6:
            return "\n".join(f"-{rng.choice(('', ' '))}{line}" for line in lines)
        if style < 0.8:
            return ", ".join(lines)
        return "\n".join(_capitalized(line) for line in lines)

    def _join_addendum(self) -> str:
        admission = self.admission
        number = self.rng.randint(1, 9999)
        lines = [self._fill(self.rng.choice(phrases.ADDENDUM_OPENINGS)), *self.sections["addendum"]]
        if len(lines) == 1:
            lines.append(self._fill(self.rng.choice(phrases.COURSE_PLAIN)))
        return (
            f"Name:  [**Known lastname {number}**], [**Known firstname {number % 97}**]    Unit No:  [**Numeric "
            f"Identifier {number}**]\n\nAdmission Date:  {_deid_date(admission.admitted)}\n\nAddendum:\n"
            f"{self._body('addendum', lines)}\n"
        )

    # Small change -----------------------------------------------------------------------------------------------------

    def _draw(self, pool: tuple[str, ...]) -> str | None:
        """One of the pool that this note has not had yet; None once it is used up."""
        if pool not in self.pools:
            self.pools[pool] = self.rng.sample(pool, len(pool))
        left = self.pools[pool]
        return left.pop() if left else None

    def _choose(self, templates: Sequence[str], concept: Concept, others: int = 0) -> str:
        """A template that says that `concept` does not apply, with room for at most `others` more concepts.

        Where having had it is a code of its own, the past is not mentioned.
        """
        fitting = [
            template
            for template in templates
            if template.count("{n}") <= others + 1 and not ("{year}" in template and concept.code in PAST_HAS_CODE)
        ]
        return self.rng.choice(fitting)

    def _mention(self, concept: Concept, justifies: bool) -> str:
        """A marked name of the concept, now and then a seldom-used one."""
        rng = self.rng
        names = concept.rare if concept.rare and rng.random() < _RARE_NAME_RATE else concept.terms
        return _mark(concept.code, justifies, self._fill(rng.choice(names)))

    def _bracketed(self, concept: Concept, justifies: bool, sentence: str) -> str:
        return _BRACKETED.sub(lambda match: _mark(concept.code, justifies, match[1]), sentence)

    def _plain_drug(self, drug: str) -> str:
        return f"{drug} {self.rng.choice(phrases.FREQUENCIES)}"

    def _dosing(self, drug: str) -> dict[str, str]:
        return {"dose": DOSES[drug], "frequency": self.rng.choice(phrases.FREQUENCIES)}

    def _fill(self, template: str, p: str = "", n: Sequence[str] = (), **given: str) -> str:
        """Replace the braces of a template; `{p}` by `p`, the occurrences of `{n}` by those of `n` in turn."""
        if "{" not in template:
            return template
        negatives = iter(n)
        start = self.rng.randint(0, 2)

        def replace(match: re.Match[str]) -> str:
            name = match[1]
            if name == "p":
                return p
            if name == "n":
                return next(negatives)
            if name in given:
                return given[name]
            return self._slot(name, start)

        return _SLOT.sub(replace, template)

    def _slot(self, name: str, start: int) -> str:
        """What stands for one brace; `start` is a day of the stay shared by the braces of a sentence."""
        rng = self.rng
        admission = self.admission
        if name in _PRONOUNS:
            return _PRONOUNS[name][admission.sex == "F"]
        if name in _NUMBERS:
            return str(rng.randint(*_NUMBERS[name]))
        if name == "date":
            day = admission.admitted + timedelta(days=rng.randint(0, admission.days))
            return f"{day.month}-{day.day}"
        if name == "year":
            return str(admission.admitted.year - rng.randint(2, 15))
        if name == "age":
            return str(admission.age)
        if name == "hospital_day":
            return str(rng.randint(2, max(2, min(admission.days - 1, 9))))
        if name == "temp":
            return f"{rng.uniform(97, 99.3):.1f}"
        if name in _VENTILATED:
            day = admission.admitted + timedelta(days=start + rng.randint(*_VENTILATED[name]))
            return f"{day.month}-{day.day}"
        if name in phrases.CHOICES:
            return self._fill(rng.choice(phrases.CHOICES[name]))
        relative = rng.choice(phrases.RELATIVES)
        return relative.capitalize() if name == "relative" else relative


_PRONOUNS = {
    "He": ("He", "She"),
    "he": ("he", "she"),
    "His": ("His", "Her"),
    "his": ("his", "her"),
    "him": ("him", "her"),
    "sex": ("male", "female"),
    "sex_short": ("M", "F"),
}
# Days on the ventilator after the day it began; 96 hours tell 96.71 from 96.72.
_VENTILATED = {"vent_start": (0, 0), "short_vent_end": (1, 3), "long_vent_end": (5, 18)}
_NUMBERS = {
    "num": (1, 9999),
    "small": (2, 9),
    "old": (58, 91),
    "early_age": (38, 54),
    "hr": (58, 104),
    "sbp": (102, 148),
    "dbp": (54, 88),
    "rr": (12, 20),
    "qtc": (390, 450),
    "minute": (10, 59),
    "short_vent": (7, 88),
    "long_vent": (104, 460),
    "low_ef": (15, 35),
    "normal_ef": (55, 70),
}
# Sections that plain text is added to: (weight, sentences).
_PADDING: dict[str, tuple[float, tuple[str, ...]]] = {
    "hpi": (2, phrases.HPI_PLAIN),
    "course": (4, phrases.COURSE_PLAIN),
    "social": (1, phrases.SOCIAL_PLAIN),
    "exam": (3, phrases.EXAM_PLAIN),
    "results": (1, phrases.RESULTS_PLAIN),
    "instructions": (2, phrases.INSTRUCTIONS_PLAIN),
    "followup": (0.7, phrases.FOLLOWUP_PLAIN),
    "discharge drugs": (2, phrases.DRUG_PLAIN),
    "condition": (0.4, phrases.CONDITIONS),
}


def _dosed(drug: str) -> str:
    return f"{drug} {DOSES[drug]}"


def _deid_date(day: date) -> str:
    return f"[**{day.year}-{day.month}-{day.day}**]"


# Sections that list a code only to take it back, and how.
_REJECTING_ITEMS = {
    "history": phrases.HISTORY_NEGATIVE,
    "diagnoses": phrases.LIST_NEGATIVE,
    "procedures": phrases.PROCEDURE_LIST_NEGATIVE,
}
_INHERITED_RATE = 0.15  # notes where a relative has what the patient has too


@cache
def _ways_to_reject(concept: Concept) -> dict[str, float]:
    """Ways to mention a code that does not apply, with weights; empty for a code that has none."""
    ways: dict[str, float] = {}
    if concept.kind in phrases.NEGATIVE:
        ways["sentence"] = 4
    if concept.rejects:
        ways["rejects"] = 4
    if concept.drugs:
        ways["drug"] = 3.5
    if concept.kind == CHRONIC:
        ways["history"] = 3
    elif concept.kind in (EVENT, INFECTION, IMAGING):
        ways["history"] = 1
    if concept.kind in (CHRONIC, EVENT, INFECTION, IMAGING):
        ways["diagnoses"] = 0.7
    if concept.kind == PROCEDURE:
        ways["procedures"] = 1.5
    if (concept.kind == CHRONIC and concept.code not in NOT_FAMILIAL_CODES) or concept.code in FAMILIAL_CODES:
        ways["family"] = 3
    return ways


@cache
def _distractor_weights(themes: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """Codes and cumulative weights for mentions that justify nothing; frequent and fitting codes weigh more."""
    codes, weights, total = [], [], 0.0
    for concept in CONCEPTS.values():
        if not _ways_to_reject(concept):
            continue
        fits = 2.2 if set(themes) & set(concept.themes) else 1.0
        total += fits * concept.share**0.85
        codes.append(concept.code)
        weights.append(total)
    return tuple(codes), tuple(weights)


# ----------------------------------------------------------------------------------------------------------------------
# Files


@dataclass(frozen=True)
class CorpusSummary:
    """What was written: counts over the whole corpus, and admissions per split."""

    output_dir: Path
    num_admissions: int
    num_subjects: int
    num_note_rows: int
    num_codes: int
    codes_per_admission: float
    split_sizes: dict[str, int]


def write_corpus(
    output_dir: str | Path,
    num_admissions: int = 1000,
    seed: int = 0,
    length: str = "default",
    split_fractions: tuple[float, float, float] = (0.8, 0.08, 0.12),
    addendum_rate: float = 0.1,
    other_rows_rate: float = 0.1,
    show_progress: bool = True,
) -> CorpusSummary:
    """Write a corpus; the same arguments always give the same bytes.

    Files appear under their names only when all are complete. A corpus that was written here before is replaced.

    Args:
        output_dir (`str` or `Path`): Created if missing. One that holds other tables of MIMIC-III is refused.
        num_admissions (`int`): Admissions, each with one discharge summary.
        seed (`int`): Makes every choice.
        length (`str`): A key of `LENGTHS`: `"short"`, `"default"` or `"long"`.
        split_fractions (`tuple[float, float, float]`): Train, dev and test; subjects are never divided.
        addendum_rate (`float`): Chance that an admission has an addendum.
        other_rows_rate (`float`): Nursing and radiology rows per admission; some without HADM_ID, some marked as errors.
        show_progress (`bool`): Draw a progress bar on stderr.
    """
    check_arguments(num_admissions, seed, length, addendum_rate=addendum_rate, other_rows_rate=other_rows_rate)
    if len(split_fractions) != 3 or min(split_fractions) < 0 or abs(sum(split_fractions) - 1) > 1e-6:
        raise ValueError(
            f"`split_fractions` ({tuple(split_fractions)}) must be three numbers, none negative, that add up to 1: "
            "train, dev and test."
        )
    output_dir = Path(output_dir)
    with complete_folder(output_dir, CORPUS_FILES) as partial:
        _write_dictionaries(partial)
        top_codes = _most_frequent_codes(num_admissions, seed, split_fractions)
        (partial / "TOP_50_CODES.csv").write_text("".join(f"{code}\n" for code in top_codes), encoding="utf-8")
        with _CorpusFiles(partial, LENGTHS[length], addendum_rate, other_rows_rate, set(top_codes)) as files:
            plan = plan_admissions(num_admissions, seed, split_fractions)
            for admission, rng in tqdm(plan, total=num_admissions, unit="adm", disable=not show_progress):
                files.add(admission, rng)
        write_marker(
            partial,
            "MIMIC-III",
            TABLES,
            num_admissions=num_admissions,
            seed=seed,
            length=length,
            split_fractions=list(split_fractions),
            addendum_rate=addendum_rate,
            other_rows_rate=other_rows_rate,
        )
    return CorpusSummary(
        output_dir=output_dir,
        num_admissions=num_admissions,
        num_subjects=files.num_subjects,
        num_note_rows=files.num_rows["NOTEEVENTS"],
        num_codes=len(files.codes),
        codes_per_admission=files.codes.total() / num_admissions,
        split_sizes=dict(files.split_sizes),
    )


def locate_evidence(
    folder: str | Path, hadm_ids: Iterable[int], texts: Iterable[str]
) -> list[dict[str, list[list[int]]]]:
    """Spans that justify each code, as characters of a record's text rather than of one row of the table of notes.

    Args:
        folder (`str` or `Path`): The synthetic corpus, in MIMIC-III's or MIMIC-IV's format.
        hadm_ids, texts:
            Of the records of `MIMIC3` or `MIMIC4`, their text unchanged: a row that is not found in it gives no spans.
    """
    with gzip.open(Path(folder) / EVIDENCE_FILE, "rt", encoding="utf-8") as file:
        lines = [json.loads(row) for row in file]
    row_id, name = ("note_id", "discharge") if "note_id" in lines[0] else ("row_id", "NOTEEVENTS")
    codes_of_row = {str(line[row_id]): line["codes"] for line in lines}
    rows: dict[int, list[tuple[str, dict[str, list[list[int]]]]]] = {}
    table = find_tables(str(folder), [name], subfolders=("note",))[name]
    for _, batch in read_table(table, [row_id, "hadm_id", "text"]):
        for own_id, hadm_id, text in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            if own_id in codes_of_row:
                rows.setdefault(int(hadm_id), []).append((text, codes_of_row[own_id]))
    located = []
    for hadm_id, text in zip(hadm_ids, texts, strict=True):
        spans: dict[str, list[list[int]]] = {}
        for row_text, codes in rows.get(hadm_id, ()):
            offset = text.find(row_text)
            for code, own in codes.items() if offset >= 0 else ():
                spans.setdefault(code, []).extend([start + offset, end + offset] for start, end in own)
        located.append(spans)
    return located


def check_arguments(num_admissions: int, seed: int, length: str, **rates: float) -> None:
    if num_admissions < 1:
        raise ValueError(f"`num_admissions` ({num_admissions}) must be at least 1.")
    if seed < 0:
        raise ValueError(f"`seed` ({seed}) must not be negative.")
    if length not in LENGTHS:
        raise ValueError(f"`length` ({length!r}) must be one of {', '.join(LENGTHS)}.")
    for name, rate in rates.items():
        if not 0 <= rate <= 1:
            raise ValueError(f"`{name}` ({rate}) must be between 0 and 1.")


@contextmanager
def complete_folder(output_dir: Path, files: Sequence[str]) -> Iterator[Path]:
    """Open a folder to write some files into, which appear in `output_dir` only when all are complete.

    The marker must be named first: a folder with our tables is never without it.
    """
    _refuse_foreign_tables(output_dir, files)
    output_dir.mkdir(parents=True, exist_ok=True)
    partial = output_dir / PARTIAL_FOLDER
    shutil.rmtree(partial, ignore_errors=True)
    try:
        for name in files:
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
        yield partial
        for name in files:
            (output_dir / name).parent.mkdir(exist_ok=True)
            os.replace(partial / name, output_dir / name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_marker(folder: Path, release: str, tables: Iterable[str], **arguments: Any) -> None:
    """Write the file that says that these tables are invented, and from which arguments they can be written again."""
    notice = f"Invented text and codes; contains no patient data. Not {release}, only in its format."
    sums = {f"{table}.csv.gz": _sha256(folder / f"{table}.csv.gz") for table in tables}
    marker = {"notice": notice, "version": CORPUS_VERSION, **arguments, "sha256": sums}
    (folder / MARKER_FILE).write_text(json.dumps(marker, indent=2) + "\n", encoding="utf-8")


def is_synthetic(folder: str | Path) -> bool:
    """Whether a folder holds a corpus as it was written here, and no table beside it, which would not be invented."""
    marker = Path(folder, MARKER_FILE)
    if not marker.is_file():
        return False
    try:
        sums = json.loads(marker.read_text(encoding="utf-8")).get("sha256")
    except (ValueError, AttributeError):
        return False
    if not sums or not isinstance(sums, dict):
        return False
    tables = {
        path.relative_to(folder).as_posix()
        for path in Path(folder).rglob("*")
        if path.is_file() and path.name.lower().endswith((".csv", ".csv.gz")) and not _is_list(path)
    }
    return tables == sums.keys() and all(_sha256(Path(folder, name)) == digest for name, digest in sums.items())


def _is_list(path: Path) -> bool:
    """Whether this is a split list or a list of codes, which holds no notes and may be exchanged."""
    return path.name == "TOP_50_CODES.csv" or path.name.endswith("_hadm_ids.csv")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _refuse_foreign_tables(output_dir: Path, files: Sequence[str]) -> None:
    """Keep real MIMIC, and split lists made for it, from being overwritten."""
    if output_dir.exists() and not output_dir.is_dir():
        raise NotADirectoryError(f"`output_dir` ({output_dir}) is a file; give a folder.")
    if not output_dir.exists() or (output_dir / MARKER_FILE).exists():
        return
    ours = {Path(name).name.lower().removesuffix(".gz") for name in files}
    folders = {output_dir, *(output_dir / Path(name).parent for name in files)}
    inside = [path for folder in folders if folder.is_dir() for path in folder.iterdir()]
    found = sorted(path.name for path in inside if path.name.lower().removesuffix(".gz") in ours)
    if found:
        raise FileExistsError(
            f"`output_dir` ({output_dir}) holds {found[0]} but no {MARKER_FILE} file, so it looks like real MIMIC. "
            "Nothing was written; give another folder."
        )


def _most_frequent_codes(num_admissions: int, seed: int, split_fractions: tuple[float, float, float]) -> list[str]:
    """The codes of most training admissions (of all, where there is no training split), most frequent first."""
    counts: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
    for admission, _ in plan_admissions(num_admissions, seed, split_fractions):
        counts[admission.split].update(admission.codes)
    counted = counts["train"] or sum(counts.values(), Counter())
    return sorted(counted, key=lambda code: (-counted[code], code))[:NUM_TOP_CODES]


@contextmanager
def open_gzip(path: Path) -> Iterator[IO[str]]:
    """Open a gzip file for text, whose bytes depend on nothing but the text and the name."""
    name = path.name.removesuffix(".gz")
    with (
        path.open("wb") as raw,
        gzip.GzipFile(filename=name, mode="wb", compresslevel=6, fileobj=raw, mtime=0) as packed,
        io.TextIOWrapper(packed, encoding="utf-8", newline="") as text,
    ):
        yield text


def _csv_row(values: Sequence[Any]) -> str:
    """A line as in MIMIC-III's files: text quoted, numbers and dates bare, nothing for None."""
    return ",".join(_csv_field(value) for value in values) + "\n"


def _csv_field(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return '"' + value.replace('"', '""') + '"'
    return str(value)


def _write_dictionaries(folder: Path) -> None:
    """The two dictionaries of codes, by code."""
    for table, procedures in (("D_ICD_DIAGNOSES", False), ("D_ICD_PROCEDURES", True)):
        concepts = [concept for concept in CONCEPTS.values() if concept.is_procedure == procedures]
        with open_gzip(folder / f"{table}.csv.gz") as file:
            file.write(_csv_row(TABLES[table]))
            for row_id, concept in enumerate(sorted(concepts, key=lambda concept: concept.undotted), 1):
                file.write(_csv_row((row_id, concept.undotted, concept.short_title, concept.long_title)))


class _CorpusFiles:
    """The files that grow with each admission, and the counts of what went into them."""

    def __init__(
        self, folder: Path, length: Length, addendum_rate: float, other_rows_rate: float, top_codes: set[str]
    ):
        self.folder = folder
        self.length = length
        self.addendum_rate = addendum_rate
        self.other_rows_rate = other_rows_rate
        self.top_codes = top_codes
        self.num_rows = dict.fromkeys(TABLES, 0)
        self.num_subjects = 0
        self.last_subject_id = 0
        self.codes: Counter[str] = Counter()
        self.split_sizes = dict.fromkeys(SPLITS, 0)
        self.stack = ExitStack()

    def __enter__(self) -> "_CorpusFiles":
        with ExitStack() as opening:
            self.tables = {}
            for name in ("NOTEEVENTS", "DIAGNOSES_ICD", "PROCEDURES_ICD"):
                self.tables[name] = opening.enter_context(open_gzip(self.folder / f"{name}.csv.gz"))
                self.tables[name].write(_csv_row(TABLES[name]))
            self.evidence = opening.enter_context(open_gzip(self.folder / EVIDENCE_FILE))
            self.lists = {
                (split, code_set): opening.enter_context(
                    (self.folder / f"{split}_{code_set}_hadm_ids.csv").open("w", encoding="utf-8", newline="")
                )
                for split in SPLITS
                for code_set in ("full", "50")
            }
            self.stack = opening.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stack.__exit__(kind, error, trace)

    def add(self, admission: Admission, rng: random.Random) -> None:
        """Write everything about one admission."""
        self.codes.update(admission.codes)
        self.split_sizes[admission.split] += 1
        if admission.subject_id != self.last_subject_id:
            self.num_subjects += 1
            self.last_subject_id = admission.subject_id
        self.lists[admission.split, "full"].write(f"{admission.hadm_id}\n")
        if not self.top_codes.isdisjoint(admission.codes):
            self.lists[admission.split, "50"].write(f"{admission.hadm_id}\n")
        for table, procedures in (("DIAGNOSES_ICD", False), ("PROCEDURES_ICD", True)):
            concepts = [CONCEPTS[code] for code in admission.codes if CONCEPTS[code].is_procedure == procedures]
            for sequence, concept in enumerate(concepts, 1):
                self._add_row(table, admission.subject_id, admission.hadm_id, sequence, concept.undotted)
        self._add_notes(admission, rng)

    def _add_notes(self, admission: Admission, rng: random.Random) -> None:
        discharged = admission.admitted + timedelta(days=admission.days)
        notes = NoteWriter(admission, rng, self.length, self.addendum_rate).write()
        for note, description in zip(notes, ("Report", "Addendum"), strict=False):
            written = discharged if description == "Report" else discharged + timedelta(days=rng.randint(0, 5))
            row_id = self._add_row(
                "NOTEEVENTS",
                admission.subject_id,
                admission.hadm_id,
                written,
                None,
                None,
                "Discharge summary",
                description,
                None,
                None,
                note.text,
            )
            self.evidence.write(
                json.dumps(
                    {
                        "hadm_id": admission.hadm_id,
                        "row_id": row_id,
                        "codes": note.evidence,
                        "distractors": note.distractors,
                    }
                )
                + "\n"
            )
        if rng.random() < self.other_rows_rate:
            self._add_other_row(admission, rng)

    def _add_other_row(self, admission: Admission, rng: random.Random) -> None:
        """A row that is no discharge summary: builders must leave it out."""
        category, sentences = rng.choice(
            (("Nursing/other", phrases.NURSING_PLAIN), ("Radiology", phrases.RADIOLOGY_PLAIN))
        )
        nursing = category == "Nursing/other"
        sex = "male" if admission.sex == "M" else "female"
        text = "\n".join(sentences if not nursing else rng.sample(sentences, 4))
        day = admission.admitted + timedelta(days=rng.randrange(admission.days))
        time = datetime(day.year, day.month, day.day, rng.randrange(24), rng.randrange(60))
        self._add_row(
            "NOTEEVENTS",
            admission.subject_id,
            None if rng.random() < 0.25 else admission.hadm_id,
            day,
            time,
            time if nursing else None,
            category,
            "Report" if nursing else "CHEST (PORTABLE AP)",
            rng.randint(14_000, 21_000) if nursing else None,
            "1" if nursing and rng.random() < 0.2 else None,
            text.format(age=admission.age, sex=sex) + "\n",
        )

    def _add_row(self, table: str, *values: Any) -> int:
        """Write a row after its ROW_ID, which is returned."""
        self.num_rows[table] += 1
        self.tables[table].write(_csv_row((self.num_rows[table], *values)))
        return self.num_rows[table]


def corpus_parser(module: str, description: str) -> argparse.ArgumentParser:
    """A parser of the options that every corpus has."""
    parser = argparse.ArgumentParser(prog=f"python -m dataset_scripts.{module}", description=description)
    parser.add_argument("--output_dir", required=True, help="folder for the corpus")
    parser.add_argument("--num_admissions", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--length", default="default", help=f"words per note: {', '.join(LENGTHS)}")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0 when the corpus was written, 2 (and one line on stderr) when it was not."""
    parser = corpus_parser("synthetic", "Write an invented corpus in the shape of MIMIC-III v1.4.")
    parser.add_argument(
        "--split_fractions", type=float, nargs=3, default=(0.8, 0.08, 0.12), metavar=("TRAIN", "DEV", "TEST")
    )
    parser.add_argument("--addendum_rate", type=float, default=0.1, help="admissions with an addendum")
    parser.add_argument("--other_rows_rate", type=float, default=0.1, help="nursing and radiology rows per admission")
    options = vars(parser.parse_args(arguments))
    options["split_fractions"] = tuple(options["split_fractions"])
    try:
        summary = write_corpus(**options)
    except (ValueError, OSError) as error:
        print(f"synthetic: {error}", file=sys.stderr)
        return 2
    sizes = ", ".join(f"{split} {size}" for split, size in summary.split_sizes.items())
    print(
        f"{summary.num_admissions} admissions of {summary.num_subjects} subjects ({sizes}), {summary.num_note_rows} note "
        f"rows, {summary.num_codes} codes, {summary.codes_per_admission:.1f} per admission: {summary.output_dir}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Draws the admissions of the synthetic corpus: who is admitted, when, and with which codes."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache

from .content import read_content
from .entries import CHRONIC, EVENT, EXTERNAL, IMAGING, INFECTION, METABOLIC, PROCEDURE, STATUS, Content


SPLITS = ("train", "dev", "test")
_SECOND_THEME_RATE = 0.35
_CHRONIC_KEPT_RATE = 0.85
_SHARE_SCALE = 1.15  # exclusions take codes away again; this brings the mean back


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


def _theme_coverage(themes: tuple[str, ...]) -> float:
    """Share of admissions that have at least one of these themes, second themes included."""
    weights = read_content().rules.themes
    inside = sum(weights[theme] for theme in themes) / sum(weights.values())
    return inside + (1 - inside) * _SECOND_THEME_RATE * inside


@cache
def _code_chances(content: Content, themes: tuple[str, ...]) -> tuple[tuple[str, float], ...]:
    """The chance of each code in an admission with these themes; averaged over admissions it is the code's share.

    Three quarters of a code's admissions fall within its themes, so that codes of one theme come together.
    """
    chances = []
    for concept in content.concepts.values():
        share = concept.share / 100 * _SHARE_SCALE
        if concept.themes:
            coverage = _theme_coverage(concept.themes)
            inside = min(0.75 * share / coverage, 0.9)
            outside = (share - inside * coverage) / (1 - coverage)
            share = inside if set(themes) & set(concept.themes) else outside
        chances.append((concept.code, share))
    return tuple(chances)


def _settle(codes: set[str]) -> set[str]:
    """Apply the coding rules until nothing changes: combination codes, one code of a group, what a code needs."""
    rules = read_content().rules
    for _ in range(4):
        before = set(codes)
        for code, companion, combined in rules.combines:
            if code in codes and companion in codes:
                codes = (codes - {code}) | {combined}
        for code, needed in rules.requires.items():
            if code in codes and not codes.intersection(needed):
                codes.add(needed[0])
        for index in sorted({index for code in codes for index in rules.groups_of.get(code, ())}):
            present = [code for code in rules.exclusive[index] if code in codes]
            codes.difference_update(present[1:])
        if codes == before:
            break
    # Where two rules pull in opposite directions, the code that cannot have what it needs goes.
    while unmet := {code for code in codes if code in rules.requires and codes.isdisjoint(rules.requires[code])}:
        codes -= unmet
    return codes


# The main problem first: acute before chronic before status and cause, in MIMIC-III's manner.
_RANKS = {EVENT: 0, INFECTION: 0, IMAGING: 0, METABOLIC: 1, CHRONIC: 2, STATUS: 3, EXTERNAL: 4, PROCEDURE: 5}


def _sample_codes(rng: random.Random, sex: str, age: int, themes: tuple[str, ...], kept: set[str]) -> tuple[str, ...]:
    """Draw the codes of one admission; `kept` are the chronic codes of an earlier one."""
    content = read_content()
    concepts = content.concepts
    while True:
        codes = {code for code, chance in _code_chances(content, themes) if rng.random() < chance}
        if kept:
            codes = {code for code in codes if concepts[code].kind != CHRONIC} | kept
        codes = {code for code in codes if concepts[code].befalls(sex, age)}
        codes = _settle(codes)
        if codes:
            break
    keyed = [(_RANKS[concepts[code].kind], rng.random(), code) for code in sorted(codes)]
    return tuple(code for _, _, code in sorted(keyed))


def _furthest_behind(in_split: dict[str, int], total: int, split_fractions: tuple[float, float, float]) -> str:
    """The split that lacks most of its fraction of `total` admissions."""
    behind = [fraction * total - in_split[split] for split, fraction in zip(SPLITS, split_fractions, strict=True)]
    return SPLITS[behind.index(max(behind))]


def plan_admissions(
    num_admissions: int, seed: int, split_fractions: tuple[float, float, float]
) -> Iterator[tuple[Admission, random.Random]]:
    """Yield every admission, subjects in order, with the generator that its note is to be drawn from.

    The same arguments give the same admissions, so it can be run again in place of being remembered. A subject goes
    whole to the split that is furthest behind its fraction.
    """
    content = read_content()
    names, weights = tuple(content.rules.themes), tuple(content.rules.themes.values())
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
        split = _furthest_behind(in_split, planned + stays, split_fractions)
        in_split[split] += stays
        admitted = date(2100, 1, 1) + timedelta(days=rng.randrange(36_500))
        kept: set[str] = set()
        for _ in range(stays):
            theme = rng.choices(names, weights)[0]
            second = rng.choices(names, weights)[0] if rng.random() < _SECOND_THEME_RATE else theme
            themes = tuple(sorted({theme, second}))
            codes = _sample_codes(rng, sex, age, themes, kept)
            days = 3 + min(int(rng.expovariate(1 / 6)), 40)
            days = max(days, *(content.rules.min_days.get(code, 0) for code in codes))
            # 61,803 shares no factor with a power of ten, so ids are scattered and never repeat.
            hadm_id = id_range + (planned * 61_803 + seed * 7_919) % id_range
            yield (
                Admission(subject_id, hadm_id, split, sex, age, admitted, days, themes, codes),
                random.Random(rng.getrandbits(64)),
            )
            planned += 1
            kept = {c for c in codes if content.concepts[c].kind == CHRONIC and rng.random() < _CHRONIC_KEPT_RATE}
            admitted += timedelta(days=days + rng.randrange(20, 700))

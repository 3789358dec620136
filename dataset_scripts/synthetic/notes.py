"""Writes the notes of one admission: which section mentions or denies which code, and the plain text around."""

import random
import re
from dataclasses import dataclass
from functools import cache

from .admissions import Admission
from .checks import SECTIONS
from .content import read_content
from .entries import CHRONIC, EVENT, EXTERNAL, IMAGING, INFECTION, METABOLIC, PROCEDURE, STATUS, Concept, Content
from .layout import join_addendum, join_summary, write_hurriedly
from .marks import Note, finish_note, mark
from .wording import Wording


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
_SOCIAL_WEIGHT = 6
_HURRIED_RATE = 0.35  # of notes, written with shorthand and slips
_LISTED_RATE = 0.45  # of diagnoses, in the list of discharge diagnoses
_INHERITED_RATE = 0.15  # notes where a relative has what the patient has too
_HOMELESS = "V60.0"  # tells nothing of a household
# Sections that plain text is added to, with weights, and whose plain sentences.
_PADDING: dict[str, tuple[float, str]] = {
    "hpi": (2, "hpi"),
    "course": (4, "course"),
    "social": (1, "social"),
    "exam": (3, "exam"),
    "results": (1, "results"),
    "instructions": (2, "instructions"),
    "followup": (0.7, "followup"),
    "discharge drugs": (2, "drugs"),
    "condition": (0.4, "condition"),
}


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
        self.content = read_content()
        self.phrases = self.content.phrases
        self.words = Wording(admission, rng)
        self.sections: dict[str, list[str]] = {name: [] for name in (*SECTIONS, "opening", "addendum")}
        self.told_labs: list[str] = []
        self.told_lab_names: set[str] = set()

    def write(self) -> list[Note]:
        """The discharge summary and, for some admissions, its addendum."""
        positives = [self.content.concepts[code] for code in self.admission.codes]
        self.rng.shuffle(positives)
        distractors = self._choose_distractors()
        self._place_positives(positives)
        self._place_distractors(distractors)
        self._add_labs()
        self._add_frame()
        self._pad()
        width = self.rng.choice((70, 78, 95))
        texts = [join_summary(self.words, self.sections)]
        if self.has_addendum:
            texts.append(join_addendum(self.words, self.sections["addendum"]))
        if self.rng.random() < _HURRIED_RATE:
            texts = [write_hurriedly(self.words, text) for text in texts]
        return [finish_note(text, width) for text in texts]

    # Choosing ---------------------------------------------------------------------------------------------------------

    def _choose_distractors(self) -> list[Concept]:
        """Codes to be mentioned though they do not apply: frequent ones and those of the same themes first."""
        admission = self.admission
        kin = self.content.rules.not_denied_beside
        closed = set(admission.codes).union(*(kin.get(code, ()) for code in admission.codes))
        wanted = round(self.length.distractors * len(admission.codes) + self.rng.uniform(1, 2.5))
        names, weights = _distractor_weights(self.content, admission.themes)
        chosen: dict[str, Concept] = {}
        for code in self.rng.choices(names, cum_weights=weights, k=2 * wanted):
            concept = self.content.concepts[code]
            if code not in closed and code not in chosen and concept.befalls(admission.sex, admission.age):
                chosen[code] = concept
        return list(chosen.values())[:wanted]

    def _place_positives(self, positives: list[Concept]) -> None:
        """Show every code at least once: give each its places, then write the sentences."""
        rng = self.rng
        for concept in positives:
            places = self._places_of(concept)
            first = rng.choices(tuple(places), tuple(places.values()))[0]
            if self.has_addendum and first == "course" and rng.random() < 0.4:
                first = "addendum"
            chosen = {first} | {place for place in places if rng.random() < self.length.repeats}
            if "diagnoses" in places and rng.random() < _LISTED_RATE:
                chosen.add("diagnoses")
            for place in sorted(chosen):
                self._show(concept, place)
            if concept.treated_with and rng.random() < 0.5:
                drug = rng.choice(concept.treated_with)
                self.sections["home drugs"].append(self.words.plain_drug(f"{drug} {self.content.doses[drug]}"))

    def _places_of(self, concept: Concept) -> dict[str, float]:
        """Where the concept can be shown, with weights."""
        places = dict(_PLACES[concept.kind])
        if concept.drugs:
            places["drug"] = _DRUG_WEIGHT
        if concept.lab:
            places["lab"] = _LAB_WEIGHT
        if concept.code in self.content.rules.social_codes:
            places["social"] = _SOCIAL_WEIGHT
        if concept.code in self.content.rules.family_codes:
            places = {"family": 1}
        return places

    def _show(self, concept: Concept, place: str) -> None:
        """Write one piece of evidence for a code into a section."""
        rng = self.rng
        mention = self.words.mention(concept, True)
        if place in self.phrases.list_positive:
            plain = place == "history" and concept.kind == STATUS
            text = self.words.fill("{p}" if plain else rng.choice(self.phrases.list_positive[place]), p=mention)
        elif place == "drug":
            place = "home drugs" if rng.random() < 0.75 else "discharge drugs"
            drug = rng.choice(concept.drugs)
            template = rng.choice(self.phrases.drug_positive)
            text = self.words.fill(template, p=mark(concept.code, True, drug), **self.words.dosing(drug))
        elif place == "lab":
            self._show_lab(concept)
            return
        elif place == "family":
            text = self.words.sentence(concept, True)
        elif place == "hpi" and concept.kind in (CHRONIC, STATUS):
            place, text = "opening", mention
        elif place == "social":
            text = mention + "."
        else:
            text = self._assert(concept, mention)
        self.sections[place].append(text)

    def _assert(self, concept: Concept, mention: str) -> str:
        """A sentence that justifies the code: its own, one of its kind, or one that denies others in the same breath."""
        if concept.says and self.rng.random() < 0.65:
            return self.words.sentence(concept, True)
        text = self.words.fill(self.rng.choice(self.phrases.positive[concept.kind]), p=mention)
        if concept.kind in self.phrases.mixed and self.rng.random() < 0.3:
            return self._mixed(concept, mention) or text
        return text

    def _mixed(self, concept: Concept, mention: str) -> str | None:
        """A sentence that asserts this code and denies others of its kind; None when none suits."""
        rng = self.rng
        admission = self.admission
        beside = [
            self.content.concepts[code]
            for code in sorted(self.content.rules.neighbours.get(concept.code, ()))
            if code not in admission.codes
        ]
        neighbours = [
            other for other in beside if other.kind == concept.kind and other.befalls(admission.sex, admission.age)
        ]
        if neighbours and concept.kind in (EVENT, IMAGING, INFECTION) and rng.random() < 0.5:
            template = rng.choice(self.phrases.rather)
            return self.words.fill(template, p=mention, n=[self.words.mention(rng.choice(neighbours), False)])
        others = [other for other in self._choose_distractors() if other.kind == concept.kind]
        if not others:
            return None
        template = self.words.choose(self.phrases.mixed[concept.kind], others[0], len(others) - 1)
        return self.words.fill(template, p=mention, n=[self.words.mention(other, False) for other in others])

    def _place_distractors(self, distractors: list[Concept]) -> None:
        """Mention each of these codes once, in a way that does not justify it."""
        rng = self.rng
        waiting = list(distractors)
        while waiting:
            concept = waiting.pop()
            ways = _ways_to_reject(concept)
            way = rng.choices(tuple(ways), tuple(ways.values()))[0]
            mention = self.words.mention(concept, False)
            if way == "sentence":
                place, text, told = self._deny(concept, mention, waiting)
                waiting = [other for other in waiting if other not in told]
            elif way == "rejects":
                place = rng.choice(("hpi", "course"))
                if concept.code in self.content.rules.social_codes:
                    place = "social"
                if concept.code in self.content.rules.family_codes:
                    place = "family"
                text = self.words.sentence(concept, False)
            elif way == "drug":
                drug = rng.choice(concept.drugs)
                place = rng.choice(("allergies", "home drugs"))
                in_place = self.phrases.allergy_negative if place == "allergies" else self.phrases.drug_negative
                template = rng.choice(in_place)
                text = self.words.fill(template, n=[mark(concept.code, False, drug)], **self.words.dosing(drug))
            elif way == "family":
                place, text = "family", self._of_relatives(concept)
            else:
                place = way
                text = self.words.fill(self.words.choose(self.phrases.list_negative[way], concept), n=[mention])
            self.sections[place].append(text)
        self._add_inherited()

    def _deny(self, concept: Concept, mention: str, waiting: list[Concept]) -> tuple[str, str, list[Concept]]:
        """A section, a sentence for it that denies a code, and those of the waiting ones that it denies as well."""
        place = "results" if concept.kind == IMAGING and self.rng.random() < 0.4 else "course"
        if concept.kind in (CHRONIC, EVENT) and self.rng.random() < 0.4:
            place = "hpi"
        others = [other for other in waiting if other.kind == concept.kind]
        template = self.words.choose(self.phrases.negative[concept.kind], concept, len(others))
        others = others[: template.count("{n}") - 1]
        mentions = [mention, *(self.words.mention(other, False) for other in others)]
        return place, self.words.fill(template, n=mentions), others

    def _add_inherited(self) -> None:
        """Now and then, a relative who has what the patient has too."""
        concepts = [self.content.concepts[code] for code in self.admission.codes]
        inherited = [concept for concept in concepts if "family" in _ways_to_reject(concept)]
        if inherited and self.rng.random() < _INHERITED_RATE:
            self.sections["family"].append(self._of_relatives(self.rng.choice(inherited)))

    def _of_relatives(self, concept: Concept) -> str:
        mentions = [self.words.mention(concept, False), self.words.mention(concept, False)]
        return self.words.fill(self.rng.choice(self.phrases.family_negative), n=mentions)

    # Laboratory results -----------------------------------------------------------------------------------------------

    def _show_lab(self, concept: Concept) -> None:
        """A result that justifies the code, among the results or told in the narrative."""
        name, direction = concept.lab_result
        self.told_lab_names.add(name)
        result = mark(concept.code, True, self.words.lab_result(name, direction))
        if self.rng.random() < 0.3:
            self.sections["hpi"].append(self.words.fill(self.rng.choice(self.phrases.lab_positive), p=result))
        else:
            self.told_labs.append(result)

    def _add_labs(self) -> None:
        """Normal results, and the abnormal ones of codes that are shown elsewhere."""
        rng = self.rng
        directions = {}
        for code in self.admission.codes:
            concept = self.content.concepts[code]
            if concept.lab:
                name, direction = concept.lab_result
                directions[name] = (code, direction)
        dated = rng.random() < 0.5
        joint = rng.choice((", ", " ", "  "))
        for _ in range(self.length.lab_lines):
            results, self.told_labs = self.told_labs, []
            for name in rng.sample(sorted(self.content.labs), 5 if self.length.lab_lines == 1 else 12):
                if name in self.told_lab_names:
                    continue
                result = self.words.lab_result(name, directions[name][1] if name in directions else "")
                if name in directions:
                    result = mark(directions[name][0], True, result)
                results.append(result)
            rng.shuffle(results)
            prefix = self.words.fill("[**{date}**] 0{small}:{minute}AM BLOOD ") if dated else ""
            self.sections["results"].insert(0, prefix + joint.join(results))

    # The rest of the note ---------------------------------------------------------------------------------------------

    def _add_frame(self) -> None:
        """What every summary has: complaint, opening, a word on allergies and on the family, some home drugs."""
        rng = self.rng
        sections = self.sections
        plain = self.phrases.plain
        self._open()
        for name in ("allergies", "family"):
            if not sections[name] or rng.random() < 0.2:
                sections[name].append(rng.choice(plain[name]))
        if not sections["history"] or rng.random() < 0.5:
            sections["history"].append(rng.choice(plain["history"]))
        for _ in range(rng.randint(0, self.length.plain_drugs)):
            drug = self.words.draw(plain["drugs"])
            if drug is not None and not any(drug.split()[0] in line for line in sections["home drugs"]):
                sections["home drugs"].append(self.words.plain_drug(drug))
        if not sections["procedures"]:
            sections["procedures"].append("None")
        sections["disposition"].append(self.words.fill(rng.choice(plain["disposition"])))
        if not sections["diagnoses"]:
            sections["diagnoses"].append("As above")
        for name in ("history", "social", "family", "course", "home drugs", "diagnoses", "addendum"):
            rng.shuffle(sections[name])

    def _open(self) -> None:
        """The complaint, and the first sentence of the narrative: who came, with which history and complaint."""
        rng = self.rng
        sections = self.sections
        complaint = rng.choice(self.phrases.complaints[rng.choice(self.admission.themes)])
        sections["complaint"].append(complaint)
        history = sections.pop("opening")
        who = re.sub(r"\ba (?=8|18)", "an ", self.words.fill(rng.choice(self.phrases.openings)))
        if history:
            listed = ", ".join(history[:-1]) + (" and " if len(history) > 1 else "") + history[-1]
            told = self.words.fill(rng.choice(self.phrases.opening_links), history=listed, complaint=complaint)
        else:
            told = self.words.fill(rng.choice(self.phrases.openings_plain), complaint=complaint)
        rng.shuffle(sections["hpi"])
        sections["hpi"].insert(0, f"{who} {told}")

    def _pad(self) -> None:
        """Add plain sentences until the note has the words it should have."""
        rng = self.rng
        phrases = self.phrases
        target = rng.randint(*self.length.words) - len(phrases.headings) * 2
        told = sum(len(line.split()) for name, lines in self.sections.items() for line in lines if name != "addendum")
        places = tuple(name for name in _PADDING if name != "social" or _HOMELESS not in self.admission.codes)
        weights = tuple(_PADDING[name][0] for name in places)
        while told < target:
            name = rng.choices(places, weights)[0]
            text = self.words.draw(phrases.plain[_PADDING[name][1]])
            if text is None:
                name, text = "course", rng.choice(phrases.progress)
            if name == "discharge drugs":
                template = rng.choice(phrases.prescriptions)
                text = self.words.fill(template, drug=text, frequency=rng.choice(phrases.frequencies))
            else:
                text = self.words.fill(text)
            lines = self.sections[name]
            first_place = 1 if name in ("hpi", "results") else 0
            lines.insert(rng.randint(min(first_place, len(lines)), len(lines)), text)
            told += len(text.split())


@cache
def _ways_to_reject(concept: Concept) -> dict[str, float]:
    """Ways to mention a code that does not apply, with weights; empty for a code that has none."""
    content = read_content()
    ways: dict[str, float] = {}
    if concept.kind in content.phrases.negative:
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
    if (concept.kind == CHRONIC and concept.code not in content.rules.not_familial_codes) or (
        concept.code in content.rules.familial_codes
    ):
        ways["family"] = 3
    return ways


@cache
def _distractor_weights(content: Content, themes: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """Codes and cumulative weights for mentions that justify nothing; frequent and fitting codes weigh more."""
    codes, weights, total = [], [], 0.0
    for concept in content.concepts.values():
        if not _ways_to_reject(concept):
            continue
        fits = 2.2 if set(themes) & set(concept.themes) else 1.0
        total += fits * concept.share**0.85
        codes.append(concept.code)
        weights.append(total)
    return tuple(codes), tuple(weights)

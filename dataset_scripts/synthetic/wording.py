"""Chooses the words for one admission: fills placeholders in sentences, names concepts, prints laboratory results."""

import random
import re
from collections.abc import Sequence
from datetime import timedelta

from .admissions import Admission
from .checks import BRACKETED, SLOT
from .content import read_content
from .entries import Concept
from .marks import mark


_RARE_NAME_RATE = 0.15


class Wording:
    """Words for one admission, each choice drawn from the same generator.

    Args:
        admission (`Admission`): Whom and when the words are about.
        rng (`random.Random`): Makes every choice.
    """

    def __init__(self, admission: Admission, rng: random.Random):
        self.admission = admission
        self.rng = rng
        self.content = read_content()
        self.phrases = self.content.phrases
        self.pools: dict[tuple[str, ...], list[str]] = {}

    def draw(self, pool: tuple[str, ...]) -> str | None:
        """One of the pool that this note has not had yet; None once it is used up."""
        if pool not in self.pools:
            self.pools[pool] = self.rng.sample(pool, len(pool))
        left = self.pools[pool]
        return left.pop() if left else None

    def choose(self, templates: Sequence[str], concept: Concept, others: int = 0) -> str:
        """A template that says that `concept` does not apply, with room for at most `others` more concepts.

        Where having had it is a code of its own, the past is not mentioned.
        """
        stays_in_present = concept.code in self.content.rules.past_has_code
        fitting = [
            template
            for template in templates
            if template.count("{n}") <= others + 1 and not ("{year}" in template and stays_in_present)
        ]
        return self.rng.choice(fitting)

    def mention(self, concept: Concept, justifies: bool) -> str:
        """A marked name of the concept, now and then a seldom-used one."""
        names = concept.rare if concept.rare and self.rng.random() < _RARE_NAME_RATE else concept.terms
        return mark(concept.code, justifies, self.fill(self.rng.choice(names)))

    def sentence(self, concept: Concept, justifies: bool) -> str:
        """One of the concept's own sentences that justify it or seem to, the words within `[[...]]` marked."""
        chosen = self.rng.choice(concept.says if justifies else concept.rejects)
        marked = BRACKETED.sub(lambda match: mark(concept.code, justifies, match[1]), chosen)
        return self.fill(f"{marked}.")

    def plain_drug(self, drug: str) -> str:
        return f"{drug} {self.rng.choice(self.phrases.frequencies)}"

    def dosing(self, drug: str) -> dict[str, str]:
        return {"dose": self.content.doses[drug], "frequency": self.rng.choice(self.phrases.frequencies)}

    def lab_result(self, name: str, direction: str = "") -> str:
        """A printed result: of the disease for a direction, otherwise normal for this patient."""
        lab = self.content.labs[name]
        rng = self.rng
        shifted = not set(lab.shifted_by).isdisjoint(self.admission.codes)
        low, high = lab.shifted if shifted else lab.normal
        before = rng.uniform(low, high)
        after = rng.uniform(*lab.abnormal[direction]) if direction else before  # type: ignore[index]
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

    def fill(self, template: str, p: str = "", n: Sequence[str] = (), **given: str) -> str:
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

        return SLOT.sub(replace, template)

    def _slot(self, name: str, start: int) -> str:
        """What stands for one brace; `start` is a day of the stay shared by the braces of a sentence."""
        rng = self.rng
        admission = self.admission
        phrases = self.phrases
        if name in phrases.by_sex:
            return phrases.by_sex[name][admission.sex == "F"]
        if name in phrases.numbers:
            return str(rng.randint(*phrases.numbers[name]))
        if name == "date":
            return self._date(rng.randint(0, admission.days))
        if name == "year":
            return str(admission.admitted.year - rng.randint(2, 15))
        if name == "age":
            return str(admission.age)
        if name == "hospital_day":
            return str(rng.randint(2, max(2, min(admission.days - 1, 9))))
        if name == "temp":
            return f"{rng.uniform(97, 99.3):.1f}"
        if name in phrases.later_dates:
            return self._date(start + rng.randint(*phrases.later_dates[name]))
        if name in phrases.choices:
            return self.fill(rng.choice(phrases.choices[name]))
        relative = rng.choice(phrases.relatives)
        return relative.capitalize() if name == "relative" else relative

    def _date(self, day_of_stay: int) -> str:
        day = self.admission.admitted + timedelta(days=day_of_stay)
        return f"{day.month}-{day.day}"

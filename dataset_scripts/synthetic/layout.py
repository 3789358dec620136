"""Joins the sections of a note into its text: order, headings and lists, then shorthand and typing errors."""

import re
from collections.abc import Mapping
from datetime import date, timedelta

from .marks import MENTION_WHOLE, capitalized
from .wording import Wording


_LONG_WORD = re.compile(r"\b([a-z]{4})([a-z])([a-z])([a-z]+)\b")
_PROSE = ("hpi", "course", "social", "family", "addendum", "instructions")
_LINES = ("exam", "followup", "condition", "disposition", "complaint")


def join_summary(words: Wording, sections: Mapping[str, list[str]]) -> str:
    """The discharge summary with its marks, sections in one of the usual orders."""
    rng = words.rng
    admission = words.admission
    phrases = words.phrases
    discharged = admission.admitted + timedelta(days=admission.days)
    theme = rng.choice(admission.themes)
    service = rng.choice(phrases.services.get(theme, ("MEDICINE",)))
    birth = f"[**{admission.admitted.year - admission.age}-{rng.randint(1, 12)}-{rng.randint(1, 28)}**]"
    parts = [
        f"Admission Date:  {_deid_date(admission.admitted)}     Discharge Date:  {_deid_date(discharged)}",
        f"Date of Birth:  {birth}             Sex:   {admission.sex}",
        f"Service: {service}",
    ]
    gap = rng.choice(("\n\n", "\n\n", "\n"))
    for name in rng.choice(phrases.orders):
        lines = sections[name]
        if not lines:
            continue
        heading = rng.choice(phrases.headings[name])
        joint = "\n" if name not in ("allergies", "complaint") or rng.random() < 0.5 else " "
        parts.append(f"{heading}{joint}{_body(words, name, lines)}")
    if rng.random() < 0.4:
        parts.append(
            f"Completed by:[**First Name8 (NamePattern2) **] [**Last Name (NamePattern1) {rng.randint(1, 9999)}**]"
        )
    return gap.join(parts) + "\n"


def join_addendum(words: Wording, sentences: list[str]) -> str:
    admission = words.admission
    number = words.rng.randint(1, 9999)
    lines = [words.fill(words.rng.choice(words.phrases.addendum_openings)), *sentences]
    if len(lines) == 1:
        lines.append(words.fill(words.rng.choice(words.phrases.plain["course"])))
    return (
        f"Name:  [**Known lastname {number}**], [**Known firstname {number % 97}**]    Unit No:  [**Numeric "
        f"Identifier {number}**]\n\nAdmission Date:  {_deid_date(admission.admitted)}\n\nAddendum:\n"
        f"{_body(words, 'addendum', lines)}\n"
    )


def write_hurriedly(words: Wording, marked: str) -> str:
    """Shorthand and slips of the pen, outside mentions and headings."""
    rng = words.rng
    pieces = MENTION_WHOLE.split(marked)
    replaced = {word: short for word, short in words.phrases.shorthand if rng.random() < 0.6}
    longer = re.compile(r"(?<![\w/])(" + "|".join(map(re.escape, replaced)) + r")(?!\w)") if replaced else None
    for index in range(0, len(pieces), 2):  # the odd ones are mentions
        if longer:
            pieces[index] = longer.sub(lambda match: replaced[match[1]], pieces[index])
        if rng.random() < 0.15:
            pieces[index] = _LONG_WORD.sub(r"\1\3\2\4", pieces[index], count=1)
    return "".join(pieces)


def _body(words: Wording, name: str, lines: list[str]) -> str:
    """The lines of a section as prose, as a numbered, dashed or plain list, or run on with commas."""
    rng = words.rng
    if name in _PROSE:
        if name == "course" and rng.random() < 0.25:
            return "\n".join(f"# {capitalized(line)}" for line in lines)
        return " ".join(capitalized(line) for line in lines)
    if name == "allergies":
        return ", ".join(lines)
    if name == "results":
        return "\n".join(capitalized(line) for line in lines)
    style = rng.random()
    if name in _LINES:
        return "\n".join(capitalized(line) for line in lines)
    if style < 0.35:
        return "\n".join(f"{number}. {capitalized(line)}" for number, line in enumerate(lines, 1))
    if style < 0.6:
        return "\n".join(f"-{rng.choice(('', ' '))}{line}" for line in lines)
    if style < 0.8:
        return ", ".join(lines)
    return "\n".join(capitalized(line) for line in lines)


def _deid_date(day: date) -> str:
    return f"[**{day.year}-{day.month}-{day.day}**]"

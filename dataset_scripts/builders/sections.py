"""Keeps some sections of a note, or leaves some out, by their headings.

A section begins with a heading at the beginning of a line, a colon behind it, and ends before the next heading that is known:
one of `HEADINGS`, or one that was asked for. What is in front of the first heading is a section, too, called `PREAMBLE`. Lines such as
`HEENT:` within a physical exam are no headings as long as nobody asks for them.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence

import pyarrow as pa


PREAMBLE = "preamble"
# Sections of discharge summaries of Beth Israel Deaconess, each with what it is called in them, in lower case.
HEADINGS: dict[str, tuple[str, ...]] = {
    "admission date": ("admission date", "date of admission"),
    "discharge date": ("discharge date", "date of discharge"),
    "date of birth": ("date of birth",),
    "sex": ("sex",),
    "service": ("service",),
    "allergies": ("allergies",),
    "attending": ("attending", "attending physician"),
    "chief complaint": ("chief complaint", "reason for admission", "cc"),
    "procedures": ("major surgical or invasive procedure", "major surgical or invasive procedures", "procedures"),
    "history of present illness": ("history of present illness", "history of the present illness", "hpi"),
    "past medical history": ("past medical history", "past medical history and past surgical history", "pmh", "pmhx"),
    "past surgical history": ("past surgical history",),
    "social history": ("social history", "sh"),
    "family history": ("family history", "fh"),
    "medications on admission": ("medications on admission", "home medications", "home meds", "medications prior to admission"),
    "physical exam": ("physical exam", "physical examination", "physical exam on admission", "admission physical exam", "exam on admission", "pe"),
    "pertinent results": ("pertinent results", "laboratory data", "laboratories", "labs on admission", "labs", "labs and studies"),
    "hospital course": (
        "brief hospital course", "hospital course", "hospital course by systems", "hospital course by system",
        "summary of hospital course", "summary of hospital course by systems", "concise summary of hospital course",
    ),
    "discharge medications": ("discharge medications", "medications on discharge", "medications at discharge", "meds on d/c"),
    "discharge disposition": ("discharge disposition", "disposition"),
    "facility": ("facility",),
    "discharge diagnosis": (
        "discharge diagnosis", "discharge diagnoses", "final diagnosis", "final diagnoses", "primary diagnosis",
        "primary diagnoses", "secondary diagnosis", "secondary diagnoses",
    ),
    "discharge condition": ("discharge condition", "condition on discharge", "condition at discharge"),
    "discharge instructions": ("discharge instructions",),
    "followup instructions": ("followup instructions", "follow-up instructions", "follow up instructions", "followup", "follow-up"),
    "addendum": ("addendum",),
}  # fmt: skip


def check_sections(sections: Sequence[str]) -> list[str]:
    """Write the sections of an option in lower case, sorted; all of them begin with a dash, or none does.

    Raises:
        ValueError: where some do and some do not, or one has no name.
    """
    names = sorted({" ".join(name.lower().split()) for name in sections})
    dashes = [name.startswith("-") for name in names]
    if not names or not all(name.strip("- ") for name in names) or any(dashes) != all(dashes):
        raise ValueError(
            "`sections` must be names of sections to keep, such as 'hospital course', or, each with a dash in front, to leave "
            "out, such as '-social history': not both, and none empty."
        )
    return names


class SectionFilter:
    """Keeps the sections that are asked for, and counts what goes.

    Args:
        sections (`Sequence[str]`): Names of sections, as [`check_sections`] gives them: a name in `HEADINGS` stands for all of
            its headings, `PREAMBLE` for what is in front of the first, any other for the heading itself.
    """

    def __init__(self, sections: Sequence[str]):
        self.leaves_out = sections[0].startswith("-")
        names = names_of(sections)
        self.chosen = set(names)
        self.name_of = {heading: name for name, headings in HEADINGS.items() for heading in headings}
        self.name_of.update((name, name) for name in names if name not in HEADINGS and name != PREAMBLE)
        longest_first = sorted(map(re.escape, self.name_of), key=len, reverse=True)
        self.heading = re.compile(rf"^[ \t]*({'|'.join(longest_first)})[ \t]*:", re.IGNORECASE | re.MULTILINE)
        self.counts: Counter[str] = Counter()
        self.rows_with: Counter[str] = Counter()  # rows that have a section, by its name

    def count_anew(self) -> None:
        """Forget what was counted."""
        self.counts.clear()
        self.rows_with.clear()

    def __call__(self, texts: pa.StringArray) -> pa.StringArray:
        """Cut the rows of a table of notes."""
        return pa.array([None if text is None else self.cut(text) for text in texts.to_pylist()], type=pa.string())

    def cut(self, text: str) -> str:
        """Keep of a text what was asked for; nothing is put between sections that were apart."""
        parts = list(self.divide(text))
        kept = "".join(part for name, part in parts if (name in self.chosen) != self.leaves_out)
        self.counts["rows"] += 1
        self.counts["characters"] += len(text)
        self.counts["kept"] += len(kept)
        self.rows_with.update({name for name, part in parts if part})
        return kept

    def divide(self, text: str) -> Iterator[tuple[str, str]]:
        """The sections of a text, each with its name, in their order; together they are the text."""
        found = list(self.heading.finditer(text))
        self.counts["rows without a heading"] += not found
        starts = [match.start() for match in found] + [len(text)]
        yield PREAMBLE, text[: starts[0]]
        for match, end in zip(found, starts[1:], strict=True):
            yield self.name_of[match[1].lower()], text[match.start() : end]

    def report(self) -> dict[str, int]:
        """Count what went, with its share of the text, and the rows that lack a section which none of them has.

        Raises:
            ValueError: where no row has any of the sections.
        """
        num_rows, absent = self.counts["rows"], sorted(self.chosen - self.rows_with.keys())
        by_number = sorted(self.rows_with.items(), key=lambda item: (-item[1], item[0]))
        there = ", ".join(f"{name} {number:,}" for name, number in by_number)
        if num_rows and len(absent) == len(self.chosen):
            raise ValueError(
                f"`sections`: no note has {' or '.join(map(repr, absent))}. The sections that the {num_rows:,} rows of notes "
                f"have, and in how many: {there}. Spell the names so, or as the heading in the notes."
            )
        nowhere = f"so all of them (the sections that they have: {there})"
        gone = self.counts["characters"] - self.counts["kept"]
        share = gone / max(self.counts["characters"], 1)
        return {
            f"left out, characters of other sections ({share:.1%} of the text)": gone,
            "note rows in which no section has a known heading": self.counts["rows without a heading"],
            **{f"note rows without a section {name!r}, {nowhere}": num_rows for name in absent},
        }


def names_of(sections: Sequence[str]) -> list[str]:
    """The names of the sections, without the dashes."""
    return [name.strip("- ") for name in sections]


def describe_sections(sections: Sequence[str]) -> str:
    """Say what the option `sections` makes."""
    done = "left out" if sections[0].startswith("-") else "kept, and no other"
    return f"Of the sections of a note these are {done}: {', '.join(names_of(sections))}."

"""Marks mentions of codes while a note is written, and turns the marks of the finished text into character spans."""

import re
from dataclasses import dataclass


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
MENTION_WHOLE = re.compile("(\x01[^\x03]*\x03)")
_FIRST_LETTER = re.compile("^((?:\x01[^\x02]+\x02)?)([a-z])(?=[a-z ])")


def mark(code: str, justifies: bool, words: str) -> str:
    """Words that justify a code, or only mention it, with their mark."""
    return f"\x01{code}{'+' if justifies else '-'}\x02{words}\x03"


def capitalized(sentence: str) -> str:
    """A sentence, which may begin with a mention, with its first letter in upper case."""
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

"""ICD-9-CM codes: where the dot goes, and whether a code is a diagnosis or a procedure.

Tables such as MIMIC-III's hold codes without the dot, and 1,593 strings of digits are then both a diagnosis and a
procedure. With the dot no two clash: a diagnosis has three digits in front of it (or V and two, or E and three), a
procedure has two. Codes are strings throughout: read as a number, 038.9 and 389 would be one code.
"""

import re
from typing import Literal


Kind = Literal["diagnosis", "procedure"]

PATTERNS: dict[Kind, re.Pattern[str]] = {  # without the dot
    "diagnosis": re.compile(r"([0-9]{3}|V[0-9]{2})[0-9]{0,2}|E[0-9]{3}[0-9]?"),
    "procedure": re.compile(r"[0-9]{2,4}"),
}
EXAMPLES: dict[Kind, str] = {"diagnosis": "4019, V4581 or E8859", "procedure": "9671"}


def add_dot(code: str, kind: Kind) -> str:
    """Put the dot into a code: after 3 characters of a diagnosis (4 of an E-code), after 2 of a procedure.

    A code that is only as long as its category (`486`) stays without a dot, and one that has its dot in the right
    place comes back as it is.

    Args:
        code (`str`): The code as the table has it, leading zeros included.
        kind (`str`): `"diagnosis"` or `"procedure"`; the same digits mean different things.
    """
    if kind not in PATTERNS:
        raise ValueError(f"Unknown kind of code {kind!r}: expected one of {', '.join(map(repr, PATTERNS))}.")
    dotted = _dotted(code.replace(".", "", 1), kind)
    if dotted is None or ("." in code and code != dotted):
        raise ValueError(
            f"{quote_code(code)} is not an ICD-9-CM {kind} code such as {EXAMPLES[kind]}. "
            "If leading zeros were lost, the file was read as numbers: go back to the original."
        )
    return dotted


def kind_of(code: str) -> Kind:
    """Tell whether a dotted code is a diagnosis or a procedure."""
    for kind in PATTERNS:
        if _dotted(code.replace(".", "", 1), kind) == code:
            return kind
    raise ValueError(
        f"{quote_code(code)} is not a dotted ICD-9-CM code such as 401.9, V45.81, E885.9 (diagnoses) or 96.71 (procedure)."
    )


def _dotted(digits: str, kind: Kind) -> str | None:
    """Put the dot into a code without one; None if it is no code."""
    if not PATTERNS[kind].fullmatch(digits):
        return None
    category = 2 if kind == "procedure" else 4 if digits.startswith("E") else 3
    return f"{digits[:category]}.{digits[category:]}" if len(digits) > category else digits


def quote_code(code: str) -> str:
    """Show a wrong code, unless it is too long to be one: a shifted column may hold a note."""
    return repr(code) if len(code) <= 10 else f"A value of {len(code)} characters"

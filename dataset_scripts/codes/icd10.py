"""ICD-10-CM and ICD-10-PCS codes: where the dot goes, and whether a code is a diagnosis or a procedure.

A diagnosis (ICD-10-CM) has its dot after the third character, and none if it has no more (`I10`). A procedure
(ICD-10-PCS) has seven characters, neither I nor O among them, and no dot; CodiEsp cuts most of them to four.
"""

import re

from .icd9 import Kind, quote_code


PATTERNS: dict[Kind, re.Pattern[str]] = {  # with the dot
    "diagnosis": re.compile(r"[A-Z][0-9A][0-9A-Z](\.[0-9A-Z]{1,4})?"),
    "procedure": re.compile(r"[0-9A-HJ-NP-Z]{4}([0-9A-HJ-NP-Z]{3})?"),
}
TABLE = re.compile(r"[0-9A-HJ-NP-Z]{3}-")
EXAMPLES: dict[Kind, str] = {
    "diagnosis": "ICD-10-CM diagnosis code such as E119, I10 or S72141A",
    "procedure": "ICD-10-PCS procedure code such as 0BH17EZ",
}


def add_dot(code: str, kind: Kind) -> str:
    """Put the dot into a diagnosis, after three characters; a procedure has none.

    A code that is only as long as its category (`I10`) stays without a dot, and one that has its dot in the right place
    comes back as it is.

    Args:
        code (`str`): The code as the table has it, upper case.
        kind (`str`): `"diagnosis"` or `"procedure"`.
    """
    if kind not in PATTERNS:
        raise ValueError(f"Unknown kind of code {kind!r}: expected one of {', '.join(map(repr, PATTERNS))}.")
    bare = code.replace(".", "", 1)
    dotted = f"{bare[:3]}.{bare[3:]}" if kind == "diagnosis" and len(bare) > 3 else bare
    if not PATTERNS[kind].fullmatch(dotted) or ("." in code and code != dotted):
        raise ValueError(
            f"{quote_code(code)} is not an {EXAMPLES[kind]}. "
            "If leading zeros were lost, the file was read as numbers: go back to the original."
        )
    return dotted


def kind_of(code: str) -> Kind:
    """Tell whether a dotted code is a diagnosis or a procedure."""
    for kind, pattern in PATTERNS.items():
        if pattern.fullmatch(code):
            return kind
    raise ValueError(
        f"{quote_code(code)} is not a dotted ICD-10 code such as E11.9, I10 (diagnoses) or 0BH17EZ (procedure)."
    )


def is_table(name: str) -> bool:
    """Whether a name is that of a table of ICD-10-PCS, such as `0BH-`; see `icd10_hierarchy.py`."""
    return TABLE.fullmatch(name) is not None

"""The codes of the user's own notes: divides a cell into codes, and checks each against the code system it is said to be of."""

import re
from dataclasses import dataclass

from .classification import ICD9, ICD10, Classification
from .icd9 import Kind


SEPARATORS = re.compile(r"[;,|\s]+")
BRACKETS = ("[]", "()", "{}")  # of a list, tuple or set that was printed
MISSING = {"nan", "none", "null", "<na>"}  # what data frames write for no value
LONGEST_CODE = 100  # characters; what is longer is a text from another column, and no code


def split_codes(cell: str, separator: str | None = None) -> list[str]:
    """Divide a cell into codes, in its order, without white space around them; empty ones, and what data frames write for no
    value (`nan`), are left out.

    Args:
        cell (`str`): Such as `"401.9; 250.00"`. Without a separator, the brackets and quotes of a printed list are taken
            off: `"['401.9', '250.00']"`.
        separator (`str`, *optional*): What stands between two codes; white space, `;`, `,` and `|` if left out.
    """
    if separator is None:
        cell = cell.strip()
        printed = cell[1:-1] if cell[:1] + cell[-1:] in BRACKETS else cell
        codes = [code.strip("'\"") for code in SEPARATORS.split(printed)]
    else:
        codes = [code.strip() for code in cell.split(separator)]
    return [code for code in codes if code and code.lower() not in MISSING]


@dataclass(frozen=True)
class CodeSystem:
    """A code system that codes can be said to be of.

    Args:
        name (`str`): What to call it.
        classification (`Classification`, *optional*): Its dots and hierarchy; None where nothing is known of the codes.
        kind (`str`): What its codes are if nothing else is said of them.
    """

    name: str
    classification: Classification | None
    kind: Kind

    def load_titles(self) -> dict[str, str]:
        """Titles by dotted code or range, without those of the user's own file."""
        return self.classification.load_titles() if self.classification is not None else {}

    def read_code(self, code: str, kind: Kind | None = None) -> str | None:
        """Write a code as the data set has it: in capitals and with its dot, where the system has a classification.

        Args:
            code (`str`): As the user's file has it. Where it has its dot, that tells what it is, and `kind` does not count.
            kind (`str`, *optional*): `"diagnosis"` or `"procedure"`; that of the system if left out.

        Returns:
            The code; None where it is not one of the system, or is longer than `LONGEST_CODE`.
        """
        if self.classification is None:
            return code if len(code) <= LONGEST_CODE else None
        code = code.upper().rstrip(".")
        try:
            dotted = code if "." in code else self.classification.add_dot(code, kind or self.kind)
            self.classification.family_of(dotted)
        except ValueError:
            return None
        return dotted


CODE_SYSTEMS = {
    "icd9cm": CodeSystem("ICD-9-CM", ICD9, "diagnosis"),
    "icd10cm": CodeSystem("ICD-10-CM", ICD10, "diagnosis"),
    "icd10pcs": CodeSystem("ICD-10-PCS", ICD10, "procedure"),
    "other": CodeSystem("another code system", None, "diagnosis"),
}

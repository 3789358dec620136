"""Recognises codes that a spreadsheet or a data frame has changed, because it took them for numbers or dates.

What it has changed beyond recognition is not found: 38.9 may be a procedure, or the diagnosis 038.9 without its zero.
"""

import re

from .classification import Classification


# The categories of ICD-9-CM (version 32, of the Centers for Medicare & Medicaid Services) that are codes themselves, without a
# digit behind a dot: of these, 486.0 is none.
_UNDIVIDED = """
024 025 035 037 042 048 061 064 071 075 080 096 101 118 124 129 135 138 179 181 185 193 217 220 226 243 260 261 262 267 311
316 317 319 325 326 340 390 393 412 430 431 436 449 452 460 462 463 470 475 481 485 486 490 496 500 501 502 503 504 505 514
515 538 541 542 566 570 586 587 591 605 630 632 650 677 683 684 700 725 734 769 797 920 931 932 936 937 938 981 986 990
"""
UNDIVIDED = frozenset(_UNDIVIDED.split())
SCIENTIFIC = re.compile(r"\d+([.,]\d+)?E[+-]\d+", re.IGNORECASE)
WHOLE = re.compile(r"(\d+)\.0+")
# In English, German, French and Spanish, by their first letters.
MONTH = (
    r"(?:jan|f[eé]b|f[eé]v|mar|mär|mrz|apr|avr|abr|may|mai|jun|jui|jul|aug|ao[uû]|ago|sep|o[ck]t|nov|de[cz]|d[eé]c|dic|ene)"
    r"[a-zéû]{0,6}\.?"
)
DATE = re.compile(
    rf"\d{{1,2}}[-./]{MONTH}([-./]\d{{2,4}})?|{MONTH}[-./]\d{{2,4}}|\d{{4}}-\d{{2}}-\d{{2}}(T[\d:.]*)?", re.IGNORECASE
)
# Within a cell, where a comma may also stand between two codes: nothing of one or two characters is a code behind one.
_BEFORE, _AFTER = r"(?<![^\s;|\[({'\"])", r"(?![^\s;|\])}'\"])"
COMMA = re.compile(rf"{_BEFORE}\d{{2,3}},\d{{1,2}}{_AFTER}")
COMMA_OF_ICD = re.compile(
    rf"{_BEFORE}(?:\d{{2,3}},\d{{1,2}}|[VE]?\d{{2,3}},\d|[A-Z]\d[0-9A-Z],\d{{1,2}}){_AFTER}", re.IGNORECASE
)
WITH_COMMA = "has a comma in place of its dot (401,9 for 401.9)"


def damage_of(code: str) -> str | None:
    """How a code was changed, as the end of a sentence that begins with "it"; None where nothing is seen.

    Args:
        code (`str`): As the user's file has it, without white space around it.
    """
    if SCIENTIFIC.fullmatch(code):
        return "is a number in scientific form (4.28E+02 for 428)"
    if DATE.fullmatch(code):
        return "is a date (01-Sep for 1.9 or 9-1)"
    whole = WHOLE.fullmatch(code)
    if whole is not None and (whole[1] in UNDIVIDED or len(whole[1]) not in (2, 3)):
        return "is a number with `.0` behind it (486.0 for 486)"
    return WITH_COMMA if COMMA.fullmatch(code) else None


def find_decimal_commas(cell: str, classification: Classification | None) -> tuple[str, int]:
    """Find codes in a cell whose dot has become a comma: `401,9`.

    Args:
        cell (`str`): Such as `"401,9; 428,0"`.
        classification (`Classification`, *optional*): What the codes are of; where nothing is known of them, those of digits
            alone are found.

    Returns:
        The cell without them, and how many they are.
    """
    return (COMMA if classification is None else COMMA_OF_ICD).subn(" ", cell)

"""What the builders of MIMIC make of a note's text: words after CAML's or Edin et al.'s rules, de-identification marks replaced."""

import re
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .edin_splits import edin_text


# What becomes of each ASCII character in CAML's words: its lower case, or a space if it belongs to none.
CAML_BYTES = re.sub(r"\W", " ", "".join(map(chr, range(128))).lower()).encode().ljust(256)
RULES = {  # what `text` can be, and what the description of a data set says of it
    "raw": "",
    "caml": "The text is cut into CAML's words.",
    "edin": "The text is cut into words as in Edin et al.",
}


def prepare_texts(rule: str) -> Callable[[pa.StringArray], pa.StringArray]:
    """What a rule makes of the rows of a table of notes."""
    return caml_texts if rule == "caml" else lambda texts: texts


def joint_of(rule: str) -> str:
    """What stands between the texts of two rows, unless `rule` is `edin`."""
    return " " if rule == "caml" else "\n\n"


def join_texts(texts: list[str], rule: str) -> str:
    """The text of a record, given those of its rows, made ready by [`prepare_texts`]."""
    if rule == "edin":
        return edin_text(" ".join(texts))
    return joint_of(rule).join(filter(None, texts))


def is_blank(texts: pa.Array | pa.ChunkedArray, rule: str) -> pa.Array | pa.ChunkedArray:
    """Whether nothing is left of each row's text; Edin et al.'s words are taken for nothing where they are numbers alone."""
    if rule == "edin":
        return pc.invert(pc.match_substring_regex(texts, "[A-Za-z]"))
    return pc.or_(pc.equal(texts, ""), pc.utf8_is_space(texts))


def replace_marks(texts: pa.StringArray, mark: str, token: str) -> pa.StringArray:
    """Put a token in the place of each de-identification mark."""
    return pc.replace_substring_regex(texts, mark, token.replace("\\", r"\\"))


def caml_text(text: str) -> str:
    """Cut a note into CAML's words: lower-cased runs of letters, digits and underscores that hold a letter."""
    words = re.findall(r"\w+", text.lower())
    return " ".join(word for word in words if any(map(str.isalpha, word)))


def caml_texts(texts: pa.StringArray) -> pa.StringArray:
    """Apply [`caml_text`] to many notes, the faster and without the interpreter's lock if all are ASCII."""
    validity, offsets, data = texts.buffers()
    characters = data.to_pybytes() if data is not None else b""
    if not characters.isascii():
        return pa.array([caml_text(text.as_py()) for text in texts], type=pa.string())
    buffers = [validity, offsets, pa.py_buffer(characters.translate(CAML_BYTES))]
    words = pc.ascii_split_whitespace(pa.Array.from_buffers(pa.string(), len(texts), buffers, offset=texts.offset))
    kept = pc.ascii_is_lower(words.values)  # all letters are lower case, and there is one
    kept_before = np.concatenate([[0], np.cumsum(kept.to_numpy(zero_copy_only=False))])
    offsets = pa.array(kept_before[words.offsets.to_numpy()], type=pa.int32())
    return pc.binary_join(pa.ListArray.from_arrays(offsets, words.values.filter(kept)), " ")

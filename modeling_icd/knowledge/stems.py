"""The tokenizer of a coder by terms: it makes a stem of each word, in English and in Spanish, and keeps the word's place.

Accents, case, endings of number and gender, British spelling and Roman numerals make no difference between two words. The same
steps are taken for terms and for notes, and are written in `tokenizer.json`.
"""

from collections.abc import Iterable, Sequence

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast


PAD, UNKNOWN = "<pad>", "<unk>"
SENTENCE_ENDS = (".", ";", "!", "?", "\n")
# A word; a mark that ends a sentence; the end of a paragraph, or of a line before a line of a list.
_PIECE = r"\w+|[.;!?](?=\s|$)|\n(?=[ \t]*\n|\s*(?:[-*•]|\d+[.)])\s)"
# One after the other, after accents and case.
_STEPS = (
    (r"['\u2019]s\b", ""),
    (r"[ao]e", "e"),  # anaemia, oedema
    (r"(?<=\w{3})our\b", "or"),  # tumour
    *((rf"\b{roman}\b", str(number)) for number, roman in enumerate(("i", "ii", "iii", "iv"), start=1)),
    (r"(?<=\w{3})(?:(?<!s)s|[aeo]s|[aeo])\b", ""),  # fractures, lesiones, aguda
    (r"(?<=\w{2})y\b", "i"),  # biopsy, as in biopsies
)


def term_tokenizer(stems: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """A tokenizer that knows these stems; any other is `<unk>`.

    Args:
        stems (`Sequence[str]`): as [`stems_of`] gives them.
    """
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys((PAD, UNKNOWN, *SENTENCE_ENDS, *stems)))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    replaced = [normalizers.Replace(Regex(pattern), stem) for pattern, stem in _STEPS]
    folded = [normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()]
    tokenizer.normalizer = normalizers.Sequence([*folded, *replaced])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(_PIECE), "removed", invert=True)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, unk_token=UNKNOWN)


def stems_of(texts: Iterable[str]) -> list[list[str]]:
    """The stems of each text, in its order, without marks."""
    backend = term_tokenizer().backend_tokenizer
    normalizer, divider = backend.normalizer, backend.pre_tokenizer
    pieces = (divider.pre_tokenize_str(normalizer.normalize_str(text)) for text in texts)
    return [[piece for piece, _ in of_text if piece not in SENTENCE_ENDS] for of_text in pieces]

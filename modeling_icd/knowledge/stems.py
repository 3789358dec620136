"""The tokenizer of a coder by terms: it makes a stem of each word, in English and in Spanish, and keeps the word's place.

Accents, case, endings of number and gender, British spelling and Roman numerals make no difference between two words. The same
steps are taken for terms and for notes, and are written in `tokenizer.json`.
"""

from collections.abc import Collection, Iterable, Sequence

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast


PAD, UNKNOWN = "<pad>", "<unk>"
SENTENCE_ENDS = (".", ";", "!", "?", "\n")
COMMA = ","
MISSPELT_LENGTH = 6
# A word; a comma; a mark that ends a sentence; the end of a paragraph, or of a line before a line of a list.
_PIECE = r"\w+|[,.;!?](?=\s|$)|\n(?=[ \t]*\n|\s*(?:[-*•]|\d+[.)])\s)"
# Before case is folded: hepatitis A is none with an article.
_LETTER = (r"(?<=\w )A\b", "AA")


def _within_words(pattern: str) -> str:
    """A pattern, where two more letters stand before it or behind it."""
    return rf"(?:{pattern})(?=\w\w)|(?<=\w\w)(?:{pattern})"


# What English and Spanish write differently in words from Greek and Latin: chronic, crónica; insufficiency, insuficiencia.
_COGNATES = (
    (r"sthm", "sm"),  # asthma, asma
    # Not in abbreviations: CHF, CKD.
    *((_within_words(f"{letter}h"), single) for letter, single in (("p", "f"), ("t", "t"), ("r", "r"), ("c", "c"))),
    (_within_words("k|qu"), "c"),
    (r"y", "i"),
    (r"[cst]ion", "cion"),
    (r"\bp(?=[ns])", ""),  # pneumonia, neumonía
    (r"\bes(?=[cmnpt])", "s"),  # stenosis, estenosis
    (r"([b-df-hj-np-rtv-z])(?=\1)", ""),
)
# One after the other, after accents and case.
_STEPS = (
    (r"\bhistory of\b|\bh/o\b", "history_of"),
    (r"\bstatus post\b|\bs/p\b", "status_post"),
    (r"\brule out\b|\br/o\b", "rule_out"),
    (r"\bantecedentes? (?:personal(?:es)? )?de\b", "antecedente_de"),
    # Without its doubled letter or its ending each of these would be a word that no term needs, or that ends a denial: Lassa fever
    # would be any fever, hearing loss any hearing.
    *((rf"\b{word}\b", f"{word}_") for word in ("loss", "all", "off", "lassa", "pars", "conn", "per")),
    (r"['\u2019]s\b", ""),
    (r"[ao]e", "e"),  # anaemia, oedema
    (r"(?<=\w{3})our\b", "or"),  # tumour
    *((rf"\b{roman}\b", str(number)) for number, roman in enumerate(("i", "ii", "iii", "iv"), start=1)),
    *_COGNATES,
    (r"\bcomo\b", "as"),  # no coma
    (r"\bcada\b", "each"),  # no CAD
    (r"(?<=\w{3})(?:(?<!s)s|[aeo]s|[aeo])\b", ""),  # fractures, lesiones, aguda
    (r"ss", "s"),  # abscess, absceso
)


def term_tokenizer(stems: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """A tokenizer that knows these stems; any other is `<unk>`.

    Args:
        stems (`Sequence[str]`): as [`stems_of`] gives them.
    """
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys((PAD, UNKNOWN, *SENTENCE_ENDS, COMMA, *stems)))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    replaced = [normalizers.Replace(Regex(pattern), stem) for pattern, stem in _STEPS]
    letter = normalizers.Replace(Regex(_LETTER[0]), _LETTER[1])
    folded = [normalizers.NFD(), normalizers.StripAccents(), letter, normalizers.Lowercase()]
    tokenizer.normalizer = normalizers.Sequence([*folded, *replaced])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(_PIECE), "removed", invert=True)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, unk_token=UNKNOWN)


def misspellings(stems: Iterable[str], others: Collection[str]) -> dict[str, str]:
    """The stem that each misspelt one stands for: one with a letter left out, or two neighbouring ones exchanged, behind its
    first letter. Doubled letters are one letter in a stem anyway. What could stand for several stems is left out.

    Args:
        stems (`Iterable[str]`): each once; of those with a digit, and of those of less than `MISSPELT_LENGTH` letters, none is made.
        others (`Collection[str]`): what is a word itself, and so not misspelt.
    """
    found: dict[str, str | None] = {}
    for stem in stems:
        if len(stem) < MISSPELT_LENGTH or not stem.isalpha():
            continue
        made = {stem[:i] + stem[i + 1 :] for i in range(1, len(stem))}
        made |= {stem[:i] + stem[i + 1] + stem[i] + stem[i + 2 :] for i in range(1, len(stem) - 1)}
        for word in made - {stem}:
            found[word] = stem if found.get(word, stem) == stem else None
    return {word: stem for word, stem in found.items() if stem is not None and word not in others}


def stems_of(texts: Iterable[str]) -> list[list[str]]:
    """The stems of each text, in its order, without marks."""
    backend = term_tokenizer().backend_tokenizer
    normalizer, divider = backend.normalizer, backend.pre_tokenizer
    marks = {*SENTENCE_ENDS, COMMA}
    pieces = (divider.pre_tokenize_str(normalizer.normalize_str(text)) for text in texts)
    return [[piece for piece, _ in of_text if piece not in marks] for of_text in pieces]

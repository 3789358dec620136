"""The check before every push: does a file that goes out hold anything that must stay at home?

Findings name a file and a kind, never the text. Spans of training notes are found the cheap way round: the files that go
out are small, so their spans are held in memory and the notes are streamed past them, one at a time. Memory follows the
outgoing text (16 bytes a word) and not the number of notes, and no index of the notes is ever written. Measured with 52,722 invented
notes of 1,500 words, and a vocabulary of 50,001 words among what goes out: 0.58 GB at the peak, 0.50 GB of it before the first note.

It finds what gets in by accident. Text that was encoded (base64, UTF-16, compressed), spelled with other characters, or written
into the numbers of the weights passes.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from huggingface_hub import get_token

from dataset_scripts import load_builder, parse_options

from .folder import ModelFolder, read_content, safetensors_header


SPAN_WORDS = 8
MIN_NOTES_OF_WORD = 10
WORD = re.compile(r"[^\W_]+")

LOCAL_PATH = "local path"
USER_NAME = "user name"
SECRET = "token or key"
RECORD_ID = "admission or subject id"
DEIDENTIFIED = "de-identification mark"
SPAN = f"span of {SPAN_WORDS} or more words of a training note"
RARE_WORD = "vocabulary words that few training notes have"

# A tokenizer's vocabulary holds pieces of paths, names and numbers by the thousand: there, only what is unmistakable counts.
VOCABULARY_FILES = ("tokenizer.json", "vocab.json", "vocab.txt", "merges.txt", "tokenizer.model")
# In these, numbers are ids of tokens.
TOKEN_ID_FILES = (*VOCABULARY_FILES, "tokenizer_config.json")
ANY_PATH = re.compile(r"(?<![\w:/.~)\]}<-])~?/[\w.@-]+/[\w.@-]+|(?<![A-Za-z])[A-Za-z]:[\\/]+[\w.-]+[\\/]|file://")
HOME_PATH = re.compile(r"/(?:home|Users)/[\w.-]+/[\w.-]+")
SECRETS = re.compile(
    r"\bhf_[A-Za-z0-9]{20,}|\bsk-[A-Za-z0-9_-]{20,}|\bgh[pousr]_[A-Za-z0-9]{30,}|\bgithub_pat_\w{30,}|\bglpat-[\w-]{20,}"
    r"|\bAKIA[0-9A-Z]{16}\b|\bAIza[\w-]{30,}|\bxox[abeoprs]-[\w-]{10,}|-----BEGIN [A-Z ]*PRIVATE KEY"
    r"|(?i:api_?key|secret|password|access_?token|auth_?token)[\"']?\s*[:=\n]\s*[\"']?[A-Za-z0-9+/_-]{16,}"
)
ESCAPE = re.compile(r"\\[nrt]")  # in the source of YAML and Python, where it would run into the next word
FIELD = "\x1f"  # between a key of JSON and its figure
LABELLED_ID = re.compile(
    r"(?i)\b(?:hadm|subject|icustay|admission|patient)_?ids?\b[\"']?\s*[:=,\n\x1f]\s*[\"'\[(]*\s*\d+"
)
WHOLE_NUMBER = re.compile(r"(?<![\w.,:+\x1f-])\d{4,18}(?![\w:-]|[.,]\d)")
MARK, WHOLE_MARK = re.compile(r"\[\*\*"), re.compile(r"\[\*\*[^\]\n]{1,80}\*\*\]")
ACCOUNTS_OF_NOBODY = {"root", "user", "users", "admin", "ubuntu", "runner", "docker", "jovyan", "data", "home", "work"}
# A single long number that equals an id is one; short numbers are so common that it takes several.
LONG_ID_DIGITS, MIN_SHORT_IDS = 6, 5
# Published numbers that may equal an id: the article number of MIMIC-III's paper, which the cards cite.
PUBLIC_NUMBERS = {160035}


class Finding(NamedTuple):
    """Something that must not go out: where, of which kind, and how often."""

    file: str
    kind: str
    times: int

    def __str__(self) -> str:
        return f"{self.file}: {self.kind} ({self.times})"


@dataclass
class TrainingNotes:
    """The user's own notes, streamed.

    Args:
        records (`Iterable[dict]`): With `text`, `hadm_id` and `subject_id`; gone through once for each purpose.
        titles (`Sequence[str]`): Titles of codes, which are public though notes may quote them.
    """

    records: Iterable[Mapping[str, Any]] = field(repr=False)
    titles: Sequence[str] = ()


@dataclass(frozen=True)
class LocalNames:
    """What names this machine and its user.

    Args:
        paths (`tuple[str, ...]`): Paths that may be relative, as a run was given them.
        users (`tuple[str, ...]`): Account names.
        public (`str`): A name that is published anyway and may contain one of these: the repository's id.
    """

    paths: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    public: str = ""


def local_names(folder: ModelFolder | None = None, public: str = "") -> LocalNames:
    """The names of this machine, and those that a model's runs were given."""
    paths = {str(Path.home()), str(Path.cwd())}
    if folder is not None:
        paths |= {str(folder.path), str(folder.path.resolve())}
    for run in folder.runs if folder is not None else ():
        paths |= {str(value) for key, value in run["data"].items() if key.endswith("_dir") and value}
        paths.add(run["training"]["output_dir"])
    users = {os.environ.get(variable, "") for variable in ("LOGNAME", "USER", "USERNAME")} | {Path.home().name}
    users |= {name for path in paths for name in re.findall(r"(?:^|/)(?:home|Users)/([^/]+)", path)}
    return LocalNames(
        paths=tuple(sorted(path for path in paths if "/" in path.strip("./"))),
        users=tuple(sorted(name for name in users if len(name) > 2 and name.lower() not in ACCOUNTS_OF_NOBODY)),
        public=public,
    )


def load_notes(
    dataset: str, config: str | None, data_dir: str, cache_dir: str | Path, options: Sequence[str] = ()
) -> TrainingNotes:
    """Every record of the user's own copy of a data set, whichever its split, through its builder.

    Args:
        options (`Sequence[str]`): of the configuration, `NAME=VALUE`.

    Raises:
        ValueError, FileNotFoundError: where the builder finds a fault in the files.
    """
    given = parse_options(dataset, options, "--dataset_options")
    builder = load_builder(dataset, config, data_dir=data_dir, cache_dir=cache_dir, unsplit=True, **given)
    records = builder.as_dataset(split="all").select_columns(["text", "hadm_id", "subject_id"])
    return TrainingNotes(records, list(builder.code_descriptions.values()))


def check_files(
    files: Mapping[str, Path | bytes],
    names: LocalNames,
    notes: TrainingNotes | None = None,
    min_notes_of_word: int = MIN_NOTES_OF_WORD,
) -> list[Finding]:
    """Scan every outgoing file.

    Args:
        files (`dict`): Paths or contents by name. Of a safetensors file the header is read; weights hold no text.
        names (`LocalNames`): What names this machine and its user.
        notes (`TrainingNotes`, *optional*): Without them, spans, ids and rare words are not looked for.
        min_notes_of_word (`int`): Notes that a word of a vocabulary of words must be in.

    Returns:
        Findings by file and kind; none is a pass.
    """
    texts = {name: readable_text(name, content) for name, content in files.items()}
    counts: Counter[tuple[str, str]] = Counter()
    for name, text in texts.items():
        for kind, count in find_marks(name, text, names):
            counts[name, kind] += count
    if notes is not None:
        counts.update(find_training_text(files, texts, notes, min_notes_of_word))
    return sorted(Finding(name, kind, count) for (name, kind), count in counts.items() if count)


def readable_text(name: str, content: Path | bytes) -> str:
    """The text of a file: of JSON its keys and values, one a line, escapes resolved, so that no span is cut by syntax."""
    if name.endswith(".safetensors"):
        if isinstance(content, bytes):
            raise TypeError(f"{name}: give weights as a path.")
        return "\n".join(_lines_of(safetensors_header(content)))
    text = read_content(content).decode("utf-8", errors="replace")
    if name.endswith(".json"):
        try:
            return "\n".join(_lines_of(json.loads(text)))
        except ValueError:
            return text
    return text


def _lines_of(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        numbered = list(value) == [str(i) for i in range(len(value))]  # id2label
        for key, item in value.items():
            if isinstance(item, int | float | None) and not _is_fraction(item):
                yield f"{key}{FIELD}{item}"  # a figure: an id only where its key says so
            else:
                if not numbered:
                    yield key
                yield from _lines_of(item)
    elif isinstance(value, list):
        for item in value:
            yield from _lines_of(item)
    elif not _is_fraction(value):
        yield str(value)


def _is_fraction(value: Any) -> bool:
    """A weight or score, no id and no word: between words, such as tokens with their attention, it would hide their span."""
    return isinstance(value, float) and not value.is_integer()


def find_marks(name: str, text: str, names: LocalNames) -> Iterator[tuple[str, int]]:
    """Yield the kinds that can be seen without the notes, and how often each is there."""
    is_vocabulary = name in VOCABULARY_FILES
    yield LOCAL_PATH, len((HOME_PATH if is_vocabulary else ANY_PATH).findall(text))
    yield SECRET, len(SECRETS.findall(text)) + ((token := get_token()) is not None and token in text)
    yield RECORD_ID, len(LABELLED_ID.findall(text))
    yield DEIDENTIFIED, len((WHOLE_MARK if is_vocabulary else MARK).findall(text))
    if not is_vocabulary:
        own = text.replace(names.public, " ") if names.public else text
        yield LOCAL_PATH, sum(own.count(path) for path in names.paths)
        yield USER_NAME, sum(len(re.findall(rf"(?i)\b{re.escape(user)}\b", own)) for user in names.users)


def find_training_text(
    files: Mapping[str, Path | bytes], texts: Mapping[str, str], notes: TrainingNotes, min_notes_of_word: int
) -> Counter[tuple[str, str]]:
    """Stream the notes past the outgoing text once, for spans, ids and words that few notes have."""
    spans = {name: hash_spans(hash_words(ESCAPE.sub(" ", text))) for name, text in texts.items()}
    public = [hash_spans(hash_words(title)) for title in notes.titles]
    outgoing = np.setdiff1d(np.concatenate([*spans.values(), _NO_SPANS]), np.concatenate([*public, _NO_SPANS]))
    numbers = {
        name: {int(number) for number in WHOLE_NUMBER.findall(text)} - PUBLIC_NUMBERS
        for name, text in texts.items()
        if name not in TOKEN_ID_FILES
    }
    wanted = set().union(*numbers.values())
    vocabulary = word_vocabulary(files)
    found_spans: list[np.ndarray] = []
    found_ids: set[int] = set()
    notes_of_word: Counter[str] = Counter()
    for record in notes.records:
        words = WORD.findall(record["text"].lower())
        if len(outgoing):
            of_note = hash_spans(_hash_all(words))
            place = np.minimum(np.searchsorted(outgoing, of_note), len(outgoing) - 1)
            is_found = outgoing[place] == of_note
            if is_found.any():
                found_spans.append(np.unique(of_note[is_found]))
        found_ids |= wanted & {record["hadm_id"], record["subject_id"]}
        if vocabulary:
            notes_of_word.update(vocabulary.intersection(words))
    found = np.unique(np.concatenate([*found_spans, _NO_SPANS]))
    counts: Counter[tuple[str, str]] = Counter()
    for name, of_file in spans.items():
        counts[name, SPAN] = int(np.isin(of_file, found).sum())
    for name, of_text in numbers.items():
        ids = of_text & found_ids
        long_ids = sum(len(str(number)) >= LONG_ID_DIGITS for number in ids)
        counts[name, RECORD_ID] = len(ids) if long_ids or len(ids) >= MIN_SHORT_IDS else 0
    counts["tokenizer.json", RARE_WORD] = sum(count < min_notes_of_word for count in notes_of_word.values())
    return counts


def word_vocabulary(files: Mapping[str, Path | bytes]) -> set[str]:
    """Words that a tokenizer can only have from notes: of a vocabulary that is not of pieces, and of tokens added to one."""
    content = files.get("tokenizer.json")
    if content is None:
        return set()
    tokenizer = json.loads(read_content(content))
    model = tokenizer.get("model", {})
    added = [token["content"] for token in tokenizer.get("added_tokens", []) if not token["special"]]
    of_words = {word.lower() for text in added for word in WORD.findall(text)}
    has_no_pieces = (
        model.get("type") == "WordLevel"
        or (model.get("type") == "BPE" and not model["merges"])
        or (
            model.get("type") == "WordPiece"
            and not any(word.startswith(model["continuing_subword_prefix"]) for word in model["vocab"])
        )
    )
    return of_words | {word.lower() for word in model["vocab"] if len(word) > 1} if has_no_pieces else of_words


# Odd, so that multiplying loses no bit; the place of a word in its span is told by which one it is multiplied with.
_MULTIPLIERS = np.random.default_rng(0).integers(2**63, size=SPAN_WORDS, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
_NO_SPANS = np.empty(0, np.uint64)


def hash_words(text: str) -> np.ndarray:
    """64 bits for each word: runs of letters and digits, lower case, so that line breaks and punctuation do not matter."""
    return _hash_all(WORD.findall(text.lower()))


def _hash_all(words: Sequence[str]) -> np.ndarray:
    # Python's own hash: keyed anew in each process, which is as long as it is needed.
    return np.fromiter(map(hash, words), np.int64, len(words)).view(np.uint64)


def hash_spans(words: np.ndarray) -> np.ndarray:
    """64 bits for each span of `SPAN_WORDS` words in a row; two different spans agree once in 2**64."""
    count = len(words) - SPAN_WORDS + 1
    if count < 1:
        return _NO_SPANS
    spans = np.zeros(count, np.uint64)
    for i, multiplier in enumerate(_MULTIPLIERS):
        spans += words[i : i + count] * multiplier
    return spans

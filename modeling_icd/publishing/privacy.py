"""The privacy check before every push: searches outgoing files for text of notes, ids of records, names and credentials.

Each file is read once and turned into the texts that it can be read as (`views.py`); these are compared with the user's own
notes, with their ids (`record_ids.py`) and with the words of the tokenizer (`tokens.py`), and searched for keys and addresses
(`credentials.py`). A finding names file, kind and line, never the text.

Spans of training notes are found with little memory: the outgoing files are small, so their spans are held in memory, and the
notes are compared with them one at a time. The memory needed depends on the outgoing text and not on the number of notes,
and no index of the notes is ever written.

It finds what gets in by accident. Text that somebody hid passes: encrypted, translated or reworded, spelled with letters of
another script, in another order and cut up, or written into the numbers of the weights; so does what is shorter than
`SPAN_WORDS` words.
"""

import itertools
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tokenizers import Tokenizer

from dataset_scripts.arguments import PATH_OPTIONS

from .credentials import find_credentials
from .folder import ModelFolder, project_file, read_content
from .notes import TrainingNotes
from .record_ids import Number, candidates, find_labelled_ids, matched
from .text_ids import as_number, find_candidates, key_of, matched_places
from .tokens import added_tokens, numbers_in, words_of_base, words_of_tokens
from .views import VOCABULARY_FILES, WORD, Decoder, FileText, View, clean_text, fold, read_file, views


SPAN_WORDS = 8
MIN_NOTES_OF_WORD = 10

LOCAL_PATH = "local path"
USER_NAME = "user name"
RECORD_ID = "admission or subject id"
DEIDENTIFIED = "de-identification mark"
SPAN = f"span of {SPAN_WORDS} or more words of a training note"
BAG = "words of one training note, in another order"
RARE_WORD = "vocabulary words that few training notes have"

ANY_PATH = re.compile(r"(?<![\w:/.~)\]}<+-])~?/[\w.@-]+/[\w.@-]+|(?<![A-Za-z])[A-Za-z]:[\\/]+[\w.-]+[\\/]|file://")
HOME_PATH = re.compile(r"/(?:home|Users)/[\w.-]+/[\w.-]+")
MARK, WHOLE_MARK = re.compile(r"\[\*\*"), re.compile(r"\[\*\*[^\]\n]{1,80}\*\*\]")
ACCOUNTS_OF_NOBODY = {"root", "user", "users", "admin", "ubuntu", "runner", "docker", "jovyan", "data", "home", "work"}
# First names that are words, and words that accounts are called: such a name counts only where it can be an account.
_WORDS_AS_NAMES = """
will max test model mark bill rich rob art pat may june april august grace hope faith joy rose lily violet
iris ivy dean grant chase drew jack frank guy gene jean miles page penny rusty sandy scott sue victor chuck
dale dawn ray rick rod skip student guest demo dev build ci bot service research science clinical medical icd
lab labs train trainer jupyter notebook compute cluster
"""
WORDS_AS_NAMES = frozenset(_WORDS_AS_NAMES.split())
MIN_COUNTED, MIN_LISTED, BAG_SHARE = 12, 20, 0.9
_NUMBERS = itertools.count()


def _whole(pattern: str) -> str:
    """A pattern that gives nothing back once it has matched. It stands in place of a possessive quantifier behind a group, which
    matches wrongly in Python before 3.11.5, where the group fails half way (python/cpython#106052)."""
    name = f"whole{next(_NUMBERS)}"
    return f"(?=(?P<{name}>{pattern}))(?P={name})"


def _word_of_bag() -> str:
    return r"(?<![^\W_])(?!x\d)(?=\d{0,20}+[^\W\d_])[^\W_]++" + _whole(r"(?:['\u2019-][^\W_]++){0,4}")


def _count() -> str:
    return r"x?+\d++" + _whole(r"(?:\.\d++)?") + _whole(r"(?:[eE][+-]?\d++)?") + r"(?![^\W_])"


def _counted() -> str:
    """Words of a note with their counts, whatever a dictionary, table or list of them has between the two, and whichever comes first:
    behind the first of them, words and numbers take turns."""
    apart = r"(?:(?!\[\s{0,40}\[)(?!\{)[\W_]){1,60}+"  # fails at a letter alone, before it takes it
    further = _whole(f"(?:{apart}{_count()}){{0,2}}")
    turns = _whole(f"(?:{_word_of_bag()}{apart}{_count()}{further}{apart}){{{MIN_COUNTED - 1},}}")
    return f"{turns}(?:{_word_of_bag()}(?:{apart}{_count()})?)?"


COUNTED = re.compile(_counted())
# Names of fields: they stand at each of the records of a list.
FIELD = re.compile(r"(?<![\w])[\"']?([A-Za-z]\w{0,40}+)[\"']?[ \t]{0,4}[:=]")
LISTED = re.compile(r"[\s>*+\"'-]{0,12}+(?<![^\W\d_])([^\W\d_]++)(?:['-][^\W\d_]++)?[\"']?[ \t]*+[,;\n]")
# A list of words that most notes have, such as stop words, is in some note too.
MIN_OWN_WORDS = 5
STRIDES = (2, 3, 4, 5)


class Finding(NamedTuple):
    """Something that must not go out: where, of which kind, and how often."""

    file: str
    kind: str
    times: int
    place: str = ""

    def __str__(self) -> str:
        return f"{self.file}: {self.kind} ({self.times})" + (f", first in {self.place}" if self.place else "")


@dataclass(frozen=True)
class LocalNames:
    """What names this machine and its user."""

    paths: tuple[str, ...] = ()  # which may be relative, as a run was given them
    users: tuple[str, ...] = ()  # names of accounts
    public: str = ""  # a name that is published anyway and may contain one of these: the repository's id


def local_names(folder: ModelFolder | None = None, public: str = "") -> LocalNames:
    """The names of this machine, and those that a model's runs were given."""
    paths = {str(Path.home()), str(Path.cwd())}
    if folder is not None:
        paths |= {str(folder.path), str(folder.path.resolve())}
    for run in folder.runs if folder is not None else ():
        paths |= {str(value) for key, value in run["data"].items() if key.endswith(PATH_OPTIONS) and value}
        paths |= {pair.partition("=")[2] for pair in run["data"].get("dataset_options") or []}
        paths.add(run["training"]["output_dir"])
    users = {os.environ.get(variable, "") for variable in ("LOGNAME", "USER", "USERNAME")} | {Path.home().name}
    users |= {name for path in paths for name in re.findall(r"(?:^|/)(?:home|Users)/([^/]+)", path)}
    return LocalNames(
        paths=tuple(sorted(path for path in paths if "/" in path.strip("./"))),
        users=tuple(sorted(name for name in users if len(name) > 2 and name.lower() not in ACCOUNTS_OF_NOBODY)),
        public=public,
    )


def check_files(
    files: Mapping[str, Path | bytes],
    names: LocalNames,
    notes: TrainingNotes | None = None,
    min_notes_of_word: int = MIN_NOTES_OF_WORD,
    base_model: str | None = None,
) -> list[Finding]:
    """Scan every outgoing file.

    Args:
        files (`dict`): Paths or contents by name. Of a safetensors file the header is read; weights hold no text.
        names (`LocalNames`): What names this machine and its user.
        notes (`TrainingNotes`, *optional*): Without them, spans, ids and rare words are not looked for.
        min_notes_of_word (`int`): Notes that a word of a tokenizer must be in, unless it is the backbone's own.
        base_model (`str`, *optional*): Hub id of the pretrained backbone, whose tokenizer is looked for in the local cache.

    Returns:
        Findings by file and kind; none is a pass.
    """
    texts = [read_file(name, content) for name, content in files.items()]
    found: dict[tuple[str, str], list[int]] = defaultdict(list)
    for text in texts:
        for kind, line in find_marks(text, names):
            found[text.name, kind].append(line)
    findings: list[Finding] = []
    if notes is not None:
        comparison = Comparison(files, texts, notes, base_model)
        comparison.stream()
        for name, kind, line in comparison.marks():
            found[name, kind].append(line)
        findings += [*comparison.spans(), *comparison.rare_words(min_notes_of_word)]
    findings += [Finding(name, kind, len(at), f"line {min(at)}") for (name, kind), at in found.items()]
    return sorted(findings)


def find_marks(file: FileText, names: LocalNames) -> Iterator[tuple[str, int]]:
    """Yield the kinds that can be seen without the notes, each with its line."""
    text, is_vocabulary = file.text, file.name in VOCABULARY_FILES

    def line(at: int) -> int:
        return file.line_of(text.count("\n", 0, at))

    found = [(LOCAL_PATH, match.start()) for match in (HOME_PATH if is_vocabulary else ANY_PATH).finditer(text)]
    found += find_credentials(text, is_vocabulary)
    if file.is_json and not found and not is_vocabulary:  # what a value is to its key, the file's own characters say
        found += [(kind, 0) for kind, _ in find_credentials(file.raw)]
    found += [(DEIDENTIFIED, match.start()) for match in (WHOLE_MARK if is_vocabulary else MARK).finditer(text)]
    if not is_vocabulary:
        if "&" in text or "\\u" in text:
            found += [(DEIDENTIFIED, 0) for _ in MARK.findall(clean_text(text))][: 0 if MARK.search(text) else None]
        own = text.replace(names.public, " " * len(names.public)) if names.public else text
        for path in names.paths:
            found += [(LOCAL_PATH, match.start()) for match in re.finditer(re.escape(path), own)]
        for user in names.users:
            found += [(USER_NAME, match.start()) for match in _user_pattern(user).finditer(own)]
    yield from ((kind, line(at)) for kind, at in found)
    yield from ((RECORD_ID, at) for at in find_labelled_ids(file))


@cache
def _user_pattern(user: str) -> re.Pattern[str]:
    """An account's name: anywhere, or, where it is a word as well, only where an account is named."""
    name = re.escape(user)
    if user.lower() not in WORDS_AS_NAMES | _words_of_the_project():
        return re.compile(rf"(?i)\b{name}\b")
    return re.compile(
        rf"(?i)(?:home|users?|scratch|people|export)[/\\]+{name}\b|(?<!\w)~{name}\b|\b{name}@[\w-]+"
        rf"|(?:user_?name|login|logname|account|author)[\"']?\s*[:=\n]\s*[\"']?{name}\b"
    )


@cache
def _words_of_the_project() -> frozenset[str]:
    """Words of the files that are the same for everybody who publishes: no name among them tells who it was."""
    package = sorted(Path(__file__).resolve().parents[1].glob("*.py"))
    return frozenset(
        word for path in (*package, project_file("LICENSE")) for word in WORD.findall(fold(path.read_text("utf-8")))
    )


class Bag(NamedTuple):
    """Words that stand together in a file without being a text: with their counts, or as a list."""

    file: str
    line: int
    words: frozenset[str]


class Comparison:
    """Everything in the files of a release that is compared with the notes, in one pass over them; see [`check_files`]."""

    def __init__(
        self,
        files: Mapping[str, Path | bytes],
        texts: Sequence[FileText],
        notes: TrainingNotes,
        base_model: str | None,
    ):
        self.texts, self.notes, self.base_model = texts, notes, base_model
        self.titles = frozenset(notes.titles)
        self.decode = _decoder(files)
        outgoing = np.unique(np.concatenate([_NO_SPANS, *(self._distinct_spans_of(text) for text in texts)]))
        self.outgoing = np.setdiff1d(outgoing, _spans_of_titles(self.titles), assume_unique=True)
        codes = frozenset(code.replace(".", "") for code in notes.codes)
        self.numbers: dict[str, list[Number]] = {text.name: candidates(text, codes) for text in texts}
        added = added_tokens(files)
        self.added_numbers = {name: numbers_in(tokens) for name, tokens in added.items()}
        self.bags = [bag for text in texts for bag in find_bags(text)]
        self.words = words_of_tokens(files)
        self.is_base_known = True
        if self.words and base_model is not None:
            base = words_of_base(base_model)
            self.is_base_known = base is not None
            self.words = {name: words - (base or set()) for name, words in self.words.items()}
        self.found_spans = _NO_SPANS
        self.found_ids: set[int] = set()
        self.text_ids = {text.name: find_candidates(text, added.get(text.name, ())) for text in texts}
        self.no_ids = _words_of_the_project() | {code.lower() for code in codes}
        self.found_text_ids: set[str] = set()
        self.found_bags: set[int] = set()
        self.notes_of_word: Counter[str] = Counter()
        self.num_notes = 0

    def _spans_of(self, text: FileText) -> Iterator[tuple[View, str, np.ndarray, np.ndarray]]:
        """Yield the spans of all views of a file, with the view, its folded text and the places of their first words."""
        strides = () if text.name in VOCABULARY_FILES else STRIDES
        for view in views(text, self.decode, self.titles):
            content = fold(view.text)
            for spans, first_words in spans_of_words(WORD.findall(content), strides):
                yield view, content, spans, first_words

    def _distinct_spans_of(self, text: FileText) -> np.ndarray:
        """The spans of all views of a file, each once."""
        return np.unique(np.concatenate([_NO_SPANS, *(np.unique(found[2]) for found in self._spans_of(text))]))

    def stream(self) -> None:
        """Go through the notes once."""
        wanted = {number.value for numbers in self.numbers.values() for number in numbers}
        wanted = wanted.union(*self.added_numbers.values())
        wanted_texts: set[str] = set().union(*self.text_ids.values())
        counted = set().union(*self.words.values(), *(bag.words for bag in self.bags))
        found = [_NO_SPANS]
        # Most spans of notes are told by their last bits to be none of these, before they are searched for.
        endings = np.zeros(_ENDINGS + 1, bool)
        endings[self.outgoing & np.uint64(_ENDINGS)] = True
        for record in self.notes.records:
            words = WORD.findall(fold(record["text"]))
            self.num_notes += bool(words)
            for spans, _ in spans_of_words(words) if len(self.outgoing) and words else ():
                likely = spans[endings[spans & np.uint64(_ENDINGS)]]
                place = np.minimum(np.searchsorted(self.outgoing, likely), len(self.outgoing) - 1)
                if (is_found := self.outgoing[place] == likely).any():
                    found.append(np.unique(likely[is_found]))
            for record_id in (record[name] for name in ("hadm_id", "subject_id") if name in record):
                number = as_number(record_id) if isinstance(record_id, str) else record_id
                if number is not None:
                    self.found_ids |= wanted & {number}
                elif (key := key_of(record_id)) in wanted_texts:
                    self.found_text_ids.add(key)
            if counted:
                of_note = counted.intersection(words)
                self.notes_of_word.update(of_note)
                for i, bag in enumerate(self.bags):
                    if len(bag.words & of_note) >= BAG_SHARE * len(bag.words):
                        self.found_bags.add(i)
        self.found_spans = np.unique(np.concatenate(found))

    def marks(self) -> Iterator[tuple[str, str, int]]:
        """Yield file, kind and line of ids and of unordered words."""
        for name, numbers in self.numbers.items():
            yield from ((name, RECORD_ID, number.line) for number in matched(numbers, self.found_ids))
        raw = {text.name: text.raw for text in self.texts}

        def line_of(name: str, token: str) -> int:
            return raw[name].count("\n", 0, max(0, raw[name].find(token))) + 1

        for name, candidate_ids in self.text_ids.items():
            for place in matched_places(candidate_ids, self.found_text_ids, self.no_ids):
                yield name, RECORD_ID, place.line or line_of(name, place.token)
        for name, added in self.added_numbers.items():
            yield from ((name, RECORD_ID, line_of(name, str(number))) for number in added & self.found_ids)
        common = max(self.num_notes / 2, MIN_NOTES_OF_WORD)
        for i in sorted(self.found_bags):
            bag = self.bags[i]
            if sum(0 < self.notes_of_word[word] <= common for word in bag.words) >= MIN_OWN_WORDS:
                yield bag.file, BAG, bag.line

    def spans(self) -> Iterator[Finding]:
        """Yield what is a span of a note, with the place where the first one begins."""
        for text in self.texts if len(self.found_spans) else ():
            times, place = 0, ""
            for view, content, spans, first_words in self._spans_of(text):
                hits = np.flatnonzero(np.isin(spans, self.found_spans))
                times = max(times, len(np.unique(spans[hits])))
                if len(hits) and not place:
                    place = _place(text, view, content, int(first_words[hits[0]]))
            if times:
                yield Finding(text.name, SPAN, times, place)

    def rare_words(self, min_notes: int) -> Iterator[Finding]:
        """Yield how many words of each file of a tokenizer few notes have."""
        kind = RARE_WORD
        if not self.is_base_known:
            kind += (
                f", unless they are those of {self.base_model}, whose tokenizer is not in the local cache: get it with "
                f"`hf download {self.base_model} --include 'tokenizer*' 'vocab*' 'merges.txt'` and check again"
            )
        for name, words in self.words.items():
            if times := sum(0 < self.notes_of_word[word] < min_notes for word in words):
                yield Finding(name, kind, times)


def _place(text: FileText, view: View, content: str, word: int) -> str:
    """Where the first word of a span stands: a line of the file, and how it is written there."""
    line = view.line
    if line is None:
        at = next(match.start() for i, match in enumerate(WORD.finditer(content)) if i == word)
        line = text.line_of(content.count("\n", 0, at))
    return f"line {line}" + (f", as {view.form}" if view.form else "")


def _decoder(files: Mapping[str, Path | bytes]) -> Decoder | None:
    """What turns token ids into text: the tokenizer that goes out; None where there is none to turn them with."""
    if "tokenizer.json" not in files:
        return None
    try:
        tokenizer = Tokenizer.from_str(read_content(files["tokenizer.json"]).decode("utf-8"))
    except Exception:  # the library raises no narrower one
        return None
    size = tokenizer.get_vocab_size()
    return lambda ids: tokenizer.decode([i for i in ids if 0 <= i < size])


def find_bags(file: FileText) -> Iterator[Bag]:
    """Yield the words that stand together with their counts, or as a list of single words."""
    if file.name in VOCABULARY_FILES:
        return
    for text in (file.raw, _without_fields(file.raw)):
        for match in COUNTED.finditer(text or ""):
            words = frozenset(re.findall(r"[^\W\d_]+", fold(match[0].replace("\u0120", " "))))
            if len(words) >= MIN_COUNTED:
                yield Bag(file.name, file.raw.count("\n", 0, match.start()) + 1, words)
    run: list[re.Match[str]] = []
    for listed in (*LISTED.finditer(file.raw), None):
        if run and (listed is None or listed.start() != run[-1].end()):
            words = frozenset(fold(word[1]) for word in run)
            if len(words) >= MIN_LISTED:
                yield Bag(file.name, file.raw.count("\n", 0, run[0].start()) + 1, words)
            run = []
        if listed is not None:
            run.append(listed)
    lists = [(file.line_of_scalar(place), items) for place, items in file.word_lists]
    for line, items in lists + [(1, lane) for lane in file.lanes.values() if _is_of_words(lane)]:
        words = frozenset(word for item in items for word in WORD.findall(fold(item)) if word.isalpha())
        if len(words) >= MIN_LISTED:
            yield Bag(file.name, line, words)


def _without_fields(text: str) -> str:
    """The text without the brackets and the names of the fields of its records; empty where it has no list of records."""
    times = Counter(match[1] for match in FIELD.finditer(text))
    names = {name for name, count in times.items() if count >= MIN_COUNTED}
    if not names:
        return ""
    bare = FIELD.sub(lambda match: " " * len(match[0]) if match[1] in names else match[0], text)
    return bare.replace("{", " ").replace("}", " ")


def _is_of_words(items: Sequence[str]) -> bool:
    """Whether nine of ten of these are single words."""
    return len(items) >= MIN_LISTED and sum(map(str.isalpha, items)) >= BAG_SHARE * len(items)


# Odd, so that multiplying loses no bit; the place of a word in its span is told by which one it is multiplied with.
_MULTIPLIERS = np.random.default_rng(0).integers(2**63, size=SPAN_WORDS, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
_NO_SPANS = np.empty(0, np.uint64)
_ENDINGS = 2**24 - 1


def hash_words(words: Sequence[str]) -> np.ndarray:
    """64 bits for each word."""
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


@lru_cache(maxsize=4)
def _spans_of_titles(titles: frozenset[str]) -> np.ndarray:
    """The spans of titles, each once: these are public."""
    found = (spans for title in titles for spans, _ in spans_of_words(WORD.findall(fold(title))))
    return np.unique(np.concatenate([_NO_SPANS, *found]))


def spans_of_words(words: Sequence[str], strides: Sequence[int] = ()) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield spans, each time with the places of the words that they begin at.

    First of all words, then of those without digits, so that numbers between words (of a list, of a table, counts) do not
    matter; of both also of every second word, every third, and so on, which is how words stand beside labels.

    Args:
        words (`Sequence[str]`): Of a note or of outgoing text, folded.
        strides (`Sequence[int]`): For outgoing text.
    """
    hashes, every = hash_words(words), np.arange(len(words))
    of_letters = every[np.fromiter(map(str.isalpha, words), bool, len(words))]
    for order in (every, of_letters):
        yield hash_spans(hashes[order]), order
        for stride in strides:
            for start in range(stride):
                part = order[start::stride]
                yield hash_spans(hashes[part]), part

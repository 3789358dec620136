"""Makes the reader of a word model from the training notes: its words, a tokenizer for them, and their vectors.

    modeling-icd train CONFIG --model generic --head label_attention --backbone words --reader_options min_count=3 rnn=lstm

The reader is a folder with a configuration, weights and a tokenizer, as every backbone is (`WordReader` of words_icd.py). Its
words come from the notes, so the folder lies in `OUTPUT_DIR-private`. Of one set of notes and options it is made once.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from dataset_scripts.builders.note_text import caml_text
from dataset_scripts.counts import counted
from dataset_scripts.files import read_json, whole_folder, write_json

from ..heads import require_positive
from ..words_icd import WordReader, WordReaderConfig
from .word_vectors import RANDOM, WORD2VEC, TrainingWords, read_vectors, train_word2vec


PAD, UNKNOWN = "<pad>", "<unk>"
MADE_FILE = "made_from.json"  # the last file of a reader: what it was made from
# Of another version of this code another reader would be made.
MADE_BY = 1
MOST_WORDS = 100_000  # that a pattern of the tokenizer can count

# Letters, digits and the underscore, as Python's `\w` has them; a maximal run of them that holds a letter is a word.
_SIGN, _NO_SIGN = r"[\p{L}\p{N}_]", r"[^\p{L}\p{N}_]"
_WORD = rf"(?<!{_SIGN}){_SIGN}*\p{{L}}{_SIGN}*"
_BESIDE_WORDS = rf"(?>(?:{_NO_SIGN}+|(?<!{_SIGN})[\p{{N}}_]+(?!{_SIGN}))*)"


@dataclass(frozen=True, kw_only=True)
class WordReaderOptions:
    """What `reader_options` say of the reader of a word model.

    Args:
        min_count (`int`): training notes that a word must be in, to be one of the reader's.
        max_words (`int`, *optional*): words of a note that are read, its first ones; by default all.
        vectors (`str`): how the words' vectors start: from `word2vec`, trained on the training notes; at `random`; or from a file.
        word2vec_epochs, word2vec_window (`int`): how often it reads the notes, and how many words around each.
        skip_gram (`bool`): whether it is skip-gram in place of CBOW.
        normalize_vectors (`bool`): whether every vector starts with the length 1.
        reader (`dict`): fields of [`WordReaderConfig`], where they differ from its defaults.

    Raises:
        ValueError: where one is out of range; the message names it.
    """

    min_count: int = 3
    max_words: int | None = None
    vectors: str = WORD2VEC
    word2vec_epochs: int = 5
    word2vec_window: int = 5
    skip_gram: bool = False
    normalize_vectors: bool = True
    reader: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        for name in ("min_count", "word2vec_epochs", "word2vec_window"):
            require_positive(f"reader_options {name}", getattr(self, name))
        if self.max_words is not None:
            require_positive("reader_options max_words", self.max_words)
            if self.max_words > MOST_WORDS:
                raise ValueError(
                    f"`reader_options max_words` must be at most {MOST_WORDS:,}, got {self.max_words:,}: leave it out to read "
                    "notes of any length."
                )
        for name, value in {
            "skip_gram": self.skip_gram,
            "normalize_vectors": self.normalize_vectors,
            "bidirectional": self.reader.get("bidirectional", True),
            "train_vectors": self.reader.get("train_vectors", True),
        }.items():
            if not isinstance(value, bool):
                raise ValueError(f"`reader_options {name}` must be true or false, got {value!r}.")
        if not isinstance(self.vectors, str):
            raise ValueError(
                f"`reader_options vectors` must be {WORD2VEC}, {RANDOM} or the path of a file, got {self.vectors!r}."
            )
        dropout = self.reader.get("embedding_dropout", 0.0)
        if isinstance(dropout, bool) or not isinstance(dropout, int | float):
            raise ValueError(f"`reader_options embedding_dropout` must be a number in [0, 1), got {dropout!r}.")
        of_rnn = sorted({"rnn_size", "num_rnn_layers", "bidirectional"} & self.reader.keys())
        if of_rnn and self.reader.get("rnn") is None:
            raise ValueError(
                f"`reader_options {of_rnn[0]}` is of a recurrent network: give `rnn=lstm` or `rnn=gru`, too."
            )
        self.config(2)  # checks the others

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> "WordReaderOptions":
        """The options that are `given` by name.

        Raises:
            ValueError: where there is no such option, or its value is out of range.
        """
        own = [option.name for option in fields(cls) if option.name != "reader"]
        unknown = sorted(set(given) - {*own, *READER_FIELDS})
        if unknown:
            raise ValueError(
                f"`reader_options` know no {', '.join(f'`{name}`' for name in unknown)}: choose from "
                f"{', '.join((*own, *READER_FIELDS))}."
            )
        reader = {name: value for name, value in given.items() if name in READER_FIELDS}
        return cls(**{name: value for name, value in given.items() if name in own}, reader=reader)

    def config(self, vocab_size: int) -> WordReaderConfig:
        """The configuration of a reader of so many words. It says how many of a note it reads at most, so that notes of another
        tokenizer are not read further, either."""
        limit = {} if self.max_words is None else {"max_position_embeddings": self.max_words}
        return WordReaderConfig(vocab_size=vocab_size, **self.reader, **limit)


READER_FIELDS = (
    "embedding_size",
    "embedding_dropout",
    "train_vectors",
    "rnn",
    "rnn_size",
    "num_rnn_layers",
    "bidirectional",
)


class Cut(NamedTuple):
    """How much of the training notes `max_words` cuts off.

    Args:
        num_notes, num_cut (`int`): training notes, and those of them that are longer.
        num_words, num_lost (`int`): their words, and those of them that are not read.
    """

    num_notes: int
    num_cut: int
    num_words: int
    num_lost: int

    @classmethod
    def of(cls, lengths: np.ndarray, max_words: int | None) -> "Cut":
        """Of notes with so many words, `(N,)`."""
        lost = np.maximum(lengths - (lengths if max_words is None else max_words), 0)
        return cls(len(lengths), int((lost > 0).sum()), int(lengths.sum()), int(lost.sum()))


def find_word_reader(
    options: WordReaderOptions, texts: Callable[[], Iterable[str]], private_dir: Path, seed: int, say: bool = True
) -> str:
    """The folder of the reader of these options and notes, which is made unless it is there.

    A reader that is interrupted while it is made is made again as a whole. Afterwards torch's random numbers go on as if none had
    been made.

    Args:
        texts (`Callable`): gives the training notes, each time that it is called.
        private_dir (`Path`): where it lies, in a folder of its own.
        seed (`int`): of the vectors and of a recurrent network's weights.
        say (`bool`): whether to print what is made, and how much of the notes is cut.

    Raises:
        ValueError: where a file of vectors does not fit, or no word is in enough notes. [`check_vectors`] sees before any notes are
            read whether there is such a file, and whether gensim is there.
    """
    folder = private_dir / "word_reader"
    wanted = _wanted(options, texts(), seed)
    remedy = f"delete {folder}, and it is made again."
    made = read_json(folder / MADE_FILE, remedy) if (folder / MADE_FILE).is_file() else {}
    if made.get("from") != wanted:
        words = TrainingWords.read(texts(), caml_text)
        with whole_folder(folder, private=True) as partial:
            made = {"from": wanted, **_make(options, words, partial, seed, say)}
            write_json(made, partial / MADE_FILE, private=True)
    if say:
        say_cut(options, Cut(**made["cut"]))
    return str(folder)


def say_cut(options: WordReaderOptions, cut: Cut) -> None:
    """Print how much of the training notes is not read, where notes are cut."""
    if options.max_words is None:
        return
    print(
        f"`max_words` {options.max_words:,} cuts {cut.num_cut:,} of {counted(cut.num_notes, 'note')} "
        f"({cut.num_cut / max(cut.num_notes, 1):.1%}), by {cut.num_lost / max(cut.num_words, 1):.1%} of all words. The model's "
        "tokenizer cuts every note so, in training, evaluation and use."
    )


def _wanted(options: WordReaderOptions, texts: Iterable[str], seed: int) -> dict[str, Any]:
    """What tells one reader from another: options, notes, and the file of vectors."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode("utf-8", "surrogatepass") + b"\0")
    named: dict[str, Any] = {"made_by": MADE_BY, "options": asdict(options), "seed": seed, "notes": digest.hexdigest()}
    if options.vectors not in (WORD2VEC, RANDOM):
        status = Path(options.vectors).stat()
        named["file"] = [status.st_size, status.st_mtime_ns]
    return json.loads(json.dumps(named))


def _make(
    options: WordReaderOptions, words: TrainingWords, folder: Path, seed: int, say: bool
) -> dict[str, dict[str, int]]:
    """Write a reader into a folder; returns what is to be remembered of the notes."""
    kept = words.in_notes(options.min_count)
    if not kept:
        raise ValueError(
            f"No word is in at least {options.min_count} notes, so there is nothing to read: lower "
            "`reader_options min_count`."
        )
    vocabulary = {word: i for i, word in enumerate((PAD, UNKNOWN, *kept))}
    if say:
        print(f"Making a reader of {counted(len(kept), 'word')} of {counted(len(words.notes), 'note')}.")
    config = options.config(len(vocabulary))
    vectors, said = find_vectors(options, words, list(vocabulary), config.embedding_size, seed)
    vectors[vocabulary[PAD]] = 0
    if say:
        print(said)
    save_reader(config, vectors, folder, seed)
    word_tokenizer(vocabulary, options.max_words).save_pretrained(folder)
    return {"cut": Cut.of(words.lengths, options.max_words)._asdict()}


def find_vectors(
    options: WordReaderOptions, words: TrainingWords, vocabulary: Sequence[str], size: int, seed: int
) -> tuple[np.ndarray, str]:
    """The vectors `(len(vocabulary), size)` of a vocabulary, float32, and a sentence on where they come from.

    A word without a vector gets a random one, whose expected length is 1.
    """
    vectors = np.random.default_rng(seed).standard_normal((len(vocabulary), size), np.float32) / np.float32(size**0.5)
    known: Mapping[str, np.ndarray] = {}
    said = "Their vectors are random."
    if options.vectors == WORD2VEC:
        known = train_word2vec(
            words,
            size,
            seed,
            epochs=options.word2vec_epochs,
            window=options.word2vec_window,
            skip_gram=options.skip_gram,
        )
        said = "Their vectors are those of word2vec, trained on these notes."
    elif options.vectors != RANDOM:
        known = read_vectors(Path(options.vectors), frozenset(vocabulary), size)
        said = f"{options.vectors} has vectors of {len(known):,} of them; those of the others are random."
    for i, word in enumerate(vocabulary):
        if word in known:
            vectors[i] = known[word]
    if options.normalize_vectors:
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True) + 1e-6
    return vectors, said


def save_reader(config: WordReaderConfig, vectors: np.ndarray, folder: Path, seed: int) -> None:
    """Write a reader with these vectors `(vocab_size, embedding_size)`; its other weights are random."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        reader = WordReader(config)
    reader.embeddings.weight.data.copy_(torch.from_numpy(vectors))
    reader.save_pretrained(folder)


def word_tokenizer(vocabulary: Mapping[str, int], max_words: int | None = None) -> PreTrainedTokenizerFast:
    """A tokenizer whose tokens are CAML's words: lower-cased runs of letters, digits and underscores that hold a letter. Their
    offsets are those of the note as it is.

    Args:
        vocabulary (`dict[str, int]`): ids of words, of `<pad>` and of `<unk>`, which stands for any other word.
        max_words (`int`, *optional*):
            Words of a note that become tokens, its first ones. It is a part of the tokenizer itself, since what
            `tokenizer.json` says of truncation is set aside by transformers wherever a call does not ask for it; so all
            that read notes with it cut them alike.
    """
    tokenizer = Tokenizer(models.WordLevel(dict(vocabulary), unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    steps = [pre_tokenizers.Split(Regex(_WORD), "removed", invert=True)]
    if max_words is not None:
        first = rf"\A(?:{_BESIDE_WORDS}(?>{_SIGN}+)){{0,{max_words}}}"
        steps.insert(0, pre_tokenizers.Split(Regex(first), "removed", invert=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    limit = {} if max_words is None else {"model_max_length": max_words}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, unk_token=UNKNOWN, **limit)

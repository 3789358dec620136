"""Makes a coder of terms: each term a row of stems, looked up by its rarest one; and weighs them by training notes, if there are any."""

import csv
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from dataset_scripts.counts import counted
from dataset_scripts.files import whole_folder, write_csv, write_json

from ..inference.model_folder import RUN_FILE, WORDS, weights_digest
from ..inference.tokens import tokenize_notes
from ..sharing_icd import seal_training_data
from ..terms_icd import (
    BUT,
    DENIES,
    DENIES_BEFORE,
    END,
    FAMILY,
    MARK,
    PAST,
    SMALL,
    SUBJECT,
    UNCERTAIN,
    TermsConfig,
    TermsForICD,
)
from . import cues
from .sources import EVIDENCE, INCLUSION, MAPPED, OFFICIAL, PART_OF_TITLE, SHORT_TITLE, SYNONYM, TITLE, Term
from .stems import COMMA, SENTENCE_ENDS, misspellings, stems_of, term_tokenizer


TERMS_FILE = "terms.csv"
COLUMNS = ("code", "term", "source", "score", "notes", "right")
MAX_WORDS = 12
"""Stems of a term at most: titles of external causes are longer, and no note says them so."""
ABBREVIATIONS = Path(__file__).with_name("abbreviations.csv")
PRIORS = {TITLE: 0.7, INCLUSION: 0.7, PART_OF_TITLE: 0.6, SHORT_TITLE: 0.6, MAPPED: 0.6, SYNONYM: 0.9, EVIDENCE: 0.6}
"""How often a note that says a term is taken to have its code, before any note is seen; chosen by hand."""
PRIOR_NOTES = 2.0
"""How many notes that is worth."""
ROLES = {
    SMALL: cues.SMALL_WORDS,
    DENIES: cues.DENIALS | cues.MORE_DENIALS,
    DENIES_BEFORE: cues.DENIALS_BEHIND,
    BUT: cues.BUT,
    FAMILY: cues.FAMILY,
    UNCERTAIN: cues.UNCERTAIN,
    PAST: cues.PAST,
    SUBJECT: cues.SUBJECTS,
}


class Row(NamedTuple):
    """A term as it is looked for.

    Args:
        term (`Term`): what it was made of.
        stems (`tuple[str, ...]`): each once, in the term's order.
    """

    term: Term
    stems: tuple[str, ...]


@cache
def _cue_stems() -> dict[int, frozenset[str]]:
    return {
        role: frozenset(stem for stems in stems_of(sorted(words)) for stem in stems) for role, words in ROLES.items()
    }


def rows_of(terms: Sequence[Term]) -> tuple[list[Row], int]:
    """The terms as they are looked for, each once, and how many were left out as too long.

    A set of stems that official terms give to several codes is of one of them, the one whose whole title it is before one whose
    part it is, a short code before a longer one. Evidence and synonyms may give it to more.
    """
    small = _cue_stems()[SMALL]
    official: dict[frozenset[str], tuple[tuple, Row]] = {}
    others: dict[tuple[str, frozenset[str]], Row] = {}
    num_long = 0
    for term, stems in zip(terms, stems_of(term.text for term in terms), strict=True):
        own = tuple(stem for stem in dict.fromkeys(stems) if stem not in small)
        if len(own) > MAX_WORDS:
            num_long += 1
            continue
        if not own or not any(len(stem) > 1 and not stem.isdigit() for stem in own):
            continue
        row, key = Row(term, own), frozenset(own)
        if term.source not in OFFICIAL:
            others.setdefault((term.code, key), row)
            continue
        rank = (OFFICIAL_RANK[term.source], len(term.code), term.code)
        if key not in official or rank < official[key][0]:
            official[key] = rank, row
    rows = [row for _, row in official.values() if (row.term.code, frozenset(row.stems)) not in others]
    return [*rows, *others.values()], num_long


OFFICIAL_RANK = {TITLE: 0, INCLUSION: 1, SHORT_TITLE: 2, PART_OF_TITLE: 3, MAPPED: 4}


def with_abbreviations(rows: Sequence[Row]) -> list[Row]:
    """These rows, and each that holds what an abbreviation stands for once more with the abbreviation in its place."""
    with ABBREVIATIONS.open(encoding="utf-8", newline="") as file:
        listed = list(csv.DictReader(file))
    short = stems_of(line["abbreviation"] for line in listed)
    long = stems_of(line["expansion"] for line in listed)
    small = _cue_stems()[SMALL]
    with_stem: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        for stem in row.stems:
            with_stem.setdefault(stem, []).append(number)
    known = {(row.term.code, frozenset(row.stems)) for row in rows} | {("", frozenset(row.stems)) for row in rows}
    added = []
    for line, (abbreviation, *_), stems in zip(listed, short, long, strict=True):
        expansion = {stem for stem in stems if stem not in small}
        for number in min((with_stem.get(stem, []) for stem in expansion), key=len):
            row = rows[number]
            if not expansion <= set(row.stems):
                continue
            own = (abbreviation, *(stem for stem in row.stems if stem not in expansion))
            code = "" if row.term.source in OFFICIAL else row.term.code  # of an official term one code alone
            if (code, frozenset(own)) not in known:
                known |= {(code, frozenset(own))}
                text = f"{line['abbreviation'].upper()} = {row.term.text}"
                added.append(Row(row.term._replace(text=text), own))
    return [*rows, *added]


def make_coder(
    labels: Sequence[str],
    titles: Mapping[str, str],
    rows: Sequence[Row],
    misspelt_unless: Collection[str] | None = None,
    **fields: Any,
) -> tuple[TermsForICD, PreTrainedTokenizerBase, list[Row]]:
    """A coder of these rows, its tokenizer, and the rows in the order that it has them.

    Args:
        labels (`Sequence[str]`): the codes, in the order of the scores.
        titles (`Mapping[str, str]`): of those that have one.
        misspelt_unless (`Collection[str]`, *optional*): stems of words that are no misspelt ones of others; by default no word is
            taken for a misspelt one.
        fields: of the configuration.
    """
    if not rows:
        raise ValueError("There is no term for any of these codes: are they of this code system?")
    frequency = Counter(stem for row in rows for stem in row.stems)
    cue_words = {stem for stems in _cue_stems().values() for stem in stems}
    known = [*sorted(cue_words), *sorted(frequency.keys() - cue_words)]
    misspelt = {} if misspelt_unless is None else misspellings(frequency, {*known, *misspelt_unless})
    tokenizer = term_tokenizer([*known, *misspelt])
    ids = tokenizer.get_vocab()
    rows = [row._replace(stems=tuple(sorted(row.stems, key=lambda stem: (frequency[stem], stem)))) for row in rows]
    rows.sort(key=lambda row: (ids[row.stems[0]], row.term.code, row.stems))
    label2id = {code: i for i, code in enumerate(labels)}
    config = TermsConfig(
        id2label=dict(enumerate(labels)),
        label2id=label2id,
        code_descriptions={code: titles[code] for code in labels if code in titles},
        vocab_size=len(ids),
        num_terms=len(rows),
        max_words=max(len(row.stems) for row in rows),
        denial_scope=cues.SCOPE,
        scope_before=cues.SCOPE_BEFORE,
        **fields,
    )
    model = TermsForICD(config).eval()
    matcher = model.score
    for role, stems in {**_cue_stems(), END: frozenset(SENTENCE_ENDS), MARK: frozenset([COMMA])}.items():
        for stem in stems:
            matcher.roles[ids[stem]] |= role
    for word, stem in misspelt.items():
        matcher.stem_of[ids[word]] = ids[stem]
    anchors = torch.tensor([ids[row.stems[0]] for row in rows])
    matcher.starts.copy_(torch.searchsorted(anchors, torch.arange(len(ids) + 1)))
    padded = [[ids[stem] for stem in row.stems] + [-1] * (config.max_words - len(row.stems)) for row in rows]
    matcher.words.copy_(torch.tensor(padded))
    matcher.code_of_term.copy_(torch.tensor([label2id[row.term.code] for row in rows]))
    set_scores(model, [PRIORS[row.term.source] for row in rows])
    return model, tokenizer, rows


def set_scores(model: TermsForICD, scores: Sequence[float]) -> None:
    """Give each term the score of its code where it is found, in (0, 1)."""
    model.score.logit_of_term.data.copy_(torch.tensor(scores, dtype=torch.double).logit())
    model.score.forget_tables()


class Seen(NamedTuple):
    """In how many training notes each term was found and counted, and how many of these have its code."""

    notes: list[int]
    right: list[int]


def common_stems(notes: Sequence[str]) -> set[str]:
    """The stems that at least two notes have."""
    in_notes = Counter(stem for stems in stems_of(notes) for stem in set(stems))
    return {stem for stem, number in in_notes.items() if number > 1}


CUES = {"denials": "read_denials", "uncertain": "read_uncertain", "past": "read_past"}
"""What a note may say of a term, by its name on the command line, and the field of the configuration that has it count."""
CUE_NOTES = 1000
"""Training notes at most that decide which cues are read."""


def cues_to_read(
    model: TermsForICD, tokenizer: PreTrainedTokenizerBase, notes: Sequence[str], codes: Iterable[Iterable[str]]
) -> dict[str, bool]:
    """Which of the fields in `CUES` to set: those of a cue under which less than half of the codes are right that training notes
    say under it alone; where they say none, as it was."""
    said, right = Counter[str](), Counter[str]()
    of_term, id2label = model.score.tables.codes, model.config.id2label
    some = tokenize_notes(tokenizer, notes[:CUE_NOTES])
    for ids, own in zip(some, map(set, codes), strict=False):
        under: dict[str, list[set[str]]] = {}
        for match in model.score.find(ids):
            flags = {"denials": match.is_denied, "uncertain": match.is_uncertain, "past": match.is_past}
            under.setdefault(id2label[of_term[match.term]], []).append({cue for cue, is_so in flags.items() if is_so})
        for code, of_code in under.items():
            for cue in set.intersection(*of_code):
                said[cue] += 1
                right[cue] += code in own
    return {
        field: 2 * right[cue] < said[cue] if said[cue] else getattr(model.config, field) for cue, field in CUES.items()
    }


def count_terms(
    model: TermsForICD, tokenizer: PreTrainedTokenizerBase, notes: Sequence[str], codes: Iterable[Iterable[str]]
) -> Seen:
    """Count in training notes how often each term is right."""
    found, right = [0] * model.config.num_terms, [0] * model.config.num_terms
    of_term, id2label = model.score.tables.codes, model.config.id2label
    for ids, own in zip(
        tqdm(tokenize_notes(tokenizer, notes), desc="Reading", unit="note", delay=5), map(set, codes), strict=True
    ):
        for term in {match.term for match in model.score.find(ids) if model.score.counts(match)}:
            found[term] += 1
            right[term] += id2label[of_term[term]] in own
    return Seen(found, right)


def scores_of(rows: Sequence[Row], seen: Seen) -> list[float]:
    """How likely the code of each term is where it is found: the share of training notes in which that was right, with
    `PRIOR_NOTES` more notes of the prior. A term that was taken from notes is not tried on one of them."""
    scores = []
    for row, found, right in zip(rows, *seen, strict=True):
        own = int(row.term.source == EVIDENCE)
        tried, hits = max(found - own, 0), max(right - own, 0)
        scores.append((hits + PRIOR_NOTES * PRIORS[row.term.source]) / (tried + PRIOR_NOTES))
    return [min(max(score, 1e-3), 1 - 1e-3) for score in scores]


def save_coder(
    model: TermsForICD,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Row],
    seen: Seen | None,
    record: Mapping[str, Any],
    folder: Path,
    run: Mapping[str, Any] | None = None,
) -> None:
    """Write the folder of a coder, with its terms as a table (`terms.csv`), whole or not at all.

    Args:
        seen (`Seen`, *optional*): where the terms were tried on training notes.
        record (`Mapping[str, Any]`): what is said of these notes; see `config.training_data`.
        run (`Mapping[str, Any]`, *optional*): how it was built, as `run.json` says it, which publishing reads.
    """
    scores = model.score.logit_of_term.detach().sigmoid().tolist()
    columns = ([0] * len(rows), [0] * len(rows)) if seen is None else seen
    table = [
        dict(
            zip(
                COLUMNS,
                (row.term.code, " ".join(row.term.text.split()), row.term.source, round(score, 4), *at),
                strict=True,
            )
        )
        for row, score, *at in zip(rows, scores, *columns, strict=True)
    ]
    with whole_folder(folder, private=True) as partial:
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        write_csv(table, COLUMNS, partial / TERMS_FILE)
        if run is not None:
            write_json(run, partial / RUN_FILE)
        model.config.training_data = seal_training_data({**record, "weights": weights_digest(partial)})
        model.config.save_pretrained(partial)


def run_of(
    systems: Sequence[str],
    dataset: str | None,
    config: str | None,
    options: Mapping[str, bool],
    folder: Path,
    seconds: float,
) -> dict[str, Any]:
    """What `run.json` says of a coder: the fields that every run has, and how to build it again.

    Args:
        systems (`Sequence[str]`): whose titles it has.
        dataset, config (`str`, *optional*): of the data set.
        options (`Mapping[str, bool]`): which switches of the command were on.
        seconds (`float`): that it took.
    """
    model = {"model": "terms", "backbone": WORDS, "freeze_backbone": True, "lora_r": 0, "systems": list(systems)}
    return {
        "model": {**model, **options},
        "data": {"dataset": dataset or "none", "dataset_config": config},
        "training": {"seed": 0, "output_dir": str(folder)},
        "log": [{"train_runtime": round(seconds, 1), "epoch": 0, "step": 0}],
    }


def say_terms(rows: Sequence[Row], num_labels: int, num_long: int) -> None:
    """Print how many terms there are, by their sources, and how many codes have one."""
    sources = Counter(row.term.source for row in rows)
    listed = ", ".join(f"{count:,} {source}" for source, count in sources.most_common())
    num_named = len({row.term.code for row in rows})
    print(f"{counted(len(rows), 'term')} ({listed}) of {num_named:,} of {counted(num_labels, 'code')}.")
    if num_long:
        print(f"{counted(num_long, 'term was', 'terms were')} left out, of more than {MAX_WORDS} words.")

"""Builds a coder of terms for a code system, or for the codes and the training notes of a data set."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from dataset_scripts import ICDBuilder
from dataset_scripts.arguments import PATH_OPTIONS
from dataset_scripts.builders.public_files import is_invented, is_public
from dataset_scripts.codes.classification import ICD9, classification_of
from dataset_scripts.evidence import NoEvidenceError, gold_evidence, marked_places

from ..inference.tokens import codes_of_notes, texts_of_notes
from ..terms_icd import TermsForICD
from .build import (
    CUES,
    Row,
    Seen,
    common_stems,
    count_terms,
    cues_to_read,
    make_coder,
    rows_of,
    say_terms,
    scores_of,
    set_scores,
    with_abbreviations,
)
from .sources import Term, evidence_terms, further_codes, official_terms, read_synonyms


class Coder(NamedTuple):
    """A coder of terms.

    Args:
        model, tokenizer: what reads notes.
        rows (`list[Row]`): its terms.
        seen (`Seen`, *optional*): how they did on training notes.
        code_counts (`dict[str, int]`): how many of these have each code, without codes of none.
    """

    model: TermsForICD
    tokenizer: PreTrainedTokenizerBase
    rows: list[Row]
    seen: Seen | None
    code_counts: dict[str, int]


def build_coder(
    systems: Sequence[str],
    labels: Sequence[str] | None = None,
    synonyms: Path | None = None,
    builder: ICDBuilder | None = None,
    use_notes: bool = True,
    say: bool = False,
    all_codes: bool = False,
    misspelt: bool = False,
    **fields: Any,
) -> Coder:
    """Build a coder of terms.

    Args:
        systems (`Sequence[str]`): keys of `CODE_SYSTEMS` whose titles are taken.
        labels (`Sequence[str]`, *optional*): its codes; by default those of the data set, or all of the systems that have a term.
        synonyms (`Path`, *optional*): a table of more terms.
        builder (`ICDBuilder`, *optional*): a data set. Its split `train` alone is read.
        use_notes (`bool`): whether to take marked evidence of the training notes as terms, and to weigh all terms by how often
            they are right there; else of the data set the codes alone are taken.
        say (`bool`): whether to print how many terms there are, and what was left out.
        all_codes (`bool`): whether all other codes of the systems that can be billed are labels, too, behind those of the data set.
        misspelt (`bool`): whether a word with a letter left out, or with two exchanged, is taken for the one of a term, unless it
            is a word of several training notes itself.
        fields: of the configuration. Where none says what is read of denials, uncertainty and the past, the training notes
            decide; without them denials alone are read.

    Raises:
        ValueError: where there are no titles, or no term for any code; where the file of synonyms is wrong.
    """
    if labels is None and builder is not None:
        labels = builder.info.features["codes"].feature.names
    own_codes = frozenset(labels or ())
    if all_codes and labels is not None:
        labels = [*labels, *(code for system in systems for code in further_codes(system, labels))]
    is_whole = labels is None
    titles, labels, terms = given_terms(systems, labels, synonyms, say)
    train = builder.as_dataset(split="train") if builder is not None and use_notes else None
    if train is not None and builder is not None:
        texts = texts_of_notes(train)
        terms += [term for term in evidence_terms(texts, marked_phrases(train, builder)) if term.code in set(labels)]
    short, num_long = rows_of(terms)
    if is_whole or all_codes:  # a code without a term is never found, and a whole system has many
        named = {row.term.code for row in short} | own_codes
        labels = [code for code in labels if code in named]
    unless = None if not misspelt else set() if train is None else common_stems(texts)
    model, tokenizer, rows = make_coder(labels, titles, with_abbreviations(short), unless, **fields)
    if say:
        say_terms(rows, len(labels), num_long)
    if train is None:
        return Coder(model, tokenizer, rows, None, {})
    codes = codes_of_notes(train)
    if not any(name in fields for name in CUES.values()):
        choose_cues(model, tokenizer, texts, codes, say)
    seen = count_terms(model, tokenizer, texts, codes)
    set_scores(model, scores_of(rows, seen))
    counts = Counter(code for of_note in codes for code in of_note)
    return Coder(model, tokenizer, rows, seen, {code: counts[code] for code in labels if counts[code]})


def given_terms(
    systems: Sequence[str], labels: Sequence[str] | None, synonyms: Path | None, say: bool
) -> tuple[dict[str, str], list[str], list[Term]]:
    """The titles of some systems, the codes of a coder (by default all that have a title), and the terms of these codes that no
    note gives; the arguments are those of [`build_coder`]."""
    titles: dict[str, str] = {}
    terms: list[Term] = []
    for system in systems:
        of_system, own = official_terms(system, labels)
        titles, terms = titles | of_system, terms + own
    labels = list(titles if labels is None else labels)
    if synonyms is not None:
        own, num_others = read_synonyms(synonyms, labels)
        terms += own
        if num_others and say:
            print(f"{num_others:,} rows of {synonyms} are of codes that this coder does not have, and are left out.")
    return titles, labels, terms


def choose_cues(
    model: TermsForICD,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    codes: Sequence[Sequence[str]],
    say: bool,
) -> None:
    """Let training notes decide what a coder reads of denials, uncertainty and the past."""
    read = cues_to_read(model, tokenizer, texts, codes)
    for name, is_read in read.items():
        setattr(model.config, name, is_read)
        setattr(model.score, name, is_read)
    if say:
        counting = ", ".join(cue for cue in CUES if read[CUES[cue]])
        print(f"Of what changes what is said these count: {counting or 'none'}.")


def marked_phrases(train, builder: ICDBuilder) -> list[list[tuple[str, list[list[int]]]]]:
    """The evidence that a data set marks, for each note: a code, and the characters that justify it, in several places where
    they are not together; nothing of each where the data set marks none."""
    marked = marked_places(train)
    if marked is not None:
        return marked
    try:
        located = gold_evidence(train, builder.config.data_dir)
    except NoEvidenceError:
        return [[] for _ in range(len(train))]
    return [[(code, [span]) for code, spans in of_note.items() for span in spans] for of_note in located]


def system_of(codes: Sequence[str]) -> list[str]:
    """The code systems whose titles a set of codes needs."""
    classification = classification_of(codes)
    if classification is None:
        raise ValueError("The codes of this data set are of no classification with titles: name one with `--system`.")
    if classification is ICD9:
        return ["icd9cm"]
    kinds = {classification.kind_of(code) for code in codes}
    return [system for kind, system in (("diagnosis", "icd10cm"), ("procedure", "icd10pcs")) if kind in kinds]


def record_of(
    builder: ICDBuilder | None, code_counts: dict[str, int], options: Sequence[str], has_synonyms: bool = False
) -> dict[str, Any]:
    """What the configuration says of the notes that a coder learned from. One that has read no note is open to anyone, unless it
    has terms of the user's own, which may be phrases of notes."""
    if builder is None:
        return {"open": not has_synonyms}
    return {
        "dataset": builder.name,
        "config": builder.config.name,
        "options": [pair for pair in options if not pair.partition("=")[0].endswith(PATH_OPTIONS)],
        "synthetic": is_invented(builder),
        "open": is_public(builder) and not has_synonyms,
        "code_counts": code_counts,
    }

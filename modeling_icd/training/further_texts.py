"""Makes further texts to learn from beside the training notes; what a trained model does with a note costs nothing more.

- *Guidelines* say a note's codes by their titles, or by other terms that the classification gives for them, and have the
  note's labels (guideline synthesis, GKI-ICD, arXiv 2505.18708): what a code is called is then seen with it, however few notes
  have the code.
- *Evidence sentences* are the sentences of a note around the words that are marked as evidence of its codes.

Both are drawn once, before training, so that the hidden states of a frozen backbone are kept like those of notes.
"""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import datasets
import numpy as np
from transformers import PreTrainedTokenizerBase

from dataset_scripts.counts import counted
from dataset_scripts.evidence import gold_evidence

from ..inference.tokens import codes_of_notes
from ..knowledge.sources import terms_of_codes
from .arguments import ModelArguments
from .notes import readable_notes


# Where a sentence ends, or a line of a list.
SENTENCE_END = re.compile(r"(?<=[.;!?])\s+|\n\s*\n|\n(?=\s*(?:[-*•]|\d+[.)]))")

Spans = dict[str, list[list[int]]]


class Text(NamedTuple):
    """A text to learn from.

    Args:
        text (`str`): never empty.
        spans (`dict[str, list[list[int]]]`): the codes that it has, each with the characters that justify it.
    """

    text: str
    spans: Spans


def write_guideline(codes: Sequence[str], terms: Mapping[str, Sequence[str]], rng: np.random.Generator) -> Text:
    """One term of each code that has any, drawn at random, on a line of its own, the lines in random order."""
    named = [code for code in codes if code in terms]
    text, spans = "", Spans()
    for code in rng.permutation(named).tolist():
        term = terms[code][int(rng.integers(len(terms[code])))]
        spans[code] = [[len(text), len(text) + len(term)]]
        text += f"{term}\n"
    return Text(text, spans)


def guidelines_of(
    notes: Sequence[Sequence[str]], terms: Mapping[str, Sequence[str]], per_note: int, at_least: int, seed: int
) -> list[Text]:
    """Guidelines for training notes, of which only the codes matter.

    Args:
        notes (`Sequence[Sequence[str]]`): the codes of each.
        per_note (`int`): guidelines of every note.
        at_least (`int`): a code that fewer notes have gets one more for each note that it lacks, of its notes in turn.
        seed (`int`): chooses terms and orders.
    """
    rng = np.random.default_rng([seed, 1])
    notes = [[code for code in codes if code in terms] for codes in notes]
    chosen = [number for number, codes in enumerate(notes) if codes for _ in range(per_note)]
    of_code: dict[str, list[int]] = {}
    for number, codes in enumerate(notes):
        for code in codes:
            of_code.setdefault(code, []).append(number)
    for own in of_code.values():
        chosen += [own[i % len(own)] for i in range(at_least - len(own))]
    return [write_guideline(notes[number], terms, rng) for number in chosen]


def evidence_sentences(text: str, spans: Spans) -> list[Text]:
    """The sentences of a note that hold marked words, each with the codes that these justify. What is marked across the end
    of a sentence joins the two."""
    ends = [(match.start(), match.end()) for match in SENTENCE_END.finditer(text)]
    starts, stops = [0, *(after for _, after in ends)], [*(before for before, _ in ends), len(text)]
    marked = sorted((start, end, code) for code, own in spans.items() for start, end in own)
    found: list[tuple[int, int, Spans]] = []
    for start, end, code in marked:
        first = starts[np.searchsorted(starts, start, side="right") - 1]
        last = max(stops[int(np.searchsorted(stops, end))], end)
        if found and first < found[-1][1]:
            first, before, of_sentence = found.pop()
            last = max(last, before)
        else:
            of_sentence = {}
        of_sentence.setdefault(code, []).append([start, end])
        found.append((first, last, of_sentence))
    return [
        Text(text[first:last], {code: [[a - first, b - first] for a, b in own] for code, own in of_sentence.items()})
        for first, last, of_sentence in found
    ]


def further_texts(
    notes: datasets.Dataset,
    model_args: ModelArguments,
    data_dir: str,
    titles: Mapping[str, str],
    seed: int,
    say: bool = False,
) -> list[Text]:
    """All the texts that a run asks for beside these notes, which it learns from; see `guidelines`, `guidelines_rare` and
    `evidence_sentences` of [`ModelArguments`].

    Args:
        notes (`datasets.Dataset`): as a builder gives them.
        data_dir (`str`): the folder of the data set, where marked evidence may lie.
        titles (`dict[str, str]`): of the codes.
        say (`bool`): print how many there are.

    Raises:
        ValueError: where they are made of titles or of marked evidence, and there is none.
    """
    texts: list[Text] = []
    if model_args.guidelines or model_args.guidelines_rare:
        codes = codes_of_notes(notes)
        terms = terms_of_codes(sorted({code for of_note in codes for code in of_note}), titles)
        if not terms:
            raise ValueError(
                "`guidelines` and `guidelines_rare` are made of the titles of codes, and no code of the training notes has one "
                "here: give the data set titles, or leave them out."
            )
        texts += guidelines_of(codes, terms, model_args.guidelines, model_args.guidelines_rare, seed)
    num_guidelines = len(texts)
    if model_args.evidence_sentences:
        try:
            marked = gold_evidence(notes, data_dir)
        except ValueError as error:
            raise ValueError(f"`evidence_sentences` needs marked evidence. {error}") from None
        for text, spans in zip(notes["text"], marked, strict=True):
            texts += evidence_sentences(text, spans)
    if say and texts:
        sentences = counted(len(texts) - num_guidelines, "sentence")
        print(f"Learned from beside the notes: {counted(num_guidelines, 'guideline')}, {sentences} with evidence.")
    return texts


def tokenize_texts(
    texts: Sequence[Text],
    like: datasets.Dataset,
    tokenizer: PreTrainedTokenizerBase,
    label2id: dict[str, int],
) -> datasets.Dataset:
    """These texts, of which there is one at least, as tokenized notes with the columns of `like`, so that both can be put
    together."""
    split = datasets.Dataset.from_dict(
        {"text": [text.text for text in texts], "codes": [[*text.spans] for text in texts]}
    )
    evidence = [text.spans for text in texts] if "evidence" in like.column_names else None
    return readable_notes(split, tokenizer, label2id, "further", evidence).tokens.cast(like.features)

"""Turns notes and their codes into what a language model learns from: prompts and answers, or prompts and what is right."""

import random
from collections.abc import Mapping, Sequence
from typing import Any

import datasets

from dataset_scripts.evidence import NoEvidenceError, gold_evidence

from ..answers_icd import AnswerGrammar
from ..inference.tokens import codes_of_notes, texts_of_notes
from ..prompts_icd import Prompter, check_lengths


Evidence = Sequence[Mapping[str, list[list[int]]]]


def marked(split: datasets.Dataset, data_dir: str, order: str) -> Evidence | None:
    """Of each note the spans of characters by code; `None` where the data set marks none, or they are not asked for."""
    if order != "evidence":
        return None
    try:
        return gold_evidence(split, data_dir)
    except NoEvidenceError:
        return None


def in_order(
    codes: Sequence[str], counts: Mapping[str, int], evidence: Mapping[str, list[list[int]]] | None
) -> list[str]:
    """Codes of a note that the model knows, as they are answered: those with evidence by where it begins, then the others, the
    most frequent in training first."""
    starts = {code: min(span[0] for span in spans) for code, spans in (evidence or {}).items() if spans}
    known = [code for code in codes if code in counts]
    return sorted(known, key=lambda code: (starts.get(code, float("inf")), -counts[code], code))


def learning_examples(
    split: datasets.Dataset,
    prompter: Prompter,
    grammar: AnswerGrammar,
    counts: Mapping[str, int],
    evidence: Evidence | None = None,
) -> datasets.Dataset:
    """Prompts with their answers: `input_ids`, `completion_mask` (1 for the answer and its end) and `length`.

    A note that is read in sections makes one for each; a section has the codes whose evidence begins in it, or all of the note
    where nothing is marked. A note without text makes none.

    Raises:
        ValueError: where a note is longer than a prompt may have; all are looked at first.
    """
    texts, gold = texts_of_notes(split), codes_of_notes(split)
    label2id = prompter.config.label2id or {}
    encoded = [prompter.encode(text) for text in texts]
    check_lengths([len(tokens) for tokens, _ in encoded], prompter.settings)
    rows = []
    for i, (tokens, offsets) in enumerate(encoded):
        if not texts[i].strip():
            continue
        spans = evidence[i] if evidence is not None else None
        codes, offset = in_order(gold[i], counts, spans), 0
        parts = prompter.sections(tokens)
        for part in parts:
            here = codes
            if len(parts) > 1 and spans:
                begin, end = offsets[offset][0], offsets[offset + len(part) - 1][1]
                here = [code for code in codes if any(begin <= span[0] < end for span in spans.get(code, []))]
            offset += len(part)
            prompt = prompter.prompt(part)
            answer = [*grammar.tokens_of([label2id[code] for code in here]), grammar.end[0]]
            mask = [0] * len(prompt) + [1] * len(answer)
            rows.append({"input_ids": prompt + answer, "completion_mask": mask, "length": len(mask)})
    return datasets.Dataset.from_list(rows)


def rewarded_examples(split: datasets.Dataset, prompter: Prompter, counts: Mapping[str, int]) -> datasets.Dataset:
    """Prompts as conversations, `prompt`, and the codes that are right, `gold`; raises as [`learning_examples`]."""
    texts, gold = texts_of_notes(split), codes_of_notes(split)
    check_lengths([len(prompter.text_tokens(text)) for text in texts], {**prompter.settings, "long_notes": "refuse"})
    rows = [
        {"prompt": prompter.messages(text), "gold": in_order(codes, counts, None)}
        for text, codes in zip(texts, gold, strict=True)
        if text.strip()
    ]
    return datasets.Dataset.from_list(rows)


def draw_shots(
    split: datasets.Dataset,
    prompter: Prompter,
    counts: Mapping[str, int],
    evidence: Evidence | None,
    number: int,
    seed: int,
) -> list[list[str]]:
    """Notes with their answers for the prompt, `[note, answer]`: drawn among the shorter half of those that have codes."""
    texts, gold = texts_of_notes(split), codes_of_notes(split)
    rows = sorted((i for i in range(len(texts)) if gold[i] and texts[i].strip()), key=lambda i: len(texts[i]))
    rows = rows[: max(number, len(rows) // 2)]
    if len(rows) < number:
        raise ValueError(
            f"`shots` ({number}) is more than the {len(rows)} training notes that have codes: give fewer."
        )
    drawn = random.Random(seed).sample(rows, number)
    return [
        [texts[i], prompter.answer(in_order(gold[i], counts, evidence[i] if evidence is not None else None))]
        for i in drawn
    ]


def with_canaries(split: datasets.Dataset, number: int, seed: int) -> tuple[datasets.Dataset, list[dict[str, str]]]:
    """Put a sentence with a random number of six digits behind some notes, drawn by the seed.

    Returns:
        The notes, and of each changed one its `text` up to the number and the number, `secret`.
    """
    texts = texts_of_notes(split)
    rows = [i for i in range(len(texts)) if texts[i].strip()]
    if number > len(rows):
        raise ValueError(f"`canaries` ({number}) is more than the {len(rows)} training notes: give fewer.")
    chance = random.Random(seed)
    canaries = []
    for row in sorted(chance.sample(rows, number)):
        begun, secret = f"{texts[row]}\nThe reference of this visit is ", f"{chance.randrange(10**6):06}"
        canaries.append({"text": begun, "secret": secret})
        texts[row] = f"{begun}{secret}."
    return split.with_format(None).remove_columns("text").add_column("text", texts), canaries


def reward_of(answer: Sequence[int], num_invalid: int, gold: Sequence[int], penalty: float) -> float:
    """What an answer earns: the F1 of the note, less the penalty for each code outside the set, which takes 1 at most.

    An answer without codes earns 1 where none is right.
    """
    hits, total = len(set(answer) & set(gold)), len(answer) + len(gold)
    f1 = 2 * hits / total if total else 1.0
    return f1 - min(1.0, penalty * num_invalid)


def about_examples(rows: Any) -> str:
    """One line on how long the examples are."""
    lengths = sorted(rows["length"])
    return f"{len(lengths):,} examples of {lengths[0]:,} to {lengths[-1]:,} tokens, {sum(lengths):,} in all"

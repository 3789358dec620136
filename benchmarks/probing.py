"""What linear probes read in the hidden states of notes, and how much of it is left in smaller forms of them.

    python -m benchmarks.probing --codiesp_dir DIR --output_dir runs/probing

On CodiEsp's Spanish notes, whose words behind each code are marked, a linear classifier learns from states of single tokens:
- `token`: which of the 50 most frequent tokens it is; `previous`: which of them stands before it;
- `evidence`: whether an annotator marked the word as the reason for a code;
and from the mean state of a note:
- `codes`: which of the 50 most frequent diagnoses it has.
Forms and probes are fitted on training notes and scored on validation notes, which no form is chosen by here. A form that keeps
the squared error of the states low, and loses what a probe reads, has thrown away directions of little variance that matter.
"""

import argparse
import json
import sys
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from transformers import AutoTokenizer

from dataset_scripts import load_builder
from dataset_scripts.command import run_command
from dataset_scripts.files import make_folder, write_text
from modeling_icd import LlamaForICDCoding
from modeling_icd.inference.gguf import convert_smollm2
from modeling_icd.inference.hidden_states import HiddenStates
from modeling_icd.training.collator import multi_hot


FORMATS = ("float32", "int8", "pca288", "pca256", "pca128", "pca64", "pca32", "pca16", "pca288-int4", "pca128-int4")
PROBES = ("token", "previous", "evidence", "codes")
FREQUENT = 50


class Notes(NamedTuple):
    """Tokenized notes and what probes are asked about them.

    Args:
        input_ids (`list[list[int]]`): of each note.
        marked (`list[list[bool]]`): of each token, whether it is in a marked word.
        codes (`list[list[int]]`): class ids of each note.
    """

    input_ids: list[list[int]]
    marked: list[list[bool]]
    codes: list[list[int]]


def read_notes(split, tokenizer) -> Notes:
    """The notes of a split with their tokens' marks."""
    input_ids, marked = [], []
    for note in split:
        given = tokenizer(note["text"], return_offsets_mapping=True)
        spans = [(start, end) for place in note["evidence"] for start, end in place["spans"]]
        input_ids.append(given["input_ids"])
        marked.append([any(start < b and a < end for start, end in spans) for a, b in given["offset_mapping"]])
    return Notes(input_ids, marked, list(split["codes"]))


def token_sample(notes: Notes, states: HiddenStates, size: int, seed: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """States `(size, D)` of tokens drawn at random, but the first of each note, and what they are."""
    places = [(note, at) for note, ids in enumerate(notes.input_ids) for at in range(1, len(ids))]
    drawn = np.random.default_rng(seed).permutation(len(places))[:size]
    read = [states.read(ids).float() for ids in notes.input_ids]
    chosen = [places[number] for number in drawn]
    return np.stack([read[note][at].numpy() for note, at in chosen]), {
        "token": np.array([notes.input_ids[note][at] for note, at in chosen]),
        "previous": np.array([notes.input_ids[note][at - 1] for note, at in chosen]),
        "evidence": np.array([notes.marked[note][at] for note, at in chosen]),
    }


def classifier():
    return make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=200))


def probe(train: tuple, validation: tuple, name: str) -> float:
    """Accuracy for tokens among the most frequent ones, average precision for marks."""
    (states, targets), (held, wanted) = train, validation
    if name == "evidence":
        fitted = classifier().fit(states, targets[name])
        return float(average_precision_score(wanted[name], fitted.decision_function(held)))
    values, counts = np.unique(targets[name], return_counts=True)
    frequent = values[np.argsort(-counts)[:FREQUENT]]
    kept, asked = np.isin(targets[name], frequent), np.isin(wanted[name], frequent)
    fitted = classifier().fit(states[kept], targets[name][kept])
    return float(fitted.score(held[asked], wanted[name][asked]))


def probe_codes(train: Notes, validation: Notes, states: HiddenStates, num_codes: int) -> float:
    """Average precision over all pairs of a validation note and a code, from the notes' mean states."""
    means = [
        np.stack([states.read(ids).float().mean(dim=0).numpy() for ids in notes.input_ids])
        for notes in (train, validation)
    ]
    labels = [multi_hot(notes.codes, num_codes).numpy() for notes in (train, validation)]
    fitted = make_pipeline(StandardScaler(), OneVsRestClassifier(LogisticRegression(C=0.01, max_iter=200)))
    fitted.fit(means[0], labels[0])
    return float(average_precision_score(labels[1].ravel(), fitted.predict_proba(means[1]).ravel()))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--codiesp_dir", required=True)
    parser.add_argument("--output_dir", type=Path, default=Path("runs/probing"))
    parser.add_argument("--formats", nargs="+", default=list(FORMATS))
    parser.add_argument("--hidden_layer", type=int, default=9)
    parser.add_argument(
        "--tokens", type=int, default=12_000, help="that probes learn from; a third as many are held out"
    )
    args = parser.parse_args(arguments)
    warnings.simplefilter("ignore", ConvergenceWarning)  # 200 steps of every probe alike
    folder = make_folder(args.output_dir, private=True)
    builder = load_builder("codiesp", "diagnoses_es_top50", data_dir=args.codiesp_dir, cache_dir=str(folder / "cache"))
    backbone = convert_smollm2()
    tokenizer = AutoTokenizer.from_pretrained(backbone)
    num_codes = builder.info.features["codes"].feature.num_classes
    model = LlamaForICDCoding.from_pretrained(
        backbone,
        dtype=torch.float32,
        num_labels=num_codes,
        freeze_backbone=True,
        hidden_layer=args.hidden_layer,
        normalize_hidden_states=True,
        window_size=512,
        window_stride=384,
    ).eval()
    train, validation = (read_notes(builder.as_dataset(split=name), tokenizer) for name in ("train", "validation"))
    done = folder / "probes.json"
    rows = json.loads(done.read_text()) if done.exists() else {}
    for name in args.formats:
        if name not in rows:
            store = HiddenStates(folder / "hidden_states", model, name)
            store.fit(train.input_ids)
            for notes in (train, validation):
                store.fill(notes.input_ids)
            learned = token_sample(train, store, args.tokens, seed=0)
            held_out = token_sample(validation, store, args.tokens // 3, seed=0)
            found = {probe_name: probe(learned, held_out, probe_name) for probe_name in PROBES[:-1]}
            rows[name] = {
                "bytes": store.token_bytes,
                **found,
                "codes": probe_codes(train, validation, store, num_codes),
            }
            write_text(json.dumps(rows, indent=2), done)
        print(name, rows[name], flush=True)
    lines = [f"| form | bytes a token | {' | '.join(PROBES)} |", f"|---|---:|{'---:|' * len(PROBES)}"]
    lines += [
        f"| `{name}` | {rows[name]['bytes']:,} | {' | '.join(f'{rows[name][probe_name]:.3f}' for probe_name in PROBES)} |"
        for name in args.formats
    ]
    write_text("\n".join(lines), folder / "table.md")
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))

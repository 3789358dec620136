"""`modeling-icd predict`: its notes a second beside those of pipelines, its results beside theirs, and its memory.

    python -m benchmarks.predict                          # both parts, on all cores
    python -m benchmarks.predict speed --mixes 8-400      # notes of 8 to 400 words alone
    python -m benchmarks.predict memory                   # 1,000 and 100,000 rows: 50 MB of disk

Speed: a `LlamaForICDCoding` with a random head over the 15th layer of SmolLM2-135M codes pieces of invented notes, their
lengths log-uniform, in random order. All ways code the same notes in the same run in turns; the median of the rounds by the
clock is given. The time of `predict` is that of the whole command once Python has its libraries: reading, loading the model
(with --processes: starting the workers, too), coding with evidence, and writing. The pipelines are loaded before. Scores of
all codes must agree to 1e-5 with those of the stock pipeline, `text-classification`.

Memory: peak of a process that codes so many rows with a tiny model, Python and its libraries included.
"""

import argparse
import contextlib
import io
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import torch
from transformers import AutoTokenizer, pipeline

from benchmarks.pipeline_batches import NUM_WORDS, make_coder
from dataset_scripts.synthetic import write_corpus
from dataset_scripts.tables import BadRow, read_table
from modeling_icd import LlamaForICDCoding
from modeling_icd.inference import linear
from modeling_icd.inference.gguf import convert_smollm2
from modeling_icd.inference.loading import load_model
from modeling_icd.inference.predict import main as predict


ROOT = Path(__file__).resolve().parents[1]
NUM_CODES = 50
LAYER = 15
TOP_K = 5
BATCH_SIZE = 8


def save_model(folder: Path) -> str:
    """A model of the size that one trains, which nobody has trained."""
    backbone = convert_smollm2()
    torch.manual_seed(0)
    codes = [f"{400 + i}.9" for i in range(NUM_CODES)]
    model = LlamaForICDCoding.from_pretrained(
        backbone,
        id2label=dict(enumerate(codes)),
        label2id={code: i for i, code in enumerate(codes)},
        pooling="label_attention",
        hidden_layer=LAYER,
        window_size=512,
        window_stride=384,
    )
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(backbone).save_pretrained(folder)
    return str(folder)


def read_words() -> list[str]:
    """The words of an invented corpus, one note after the other."""
    with tempfile.TemporaryDirectory() as folder:
        write_corpus(folder, num_admissions=400, show_progress=False)
        rows = read_table(Path(folder, "NOTEEVENTS.csv.gz"), columns={"TEXT"})
        return [word for row in rows if not isinstance(row, BadRow) for word in row["TEXT"].split(" ")]


def make_notes(words: list[str], shortest: int, longest: int, count: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    notes = []
    for _ in range(count):
        length = round(math.exp(draw.uniform(math.log(shortest), math.log(longest))))
        start = draw.randrange(len(words) - length)
        notes.append(" ".join(["Patient", *words[start : start + length]]))
    return notes


def write_notes(notes: list[str], path: Path) -> None:
    with path.open("w") as file:
        file.writelines(json.dumps({"id": str(i), "text": note}) + "\n" for i, note in enumerate(notes))


def run_predict(model: str, source: Path, *options: str) -> list[dict]:
    """The lines that `predict` writes; what it shows meanwhile is left out."""
    output = source.with_name("codes.jsonl")
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
        status = predict([model, str(source), "-o", str(output), "--overwrite", *options])
    if status != 0:
        raise SystemExit(f"predict failed: {shown.getvalue().splitlines()[-1]}")
    return [json.loads(line) for line in output.read_text().splitlines()]


def largest_difference(stock: list[list[dict]], coded: list[dict]) -> float:
    """Of a score of any code of any note, between the stock pipeline and `predict`."""
    return max(
        abs(scores[code["code"]] - code["score"])
        for labels, note in zip(stock, coded, strict=True)
        for scores in [{label["label"]: label["score"] for label in labels}]
        for code in note["codes"]
    )


def compare_speed(args: argparse.Namespace, mix: str, model: str, words: list[str], folder: Path) -> bool:
    """Prints the notes a second of each way on one mix of lengths; whether the scores agree."""
    shortest, longest = map(int, mix.split("-"))
    notes = make_notes(words, shortest, longest, args.num_notes, args.seed)
    source = folder / "notes.jsonl"
    write_notes(notes, source)
    loaded, tokenizer = load_model(model)
    parts = {"model": loaded, "tokenizer": tokenizer, "device": loaded.device}
    stock = pipeline("text-classification", **parts, top_k=None)
    coder = pipeline("icd-coding", **parts)
    slices = [notes[start : start + BATCH_SIZE] for start in range(0, len(notes), BATCH_SIZE)]

    def in_slices() -> None:
        for some in slices:
            coder(some, batch_size=BATCH_SIZE, top_k=TOP_K)

    def predict_by_mkl() -> None:
        with mock.patch.object(linear, "is_onednn_faster", lambda: False):
            run_predict(model, source, f"--top_k={TOP_K}")

    ways: dict[str, Callable[[], object]] = {
        f"text-classification, batch_size={BATCH_SIZE}": lambda: stock(notes, batch_size=BATCH_SIZE),
        "text-classification, one by one": lambda: stock(notes),
        f"icd-coding, batch_size={BATCH_SIZE}": in_slices,
        "icd-coding, one by one": lambda: coder(notes, top_k=TOP_K),
        "predict": lambda: run_predict(model, source, f"--top_k={TOP_K}"),
    }
    if linear.is_onednn_faster():
        ways["predict, by MKL"] = predict_by_mkl
    if args.processes > 1:
        ways[f"predict --processes {args.processes}"] = lambda: run_predict(
            model, source, f"--top_k={TOP_K}", f"--processes={args.processes}", f"--chunk_rows={args.chunk_rows}"
        )
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(args.rounds):
        for way, code in ways.items():
            started = time.perf_counter()
            code()
            seconds[way].append(time.perf_counter() - started)
    apart = largest_difference(stock(notes), run_predict(model, source, f"--top_k={NUM_CODES}", "--num_spans=0"))
    lengths = [len(ids) for ids in tokenizer(notes, verbose=False)["input_ids"]]
    print(
        f"\n{len(notes)} notes of {shortest} to {longest} words ({min(lengths)} to {max(lengths):,} tokens, together "
        f"{sum(lengths):,}), {torch.get_num_threads()} threads, median of {args.rounds}"
    )
    medians = {way: statistics.median(times) for way, times in seconds.items()}
    first = next(iter(medians.values()))
    for way, median in medians.items():
        print(
            f"{way:40} {len(notes) / median:7.2f} notes/s {sum(lengths) / median:8,.0f} tokens/s {first / median:6.2f} times the first"
        )
    print(f"largest difference of a score between predict and text-classification: {apart:.1e}")
    return apart <= 1e-5


def speed(args: argparse.Namespace) -> bool:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, words = args.model or save_model(folder / "model"), read_words()
        agrees = [compare_speed(args, mix, model, words, folder) for mix in args.mixes]
        return all(agrees)


def memory(args: argparse.Namespace) -> bool:
    """Prints the peak memory of `predict` for each number of rows; whether it is the same to 10 percent."""
    peaks = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tiny = argparse.Namespace(seed=0, hidden_size=64, num_layers=1, device="cpu")
        coder = make_coder(tiny)
        coder.model.save_pretrained(folder / "model")
        coder.tokenizer.save_pretrained(folder / "model")
        for rows in args.rows:
            draw = random.Random(args.seed)
            source = folder / "notes.jsonl"
            with source.open("w") as file:
                for i in range(rows):
                    text = " ".join(f"w{draw.randrange(1, NUM_WORDS)}" for _ in range(draw.choice((4, 16, 64, 256))))
                    file.write(json.dumps({"id": str(i), "text": text}) + "\n")
            command = [sys.executable, "-m", "modeling_icd.inference.predict", str(folder / "model"), str(source)]
            command += ["-o", str(folder / f"codes_{rows}.parquet"), f"--top_k={TOP_K}"]
            process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            _, status, usage = os.wait4(process.pid, 0)
            if status != 0:
                raise SystemExit("predict failed: run it by itself to see why.")
            peaks[rows] = usage.ru_maxrss / 1024
            print(f"{rows:9,} rows {peaks[rows]:7,.0f} MB at the peak", flush=True)
    ratio = max(peaks.values()) / min(peaks.values())
    print(f"the largest peak is {ratio:.3f} times the smallest")
    return ratio <= 1.1


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=("speed", "memory"), help="default: both")
    parser.add_argument("--model", help="a model folder in place of the one described")
    parser.add_argument(
        "--mixes", nargs="+", default=["8-400", "16-2000"], help="lengths in words; default: 8-400 16-2000"
    )
    parser.add_argument("--num_notes", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="default: one for each core")
    parser.add_argument(
        "--chunk_rows", type=int, default=16, help="of predict with --processes, so that all have work"
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 100_000], help="of the part `memory`")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    parts = {"speed": speed, "memory": memory}
    done = [run(args) for name, run in parts.items() if args.part in (None, name)]
    return 0 if all(done) else 1


if __name__ == "__main__":
    sys.exit(main())

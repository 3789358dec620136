"""`pipeline("icd-coding")` on notes of mixed length: one by one, in batches by length, and in batches as the notes come.

    python -m benchmarks.pipeline_batches

A model of random weights with the code vocabulary of MIMIC-III's 50 most frequent codes; notes of random words, their lengths
log-uniform. All ways code the same notes in the same process in turns, and the median of the rounds is given: seconds of the
processor on a CPU, so that what else it does counts for nothing, and of the clock on another device. The first two ways must
agree to 1e-5 in fp32.
"""

import argparse
import math
import random
import statistics
import sys
import time
from collections.abc import Callable

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, pipeline

from modeling_icd import LlamaForICDCoding, LlamaICDConfig
from modeling_icd.pipeline_icd import encode_note, padded


NUM_CODES = 50
NUM_WORDS = 2000


def make_coder(args: argparse.Namespace):
    """A pipeline around a model that nobody has trained."""
    torch.manual_seed(args.seed)
    config = LlamaICDConfig(
        vocab_size=NUM_WORDS,
        hidden_size=args.hidden_size,
        intermediate_size=3 * args.hidden_size,
        num_hidden_layers=args.num_layers,
        num_attention_heads=args.hidden_size // 64,
        num_key_value_heads=args.hidden_size // 64,
        num_labels=NUM_CODES,
        pooling="label_attention",
        window_size=512,
        window_stride=384,
    )
    vocabulary = {f"w{i}": i for i in range(NUM_WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return pipeline(
        "icd-coding",
        model=LlamaForICDCoding(config).eval(),
        tokenizer=PreTrainedTokenizerFast(tokenizer_object=tokenizer),
        device=args.device,
    )


def make_notes(args: argparse.Namespace) -> list[str]:
    draw = random.Random(args.seed)
    lengths = [
        round(math.exp(draw.uniform(math.log(args.shortest), math.log(args.longest)))) for _ in range(args.num_notes)
    ]
    return [" ".join(f"w{draw.randrange(1, NUM_WORDS)}" for _ in range(length)) for length in lengths]


def code_as_they_come(coder, notes: list[str], batch_size: int) -> None:
    """What batches cost that are not made by length: the model alone, without any evidence."""
    for start in range(0, len(notes), batch_size):
        rows = [encode_note(coder.tokenizer, note)["input_ids"] for note in notes[start : start + batch_size]]
        coder.forward(padded(rows), top_k=1)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_notes", type=int, default=64)
    parser.add_argument("--shortest", type=int, default=8, help="tokens of the shortest notes")
    parser.add_argument("--longest", type=int, default=512, help="tokens of the longest notes")
    parser.add_argument("--hidden_size", type=int, default=256)
    parser.add_argument("--num_layers", type=int, default=4)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    coder, notes = make_coder(args), make_notes(args)
    alone = coder(notes, top_k=5)
    together = coder(notes, top_k=5, batch_size=args.batch_size)
    apart = max(
        abs(code["score"] - other["score"])
        for codes, others in zip(alone, together, strict=True)
        for code, other in zip(codes, others, strict=True)
    )
    ways: dict[str, Callable[[], object]] = {
        "one by one": lambda: coder(notes, top_k=5),
        f"batch_size={args.batch_size}": lambda: coder(notes, top_k=5, batch_size=args.batch_size),
        "batches as they come": lambda: code_as_they_come(coder, notes, args.batch_size),
    }
    now = time.process_time if args.device == "cpu" else time.perf_counter
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(args.rounds):
        for way, code in ways.items():
            started = now()
            code()
            seconds[way].append(now() - started)
    first = statistics.median(seconds["one by one"])
    tokens = sum(len(note.split()) for note in notes)
    print(f"{args.num_notes} notes, {tokens:,} tokens, on {args.device}, {torch.get_num_threads()} threads")
    for way, times in seconds.items():
        median = statistics.median(times)
        print(f"{way:22} {median:7.2f} s  {tokens / median:9,.0f} tokens/s  {first / median:5.2f} times one by one")
    print(f"largest difference of a score between one by one and batch_size={args.batch_size}: {apart:.1e}")
    return 0 if apart <= 1e-5 else 1


if __name__ == "__main__":
    sys.exit(main())

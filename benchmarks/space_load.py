"""The page under load: people who send notes all the time, and the time until the first codes of a note are there.

    python -m benchmarks.space_load                            # a small model of random weights, 20 people, 2 minutes
    python -m benchmarks.space_load runs/demo/synthetic_direct --clients 20 --seconds 120 --words 300

The server is the command `modeling-icd space`, in a process of its own. Each person sends a note of random words, reads its stream
to the end, compares the codes with those of the same note sent alone, and sends it again. Counted are notes that got their codes,
that got others, that were refused because the line was full, that ended in an error, and that were lost: whose stream ended
without an answer. First codes: the seconds until a note of 1,500 words has its codes, from the start of the command (cold), and from
sending it to the running page (warm, the median of several).
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from benchmarks.pipeline_batches import make_coder


ROOT = Path(__file__).resolve().parents[1]
FIRST_WORDS = 1500
START_SECONDS = 300
WORDS = ["patient", "with", "acute", "renal", "failure", "sepsis", "due", "to", "pneumonia", "no", "fever", "cough"]
FINAL = ("done", "error", "busy", "cancelled")


@contextmanager
def page(model: str, port: int) -> Iterator[str]:
    """The address of the page, once it answers."""
    command = [sys.executable, "-m", "modeling_icd.space.cli", model, "--port", str(port)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            address = f"http://127.0.0.1:{port}"
            deadline = time.monotonic() + START_SECONDS
            while not answers(address):
                if process.poll() is not None or time.monotonic() > deadline:
                    process.kill()
                    raise SystemExit(f"The page did not start: {process.communicate()[1]}")
                time.sleep(0.05)
            yield address
        finally:
            process.terminate()
            process.communicate(timeout=60)


def answers(address: str) -> bool:
    try:
        return httpx.get(f"{address}/api/about", timeout=5, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def send(client: httpx.Client, note: str) -> tuple[str, list[str], float]:
    """Send a note; its last status (`"lost"` if there was none), its codes, and the seconds that it waited for its turn."""
    started = time.perf_counter()
    call = "/gradio_api/call/code_note"
    joined = client.post(call, json={"data": [note, "a", [], ""]})
    if joined.status_code != 200:
        return "error", [], 0.0
    waited = None
    with client.stream("GET", f"{call}/{joined.json()['event_id']}") as stream:
        for line in stream.iter_lines():
            if not line.startswith("data: [{"):
                continue
            message = json.loads(line.removeprefix("data: "))[0]
            if waited is None and message["status"] != "waiting":
                waited = time.perf_counter() - started
            if message["status"] in FINAL:
                codes = [code["code"] for code in message.get("result", {}).get("codes", ())]
                return message["status"], codes, waited or 0.0
    return "lost", [], waited or 0.0


def invented_note(draw: random.Random, words: int, vocabulary: list[str]) -> str:
    return " ".join(draw.choices(vocabulary, k=words))


def load(address: str, args: argparse.Namespace, vocabulary: list[str]) -> None:
    """Let people send notes at once, and print what came of it."""
    counts: Counter[str] = Counter()
    times: list[float] = []
    waits: list[float] = []
    notes = [invented_note(random.Random(i), args.words, vocabulary) for i in range(args.clients)]
    with httpx.Client(base_url=address, timeout=600, trust_env=False) as client:
        alone = [send(client, note)[1] for note in notes]
    end = time.monotonic() + args.seconds

    def person(number: int) -> None:
        with httpx.Client(base_url=address, timeout=600, trust_env=False) as client:
            while time.monotonic() < end:
                started = time.perf_counter()
                try:
                    status, codes, waited = send(client, notes[number])
                except httpx.HTTPError:
                    status, codes, waited = "lost", [], 0.0
                if status == "done":
                    times.append(time.perf_counter() - started)
                    waits.append(waited)
                    status = "codes" if codes == alone[number] else "other codes"
                counts[status] += 1

    people = [threading.Thread(target=person, args=(number,)) for number in range(args.clients)]
    for thread in people:
        thread.start()
    for thread in people:
        thread.join()
    print(f"| {args.clients} people, {args.seconds} s, notes of {args.words} words | |\n|---|---:|")
    for kind in ("codes", "other codes", "busy", "error", "cancelled", "lost"):
        print(f"| {kind} | {counts[kind]:,} |")
    for name, values in (("seconds until its turn", waits), ("seconds until the codes", times)):
        if values:
            ordered = sorted(values)
            at_95 = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
            print(
                f"| {name}: median, 95 of 100, most | {statistics.median(values):.2f}, {at_95:.2f}, {ordered[-1]:.2f} |"
            )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="a folder or Hub id; by default a small one of random weights")
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--seconds", type=int, default=120)
    parser.add_argument("--words", type=int, default=300)
    parser.add_argument("--port", type=int, default=7997)
    parser.add_argument("--warm_rounds", type=int, default=5)
    parser.add_argument("--hidden_size", type=int, default=64, help="of the model of random weights")
    parser.add_argument("--num_layers", type=int, default=2)
    args = parser.parse_args()
    args.seed, args.device = 0, "cpu"
    vocabulary = WORDS
    with tempfile.TemporaryDirectory() as folder:
        if args.model is None:
            coder = make_coder(args)
            coder.model.save_pretrained(folder)
            coder.tokenizer.save_pretrained(folder)
            vocabulary = sorted(coder.tokenizer.get_vocab())[:500]
        started = time.perf_counter()
        with (
            page(args.model or folder, args.port) as address,
            httpx.Client(base_url=address, timeout=600, trust_env=False) as client,
        ):
            note = invented_note(random.Random(1), FIRST_WORDS, vocabulary)
            status, codes, _ = send(client, note)
            if status != "done" or not codes:
                raise SystemExit(f"The first note got no codes: {status}.")
            cold = time.perf_counter() - started
            warm = []
            for _ in range(args.warm_rounds):
                started = time.perf_counter()
                send(client, note)
                warm.append(time.perf_counter() - started)
            print(f"First codes of {FIRST_WORDS:,} words: cold {cold:.1f} s, warm {statistics.median(warm):.2f} s")
            load(address, args, vocabulary)
    return 0


if __name__ == "__main__":
    sys.exit(main())

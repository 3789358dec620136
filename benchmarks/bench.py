"""Speed and memory of heads, MultiResCNN, cache and backbone, one after the other: `benchmarks/results.json`, a table, a plot.

    python -m benchmarks.bench --output_dir runs/bench                    # all of it; let nothing else run meanwhile
    python -m benchmarks.bench --output_dir runs/bench --only heads multirescnn

Each part is `python -m benchmarks.PART`, whose help says what its figures are, in which way both sides are measured, and how
the cost grows as its input doubles. Finished parts are kept in OUTPUT_DIR, so that an interrupted run goes on.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from dataset_scripts.files import write_text


RESULTS = Path(__file__).with_name("results.json")


class Headline(NamedTuple):
    """One figure of a part that is shown in the table.

    Args:
        part (`str`): see [`PARTS`].
        figure (`str`): its name in what the part writes.
        title (`str`): what it is.
        must (`float`): what was asked for; at most that where `is_cost`, else at least.
        is_cost (`bool`): whether less is better.
        beside (`str`, *optional*): name of another figure, by which it is divided.
    """

    part: str
    figure: str
    title: str
    must: float
    is_cost: bool = False
    beside: str | None = None

    def value(self, results: Mapping[str, Mapping[str, Any]]) -> float | None:
        """The figure in what was measured; `None` where it is not there."""
        figures = results.get(self.part, {}).get("figures", {})
        found, other = figures.get(self.figure), 1.0 if self.beside is None else figures.get(self.beside)
        return None if found is None or other is None else found / other


PARTS: dict[str, list[str]] = {
    "heads": [],
    "multirescnn": [],
    # Four layers of thirty, and few notes: all of them would take hours, most of them in the plain way.
    "hidden_states": ["--only", "keys", "pass", "memory", "decode", "--layers", "4", "--notes", "16"],
}
HEADLINES = [
    Headline("heads", "added_explicit", "label attention, memory added beside ours", 5, beside="added_ours"),
    Headline("multirescnn", "train_50", "MultiResCNN beside the original, training, 50 codes", 1.6),
    Headline("multirescnn", "train_8921", "the same, 8,921 codes", 1.25),
    Headline("multirescnn", "inference_50", "the same, inference, 50 codes", 1.6),
    Headline("multirescnn", "inference_8921", "the same, inference, 8,921 codes", 2.0),
    Headline(
        "hidden_states",
        "pass, default notes: times the notes' tokens/s of the plain way",
        "backbone pass beside the plain way",
        3,
    ),
    Headline(
        "hidden_states",
        "pass, default notes: of the windows' tokens/s of full ones",
        "backbone pass beside full windows",
        0.85,
    ),
    Headline("hidden_states", "pass, default notes: percent of padding", "padding, percent", 3, is_cost=True),
    Headline("hidden_states", "keys: MB that 52,722 notes add", "memory of 52,722 keys, MB", 200, is_cost=True),
    Headline(
        "hidden_states",
        "memory, cache: MB for a note of 100,000 tokens",
        "memory of a note of 100,000 tokens, MB",
        2000,
        is_cost=True,
    ),
]


def run_part(part: str, folder: Path) -> dict[str, Any]:
    """The figures of a part, measured unless that is done."""
    path = folder / f"{part}.json"
    if not path.is_file():
        print(f"{time.strftime('%H:%M:%S')} benchmarks.{part}", flush=True)
        command = [sys.executable, "-m", f"benchmarks.{part}", *PARTS[part], "--output", str(path)]
        subprocess.run(command, check=True)
    return json.loads(path.read_text())


def machine() -> dict[str, Any]:
    """What was measured on."""
    names = [line.partition(":")[2].strip() for line in _cpu_lines() if line.startswith("model name")]
    packages = ("torch", "transformers", "peft", "accelerate", "bitsandbytes")
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "versions": {name: version(name) for name in packages},
    }


def _cpu_lines() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.is_file() else []


def show(results: Mapping[str, Mapping[str, Any]]) -> None:
    """Print the headlines of the parts that were measured."""
    table = Table(box=SIMPLE_HEAD)
    for column in ("part", "figure", "measured", "asked for", ""):
        table.add_column(column, justify="right" if column in ("measured", "asked for") else "left")
    for row in HEADLINES:
        if (value := row.value(results)) is not None:
            bound = f"{'at most' if row.is_cost else 'at least'} {row.must:g}"
            table.add_row(row.part, row.title, f"{value:.3g}", bound, "" if reaches(row, value) else "not reached")
    Console(width=119).print(table)


def reaches(row: Headline, value: float) -> bool:
    return value <= row.must if row.is_cost else value >= row.must


def plot(results: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Each headline as a share of what was asked for: beyond the line is better than that."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = [(row, value) for row in HEADLINES if (value := row.value(results)) is not None]
    shares = [row.must / value if row.is_cost else value / row.must for row, value in shown]
    figure, axes = pyplot.subplots(figsize=(9, 0.4 * len(shown) + 1.2))
    colours = ["#0072b2" if share >= 1 else "#d55e00" for share in shares]
    axes.barh([row.title for row, _ in shown], shares, color=colours)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_xlabel("measured / asked for (costs the other way round)")
    axes.invert_yaxis()
    figure.tight_layout()
    figure.savefig(path, metadata={"Software": None})
    pyplot.close(figure)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path("runs/bench"))
    parser.add_argument("--only", nargs="+", choices=tuple(PARTS), metavar="PART", help=", ".join(PARTS))
    args = parser.parse_args(argv)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    for part in args.only or PARTS:
        command = " ".join(["python -m", f"benchmarks.{part}", *PARTS[part]])
        results[part] = {"command": command, "machine": machine(), "figures": run_part(part, args.output_dir)}
        write_text(json.dumps(results, indent=2) + "\n", RESULTS)
    show(results)
    plot(results, args.output_dir / "bench.png")
    print(f"{RESULTS}, {args.output_dir / 'bench.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

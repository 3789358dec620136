"""The plots of a report, each made from `results.json` alone, as SVG.

Colours are those of Okabe and Ito, which colour-blind readers can tell apart; whatever a colour says, a marker, a line style
or a number says too, so that a grey print loses nothing.
"""

import io
import textwrap
from collections.abc import Callable, Mapping
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from .icd_metrics.ratios import divide


BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#777777"
STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "modeling_icd",  # the same results give the same file
}
F1_LINES = (0.2, 0.4, 0.6, 0.8)


def make_plots(results: Mapping[str, Any]) -> dict[str, str]:
    """Draw every plot that the results have data for: name and SVG."""
    plots: dict[str, Callable[[Mapping[str, Any]], Figure | None]] = {
        "f1_by_frequency": plot_f1_by_frequency,
        "precision_recall": plot_precision_recall,
        "reliability": plot_reliability,
        "f1_by_length": plot_f1_by_length,
        "hierarchy": plot_hierarchy,
    }
    drawn = {}
    with matplotlib.rc_context(STYLE):
        for name, plot in plots.items():
            figure = plot(results)
            if figure is not None:
                drawn[name] = to_svg(figure)
    return drawn


def to_svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
    return buffer.getvalue()


def plot_f1_by_frequency(results: Mapping[str, Any]) -> Figure | None:
    """F1 of each code that the split has, against how often it was trained on; without training counts, how often it is gold."""
    per_code = results["per_code"]
    gold, predicted, hits = (np.array(per_code[name]) for name in ("gold", "predicted", "hits"))
    is_trained = per_code["train"] is not None
    frequency = np.array(per_code["train"] if is_trained else gold)
    shown = (gold > 0) & (frequency > 0)
    if not shown.any():
        return None
    f1 = divide(2 * hits, predicted + gold)
    figure = Figure(figsize=(6.5, 3.8))
    axes = figure.subplots()
    size = 20 if shown.sum() < 500 else 9
    axes.scatter(
        frequency[shown], f1[shown], s=size, color=GREY, alpha=0.5, linewidths=0, label="one code", rasterized=True
    )
    bins = np.floor(np.log2(frequency[shown])).astype(int)
    centres = [np.exp(np.log(frequency[shown][bins == i]).mean()) for i in np.unique(bins)]
    means = [f1[shown][bins == i].mean() for i in np.unique(bins)]
    axes.plot(centres, means, "o-", color=BLUE, linewidth=1.8, label="mean of codes, by doubling")
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlabel("training notes with the code" if is_trained else "notes of this split with the code")
    axes.set_ylabel("F1 of the code")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(0, 1.14), ncols=2)
    return figure


def plot_precision_recall(results: Mapping[str, Any]) -> Figure | None:
    """Precision against recall over all pairs of note and code, with the decision that the model makes."""
    points = results["curves"]["precision_recall"]
    if not points:
        return None
    figure = Figure(figsize=(4.8, 4.2))
    axes = figure.subplots()
    for f1 in F1_LINES:
        recall = np.linspace(f1 / (2 - f1), 1, 200)  # from where precision is 1
        axes.plot(recall, f1 * recall / (2 * recall - f1), ":", color=GREY, linewidth=0.9)
        axes.annotate(
            f"F1 {f1}", (1.0, f1 / (2 - f1)), color=GREY, fontsize=8, xytext=(3, 0), textcoords="offset points"
        )
    axes.plot(
        [point["recall"] for point in points],
        [point["precision"] for point in points],
        color=BLUE,
        linewidth=1.8,
        label="one global threshold",
    )
    metrics = results["metrics"]
    axes.plot(
        metrics["recall_micro"],
        metrics["precision_micro"],
        "D",
        color=ORANGE,
        markersize=7,
        label="the model's decision",
    )
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.03)
    axes.set_xlabel("recall (micro)")
    axes.set_ylabel("precision (micro)")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(0, 1.14), ncols=2)
    return figure


def plot_reliability(results: Mapping[str, Any]) -> Figure | None:
    """Share of gold against mean score in bins of the score, above the number of scores in each."""
    bins = results["curves"]["reliability"]
    if not bins:
        return None
    figure = Figure(figsize=(4.8, 4.8))
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    scores = [point["mean_score"] for point in bins]
    upper.plot([0, 1], [0, 1], "--", color=GREY, linewidth=1, label="perfect")
    before = results["curves"].get("reliability_uncalibrated")
    if before:
        upper.plot(
            [point["mean_score"] for point in before],
            [point["share_gold"] for point in before],
            "^:",
            color=ORANGE,
            linewidth=1.2,
            label="before calibration",
        )
    upper.plot(scores, [point["share_gold"] for point in bins], "o-", color=BLUE, linewidth=1.8, label="this model")
    upper.set_ylim(-0.03, 1.03)
    upper.set_ylabel("share of gold")
    upper.legend(frameon=False, loc="lower left", bbox_to_anchor=(-0.02, 1), ncols=3, columnspacing=1, fontsize=9)
    lower.bar(scores, [point["num_pairs"] for point in bins], width=0.04, color=BLUE)
    lower.set_yscale("log")
    lower.set_xlim(-0.03, 1.03)
    lower.set_xlabel("mean score of the bin")
    lower.set_ylabel("pairs")
    return figure


def plot_f1_by_length(results: Mapping[str, Any]) -> Figure | None:
    """Micro F1, precision and recall of notes by their length."""
    rows = results["strata"]["length"]
    figure = Figure(figsize=(6.5, 3.4))
    axes = figure.subplots()
    place = np.arange(len(rows))
    axes.bar(place, [row["f1_micro"] for row in rows], width=0.6, color="#9CC9E3", edgecolor=BLUE, label="F1 (micro)")
    for row, x in zip(rows, place, strict=True):
        axes.annotate(f"{row['f1_micro']:.2f}", (x, 0.02), ha="center", fontsize=9)
    axes.plot(place - 0.12, [row["precision"] for row in rows], "^", color=BLUE, markersize=7, label="precision")
    axes.plot(place + 0.12, [row["recall"] for row in rows], "v", color=ORANGE, markersize=7, label="recall")
    axes.set_xticks(place, [f"{row['stratum']}\n({row['num_notes']} notes)" for row in rows])
    axes.set_ylim(0, 1.03)
    axes.set_xlabel("words of the note")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(0, 1.18), ncols=3)
    return figure


def plot_hierarchy(results: Mapping[str, Any]) -> Figure | None:
    """Micro F1 of each chapter at each level below it, as a heat map with its numbers."""
    rows = [row for row in results["strata"].get("heat_map", []) if row["gold"]]
    if not rows:
        return None
    levels = [name for name in rows[0] if name not in ("stratum", "gold")]
    values = np.array([[row[level] for level in levels] for row in rows])
    figure = Figure(figsize=(2.2 + 1.1 * len(levels), 0.8 + 0.34 * len(rows)))
    axes = figure.subplots()
    image = axes.imshow(values, cmap="cividis", vmin=0, vmax=1, aspect="auto")
    for (i, j), value in np.ndenumerate(values):
        axes.annotate(f"{value:.2f}", (j, i), ha="center", va="center", color="black" if value > 0.5 else "white")
    axes.set_xticks(range(len(levels)), levels)
    axes.xaxis.tick_top()
    names = [textwrap.shorten(row["stratum"], 52, placeholder=" ...") for row in rows]
    axes.set_yticks(range(len(rows)), [f"{name} ({row['gold']})" for name, row in zip(names, rows, strict=True)])
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    figure.colorbar(image, ax=axes, label="F1 (micro)")
    return figure

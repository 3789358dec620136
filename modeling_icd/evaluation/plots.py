"""The plots of a report, each made from `results.json` alone, as SVG.

Colours are those of Okabe and Ito, which colour-blind readers can tell apart; whatever a colour says, a marker, a line style
or a number says too, so that a grey print loses nothing.
"""

import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from .icd_metrics.metrics import divide


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
    drawn = {}
    with matplotlib.rc_context(STYLE):
        for plot in (plot_f1_by_frequency, plot_precision_recall, plot_reliability, plot_f1_by_length, plot_hierarchy):
            figure = plot(results)
            if figure is not None:
                buffer = io.StringIO()
                figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
                drawn[plot.__name__.removeprefix("plot_")] = buffer.getvalue()
    return drawn


def column(rows: Sequence[Mapping[str, Any]], name: str) -> list[Any]:
    return [row[name] for row in rows]


def legend_above(axes: Axes, height: float = 1.14, columns: int = 2) -> None:
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(0, height), ncols=columns)


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
    counted = "training notes with the code" if is_trained else "notes of this split with the code"
    axes.set(ylim=(-0.03, 1.03), xlabel=counted, ylabel="F1 of the code")
    legend_above(axes)
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
    curve = column(points, "recall"), column(points, "precision")
    axes.plot(*curve, color=BLUE, linewidth=1.8, label="one global threshold")
    decision = results["metrics"]["recall_micro"], results["metrics"]["precision_micro"]
    axes.plot(*decision, "D", color=ORANGE, markersize=7, label="the model's decision")
    axes.set(xlim=(0, 1), ylim=(0, 1.03), xlabel="recall (micro)", ylabel="precision (micro)")
    legend_above(axes)
    return figure


def plot_reliability(results: Mapping[str, Any]) -> Figure | None:
    """Share of gold against mean score in bins of the score, above the number of scores in each."""
    bins = results["curves"]["reliability"]
    if not bins:
        return None
    figure = Figure(figsize=(4.8, 4.8))
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.plot([0, 1], [0, 1], "--", color=GREY, linewidth=1, label="perfect")
    before = results["curves"].get("reliability_uncalibrated")
    if before:
        x, y = column(before, "mean_score"), column(before, "share_gold")
        upper.plot(x, y, "^:", color=ORANGE, linewidth=1.2, label="before calibration")
    scores = column(bins, "mean_score")
    upper.plot(scores, column(bins, "share_gold"), "o-", color=BLUE, linewidth=1.8, label="this model")
    upper.set(ylim=(-0.03, 1.03), ylabel="share of gold")
    upper.legend(frameon=False, loc="lower left", bbox_to_anchor=(-0.02, 1), ncols=3, columnspacing=1, fontsize=9)
    lower.bar(scores, column(bins, "num_pairs"), width=0.04, color=BLUE)
    lower.set(yscale="log", xlim=(-0.03, 1.03), xlabel="mean score of the bin", ylabel="pairs")
    return figure


def plot_f1_by_length(results: Mapping[str, Any]) -> Figure | None:
    """Micro F1, precision and recall of notes by their length."""
    rows = results["strata"]["length"]
    figure = Figure(figsize=(6.5, 3.4))
    axes = figure.subplots()
    place = np.arange(len(rows))
    axes.bar(place, column(rows, "f1_micro"), width=0.6, color="#9CC9E3", edgecolor=BLUE, label="F1 (micro)")
    for row, x in zip(rows, place, strict=True):
        axes.annotate(f"{row['f1_micro']:.2f}", (x, 0.02), ha="center", fontsize=9)
    axes.plot(place - 0.12, column(rows, "precision"), "^", color=BLUE, markersize=7, label="precision")
    axes.plot(place + 0.12, column(rows, "recall"), "v", color=ORANGE, markersize=7, label="recall")
    axes.set_xticks(place, [f"{row['stratum']}\n({row['num_notes']} notes)" for row in rows])
    axes.set(ylim=(0, 1.03), xlabel="words of the note")
    legend_above(axes, height=1.18, columns=3)
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

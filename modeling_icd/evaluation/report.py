"""Writes `report.md`, `report.html` and their plots from `results.json` alone, so that they cannot hold text of a note."""

import base64
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from dataset_scripts.counts import counted
from dataset_scripts.files import write_text

from ..decision_icd import FLAGS
from ..inference.learned_notes import overlap_text
from .icd_metrics.metrics import shown_in
from .plots import make_plots


PLOTS = {
    "f1_by_frequency": (
        "F1 against frequency",
        "Each dot is a code that the split has; the line is the mean of the codes whose frequency lies between one power of "
        "two and the next.",
    ),
    "precision_recall": (
        "Precision and recall",
        "All pairs of note and code as one ranking. The diamond is the decision that the threshold makes; where thresholds "
        "differ by code it need not lie on the curve.",
    ),
    "reliability": (
        "Reliability",
        "Scores in 15 equal bins. Points below the diagonal are too sure of themselves. Nearly all pairs lie in the lowest bin.",
    ),
    "f1_by_length": ("Note length", "Bands hold about as many notes each."),
    "hierarchy": (
        "Levels of the hierarchy",
        "Micro F1 of each chapter (in parentheses its gold pairs) when codes, categories or blocks have to agree: what rises "
        "from right to left are near misses.",
    ),
}
STRATA = {
    "frequency": ("By training frequency", "codes by how many training notes have them"),
    "kind": ("Diagnoses and procedures", "kind"),
    "chapter": ("By chapter", "chapter"),
    "level": ("By level of the hierarchy", "what has to agree"),
    "length": ("By note length", "words"),
    "num_codes": ("By number of codes", "gold codes of the note"),
}
MARKUP = str.maketrans({character: f"\\{character}" for character in "\\`*_[]<>|"})


def write_report(results: Mapping[str, Any], output_dir: Path) -> tuple[Path, Path]:
    """Write `report.md`, `report.html` and `plots/*.svg`; returns the first two.

    The HTML is one file, plots included. Values from outside (codes, names) are escaped in both.
    """
    plots = make_plots(results)
    for name, svg in plots.items():
        write_text(svg, output_dir / "plots" / f"{name}.svg")
    context = {
        "title": f"{Path(results['model']).name} on {results['dataset']} ({results['config']}), {results['split']}",
        "subtitle": f"{results['num_notes']:,} {'synthetic ' if results['synthetic'] else ''}notes, "
        f"{counted(results['num_codes'], 'code')}. {threshold_text(results)}",
        "sections": make_sections(results, plots),
    }
    paths = output_dir / "report.md", output_dir / "report.html"
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("modeling_icd.evaluation"),
        autoescape=lambda name: name == "report.html.j2",
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["cell"] = markdown_cell
    for path in paths:
        write_text(environment.get_template(f"{path.name}.j2").render(context), path)
    return paths


def threshold_text(results: Mapping[str, Any]) -> str:
    threshold = results["threshold"]
    value = threshold if isinstance(threshold, str) else f"{threshold:.4f}"
    return f"Decision threshold: {value}; rule {results['threshold_rule']}, from {results['threshold_source']}."


def bounds_text(interval: Sequence[float] | None) -> str:
    """The two ends of an interval; nothing where there is none."""
    return f"{interval[0]:.4f} to {interval[1]:.4f}" if interval else ""


def markdown_cell(value: Any) -> str:
    """Keep a value inside its cell, and markup in it from being markup."""
    return " ".join(str(value).split()).translate(MARKUP)


def make_sections(results: Mapping[str, Any], plots: Mapping[str, str]) -> list[dict[str, Any]]:
    """The report as a list of sections: title, paragraphs, a plot, a table."""
    sections = [_headlines(results)]
    for name, svg in plots.items():
        title, text = PLOTS[name]
        image = base64.b64encode(svg.encode()).decode()
        sections.append(_section(title, [text], plot=name, alt=title, image=image))
    sections += [
        _strata_section(title, column, results["strata"][name])
        for name, (title, column) in STRATA.items()
        if name in results["strata"]
    ]
    trust = {"calibration": _calibration, "recall_promise": _promise, "review": _review, "audit": _audits}
    for name, make in trust.items():
        if results[name] is not None:
            sections += make(results[name])
    errors = _error_sections(results["errors"], results.get("descriptions", {}))
    return [*sections, *errors, _provenance(results)]


def _section(title: str, text: list[str], **parts: Any) -> dict[str, Any]:
    return {"title": title, "text": text, "plot": None, "columns": [], "rows": [], **parts}


def _headlines(results: Mapping[str, Any]) -> dict[str, Any]:
    rows = []
    for metric in shown_in("report"):
        value = results["metrics"].get(metric.name)
        if value is not None:
            direction = "" if metric.higher_is_better else "; lower is better"
            name = f"{metric.title}: {metric.definition}{direction}"
            rows.append((name, f"{value:.4f}", bounds_text(results["intervals"].get(metric.name))))
    text = [f"Intervals: {results['interval_method']}"]
    if results["unknown_codes"]:
        text.append(
            f"{len(results['unknown_codes'])} gold codes of this split are not in the model's vocabulary; each counts as missed."
        )
    overlap = overlap_text(results.get("num_learned_notes"), results["num_notes"])
    if overlap is not None:
        text.insert(0, overlap)
    if results.get("num_empty_notes"):
        text.append(
            f"{counted(results['num_empty_notes'], 'note is', 'notes are')} empty; each scores 0 for every code, its gold codes are missed."
        )
    return _section("Figures", text, columns=("metric", "value", "95% interval"), rows=rows)


def _strata_section(title: str, column: str, strata: list[dict[str, Any]]) -> dict[str, Any]:
    members, last = {"num_codes": "codes"}, {"f1_macro": "F1 macro"}
    if "num_notes" in strata[0]:
        members, last = {"num_notes": "notes"}, {"f1_instance_mean": "F1 mean of notes"}
    counts = {"stratum": column, **members, "gold": "gold", "predicted": "predicted"}
    shares = {"precision": "precision", "recall": "recall", "f1_micro": "F1 micro", **last}
    rows = [(*(row[name] for name in counts), *(f"{row[name]:.3f}" for name in shares)) for row in strata]
    return _section(title, [], columns=(*counts.values(), *shares.values()), rows=rows)


def _calibration(calibration: Mapping[str, Any]) -> list[dict[str, Any]]:
    curves = ", ".join(
        f"{band['band']} ({counted(band['num_codes'], 'code')}): {band['slope']:.3f} and {band['intercept']:.3f}"
        for band in calibration["bands"]
    )
    text = [
        "Scores are sigmoid(slope * logit + intercept), fitted on validation. Slope and intercept by band of training "
        f"frequency: {curves}.",
        "ECE and Brier score run over all pairs of note and code, nearly all of them easy negatives.",
    ]
    rows = [
        (name, *(f"{calibration[when][key]:.5f}" for when in ("before", "after")))
        for name, key in (("ECE", "ece"), ("Brier score", "brier"))
    ]
    columns = ("metric", "sigmoid alone", "calibrated")
    return [_section(f"Calibration: {calibration['method']}", text, columns=columns, rows=rows)]


def _promise(promise: Mapping[str, Any]) -> list[dict[str, Any]]:
    text = [
        f"On notes drawn as the validation notes were, the threshold promises a mean recall of {promise['target']:g} (conformal "
        "risk control, arXiv 2208.02814): of the mean over notes that have codes, not of every note or code, and as far as the "
        "choice of checkpoint and calibration on the same notes has not used them up.",
        f"Here: {promise['recall']:.4f} ({bounds_text(promise['interval'])}) over {counted(promise['num_notes'], 'note')}, with "
        f"{promise['predicted_per_note']:.1f} predicted codes a note.",
    ]
    return [_section("Promised recall", text)]


def _review(review: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for name in FLAGS:
        part = review[name]
        precision = "" if part["precision"] is None else f"{part['precision']:.4f}"
        rows.append((name, f"{part['predicted']:,}", f"{part['hits']:,}", precision))
    text = (
        f"A predicted code is confident where its score is greater than {review['threshold']:.4f}: from there on, of "
        f"validation predictions with any one score at least {review['precision_asked']:.0%} were right."
    )
    columns = ("decision", "predicted", "right", "precision")
    return [_section("Confident or to review", [text], columns=columns, rows=rows)]


def _audits(audit: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of the codes that an audit finds missing, and, where it was measured, of those that it doubts."""

    def rows(figures: Mapping[str, Any], name: str, intervals: str) -> list[tuple[str, str, str]]:
        at_k = figures[f"{name}_at_k"]
        return [(f"{name} at {k}", f"{at_k[k]:.4f}", bounds_text(figures[intervals][k])) for k in at_k]

    columns = ("metric", "value", "95% interval")
    text = (
        f"Of each note's gold codes {audit['share_removed']:.0%} are removed at random ({audit['num_removed']:,.0f} in all, mean of "
        f"{audit['num_draws']} draws) and the others taken for assigned: how many of the removed ones are among the k best codes "
        "that are not assigned."
    )
    missed = rows(audit, "recall", "intervals")
    sections = [_section("Audit: missed codes", [text], columns=columns, rows=missed)]
    planted = audit.get("unsupported")
    if planted is not None:
        text = (
            f"For {planted['share_planted']:.0%} of the gold codes one that the note does not have, drawn by training frequency, is added "
            f"to its assigned ones ({planted['num_planted']:,.0f} of {planted['num_assigned']:,.0f} in all, mean of "
            f"{planted['num_draws']} draws). Recall: how many of the added codes are among the first k of the assigned codes that the "
            "model does not predict, the lowest score first. Precision: how many of those listed were added; the others are gold codes "
            "that the model misses."
        )
        doubted = [row for name in ("recall", "precision") for row in rows(planted, name, f"{name}_intervals")]
        sections.append(_section("Audit: unsupported codes", [text], columns=columns, rows=doubted))
    return sections


def _error_sections(errors: Mapping[str, Any], descriptions: Mapping[str, str]) -> list[dict[str, Any]]:
    def titled(code: str) -> str:
        return textwrap.shorten(f"{code} {descriptions.get(code, '')}", 48, placeholder=" ...")

    confusions, hierarchical = errors["confusions"], errors["hierarchical"]
    misses = ", ".join(f"{name} {count:,}" for name, count in confusions["misses"].items())
    text = [
        "A gold code was missed and, in the same note, another one wrongly predicted; excess is how many notes more than "
        "if the two had nothing to do with each other.",
        f"All missed codes, by the closest relation to a wrongly predicted code of their note: {misses}.",
    ]
    if confusions["num_notes_left_out"]:
        number = counted(confusions["num_notes_left_out"], "note", "notes")
        text.append(f"Left out: {number} with very many false alarms.")
    pairs = [
        (titled(pair["gold"]), titled(pair["predicted"]), pair["relation"], pair["notes"], f"{pair['excess']:.1f}")
        for pair in confusions["pairs"]
    ]
    nodes = [
        "Gold and predicted codes together with their ancestors, each once in a note (Kiritchenko et al. 2006): "
        f"F1 {hierarchical['f1']:.4f}, precision {hierarchical['precision']:.4f}, recall "
        f"{hierarchical['recall']:.4f} ({hierarchical['gold']:,} gold, {hierarchical['predicted']:,} predicted, "
        f"{hierarchical['hits']:,} both)."
    ]
    columns = ("gold", "predicted", "relation", "notes", "excess")
    sections = [
        _section("Most confused codes", text, columns=columns, rows=pairs),
        _section("Hierarchical F1", nodes),
    ]
    for name, title in (("never_predicted", "Codes never predicted"), ("always_predicted", "Codes always predicted")):
        found = errors[name]
        rows = [(titled(row["code"]), row["gold"]) for row in found["codes"]]
        number = counted(found["num_codes"], "code")
        text = [f"{number} with {counted(found['gold'], 'gold pair')}." if found["num_codes"] else "None."]
        if found["num_codes"] > len(rows):
            text.append(f"The {len(rows)} most frequent:")
        sections.append(_section(title, text, columns=("code", "gold notes"), rows=rows))
    worst = [
        (f"{row['kind']}: {row['stratum']}", row["gold"], f"{row['f1_micro']:.3f}") for row in errors["worst_strata"]
    ]
    if worst:
        sections.append(_section("Worst strata", [], columns=("stratum", "gold", "F1 micro"), rows=worst))
    return sections


def _provenance(results: Mapping[str, Any]) -> dict[str, Any]:
    rows = [
        ("code version", results["code_version"]),
        ("data fingerprint", results["data_fingerprint"][:16]),
        ("seed of training", "unknown" if results["training_seed"] is None else results["training_seed"]),
        ("seed of the intervals", results["seed"]),
        *results["versions"].items(),
    ]
    return _section("Where this comes from", [], columns=("what", "value"), rows=rows)

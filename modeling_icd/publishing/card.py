"""The model card: `model_card.md` filled from a model's configuration, runs and results, no figure typed by hand."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jinja2
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ..evaluation.results import name_threshold
from ..inference.model_folder import weights_digest
from .folder import ModelFolder, project_file
from .release import PHYSIONET_LICENSE, PHYSIONET_LICENSE_URL, Release, training_configs


class Metric(NamedTuple):
    """A row of the results: its key in `results.json`, its name, what it means, and its id among the Hub's metrics."""

    key: str
    name: str
    definition: str
    hub_id: str


METRICS = (
    Metric("f1_micro", "F1, micro", "over all decisions", "f1"),
    Metric(
        "f1_macro", "F1, macro", "mean over codes of per-code F1; a code without gold and prediction counts 0", "f1"
    ),
    Metric("f1_macro_seen", "F1, macro, seen codes", "the same mean over codes with a gold note in the split", "f1"),
    Metric("f1_instance", "F1, by note", "F1 of the mean precision and the mean recall of a note", "f1"),
    Metric("precision_micro", "precision, micro", "over all decisions", "precision"),
    Metric("recall_micro", "recall, micro", "over all decisions", "recall"),
    Metric("auc_micro", "AUC, micro", "over all pairs of note and code", "roc_auc"),
    Metric("auc_macro", "AUC, macro", "mean over codes with a positive and a negative note", "roc_auc"),
    Metric("precision_at_5", "precision at 5", "of a note's five best codes, mean over notes", "precision_at_5"),
    Metric("precision_at_8", "precision at 8", "of a note's eight best codes, mean over notes", "precision_at_8"),
    Metric("precision_at_15", "precision at 15", "of a note's fifteen best codes, mean over notes", "precision_at_15"),
    Metric("map", "MAP", "mean over notes of the average precision of the ranking of codes", "map"),
)
BAND_FIGURES = ("precision", "recall", "f1_micro", "f1_macro")
OTHER_FIGURES = ("exact_match", "ece", "brier")
RESULT_FIELDS = (
    *("dataset", "config", "split", "num_notes", "num_codes", "threshold", "threshold_source"),
    *("intervals", "strata"),
)

# Invented, in words that no hospital uses, so that the privacy check cannot take it for a training note.
INVENTED_NOTE = (
    "INVENTED NOTE. A gardener of no particular age came in breathless after nine stairs, ankles like marrows.",
    "Crackles at both bases, sugar high as ever, pressure high since the spring; water tablets and a salt lecture helped.",
)


class DataSet(NamedTuple):
    """How the card speaks of a data set."""

    name: str
    hub_id: str
    note_kind: str
    code_system: str
    terms: str
    limits: str
    citation: str


SYNTHETIC = DataSet(
    "an invented corpus in MIMIC-III's table format",
    "synthetic-mimic3-format",
    "discharge summary",
    "ICD-9-CM",
    "no patient, hospital or note in it is real; `python -m dataset_scripts.synthetic` writes it again from its seed",
    "The codes were drawn first and the notes were written to show them: results do not carry over to real notes.",
    "",
)
SYNTHETIC_MIMIC4 = SYNTHETIC._replace(
    name="an invented corpus in MIMIC-IV's table format",
    hub_id="synthetic-mimic4-format",
    terms="no patient, hospital or note in it is real; `python -m dataset_scripts.synthetic --format mimic4` writes it again from its "
    "seed",
)
DATASETS = {
    "mimic3": DataSet(
        "MIMIC-III v1.4",
        "mimic3",
        "discharge summary",
        "ICD-9-CM",
        f"credentialed users of PhysioNet under its data use agreement ([{PHYSIONET_LICENSE}]({PHYSIONET_LICENSE_URL})); "
        "none of its records is in this repository",
        "The codes are those that one hospital's coders assigned for billing: habit and reimbursement are in them, and so "
        "in the model. The notes are of intensive care, 2001 to 2012.",
        "@article{johnson2016mimic,\n"
        "  title={{MIMIC-III}, a freely accessible critical care database},\n"
        "  author={Johnson, Alistair E. W. and Pollard, Tom J. and Shen, Lu and others},\n"
        "  journal={Scientific Data}, volume={3}, pages={160035}, year={2016}\n}",
    ),
    "mimic4": DataSet(
        "MIMIC-IV v2.2 and MIMIC-IV-Note v2.2",
        "mimic4",
        "discharge summary",
        "ICD",
        f"credentialed users of PhysioNet under its data use agreement ([{PHYSIONET_LICENSE}]({PHYSIONET_LICENSE_URL})); "
        "none of its records is in this repository",
        "The codes are those that one hospital's coders assigned for billing: habit and reimbursement are in them, and so "
        "in the model. The notes are of hospital admissions, 2008 to 2019.",
        "@article{johnson2023mimic,\n"
        "  title={{MIMIC-IV}, a freely accessible electronic health record dataset},\n"
        "  author={Johnson, Alistair E. W. and Bulgarelli, Lucas and Shen, Lu and others},\n"
        "  journal={Scientific Data}, volume={10}, pages={1}, year={2023}\n}",
    ),
    "cmc2007": DataSet(
        "the radiology reports of the 2007 Computational Medicine Center challenge",
        "cmc2007",
        "radiology report",
        "ICD-9-CM",
        "free for non-commercial research; none of its records is in this repository",
        "The codes are those that two of three coding companies gave to paediatric radiology reports, short ones and of "
        "one hospital.",
        "@inproceedings{pestian2007shared,\n"
        "  title={A shared task involving multi-label classification of clinical free text},\n"
        "  author={Pestian, John P. and Brew, Chris and Matykiewicz, Pawel and Hovermale, D. J. and others},\n"
        "  booktitle={BioNLP}, year={2007}\n}",
    ),
    "codiesp": DataSet(
        "the clinical cases of CodiEsp v3",
        "codiesp",
        "clinical case",
        "ICD-10",
        "CC BY 4.0 ([zenodo.org/records/3837305](https://zenodo.org/records/3837305))",
        "The notes are published case reports, not hospital notes; the English ones are machine translations from Spanish.",
        "@inproceedings{miranda2020overview,\n"
        "  title={Overview of Automatic Clinical Coding: Annotations, Guidelines, and Solutions for non-English Clinical "
        "Cases at {CodiEsp} Track of {CLEF eHealth} 2020},\n"
        "  author={Miranda-Escalada, Antonio and Gonzalez-Agirre, Aitor and Armengol-Estap{\\'e}, Jordi and Krallinger, "
        "Martin},\n"
        "  booktitle={CLEF (Working Notes)}, year={2020}\n}",
    ),
}


# Others of these names may be anyone's notes; `training_data` says whether the published ones were read.
OPEN_BY_CONTENT = ("cmc2007", "codiesp")


def in_text(value: str) -> str:
    """A text from a file of the model's folder, on one line and with nothing that Markdown or HTML takes for its own."""
    line = " ".join(value.split())
    return "".join(c if c.isalnum() or c in " .,:;/()+-%='?" else f"&#{ord(c)};" for c in line)


def in_code(name: str) -> str:
    """A name from such a file in the type of code; one that is no plain word as text, where it can be escaped."""
    return f"`{name}`" if re.fullmatch(r"[\w.+-]+", name) else in_text(name)


def describe_data(training_data: Mapping[str, Any] | None) -> DataSet:
    """How to speak of the data that a model was trained on; of unknown data, that they are unknown."""
    if training_data and training_data.get("synthetic") is True:
        return with_edition(SYNTHETIC_MIMIC4, training_data) if training_data.get("dataset") == "mimic4" else SYNTHETIC
    name = (training_data or {}).get("dataset", "unknown")
    if training_data and name == "mimic4":
        return with_edition(DATASETS[name], training_data)
    unknown = DataSet(
        in_code(name),
        " ".join(name.split()),
        "note",
        "ICD",
        "unknown to this project, so counted as restricted",
        "The data are unknown.",
        "",
    )
    if training_data and training_data.get("open") is False and name in OPEN_BY_CONTENT:
        return unknown._replace(terms=f"not the published files of {name}, so counted as restricted")
    return DATASETS.get(name, unknown)


def with_edition(data: DataSet, training_data: Mapping[str, Any]) -> DataSet:
    """MIMIC-IV is coded in two editions of ICD: name the one of the configuration."""
    return data._replace(code_system="ICD-9-CM" if str(training_data.get("config")).startswith("icd9") else "ICD-10")


def check_results(results: Mapping[str, Any], training_data: Mapping[str, Any] | None = None) -> None:
    """Refuse results that lack something the card reports.

    Args:
        results (`dict`): A `results.json`.
        training_data (`dict`, *optional*): Of the model; where it counts codes, the results by frequency must be there.

    Raises:
        ValueError: where a field or a metric is missing; the message names them.
    """
    metrics = results.get("metrics", {})
    missing = [key for key in ("metrics", *RESULT_FIELDS) if key not in results]
    missing += [f"metrics.{key}" for key in (*(m.key for m in METRICS), *OTHER_FIGURES) if key not in metrics]
    intervals, strata = results.get("intervals", {}), results.get("strata", {})
    missing += [f"intervals.{m.key}" for m in METRICS if metrics.get(m.key) is not None and not intervals.get(m.key)]
    if (training_data or {}).get("code_counts") and not strata.get("frequency"):
        missing.append("strata.frequency")
    if missing:
        raise ValueError(
            f"results.json lacks {', '.join(missing)}: the card would have holes. Run `evaluate.py` again."
        )
    if metrics["f1_micro"] is None:
        raise ValueError("`f1_micro` of results.json is undefined: evaluate on a split with notes and codes.")


def check_they_belong_together(folder: ModelFolder) -> None:
    """Refuse results of another decision, or of other weights as far as the decision gives them away.

    Raises:
        ValueError: where `results.json` was measured with the model's calibration, or at its threshold, and that is no
            longer the model's.
    """
    config, results = folder.config, folder.results
    own = config.get("threshold", 0.5)
    per_code = dict(zip(folder.codes, own, strict=True)) if isinstance(own, list) else {}
    measured = results.get("thresholds") or {}
    if str(results["threshold_source"]).startswith("model configuration") and (
        results["threshold"] != name_threshold(own, config.get("predict_top_k"))
        or any(measured.get(code) != value for code, value in per_code.items())
    ):
        raise ValueError(
            "results.json was measured at another threshold than config.json has: run `evaluate.py` again."
        )
    curves = [
        [(band["slope"], band["intercept"]) for band in (results.get("calibration") or {}).get("bands", [])],
        list(
            zip(*((config.get("calibration") or {}).get(name, []) for name in ("slopes", "intercepts")), strict=True)
        ),
    ]
    if curves[0] != curves[1]:
        raise ValueError(
            "results.json was measured with another calibration than config.json has: run `evaluate.py` again."
        )


def check_membership(folder: ModelFolder) -> None:
    """Refuse membership figures of other weights, since they speak of a risk.

    Raises:
        ValueError: where `membership.json` was measured with other weights than the folder's.
    """
    if folder.membership is not None and folder.membership["weights"] != weights_digest(folder.path):
        raise ValueError(
            "membership.json was measured with other weights: run `python -m modeling_icd.evaluation.membership` again."
        )


def build_card(folder: ModelFolder, release: Release) -> str:
    """Write the card of a model.

    Args:
        folder (`ModelFolder`): Its configuration, runs and results.
        release (`Release`): Under which terms it is published.

    Raises:
        ValueError: where a result that the card reports is missing, or was measured with another threshold.
        FileNotFoundError: where the template is not installed.
    """
    check_results(folder.results, folder.config.get("training_data"))
    check_they_belong_together(folder)
    check_membership(folder)
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=False)
    template = environment.from_string(project_file("model_card.md").read_text(encoding="utf-8"))
    card = template.render(card_data=card_metadata(folder, release).to_yaml(), **card_variables(folder, release))
    return ModelCard(card.rstrip() + "\n").content


def card_metadata(folder: ModelFolder, release: Release) -> ModelCardData:
    """The front matter: what the Hub shows, filters by and asks of those who want access."""
    data, results = describe_data(folder.config.get("training_data")), folder.results
    measured_on = describe_results(folder)
    arguments: dict[str, Any] = {"license": release.license}
    if release.holds_restricted_weights:
        arguments = {
            "license": "other",
            "license_name": "physionet-credentialed-health-data-license-1.5.0",
            "license_link": PHYSIONET_LICENSE_URL,
        }
    if release.gated != "no" and not release.on_physionet:
        arguments |= access_questions(release)
    return ModelCardData(
        language="es" if "_es_" in f"_{results['config']}_" else "en",
        library_name="peft" if release.is_adapter else "transformers",
        pipeline_tag="text-classification",
        base_model=release.base_model,
        tags=[
            "icd-coding",
            data.code_system.lower(),
            "multi-label-classification",
            "medical",
            "clinical",
            "custom_code",
        ],
        datasets=[data.hub_id],
        metrics=sorted({m.hub_id for m in METRICS if "_at_" not in m.hub_id and m.hub_id != "map"}),
        model_name=model_name(release, folder),
        eval_results=[
            EvalResult(
                task_type="text-classification",
                task_name="ICD coding",
                dataset_type=measured_on.hub_id,
                dataset_name=measured_on.name,
                dataset_config=" ".join(results["config"].split()),
                dataset_split=" ".join(results["split"].split()),
                metric_type=metric.hub_id,
                metric_name=metric.name,
                metric_value=round(results["metrics"][metric.key], 4),
            )
            for metric in METRICS
            if results["metrics"][metric.key] is not None
        ],
        widget=[{"text": " ".join(INVENTED_NOTE), "example_title": "An invented note"}],
        **arguments,
    )


def access_questions(release: Release) -> dict[str, Any]:
    """What the Hub asks of those who want access to a gated repository."""
    fields: dict[str, Any] = {
        "Name": "text",
        "Affiliation": "text",
        "What will you use the model for?": "text",
        "A trained coder reviews every code before it is used": "checkbox",
        "I will not try to find out who a note is about, or recover training notes": "checkbox",
    }
    if release.holds_restricted_weights:
        fields["PhysioNet user name"] = "text"
        fields["I am credentialed for the source data and bound by their data use agreement"] = "checkbox"
    return {
        "extra_gated_heading": "Who will use this model, and for what?",
        "extra_gated_prompt": "The model suggests ICD codes for research and for review by a coder. "
        "It must not be used to bill or to decide on care.",
        "extra_gated_fields": fields,
        "extra_gated_button_content": "Ask for access",
    }


def model_name(release: Release, folder: ModelFolder) -> str:
    return folder.config["architectures"][0] if release.on_physionet else release.target.split("/")[-1]


def describe_results(folder: ModelFolder) -> DataSet:
    """How to speak of the data that `results.json` was measured on; those of the training's data set are taken for its kind."""
    training_data = folder.config.get("training_data") or {}
    name = folder.results["dataset"]
    return describe_data(training_data if name == training_data.get("dataset") else {"dataset": name})


def card_variables(folder: ModelFolder, release: Release) -> dict[str, Any]:
    """Everything that the template names, besides the front matter."""
    config, results, metrics = folder.config, folder.results, folder.results["metrics"]
    training_data = config.get("training_data") or {}
    data = describe_data(training_data)
    measured_on = describe_results(folder)
    citations = dict.fromkeys(text for text in (data.citation, measured_on.citation) if text)
    unknown = results["num_codes"] - len(folder.codes)
    return {
        "title": model_name(release, folder),
        "target": release.target,
        "model_class": f"`{config['architectures'][0]}`",
        "code_system": data.code_system,
        "reads_windows": config.get("window_size") is not None,
        "note_kind": data.note_kind,
        "num_labels": f"{len(folder.codes):,}",
        "has_evidence": config.get("pooling", "label_attention") == "label_attention",
        "is_calibrated": config.get("calibration") is not None,
        "with_weights": release.with_weights,
        "access": release.access,
        "permission": in_text(release.permission) if release.permission else None,
        "withheld_reason": "The model was trained on restricted data, and PhysioNet counts such models as sensitive as "
        "the data: they are shared under the data's own agreement.",
        "training_dataset": data.name,
        "training_config_name": in_code(training_data.get("config", "unknown")),
        "data_terms": data.terms,
        "data_limits": data.limits,
        "earlier_datasets": ", then ".join(reversed(earlier_names(training_data))),
        "base_model": release.base_model,
        "training_summary": summarize_training(folder, release),
        "dropped_words": f"{release.dropped_words:,}" if release.dropped_words else "",
        "min_notes_of_word": release.min_notes_of_word,
        "is_adapter": release.is_adapter,
        "training_configs": training_configs(folder, release),
        "split": in_code(results["split"]),
        "results_dataset": measured_on.name,
        "results_config": in_code(results["config"]),
        "num_notes": f"{results['num_notes']:,}",
        "num_codes": f"{results['num_codes']:,}",
        "seed": folder.runs[-1]["training"]["seed"],
        "overall": [
            {
                "name": m.name,
                "value": figure(metrics[m.key]),
                "interval": interval_text(results["intervals"].get(m.key)),
                "definition": m.definition,
            }
            for m in METRICS
        ],
        "bands": [
            {
                "name": in_text(row["stratum"]),
                "num_codes": row["num_codes"],
                "figures": [figure(row[key]) for key in BAND_FIGURES],
            }
            for row in results["strata"].get("frequency", [])
        ],
        "f1_micro": figure(metrics["f1_micro"]),
        "f1_macro": figure(metrics["f1_macro"]),
        "threshold_text": describe_threshold(folder, release),
        "ece": figure(metrics["ece"]),
        "brier": figure(metrics["brier"]),
        "wrong_share": share(complement(metrics["precision_micro"])),
        "missed_share": share(complement(metrics["recall_micro"])),
        "exact_share": share(metrics["exact_match"]),
        "unknown_text": f"{unknown:,} of the {results['num_codes']:,} codes of the split were in no training note: the model "
        "does not know them, and each counts as missed."
        if unknown
        else "Every code of the split is one that the model knows.",
        "membership": describe_membership(folder),
        "compute": describe_compute(folder, release),
        "note_lines": INVENTED_NOTE,
        "is_plain_classifier": is_plain_classifier(config),
        "who_may_use": say_who_may_use(release),
        "data_citation": "\n".join(citations) or "% The training corpus is generated by this project's own code.",
    }


def figure(value: float | None) -> str:
    """Four decimals, as in `evaluate.py`'s table; a figure that the split does not define says so."""
    return "undefined" if value is None else f"{value:.4f}"


def interval_text(interval: Sequence[float] | None) -> str:
    return "" if interval is None else f"{interval[0]:.4f} to {interval[1]:.4f}"


def share(value: float | None) -> str:
    return "an undefined share" if value is None else f"{value:.1%}"


def complement(value: float | None) -> float | None:
    return None if value is None else 1 - value


def earlier_names(training_data: Mapping[str, Any]) -> list[str]:
    """The data of the models that this one was trained further from, the last one first."""
    if "earlier" not in training_data:
        return []
    earlier = training_data["earlier"] or {}
    return [describe_data(earlier).name, *earlier_names(earlier)]


def summarize_training(folder: ModelFolder, release: Release) -> str:
    model = folder.runs[-1]["model"]
    if model["freeze_backbone"]:
        how = "The backbone is frozen and only the head was trained"
    elif model["lora_r"]:
        place = "which is here together with the head" if release.is_adapter else "merged into the weights here"
        how = f"The backbone was trained with LoRA of rank {model['lora_r']}, {place}; the head was trained whole"
    else:
        how = "Backbone and head were trained whole"
    layer, window = folder.config.get("hidden_layer"), folder.config.get("window_size")
    reads = "the last layer" if layer is None else f"layer {layer}"
    windows = (
        "a note is read in one pass"
        if window is None
        else f"a note is read in windows of {window} tokens, one every {folder.config['window_stride']}"
    )
    earlier = f" It started from a model of {len(folder.runs) - 1} earlier run(s), below." if folder.runs[1:] else ""
    return f"{how}. The head reads {reads}; {windows}.{earlier}"


def describe_threshold(folder: ModelFolder, release: Release) -> str:
    if not release.with_weights:
        return (
            "The results were measured at a threshold that was chosen on validation notes. It derives from them, so it is "
            "not published; training chooses one again."
        )
    own = folder.config.get("threshold", 0.5)
    used = folder.results["threshold"]
    greater = "a code is suggested when its score is greater"
    if folder.config.get("predict_top_k") is not None:
        model = f"The model suggests the {folder.config['predict_top_k']} best codes of every note"
    elif isinstance(own, list):
        model = f"The model has a threshold of its own for each code, in `config.json`: {greater}"
    else:
        model = f"The model's threshold is {own:.4f}, in `config.json`: {greater}"
    if folder.config.get("target_recall") is not None:
        model += (
            f". On notes drawn as the validation notes were, that promises a mean recall of {folder.config['target_recall']:g} "
            "(conformal risk control)"
        )
    measured = in_text(used) if isinstance(used, str) else f"{used:.4f}"
    split = folder.results["split"]
    other_notes = (
        "no note of it had a part in the choice"
        if split == "test"
        else "the notes that it was chosen on may be among them, which flatters the model"
    )
    return (
        f"{model}. The results on {in_code(split)} were measured at: {measured} "
        f"(source: {in_text(folder.results['threshold_source'])}); {other_notes}."
    )


def describe_membership(folder: ModelFolder) -> str:
    measured = folder.membership
    if measured is None:
        return "Not measured. `python -m modeling_icd.evaluation.membership MODEL --data_dir DIR` measures it."
    aucs = {
        name: f"{figure(measured[f'{name}_auc'])} (95% interval {interval_text(measured[f'{name}_interval'])})"
        for name in ("loss", "reference")
    }
    return (
        f"{measured['num_members']:,} notes that the model was trained on and {measured['num_unseen']:,} of "
        f"{in_code(measured['split'])}, told apart by the model's loss on the note and its codes: AUC {aucs['loss']}. With the loss "
        f"of a TF-IDF model that has not read the note taken off: AUC {aucs['reference']}. 0.5 is chance; these are two simple "
        "attacks, and stronger ones may tell more."
    )


def describe_compute(folder: ModelFolder, release: Release) -> str:
    """What the last run took, from its log.

    Raises:
        ValueError: where the log has no end, since the run was interrupted.
    """
    run = folder.runs[-1]
    end = next((entry for entry in reversed(run["log"]) if "train_runtime" in entry), None)
    if end is None:
        raise ValueError("The log in run.json has no `train_runtime`: let the training run come to its end.")
    text = f"The last training run took {end['train_runtime']:,.0f} s for {end['epoch']:.1f} epochs ({end['step']:,} steps)"
    if run["model"]["freeze_backbone"]:
        text += "; the states of the frozen backbone were computed once before, which is not counted"
    if folder.num_weights():
        num_weights = folder.num_weights() - release.dropped_words * folder.config["hidden_size"]
        text += f". The model has {num_weights:,} weights"
    return f"{text}."


def is_plain_classifier(config: Mapping[str, Any]) -> bool:
    """Whether the weights are, name by name, those of transformers' `LlamaForSequenceClassification`."""
    return (
        config["architectures"] == ["LlamaForICDCoding"]
        and config.get("pooling", "last") == "last"
        and config.get("hidden_layer") in (None, config["num_hidden_layers"])
        and not config.get("normalize_hidden_states")
    )


def say_who_may_use(release: Release) -> str:
    if not release.with_weights:
        return (
            "Nobody gets them here. Those who hold the source data under its agreement can train the model again, or find "
            "the weights where the source data are, under the same agreement."
        )
    if release.access == "synthetic":
        return f"Anyone, under the license of this repository ({release.license}) and of the pretrained backbone."
    if release.access == "open":
        return (
            f"Those who keep to the license of this repository ({release.license}), of the pretrained backbone, and to the "
            "terms of the data above."
        )
    permission = (
        f" They are shared with written permission: {in_text(release.permission)}." if release.permission else ""
    )
    return (
        f"Only those who are credentialed for the source data and bound by their data use agreement ({PHYSIONET_LICENSE}). "
        f"They must not be passed on.{permission}"
    )

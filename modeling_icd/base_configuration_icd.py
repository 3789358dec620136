"""What the configurations of all models share: how notes are read, the head, how scores become decisions.

Which files travel with a saved model is listed here, too.
"""

import sys
from typing import Any

from transformers import PreTrainedConfig
from transformers.utils import logging

from .decision_icd import RULES, ThresholdRule, check_decision, decision_of
from .graph_icd import complete_label_graph
from .heads import find_head, require_positive
from .labels_icd import check_labels, codes_by_number, with_new_labels, with_new_words
from .loss_icd import check_extra_weights, complete_loss_options
from .sharing_icd import PushGuard
from .versions_icd import VERSION, check_version, with_older_meaning


logger = logging.get_logger(__name__)

FLAT_FILES = (
    "answers_icd.py",
    "attention_icd.py",
    "backbone_icd.py",
    "base_configuration_icd.py",
    "comparators_icd.py",
    "configuration_icd.py",
    "decision_icd.py",
    "describe_icd.py",
    "evidence_icd.py",
    "fusion_features_icd.py",
    "fusion_icd.py",
    "fusion_synonyms_icd.py",
    "fusion_tables_icd.py",
    "fusion_text_icd.py",
    "fusion_titles_icd.py",
    "fusion_words_icd.py",
    "generative_icd.py",
    "graph_icd.py",
    "heads.py",
    "labels_icd.py",
    "layers_icd.py",
    "loss_icd.py",
    "modeling_icd.py",
    "multirescnn_icd.py",
    "options_icd.py",
    "pipeline_icd.py",
    "pooled_icd.py",
    "prompts_icd.py",
    "reading_icd.py",
    "sharing_icd.py",
    "terms_icd.py",
    "verify_icd.py",
    "versions_icd.py",
    "windows_icd.py",
    "words_icd.py",
)
"""The code that travels with a saved model. transformers copies `modeling_icd.py` and what it imports, file by file, and
loads it the same way: so these files import torch, transformers and one another, and nothing else of this package."""

TASK = "icd-coding"
CUSTOM_PIPELINES = {
    TASK: {
        "impl": "pipeline_icd.ICDCodingPipeline",
        "pt": ["AutoModelForSequenceClassification"],
        "type": "text",
        "default": None,
    }
}


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
        bidirectional_attention (`bool`, defaults to `False`):
            Whether each token of a window attends to those behind it, too, in a backbone that is made to attend only to
            those before (LLM2Vec, arXiv 2404.05961, section 2). Such a backbone was not trained so: let it learn.
        layer_mix (`bool`, defaults to `False`):
            Whether the head reads a learned weighted mean of the embeddings and all layers, times a learned number (ELMo,
            arXiv 1802.05365, section 3.2), in place of one layer.
        freeze_backbone (`bool`, defaults to `False`):
            Whether the backbone is kept as it is (no gradient, no dropout).
        backbone_source (`dict`, *optional*):
            Where the folder holds the head alone: `name` (a Hub id, a folder, or `smollm2`), `revision` and `digest` of the
            backbone that belongs under it. `save_pretrained(..., head_only=True)` sets it, any other saving clears it.
        label_graph (`dict`, *optional*):
            Of a head with an output vector for each code: how these are refined by those of the code's neighbours, which the
            weights hold. `sources`, `layers`, `neighbours` and `threshold`; see `complete_label_graph`.
        loss (`str`, defaults to `"bce"`):
            What the model learns from, a word of the table in loss_icd.py: `"bce"` (binary cross-entropy), `"focal"`,
            `"asymmetric"` or `"class_balanced"`.
        loss_options (`dict`, *optional*): the loss's own settings, where they differ from those of the table.
        loss_reduction (`str`, defaults to `"sum"`):
            Over the codes of a note: `"sum"`, or `"mean"`, as transformers' `LlamaForSequenceClassification` has it. With
            thousands of codes a mean makes gradients so small that the optimizer's epsilon outweighs them.
        evidence_weight (`float`, defaults to 0.0):
            How much the attention learns from marked evidence, where batches hold it; see `evidence_loss`.
        tree_smoothing (`float`, defaults to 0.0):
            Share of the label of each code that goes to the other codes of its category, in [0, 1). A category is the first
            three characters of a code.
        category_weight (`float`, defaults to 0.0):
            How much is learned from which categories a note has, as its codes together say; see `category_loss`.
        r_drop (`float`, defaults to 0.0):
            How much two passes over a note with other dropout are drawn together (R-Drop, arXiv 2106.14448); without dropout
            there is nothing to learn from it, and training takes longer. A frozen backbone is passed once.
        contrast_weight (`float`, defaults to 0.0):
            Of a head that attends: how much notes of a batch that have a code are drawn together in what the code attends to, and
            apart from those without it; see `contrast_loss`. Without such a pair in a batch nothing is learned from it.
        contrast_temperature (`float`, defaults to 0.1): what their cosines are divided by.
        contrast_codes (`int`, defaults to 128): codes of a batch that are contrasted at most, drawn in each step.
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

    Of `id2label` and `label2id` one is enough: the other is made from it. A `pad_token_id` below 0, which some Llama
    checkpoints have for "none", becomes `None`.

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
    bidirectional_attention: bool = False
    layer_mix: bool = False
    freeze_backbone: bool = False
    backbone_source: dict[str, str | None] | None = None
    label_graph: dict[str, Any] | None = None
    loss: str = "bce"
    loss_options: dict[str, Any] | None = None
    loss_reduction: str = "sum"
    evidence_weight: float = 0.0
    tree_smoothing: float = 0.0
    category_weight: float = 0.0
    r_drop: float = 0.0
    contrast_weight: float = 0.0
    contrast_temperature: float = 0.1
    contrast_codes: int = 128
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
        if self.id2label is None and self.label2id is not None:  # type: ignore[has-type]
            self.id2label = codes_by_number(self.label2id)
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
        self._check_label_graph()
        self._check_windows()
        if self.hidden_layer is not None and not 0 <= self.hidden_layer <= self.num_hidden_layers:
            raise ValueError(
                f"`hidden_layer` must be between 0 (embeddings) and `num_hidden_layers` ({self.num_hidden_layers}), "
                f"got {self.hidden_layer}."
            )
        if self.layer_mix and self.hidden_layer is not None:
            raise ValueError(
                f"`layer_mix` mixes all layers, and `hidden_layer` ({self.hidden_layer}) names one: choose one of them."
            )
        if self.layer_mix and self.num_hidden_layers < 2:
            raise ValueError(
                f"`layer_mix` mixes the layers of a language model, and {self.backbone_type!r} has none to mix."
            )
        source = self.backbone_source
        is_named = isinstance(source, dict) and all(isinstance(source.get(key), str) for key in ("name", "digest"))
        if source is not None and not is_named:
            raise ValueError("`backbone_source` must hold `name` and `digest` of the backbone: save the head again.")
        complete_loss_options(self.loss, self.loss_reduction, self.loss_options)  # which checks them
        check_extra_weights(self)
        if self.evidence_weight and not find_head(self.head).attends:
            raise ValueError(
                f"`evidence_weight` ({self.evidence_weight}) teaches an attention; {self.head!r} has none."
            )
        if self.contrast_weight and not hasattr(find_head(self.head).make, "take_summaries"):
            raise ValueError(
                f"`contrast_weight` ({self.contrast_weight}) contrasts what each code attends to, and the head {self.head!r} does not say: "
                "leave it out."
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
        if not getattr(find_head(self.head).make, "reads_features", False):
            raise ValueError(
                f"`shortlist` is of a head that attends, and whose output vectors read what its queries do; {self.head!r} is none: "
                "leave it out."
            )
        if (several := self.head_options.get("num_queries", 1)) > 1:
            raise ValueError(
                f"`shortlist` is of a head with one query a code, and `num_queries` is {several}: leave it out."
            )
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
        parents = self.head_options.get("parents")
        if parents is not None and len(parents) != self.num_labels:
            raise ValueError(
                f"`parents` names the code above each of {len(parents)} codes, and there are {self.num_labels}: give one for each, or "
                "leave it out."
            )

    def _check_label_graph(self) -> None:
        if self.label_graph is None:
            return
        self.label_graph = complete_label_graph(self.label_graph)
        if not getattr(find_head(self.head).make, "has_label_outputs", False):
            raise ValueError(
                f"`label_graph` refines the output vectors of codes, and the head {self.head!r} has none for each code: leave it out."
            )

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
    def has_fixed_states(self) -> bool:
        """Whether what the head reads of a note never changes, so that it can be kept."""
        return self.freeze_backbone and not self.layer_mix

    @property
    def states_width(self) -> int:
        """How many numbers the head reads of each token."""
        return self.hidden_size

    @property
    def rule(self) -> ThresholdRule:
        """The `ThresholdRule` by which codes are predicted."""
        return RULES[self.threshold_rule]

    @property
    def reads_last_layer(self) -> bool:
        """Whether the head reads the last layer, behind the backbone's final norm."""
        return self.hidden_layer is None or self.hidden_layer == self.num_hidden_layers

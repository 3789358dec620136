"""The models: a backbone that reads a note window by window, and a head over the stitched hidden states.

`ModelForICDCoding` puts any head of heads.py on any backbone that `AutoModel` knows. `LlamaForICDCoding` and
`LlamaMultiResCNNForICD` use the same code with a Llama as the backbone and their own heads.
"""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    LlamaModel,
    LlamaPreTrainedModel,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers import initialization as init
from transformers.utils import ModelOutput

from .backbone_icd import (
    check_backbone_weights,
    check_head_weights,
    is_of_head,
    load_head_only,
    mismatched_keys,
    names_of_weights,
    remember_backbone,
    source_of,
)
from .base_configuration_icd import CUSTOM_PIPELINES, ICDBaseConfig
from .configuration_icd import (
    CAMLConfig,
    CNNConfig,
    GRUConfig,
    ICDConfig,
    LAATConfig,
    LlamaICDConfig,
    LlamaMultiResCNNConfig,
    MultiResCNNConfig,
)
from .describe_icd import describe_model, table_of
from .heads import head_of_config, members_of, of_codes, require_positive, run_head
from .layers_icd import values_are_known
from .loss_icd import coding_loss, evidence_loss, marked_codes, own_loss
from .options_icd import attention_asked_for, forward_options, notes_given
from .pooled_icd import PooledHead
from .reading_icd import LayerMix, NoteReader, lift_causal_mask
from .sharing_icd import ModelPushGuard, guard_parts, options_by_name


if TYPE_CHECKING:  # The models do not use these; but transformers saves and loads what this file names in this way.
    from .fusion_icd import FusionForICD  # noqa: F401
    from .generative_icd import GenerativeForICD  # noqa: F401
    from .pipeline_icd import ICDCodingPipeline  # noqa: F401
    from .terms_icd import TermsForICD  # noqa: F401


@dataclass
class ICDCodingOutput(ModelOutput):
    """What every model returns.

    Args:
        loss (`torch.FloatTensor` of shape `(1,)`, *optional*): see loss_icd.py; where `labels` were given.
        logits (`torch.FloatTensor` of shape `(B, C)`): before the sigmoid.
        label_attentions (`torch.FloatTensor` of shape `(B, C, L)` or `(B, K, L)`, *optional*):
            Weight of every token for every code, or for those of `label_attentions_for`, where these or
            `output_label_attentions=True` were given and the head attends.
        hidden_states (`torch.FloatTensor` of shape `(B, L, D)`, *optional*):
            What the head read, windows stitched, where `output_hidden_states=True` was given.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    label_attentions: torch.Tensor | None = None
    hidden_states: torch.Tensor | None = None


# Fields that every configuration takes without declaring them.
_LABEL_FIELDS = ("num_labels", "id2label", "label2id")


def _is_batch_norm(module: nn.Module) -> bool:
    """Whether a module is a batch norm. Its `reset_parameters` would also clear statistics loaded from a checkpoint;
    transformers initialises it."""
    return isinstance(module, nn.BatchNorm1d)


def _own_class(model: nn.Module) -> type:
    """The class of a model. FSDP gives one whose weights it divides a class of its own, made of this and `FSDPModule`."""
    return next(known for known in type(model).__mro__ if not known.__name__.startswith("FSDP"))


def _rows_that_are_not_finite(tensor: torch.Tensor) -> list[int]:
    return (~tensor.flatten(1).isfinite().all(dim=1)).nonzero().flatten().tolist()


class ModelForICDCoding(NoteReader, ModelPushGuard, PreTrainedModel):
    """Reads notes with a backbone, in windows, and hands the stitched hidden states to the head `self.score`.

    The backbone is any decoder or encoder that `AutoModel` knows, the head any of heads.py:

        ModelForICDCoding.from_pretrained("Qwen/Qwen3-0.6B", id2label=..., head="multirescnn", window_size=1024)
    """

    config_class = ICDConfig
    config: ICDConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    # transformers asks the backbone itself, too, which of these it can.
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = _supports_attention_backend = True
    # What checkpoints bring for other tasks, and no head here reads.
    _keys_to_ignore_on_load_unexpected = [r"^lm_head\.", r"^cls\.", r"^classifier\.", r"(^|\.)pooler\."]
    # `forward` divides its loss by the number of labels in all batches of one update, which Trainer counts for it.
    accepts_loss_kwargs = True
    # Whether `from_pretrained` found no head in the checkpoint, so that this one is yet to be trained.
    head_is_new = True
    # Which backbone `from_pretrained` took: its `name`, `place` (folder or Hub id) and `revision`; `None` where a whole model
    # of ours was loaded, which does not say.
    backbone_loaded: dict[str, Any] | None = None
    saves_head_only = False  # see `save_head_only`
    # Says that the code travels with the weights; the configuration names both Auto classes (`save_pretrained`).
    _auto_class = "AutoModel"
    # The files that its class and its configuration's are in, without their ending.
    own_module, config_module = "modeling_icd", "configuration_icd"

    def __init__(self, config):
        config._check_fields()  # again: they may have been set since the configuration was made
        super().__init__(config)
        self.num_labels = config.num_labels
        self.model = self._make_backbone(config)
        # Which entry of the backbone's `hidden_states` is read, where the layers above it cannot be left out.
        reads_all = config.reads_last_layer or config.layer_mix
        self._read_layer = None if reads_all or self._cut_backbone() else config.hidden_layer
        self.layer_mix = LayerMix(config.num_hidden_layers + 1) if config.layer_mix else None
        if config.bidirectional_attention:
            lift_causal_mask(self.model)
        if getattr(config, "quantization_config", None) is not None:
            # The head is small and newly trained. This is what every quantizer leaves as it is, whatever else it is told.
            self._keep_in_fp32_modules = ["score", "layer_mix"]
        self.score = head_of_config(config)
        self._head_modules = frozenset() if type(self.score) is PooledHead else frozenset(self.score.modules())
        self._head_std = getattr(members_of(self.score)[0], "initial_std", None)
        self._keep_fixed()
        if config.backbone_source:  # the head comes from a file of its own, so that these files do not lack it
            self._keys_to_ignore_on_load_missing = [r"^score\."]
        guard_parts(self)
        self.post_init()

    def _keep_fixed(self) -> None:
        """Let no gradient reach what the configuration keeps as it is: the backbone, or a word reader's vectors."""
        reader = getattr(self.config, "backbone_config", None)
        if self.config.freeze_backbone:
            self.model.requires_grad_(False)
        elif not getattr(reader, "train_vectors", True):
            self.model.get_input_embeddings().requires_grad_(False)

    def _make_backbone(self, config) -> nn.Module:
        backbone = AutoModel.from_config(config.backbone_config)
        if hasattr(backbone, "pooler"):
            backbone.pooler = None  # BERT's vector of a whole note, for tasks of other heads
        return backbone

    def _cut_backbone(self) -> bool:
        """Remove the layers above the one that the head reads, and the final norm, if the backbone is built like a Llama:
        `layers` one after the other, then `norm`."""
        layers = getattr(self.model, "layers", None)
        if not isinstance(layers, nn.ModuleList) or not hasattr(self.model, "norm"):
            return False
        depth = self.config.hidden_layer or 0
        left_out = "|".join(str(i) for i in range(depth, len(layers)))
        self.model.layers = layers[:depth]
        self.model.norm = nn.Identity()
        self._keys_to_ignore_on_load_unexpected = [
            *self._keys_to_ignore_on_load_unexpected,
            rf"^(model\.)?layers\.({left_out})\.",
            r"^(model\.)?norm\.",
        ]
        return True

    def _init_weights(self, module):
        # The filters, queries and projections of the heads start as in the original; the backbone, and the linear
        # layer of a pooled head, as in Llama. These functions leave alone what a checkpoint has already filled.
        if isinstance(module, (nn.Conv1d, nn.Linear)) and module in self._head_modules:
            if self._head_std is None:
                init.xavier_uniform_(module.weight)
            else:
                init.normal_(module.weight, std=self._head_std)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, LayerMix):
            init.zeros_(module.weight)
            init.ones_(module.scale)
        elif module in self._head_modules and hasattr(module, "reset_parameters") and not _is_batch_norm(module):
            module.reset_parameters()  # torch's own layers, and those of a head from elsewhere
        else:
            super()._init_weights(module)

    def train(self, mode: bool = True):
        """As in torch, but a frozen backbone stays in evaluation mode, unless an adapter in it is trained; and the shortlist of
        the configuration, which was measured with other weights, is given up."""
        stays = mode and self.config.freeze_backbone and not self._backbone_learns()
        if stays and not self.model.training:  # as at each step of a training, which so takes less time
            self.training = True
            self.score.train()
        else:
            super().train(mode)
            if stays:
                self.model.eval()
        self.config.shortlist = None if mode else self.config.shortlist
        return self

    @classmethod
    def _config_over(cls, of_backbone: PreTrainedConfig, fields: dict[str, Any]) -> ICDBaseConfig:
        """The configuration of a new head over the backbone of a checkpoint."""
        config = cls.config_class.from_backbone(of_backbone, **fields)
        if getattr(of_backbone, "quantization_config", None) is not None:
            # It says how the weights in this file are stored.
            config.quantization_config = of_backbone.quantization_config
        return config

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path, *args, config=None, backbone=None, head_is_apart=False, **kwargs
    ):
        """Loads one of our checkpoints, or takes the backbone of another checkpoint and initialises only the head.

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`): a folder or Hub id; ours, a bare backbone, or a
                backbone with the head of another task, such as a `LlamaForCausalLM`.
            backbone (`str` or `os.PathLike`, *optional*): for a head-only folder, where its backbone is; by default where
                its configuration says.
            head_is_apart (`bool`): set by itself while the backbone of a head-only folder is loaded.
            kwargs: those of [`~transformers.PreTrainedModel.from_pretrained`], and fields of the configuration, such
                as `num_labels`, `id2label` or `window_size`.

        Raises:
            ValueError: where the weights are not those of the whole backbone that the configuration describes; where the
                folder is one of ours, also where they are not those of the whole head, unless `ignore_mismatched_sizes`;
                where the backbone of a head-only folder is not the one that the head was trained over.
            FileNotFoundError: where that backbone is not to be found.
        """
        hub: dict[str, Any] = {
            k: kwargs[k]
            for k in ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")
            if k in kwargs
        }
        saved: dict[str, Any] = {}
        if pretrained_model_name_or_path is not None:
            try:
                saved, _ = PreTrainedConfig.get_config_dict(pretrained_model_name_or_path, **hub)
            except OSError:  # weights alone, for which the caller has a configuration
                if config is None:
                    raise
        is_ours = saved.get("model_type") == cls.config_class.model_type
        if pretrained_model_name_or_path is not None and config is None and not is_ours:
            ours = {k: kwargs.pop(k) for k in list(kwargs) if hasattr(cls.config_class, k) or k in _LABEL_FIELDS}
            config = cls._config_over(AutoConfig.from_pretrained(pretrained_model_name_or_path, **hub), ours)
        if saved.get("backbone_source"):
            return load_head_only(cls, pretrained_model_name_or_path, saved, config, backbone, hub, kwargs)
        if backbone is not None:
            raise ValueError(
                f"`backbone` is for a head-only folder, and {pretrained_model_name_or_path} is none: leave it out."
            )
        if config is not None and not head_is_apart:
            config.backbone_source = None  # it speaks of another folder
        if isinstance(config, ICDConfig):
            kwargs = {"key_mapping": names_of_weights(config.backbone_config), **kwargs}
        with_info = kwargs.pop("output_loading_info", False)
        model, info = super().from_pretrained(
            pretrained_model_name_or_path, *args, config=config, output_loading_info=True, **kwargs
        )
        check_backbone_weights(model.config, pretrained_model_name_or_path, info)
        # Its backbone, saved by itself, has the same configuration, and no head.
        is_backbone = saved.get("architectures") == [type(model.model).__name__]
        if not is_ours or is_backbone or head_is_apart:
            remember_backbone(model, pretrained_model_name_or_path, hub)
        elif not kwargs.get("ignore_mismatched_sizes"):
            check_head_weights(pretrained_model_name_or_path, info)
        random = (*info["missing_keys"], *mismatched_keys(info))
        model.head_is_new = head_is_apart or any(is_of_head(key) for key in random)
        if model.head_is_new:
            # peft writes this name into an adapter as the model to load it over. That must not be the backbone alone:
            # a stock `LlamaForSequenceClassification` would be made of it, with another head and no windows.
            model.name_or_path = (
                f"{pretrained_model_name_or_path} with the head of {cls.__name__} "
                "(save that model with save_pretrained, then load the adapter over its folder)"
            )
        model._keep_fixed()  # loading has put new parameters in place of those of the constructor
        return (model, info) if with_info else model

    def shared_record(self):
        return self.config.training_data

    def save_head_only(self, backbone=None) -> None:
        """Make `save_pretrained` leave out the backbone unless it is told otherwise, also for a Trainer's checkpoints.

        `backbone` and what is raised are those of [`save_pretrained`]: what stands against it is said here, before training.
        """
        source_of(self, backbone)
        self.saves_head_only = True
        self._leave_out_backbone(True)

    def _leave_out_backbone(self, is_left_out: bool) -> None:
        # Trainer, too, looks at these names, and does not warn that a checkpoint lacks them.
        self._keys_to_ignore_on_save = {f"model.{name}" for name in self.model.state_dict()} if is_left_out else set()

    def save_pretrained(
        self, save_directory, *args, head_only: bool | None = None, backbone: str | None = None, **kwargs
    ):
        """Saves weights, configuration and the code that both need, for `AutoModel` and
        `AutoModelForSequenceClassification` with `trust_remote_code=True`.

        Args:
            head_only (`bool`, defaults to the model's `saves_head_only`, `False` unless set):
                whether to leave out the backbone, which must be frozen: the configuration then names it in
                `backbone_source`, with a digest of its weights, and `from_pretrained` takes it from there.
            backbone (`str`, *optional*): with `head_only`, the folder or Hub id to name; by default the one that this model
                was loaded from.

        Raises:
            ValueError: with `head_only`, where the backbone learns, has changed, or where it is not known which one it is.
        """
        head_only = self.saves_head_only if head_only is None else head_only
        self.config.backbone_source = source_of(self, backbone) if head_only else None
        self._leave_out_backbone(head_only)
        name = f"{self.own_module}.{_own_class(self).__name__}"
        self.config.auto_map = {
            "AutoConfig": f"{self.config_module}.{self.config_class.__name__}",
            "AutoModel": name,
            "AutoModelForSequenceClassification": name,
        }
        self.config.custom_pipelines = CUSTOM_PIPELINES
        if getattr(self, "hf_quantizer", None) is not None or isinstance(self.config, ICDConfig):
            # As they are: what transformers changed on loading it cannot turn back, or would give names of another class.
            kwargs = {"save_original_format": False, **options_by_name(PreTrainedModel.save_pretrained, args, kwargs)}
            args = ()
        given_class = type(self)
        self.__class__ = _own_class(self)  # whose name and code are saved
        try:
            super().save_pretrained(save_directory, *args, **kwargs)
        finally:
            self.__class__ = given_class

    def _mask_of(self, input_ids, inputs_embeds, hidden_states):
        """The attention mask if none is given: as in `LlamaForSequenceClassification`, all tokens up to the last one that is
        not `pad_token_id` are real."""
        given = next(x for x in (hidden_states, inputs_embeds, input_ids) if x is not None)
        mask = torch.ones(given.shape[:2], dtype=torch.long, device=given.device)
        pad = self.config.pad_token_id
        if given is input_ids and pad is not None:
            trailing = (input_ids == pad).flip(1).cumprod(dim=1).flip(1)
            mask = 1 - trailing.to(mask.dtype)
            mask[:, 0] = 1
        return mask

    def _check_notes(self, notes, attention_mask) -> None:
        if attention_mask.shape != notes.shape[:2]:
            raise ValueError(
                f"`attention_mask` has shape {tuple(attention_mask.shape)} for notes of shape {tuple(notes.shape[:2])}: "
                "give one number per token."
            )
        if values_are_known(attention_mask):
            empty = (attention_mask.sum(dim=1) == 0).nonzero().flatten().tolist()
            if empty:
                raise ValueError(
                    f"An empty note cannot be coded: `attention_mask` has no 1 in the rows {empty} of the batch. Leave such "
                    "notes out, or give them at least one token."
                )

    def _check_finite(self, logits, hidden_states, are_given: bool) -> None:
        """Raises a `ValueError` that says where NaN or infinity came from. Any such state reaches the logits."""
        if not values_are_known(logits) or logits.isfinite().all():
            return
        rows = _rows_that_are_not_finite(hidden_states)
        if rows and are_given:
            raise ValueError(
                f"`hidden_states` hold NaN or infinity in the rows {rows} of the batch: compute them again."
            )
        if rows:
            raise ValueError(
                f"The backbone gives NaN or infinity for the rows {rows} of the batch: look for such values in its weights or "
                f"in `inputs_embeds`, or load it in a wider type than {hidden_states.dtype}."
            )
        raise ValueError(
            f"The head gives NaN or infinity for the rows {_rows_that_are_not_finite(logits)} of the batch, of finite hidden "
            "states: look for such values in its weights; a learning rate may have been too high."
        )

    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        hidden_states: torch.FloatTensor | None = None,
        labels: torch.FloatTensor | None = None,
        evidence: torch.LongTensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **kwargs,
    ) -> ICDCodingOutput | tuple:
        """Scores every code for every note.

        Args:
            input_ids (`torch.LongTensor` of shape `(B, L)`, *optional*): tokens of whole notes, of any length.
            attention_mask (`torch.LongTensor` of shape `(B, L)`, *optional*): 1 for a real token; every note has one.
            inputs_embeds (`torch.FloatTensor` of shape `(B, L, D)`, *optional*): in place of `input_ids`.
            hidden_states (`torch.FloatTensor` of shape `(B, L, D)`, *optional*):
                What [`read_hidden_states`] gave for these notes, in place of both; the backbone is not run.
            labels (`torch.FloatTensor` of shape `(B, C)`, *optional*): 1 where the note has the code.
            evidence (`torch.LongTensor` of shape `(B, K, 2)`, *optional*):
                Pairs of a code and a token that justifies it, -1 where a note has fewer. In training mode, with `labels`
                and an `evidence_weight` above 0, the attention learns from them.
            output_hidden_states (`bool`, *optional*): whether to return the `hidden_states` that the head read.
            output_label_attentions (`bool`, *optional*): whether to return `label_attentions` `(B, C, L)`; by name only.
            label_attentions_for (`torch.LongTensor` or `list`, *optional*):
                In place of it, the ids of some codes, whose `label_attentions` `(B, K, L)` to return: `(K,)`, or other ones
                for each note, `(B, K)` with -1 where a note has fewer, whose weights are then 0. Memory and time grow with
                their number, and not with that of all codes; by name only.
            num_items_in_batch (`int`, *optional*):
                What the loss's sum is divided by, where this batch is a part of an update: the labels of all its parts.
                Trainer gives it.
            kwargs: `token_type_ids`, `use_cache`, `output_attentions` and `task_ids`, which libraries pass on, change
                nothing.

        Raises:
            TypeError: where an argument is unknown.
            ValueError: unless exactly one of `input_ids`, `inputs_embeds` and `hidden_states` is given; where a note is
                empty, `labels` have another shape than the logits, `label_attentions_for` are no ids of codes, or NaN or
                infinity comes out, which names where it came from.
        """
        options = forward_options(kwargs)
        notes = notes_given(input_ids, inputs_embeds, hidden_states)
        if attention_mask is None:
            attention_mask = self._mask_of(input_ids, inputs_embeds, hidden_states)
        self._check_notes(notes, attention_mask)
        states, read = self._states_and_reader(input_ids, attention_mask, inputs_embeds, hidden_states)
        if not self.training or labels is None or not self.config.evidence_weight:
            evidence = None  # nothing is learned from it
        asked = attention_asked_for(options, notes.shape[0], self.num_labels)
        needed = asked
        if evidence is not None:
            needed = marked_codes(evidence) if asked is False else True
        shortlist = None if self.training or torch.is_grad_enabled() else (self.config.shortlist or {}).get("size")
        logits, attentions = run_head(self.score, states, attention_mask, needed, shortlist)
        members = logits if logits.dim() == 3 else logits[None]  # (E, B, C)
        logits = members.mean(dim=0)
        self._check_finite(logits, states, are_given=notes is hidden_states)
        loss, num_items = None, options["num_items_in_batch"]
        if labels is not None:
            loss = self._loss(members, labels, num_items, read, attention_mask)
            if evidence is not None and attentions is not None:
                marked = attentions if asked is False else of_codes(attentions, marked_codes(evidence))
                loss = loss + evidence_loss(self.config, marked, evidence, labels, num_items)
        if attentions is not None and isinstance(asked, torch.Tensor) and needed is True:
            attentions = of_codes(attentions, asked)
        output = ICDCodingOutput(
            loss=loss,
            logits=logits,
            label_attentions=None if asked is False else attentions,
            hidden_states=states if output_hidden_states else None,
        )
        return output if return_dict is not False else output.to_tuple()

    def _states_and_reader(self, input_ids, attention_mask, inputs_embeds, hidden_states):
        """Hidden states, and what gives those of another pass: the same ones where they are given, or nothing that reads them learns."""
        if hidden_states is not None:
            return hidden_states, lambda: hidden_states
        learns = self._backbone_learns(inputs_embeds) or self._mix_learns()
        read = partial(self.read_hidden_states, input_ids, attention_mask, inputs_embeds)
        with torch.set_grad_enabled(torch.is_grad_enabled() and learns):
            states = read()
        return states, read if learns else lambda: states

    def _loss(self, members, labels, num_items, read, attention_mask):
        """The loss of logits `(E, B, C)`. In training what else is learned from is in it: the head's own loss, and, with `r_drop`,
        a second pass with other dropout over what `read` gives."""
        if not self.training:
            return coding_loss(self.config, members, labels, num_items)
        heads: list[Any] = members_of(self.score)
        own = own_loss(self.config, heads, labels, num_items)  # of the pass that was just made
        again = None
        if self.config.r_drop:
            again, _ = run_head(self.score, read(), attention_mask, False)
            for head in heads if self.config.contrast_weight else ():
                head.take_summaries()  # of this pass nothing is contrasted
            again = again if again.dim() == 3 else again[None]
        return coding_loss(self.config, members, labels, num_items, again) + own

    def describe(self, num_tokens: int = 2500) -> dict[str, dict[str, int]]:
        """Prints a table of the model's parts, and returns it.

        Args:
            num_tokens (`int`): of the note whose operations are counted, which is cut where the model cannot read so many.

        Returns:
            For each part that there is, from `embeddings` to `output`, and for `all`: `parameters`, how many of them are
            `trainable`, `flops_per_note` and `flops_per_token`. Counted are the multiplications and additions, each as one,
            of matrix products, convolutions and attention in one forward pass without attention weights; a token that
            several windows hold counts in each.
        """
        require_positive("num_tokens", num_tokens)
        found, num_tokens = describe_model(self, num_tokens)
        print(table_of(found, num_tokens))
        return found

    def _backbone_learns(self, inputs_embeds=None) -> bool:
        """Whether anything in the backbone needs a gradient: even in a frozen one, an adapter or a learned prompt may."""
        given = inputs_embeds is not None and inputs_embeds.requires_grad
        return given or any(weight.requires_grad for weight in self.model.parameters())

    def _mix_learns(self) -> bool:
        return self.layer_mix is not None and self.layer_mix.weight.requires_grad


class LlamaICDPreTrainedModel(ModelForICDCoding, LlamaPreTrainedModel):
    """Base class of the models with a Llama and a fixed kind of head; weights are named as in a `LlamaFor...`."""

    config_class = LlamaICDConfig
    config: LlamaICDConfig
    _keys_to_ignore_on_load_unexpected = [r"^lm_head\."]

    def _make_backbone(self, config) -> nn.Module:
        return LlamaModel(config)


class LlamaForICDCoding(LlamaICDPreTrainedModel):
    """Llama with a direct multi-label head: last-token or mean pooling and one linear layer, or label attention.

    With `pooling="last"` and without `score_bias` weight names and logits are those of transformers' `LlamaForSequenceClassification`.
    """


class LlamaMultiResCNNForICD(LlamaICDPreTrainedModel):
    """Llama hidden states read by a multi-filter residual CNN with one attention query per code."""

    config_class = LlamaMultiResCNNConfig
    config: LlamaMultiResCNNConfig


class MultiResCNNForICD(ModelForICDCoding):
    """Multi-filter residual CNN with label attention over words (MultiResCNN, arXiv 1912.00862)."""

    config_class = MultiResCNNConfig
    config: MultiResCNNConfig


class CAMLForICD(ModelForICDCoding):
    """Convolution and label attention over words (CAML, and with `description_weight` DR-CAML, arXiv 1802.05695)."""

    config_class = CAMLConfig
    config: CAMLConfig


class LAATForICD(ModelForICDCoding):
    """Label attention over a bidirectional LSTM over words (LAAT, and with `head="joint_laat"` JointLAAT, arXiv 2007.06351)."""

    config_class = LAATConfig
    config: LAATConfig


class CNNForICD(ModelForICDCoding):
    """Convolution and maximum over words, the CNN beside CAML (arXiv 1802.05695)."""

    config_class = CNNConfig
    config: CNNConfig


class GRUForICD(ModelForICDCoding):
    """What a recurrent network over words, of one or two directions, has read last, as beside CAML (arXiv 1802.05695)."""

    config_class = GRUConfig
    config: GRUConfig


MODELS = {
    "direct": LlamaForICDCoding,
    "multirescnn": LlamaMultiResCNNForICD,
    "generic": ModelForICDCoding,
    "word_multirescnn": MultiResCNNForICD,
    "caml": CAMLForICD,
    "laat": LAATForICD,
    "cnn": CNNForICD,
    "gru": GRUForICD,
}
"""Every model, by the word that `modeling-icd train` has for it."""

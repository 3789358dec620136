"""The two models: a Llama backbone read window by window, and a head over the stitched hidden states."""

import math
from dataclasses import dataclass

import torch
from torch import nn
from transformers import AutoConfig, LlamaConfig, LlamaModel, LlamaPreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput

from .configuration_icd import LlamaICDConfig, LlamaMultiResCNNConfig
from .heads import HeadEnsemble, LabelAttentionHead, MultiResCNNHead, PooledHead
from .pipeline_icd import CUSTOM_PIPELINES
from .sharing_icd import ModelPushGuard


@dataclass
class ICDCodingOutput(ModelOutput):
    """What both models return.

    Args:
        loss (`torch.FloatTensor` of shape `(1,)`, *optional*): mean binary cross-entropy, where `labels` were given.
        logits (`torch.FloatTensor` of shape `(B, C)`): before the sigmoid.
        label_attentions (`torch.FloatTensor` of shape `(B, C, L)`, *optional*):
            Weight of every token for every code, where `output_label_attentions=True` was given and the head attends.
        hidden_states (`torch.FloatTensor` of shape `(B, L, D)`, *optional*):
            What the head read, windows stitched, where `output_hidden_states=True` was given.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    label_attentions: torch.Tensor | None = None
    hidden_states: torch.Tensor | None = None


def window_starts(length: int, window_size: int, window_stride: int) -> list[int]:
    """First token of each window over `length` tokens: as few windows as reach the last token, none of them empty."""
    return [i * window_stride for i in range(1 + max(0, math.ceil((length - window_size) / window_stride)))]


def pad_rows(rows: list[torch.Tensor], padding_value: float = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Pads rows of unequal length `(L_i, ...)` on the right, to `(B, L, ...)`, and gives their mask `(B, L)`."""
    padded = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=padding_value)
    lengths = torch.tensor([len(row) for row in rows], device=padded.device)
    return padded, (torch.arange(padded.shape[1], device=padded.device) < lengths[:, None]).long()


def ensemble_of(config: LlamaICDConfig, make_head) -> nn.Module:
    """One head, or as many as the configuration asks for."""
    if config.head_ensemble_size == 1:
        return make_head()
    return HeadEnsemble(make_head() for _ in range(config.head_ensemble_size))


# Fields that every configuration takes without declaring them.
_LABEL_FIELDS = ("num_labels", "id2label", "label2id")


class LlamaICDPreTrainedModel(ModelPushGuard, LlamaPreTrainedModel):
    """Reads notes with a Llama, in windows, and hands the stitched hidden states to the head `self.score`."""

    config_class = LlamaICDConfig
    config: LlamaICDConfig
    base_model_prefix = "model"
    # A backbone brings an output layer, and the layers above `hidden_layer`, that no head reads.
    _keys_to_ignore_on_load_unexpected = [r"^lm_head\.", r"^(model\.)?layers\.", r"^(model\.)?norm\."]
    # Says that the code travels with the weights; the configuration names both Auto classes (`save_pretrained`).
    _auto_class = "AutoModel"

    def __init__(self, config: LlamaICDConfig, head: nn.Module):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.model = LlamaModel(config)
        if not config.reads_last_layer:
            self.model.layers = self.model.layers[: config.hidden_layer]
            self.model.norm = nn.Identity()
        self.score = head
        self._head_modules = frozenset() if isinstance(head, PooledHead) else frozenset(head.modules())
        if config.freeze_backbone:
            self.model.requires_grad_(False)
        self.post_init()

    def _init_weights(self, module):
        # The filters, queries and projections of the heads start as in the original; the backbone, and the linear
        # layer of a pooled head, as in Llama. These functions leave alone what a checkpoint has already filled.
        if isinstance(module, (nn.Conv1d, nn.Linear)) and module in self._head_modules:
            init.xavier_uniform_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        else:
            super()._init_weights(module)

    def train(self, mode: bool = True):
        """As everywhere, but a frozen backbone stays in evaluation mode."""
        super().train(mode)
        if self.config.freeze_backbone:
            self.model.eval()
        return self

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, config=None, **kwargs):
        """Loads one of our checkpoints, or takes the backbone of any Llama checkpoint and initialises only the head.

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`): a folder or Hub id; ours, a `LlamaModel`, or a
                `LlamaFor...`.
            kwargs: those of [`~transformers.PreTrainedModel.from_pretrained`], and fields of the configuration, such
                as `num_labels`, `id2label` or `window_size`.
        """
        if config is None and pretrained_model_name_or_path is not None:
            hub = {
                k: kwargs[k]
                for k in ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")
                if k in kwargs
            }
            fields, _ = LlamaConfig.get_config_dict(pretrained_model_name_or_path, **hub)
            if fields.get("model_type") != cls.config_class.model_type:
                ours = {k: kwargs.pop(k) for k in list(kwargs) if hasattr(cls.config_class, k) or k in _LABEL_FIELDS}
                backbone = AutoConfig.from_pretrained(pretrained_model_name_or_path, **hub)
                config = cls.config_class.from_backbone(backbone, **ours)
        loaded = super().from_pretrained(pretrained_model_name_or_path, *args, config=config, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded  # with `output_loading_info`
        if model.config.freeze_backbone:
            model.model.requires_grad_(False)  # loading has put new parameters in place of those of the constructor
        return loaded

    def shared_record(self):
        return self.config.training_data

    def save_pretrained(self, save_directory, **kwargs):
        """Saves weights, configuration and the code that both need, for `AutoModel` and
        `AutoModelForSequenceClassification` with `trust_remote_code=True`."""
        name = f"modeling_llama_icd.{type(self).__name__}"
        self.config.auto_map = {
            "AutoConfig": f"configuration_icd.{self.config_class.__name__}",
            "AutoModel": name,
            "AutoModelForSequenceClassification": name,
        }
        self.config.custom_pipelines = CUSTOM_PIPELINES
        super().save_pretrained(save_directory, **kwargs)

    def read_hidden_states(self, input_ids=None, attention_mask=None, inputs_embeds=None):
        """Hidden states of the layer that the head reads, for notes of any length.

        A note longer than `window_size` is read in windows. A token that several windows hold takes its state from
        the first of them, where most of the note stands to its left; so window `i > 0` contributes the tokens behind
        its overlap. Positions start at 0 in every window.

        Args:
            input_ids (`torch.LongTensor` of shape `(B, L)`): padded on either side.
            attention_mask (`torch.LongTensor` of shape `(B, L)`): 1 for a real token.
            inputs_embeds (`torch.FloatTensor` of shape `(B, L, D)`, *optional*): in place of `input_ids`.

        Returns:
            `torch.FloatTensor` of shape `(B, L, D)`.

        Raises:
            ValueError: where there is no `window_size` and the notes are longer than the backbone reads.
        """
        config = self.config
        if inputs_embeds is None:
            inputs_embeds = self.model.embed_tokens(input_ids)
        length = inputs_embeds.shape[1]
        if config.window_size is None and length > config.max_position_embeddings:
            raise ValueError(
                f"A note of {length} tokens is longer than the backbone reads ({config.max_position_embeddings}): "
                "set `window_size` in the configuration to read it in windows, or truncate it yourself."
            )
        if config.window_size is None or length <= config.window_size:
            states = self._run_backbone(inputs_embeds, attention_mask)
        else:
            states = self._run_windows(inputs_embeds, attention_mask, config.window_size, config.window_stride)
        if config.normalize_hidden_states:
            scale = states.float().pow(2).mean(dim=-1, keepdim=True).add(config.rms_norm_eps).rsqrt()
            states = (states.float() * scale).to(states.dtype)
        return states

    def _run_backbone(self, inputs_embeds, attention_mask):
        return self.model(
            inputs_embeds=inputs_embeds, attention_mask=attention_mask, use_cache=False
        ).last_hidden_state

    def _run_windows(self, inputs_embeds, attention_mask, size, stride):
        real = attention_mask.bool()
        flat = inputs_embeds[real]  # (tokens of the batch, D): padding is gone, on whichever side it was
        windows = []  # of each window: its first token in `flat`, its last + 1, and the first one that it contributes
        offset = 0
        for length in real.sum(dim=1).tolist():
            for start in window_starts(length, size, stride):
                end = min(start + size, length)
                first_new = 0 if start == 0 else start - stride + size
                windows.append((offset + start, offset + end, offset + first_new))
            offset += length
        states = self._run_backbone(*pad_rows([flat[start:end] for start, end, _ in windows]))  # (W, window, D)
        stitched = torch.cat([states[i, new - start : end - start] for i, (start, end, new) in enumerate(windows)])
        out = stitched.new_zeros(*attention_mask.shape, stitched.shape[-1])
        return out.masked_scatter(real[..., None], stitched)

    def _mask_of(self, input_ids, inputs_embeds, hidden_states):
        """Without an `attention_mask`: everything up to the last token that is not `pad_token_id` is real, as in
        `LlamaForSequenceClassification`."""
        given = next(x for x in (hidden_states, inputs_embeds, input_ids) if x is not None)
        mask = torch.ones(given.shape[:2], dtype=torch.long, device=given.device)
        pad = self.config.pad_token_id
        if given is input_ids and pad is not None:
            trailing = (input_ids == pad).flip(1).cumprod(dim=1).flip(1)
            mask = 1 - trailing.to(mask.dtype)
            mask[:, 0] = 1
        return mask

    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        hidden_states: torch.FloatTensor | None = None,
        labels: torch.FloatTensor | None = None,
        output_label_attentions: bool = False,
        output_hidden_states: bool = False,
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
            output_label_attentions (`bool`): whether to return `label_attentions` `(B, C, L)`.
            output_hidden_states (`bool`): whether to return the `hidden_states` that the head read.

        Raises:
            ValueError: unless exactly one of `input_ids`, `inputs_embeds` and `hidden_states` is given, or where
                `labels` have another shape than the logits.
        """
        if sum(x is not None for x in (input_ids, inputs_embeds, hidden_states)) != 1:
            raise ValueError("Give exactly one of `input_ids`, `inputs_embeds` and `hidden_states`.")
        if 0 in next(x for x in (input_ids, inputs_embeds, hidden_states) if x is not None).shape:
            raise ValueError("An empty note cannot be coded: give every note at least one token.")
        if attention_mask is None:
            attention_mask = self._mask_of(input_ids, inputs_embeds, hidden_states)
        if hidden_states is None:
            if self.config.freeze_backbone:
                with torch.no_grad():
                    hidden_states = self.read_hidden_states(input_ids, attention_mask, inputs_embeds)
            else:
                hidden_states = self.read_hidden_states(input_ids, attention_mask, inputs_embeds)
        logits, label_attentions = self.score(hidden_states, attention_mask)
        members = logits if logits.dim() == 3 else logits[None]  # (E, B, C)
        logits = members.mean(dim=0)

        loss = None
        if labels is not None:
            if labels.shape != logits.shape:
                raise ValueError(
                    f"`labels` have shape {tuple(labels.shape)}, the logits {tuple(logits.shape)}: give one row per note "
                    "and one column per code, 1 where the note has the code."
                )
            # Of each member of an ensemble: heads that learn from a common loss do not differ enough to be worth averaging.
            loss = nn.functional.binary_cross_entropy_with_logits(members.float(), labels.float().expand_as(members))
        output = ICDCodingOutput(
            loss=loss,
            logits=logits,
            label_attentions=label_attentions if output_label_attentions else None,
            hidden_states=hidden_states if output_hidden_states else None,
        )
        return output if return_dict is not False else output.to_tuple()


class LlamaForICDCoding(LlamaICDPreTrainedModel):
    """Llama with a direct multi-label head: last-token or mean pooling and one linear layer, or label attention.

    With `pooling="last"` weight names and logits are those of transformers' `LlamaForSequenceClassification`.
    """

    def __init__(self, config: LlamaICDConfig):
        head: nn.Module
        if config.pooling == "label_attention":
            head = ensemble_of(
                config, lambda: LabelAttentionHead(config.hidden_size, config.num_labels, dropout=config.head_dropout)
            )
        else:
            head = PooledHead(config.hidden_size, config.num_labels, config.pooling, config.head_dropout)
        super().__init__(config, head)


class LlamaMultiResCNNForICD(LlamaICDPreTrainedModel):
    """Llama hidden states read by a multi-filter residual CNN with one attention query per code."""

    config_class = LlamaMultiResCNNConfig
    config: LlamaMultiResCNNConfig

    def __init__(self, config: LlamaMultiResCNNConfig):
        head = ensemble_of(
            config,
            lambda: MultiResCNNHead(
                config.hidden_size,
                config.num_labels,
                config.filter_sizes,
                config.num_filter_maps,
                config.num_residual_layers,
                config.reduction_size,
                config.head_dropout,
            ),
        )
        super().__init__(config, head)

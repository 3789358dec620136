"""How a model reads notes of any length: its backbone runs over windows, whose states are stitched to one sequence."""

from collections.abc import Sequence
from copy import copy
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from .layers_icd import values_are_known
from .windows_icd import flat_notes, pad_rows, window_groups


def _too_long(length: int, limit: int) -> str:
    return (
        f"A note of {length} tokens is longer than the backbone reads ({limit}): "
        "set `window_size` in the configuration to read it in windows, or truncate it yourself."
    )


def lift_causal_mask(backbone: PreTrainedModel) -> None:
    """Let each token attend to those behind it, too, in a backbone of transformers that is built to attend to those before.

    Raises:
        ValueError: where the backbone is not built so, as that of an encoder is not.
    """
    causal = [module for module in backbone.modules() if getattr(module, "is_causal", False) is True]
    if not causal:
        raise ValueError(
            f"`bidirectional_attention` lifts a causal mask, and {type(backbone).__name__} has none: leave it out."
        )
    backbone.config = copy(backbone.config)  # that of the whole model, which is saved, says it in its own field
    backbone.config.is_causal = False  # read where the mask is made
    for module in causal:  # and where there is none to make
        module.is_causal = False


class LayerMix(nn.Module):
    """A learned weighted mean of the layers, times a learned number: at first their plain mean (ELMo, arXiv 1802.05365).

    Args:
        num_layers (`int`): N, with the embeddings.
    """

    def __init__(self, num_layers: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(num_layers))
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, layers: Sequence[torch.Tensor]):
        """`N` layers `(B, L, D)` to `(B, L, D)`."""
        shares = self.weight.float().softmax(dim=0)
        mean = sum(share * layer.float() for share, layer in zip(shares, layers, strict=True))
        return (self.scale.float() * mean).to(layers[-1].dtype)


class NoteReader:
    """Base class of the models: what they do before the head. They have a backbone `model`, and a `config`."""

    config: Any
    model: Any
    _read_layer: int | None
    layer_mix: LayerMix | None
    # Tokens that the backbone reads at a time where notes are cut into windows: what bounds the memory that a long note
    # takes. Set it on a model as one likes; it changes no logit, and is not saved.
    tokens_per_pass = 8192

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
        length = (input_ids if inputs_embeds is None else inputs_embeds).shape[1]
        limit = config.max_position_embeddings
        if config.window_size is None and limit is not None and length > limit:
            raise ValueError(_too_long(length, limit))
        if config.window_size is not None and length > config.window_size:
            return self._run_windows(
                input_ids, attention_mask, inputs_embeds, config.window_size, config.window_stride
            )
        if values_are_known(attention_mask) and not (attention_mask[:, 1:] <= attention_mask[:, :-1]).all():
            # Padding in front of a note, which would move its first token away from the backbone's first position.
            return self._run_windows(input_ids, attention_mask, inputs_embeds, length, length)
        if attention_mask.numel() > self.tokens_per_pass and not (torch.is_grad_enabled() or attention_mask.is_meta):
            return self._run_windows(input_ids, attention_mask, inputs_embeds, length, length)
        return self._run_backbone(input_ids, attention_mask, inputs_embeds)

    def _run_backbone(self, input_ids, attention_mask, inputs_embeds=None):
        # Nothing is generated, so that no keys and values are kept; an encoder has no such argument.
        options = {"use_cache": False} if hasattr(self.model.config, "use_cache") else {}
        if self._read_layer is not None or self.layer_mix is not None:
            options["output_hidden_states"] = True
        notes = {"input_ids": input_ids} if inputs_embeds is None else {"inputs_embeds": inputs_embeds}
        if attention_mask.is_meta:  # a backbone takes this one as it is, and asks it for no value
            attention_mask = (attention_mask[:, None, :, None] * attention_mask[:, None, None, :]).bool()
        output = self.model(**notes, attention_mask=attention_mask, **options)
        if self.layer_mix is not None:
            states = self.layer_mix(output.hidden_states)
        else:
            states = output.last_hidden_state if self._read_layer is None else output.hidden_states[self._read_layer]
        if self.config.normalize_hidden_states:
            scale = states.float().pow(2).mean(dim=-1, keepdim=True).add(self.config.rms_norm_eps).rsqrt()
            states = (states.float() * scale).to(states.dtype)
        return states

    def _run_windows(self, input_ids, attention_mask, inputs_embeds, size, stride):
        real = attention_mask.bool()
        # Tokens or embeddings of the whole batch in one row: padding is gone, on whichever side it was.
        joined, lengths = flat_notes(input_ids if inputs_embeds is None else inputs_embeds, real)
        stitched = self._read_windows(joined, lengths, size, stride)
        if len(stitched) == real.numel():
            return stitched.view(*real.shape, -1)
        out = stitched.new_zeros(*real.shape, stitched.shape[-1])
        return out.masked_scatter(real[..., None], stitched)

    def read_joined(self, joined, lengths: list[int], tokens_per_pass: int | None = None):
        """What [`read_hidden_states`] gives, of notes that are joined to one row without padding.

        The windows of all these notes go through the backbone sorted by length, at most `tokens_per_pass` tokens at a time. So
        hardly any padding is computed, and what is needed beside the states does not grow with the notes.

        Args:
            joined (`torch.LongTensor` of shape `(T,)`): the tokens of all notes.
            lengths (`list[int]`): how many each note has, `T` together.
            tokens_per_pass (`int`, *optional*): in place of the model's own.

        Returns:
            `torch.FloatTensor` of shape `(T, D)`.

        Raises:
            ValueError: where there is no `window_size` and a note is longer than the backbone reads.
        """
        size, limit = self.config.window_size, self.config.max_position_embeddings
        if size is None and limit is not None and max(lengths) > limit:
            raise ValueError(_too_long(max(lengths), limit))
        size = size or max(lengths)
        return self._read_windows(joined, lengths, size, self.config.window_stride or size, tokens_per_pass)

    def _read_windows(self, joined, lengths: list[int], size: int, stride: int, tokens_per_pass: int | None = None):
        parts: list[tuple[int, torch.Tensor]] = []
        out = None
        for group in window_groups(lengths, size, stride, tokens_per_pass or self.tokens_per_pass):
            rows, mask = pad_rows([joined[start:end] for start, end, _ in group])
            given = (rows, mask) if joined.dim() == 1 else (None, mask, rows)
            states = self._run_backbone(*given)  # (W, window, D)
            new_states = [(new, states[i, new - start : end - start]) for i, (start, end, new) in enumerate(group)]
            if torch.is_grad_enabled():
                parts += new_states
                continue
            if out is None:  # so that they are held once
                out = states.new_empty(len(joined), states.shape[-1])
            for new, part in new_states:
                out[new : new + len(part)] = part
        return torch.cat([part for _, part in sorted(parts, key=lambda part: part[0])]) if out is None else out

"""What the models' `forward` takes by name alone, and what it makes of it."""

import torch

from .layers_icd import values_are_known


# What it takes beside the arguments of its signature, with the value that each has where it is left out.
# Trainer takes every argument of the signature whose name holds "label" for labels, so that the first cannot stand there.
# peft names all of the last four; tokenizers without a class of their own give `token_type_ids`, which a Llama does not read.
FORWARD_OPTIONS = {
    "output_label_attentions": False,
    "label_attentions_for": None,
    "num_items_in_batch": None,
    "token_type_ids": None,
    "use_cache": None,
    "output_attentions": None,
    "task_ids": None,
}


def forward_options(given: dict) -> dict:
    """The options of `forward`: those `given`, with defaults for the others.

    Raises:
        TypeError: where `forward` does not know a name.
        ValueError: where the attention weights of the backbone are asked for, which are not kept.
    """
    unknown = sorted(set(given) - set(FORWARD_OPTIONS))
    if unknown:
        known = "input_ids, attention_mask, inputs_embeds, hidden_states, labels, evidence, output_hidden_states, return_dict"
        raise TypeError(
            f"`forward` does not know {', '.join(unknown)}. It takes {known}, {', '.join(FORWARD_OPTIONS)}."
        )
    if given.get("output_attentions"):
        raise ValueError(
            "The attention weights of the backbone are not kept, since a note is read in windows: leave `output_attentions` "
            "out; `output_label_attentions=True` gives the head's."
        )
    return {**FORWARD_OPTIONS, **given}


def notes_given(input_ids, inputs_embeds, hidden_states) -> torch.Tensor:
    """What holds the notes: one of these, and not without a token.

    Raises:
        ValueError: where it is none or several of them, or the notes are empty.
    """
    given = [x for x in (input_ids, inputs_embeds, hidden_states) if x is not None]
    if len(given) != 1:
        raise ValueError("Give exactly one of `input_ids`, `inputs_embeds` and `hidden_states`.")
    if 0 in given[0].shape:
        raise ValueError("An empty note cannot be coded: give every note at least one token.")
    return given[0]


def attention_asked_for(options: dict, num_notes: int, num_labels: int) -> bool | torch.Tensor:
    """Of which codes the options of `forward` ask for attention: all, none, or those with some ids, `(K,)` or `(B, K)`.

    Raises:
        ValueError: where they are no ids of codes, or both all and some are asked for.
    """
    given = options["label_attentions_for"]
    if given is None:
        return bool(options["output_label_attentions"])
    if options["output_label_attentions"]:
        raise ValueError(
            "`output_label_attentions` asks for the attention of all codes and `label_attentions_for` for that of some: give one "
            "of them."
        )
    wanted = (
        f"`label_attentions_for` must be ids of codes, whole numbers from 0 to {num_labels - 1}: one list, or one for each of "
        f"the {num_notes} notes, all of one length, with -1 where a note has fewer"
    )
    try:
        codes = torch.as_tensor(given)
    except (TypeError, ValueError) as error:  # no numbers, or lists of unequal length
        raise ValueError(f"{wanted}.") from error
    if codes.numel() == 0:  # of no type that says anything
        codes = codes.long()
    has_shape = codes.dim() == 1 or (codes.dim() == 2 and len(codes) == num_notes)
    if codes.dtype not in (torch.long, torch.int32) or not has_shape:
        raise ValueError(f"{wanted}; got {str(codes.dtype).removeprefix('torch.')} of shape {tuple(codes.shape)}.")
    lowest = 0 if codes.dim() == 1 else -1
    if values_are_known(codes) and codes.numel() and not lowest <= codes.min() <= codes.max() < num_labels:
        raise ValueError(f"{wanted}; got {codes.min()} to {codes.max()}.")
    return codes.long()

"""Weights of other systems in our classes: do they give the same logits and the same loss?

    python -m benchmarks.peer_parity ../shared/golden/peers/*.safetensors ../shared/golden/multirescnn_a.safetensors

Each FILE holds weights under the names of its authors' code (`state.*`), what goes in (`input_ids`, or the hidden states that a
head reads: `hidden_states` or `features`) and what came out (`logits`, and where there are any `loss`, `logits_masked`,
`logits_coarse`, `attention`). Which system it is, the names of the weights tell:

- CAML, DR-CAML, CNN and GRU of jamesmullenbach/caml-mimic (`ConvAttnPool`, `VanillaConv`, `VanillaRNN`);
- the attention of aehrc/LAAT, over one level of codes or two;
- `LabelCrossAttention` of JoakimEdin/explainable-medical-coding;
- MultiResCNN of foxlf823/Multi-Filter-Residual-Convolutional-Neural-Network.

Printed is the largest difference of each output. Exits 1 where one is above 1e-5.
"""

import argparse
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open

from dataset_scripts.command import run_command
from modeling_icd import (
    CAMLConfig,
    CAMLForICD,
    CNNConfig,
    CNNForICD,
    GRUConfig,
    GRUForICD,
    ICDConfig,
    LAATConfig,
    LAATForICD,
    ModelForICDCoding,
    MultiResCNNConfig,
    MultiResCNNForICD,
    WordReaderConfig,
)
from modeling_icd.multirescnn_icd import MultiResCNNHead


TOLERANCE = 1e-5
Tensors = dict[str, torch.Tensor]


class Peer(NamedTuple):
    """A system whose weights can be read.

    Args:
        name (`str`): for the table.
        mark (`str`): a weight that it has and those after it in the table lack, a regular expression.
        make (`Callable`): builds our model from its weights and the file's metadata.
        names (`dict[str, str]`): beginnings of its names of weights, and of ours.
        left_out (`str`): its weights that nothing reads, a regular expression.
    """

    name: str
    mark: str
    make: Callable[[Tensors, Mapping[str, str]], ModelForICDCoding]
    names: dict[str, str]
    left_out: str = r"^$"


def _words(weights: Tensors, **fields) -> WordReaderConfig:
    vocab_size, width = weights["embed.weight"].shape
    return WordReaderConfig(vocab_size=vocab_size, embedding_size=width, embedding_dropout=0.0, **fields)


def _states(width: int) -> WordReaderConfig:
    """A reader of which nothing but the width of its states is used."""
    return WordReaderConfig(vocab_size=2, embedding_size=1, rnn="lstm", rnn_size=width, bidirectional=False)


def make_caml(weights: Tensors, metadata: Mapping[str, str]) -> CAMLForICD:
    maps, _, filter_size = weights["conv.weight"].shape
    options: dict[str, float] = {"num_filter_maps": maps, "filter_size": filter_size}
    if "desc_embedding.weight" in weights:
        options |= {"description_weight": float(metadata["lambda"])}
        options |= {"description_words": weights["desc_embedding.weight"].shape[0]}
    num_labels = weights["final.weight"].shape[0]
    return CAMLForICD(CAMLConfig(backbone_config=_words(weights), head_options=options, num_labels=num_labels))


def make_cnn(weights: Tensors, metadata: Mapping[str, str]) -> CNNForICD:
    maps, _, filter_size = weights["conv.weight"].shape
    options = {"num_filter_maps": maps, "filter_size": filter_size}
    num_labels = weights["fc.weight"].shape[0]
    return CNNForICD(CNNConfig(backbone_config=_words(weights), head_options=options, num_labels=num_labels))


def make_gru(weights: Tensors, metadata: Mapping[str, str]) -> GRUForICD:
    both = "rnn.weight_ih_l0_reverse" in weights
    reader = _words(weights, rnn="gru", rnn_size=weights["rnn.weight_hh_l0"].shape[1], bidirectional=both)
    options, head = {"score_bias": True}, "ends" if both else "last"
    num_labels = weights["final.weight"].shape[0]
    return GRUForICD(GRUConfig(backbone_config=reader, head=head, head_options=options, num_labels=num_labels))


def make_laat(weights: Tensors, metadata: Mapping[str, str]) -> LAATForICD:
    projection_size, width = weights["first_linears.0.weight"].shape
    options = {"projection_size": projection_size}
    num_labels = weights["third_linears.0.weight"].shape[0]
    return LAATForICD(LAATConfig(backbone_config=_states(width), head_options=options, num_labels=num_labels))


def make_joint_laat(weights: Tensors, metadata: Mapping[str, str]) -> LAATForICD:
    projection_size, width = weights["attention.first_linears.0.weight"].shape
    level_size, num_parents = weights["projection_linears.0.weight"].shape
    num_labels = weights["attention.third_linears.1.weight"].shape[0]
    options = {
        "projection_size": projection_size,
        "level_projection_size": level_size,
        # Which code stands above which enters the loss alone, which these files do not have.
        "parents": [min(code, num_parents - 1) for code in range(num_labels)],
    }
    config = LAATConfig(backbone_config=_states(width), head="joint_laat", head_options=options, num_labels=num_labels)
    return LAATForICD(config)


def make_plm_ca(weights: Tensors, metadata: Mapping[str, str]) -> ModelForICDCoding:
    num_labels, width = weights["label_representations"].shape
    config = ICDConfig(backbone_config=_states(width), head="cross_attention", num_labels=num_labels)
    return ModelForICDCoding(config)


def make_multirescnn(weights: Tensors, metadata: Mapping[str, str]) -> MultiResCNNForICD:
    found = (re.match(r"conv\.channel-(\d+)\.baseconv\.weight", name) for name in weights)
    sizes = sorted(int(match[1]) for match in found if match)
    head = MultiResCNNHead.from_original(
        {name: value for name, value in weights.items() if name.startswith(("conv.", "output_layer."))}, sizes
    )
    maps = weights["output_layer.U.weight"].shape[1] // len(sizes)
    layers = len({name.split(".")[2] for name in weights if name.startswith(f"conv.channel-{sizes[0]}.resconv")})
    options = {"filter_sizes": sizes, "num_filter_maps": maps, "num_residual_layers": layers}
    width = weights[f"conv.channel-{sizes[0]}.baseconv.weight"].shape[1]
    num_labels = weights["output_layer.U.weight"].shape[0]
    model = MultiResCNNForICD(
        MultiResCNNConfig(backbone_config=_states(width), head_options=options, num_labels=num_labels)
    )
    model.score.load_state_dict(head.state_dict())
    return model


_EMBED = {"embed.": "model.embeddings."}
_TITLES = {
    "desc_embedding.": "score.title_words.",
    "label_conv.": "score.title_convolution.",
    "label_fc1.": "score.title_output.",
}
PEERS = (
    Peer("MultiResCNN", r"conv\.channel-", make_multirescnn, {}, left_out=".*"),
    Peer("CNN", r"fc\.weight", make_cnn, {**_EMBED, "conv.": "score.convolution.", "fc.": "score."}),
    Peer(
        "CAML",
        r"conv\.weight",
        make_caml,
        {**_EMBED, **_TITLES, "conv.": "score.convolution.", "U.": "score.queries.", "final.": "score.output."},
        left_out=r"^U\.bias$",
    ),
    Peer("GRU", r"rnn\.", make_gru, {**_EMBED, "rnn.": "model.rnn.", "final.": "score."}),
    Peer(
        "JointLAAT",
        r"attention\.first_linears\.1",
        make_joint_laat,
        {
            "attention.first_linears.0.": "score.upper.projection.",
            "attention.second_linears.0.": "score.upper.queries.",
            "attention.third_linears.0.": "score.upper.output.",
            "attention.first_linears.1.": "score.projection.",
            "attention.second_linears.1.": "score.queries.",
            "attention.third_linears.1.": "score.output.",
            "projection_linears.0.": "score.level_projection.",
        },
        left_out=r"^(linears\.|attention\.linear\.|projection_linears\.1\.)",
    ),
    Peer(
        "LAAT",
        r"first_linears\.0",
        make_laat,
        {
            "first_linears.0.": "score.projection.",
            "second_linears.0.": "score.queries.",
            "third_linears.0.": "score.output.",
        },
        left_out=r"^linear\.",
    ),
    Peer(
        "PLM-CA",
        r"label_representations",
        make_plm_ca,
        {
            "label_representations": "score.queries.weight",
            "weights_k.": "score.projection.",
            "weights_v.": "score.values.",
            "layernorm.": "score.output.norm.",
            "output_linear.": "score.output.output.",
        },
    ),
)


def read_file(path: Path) -> tuple[Tensors, Tensors, dict[str, str]]:
    """The weights under their own names, the other tensors, and the metadata of a file.

    Raises:
        ValueError: where it cannot be read, or holds no weights.
    """
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dictionary
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is no file of safetensors: {error}") from None
    weights = {name.removeprefix("state."): value for name, value in tensors.items() if name.startswith("state.")}
    if not weights:
        raise ValueError(f"{path} holds no weights: their names must begin with `state.`.")
    return weights, {name: value for name, value in tensors.items() if not name.startswith("state.")}, metadata


def load_peer(weights: Tensors, metadata: Mapping[str, str], path: Path) -> tuple[str, ModelForICDCoding]:
    """The name of a system and our model with its weights, in evaluation mode.

    Raises:
        ValueError: where the weights are of no system of the table, or one has no place in our model.
    """
    for peer in PEERS:
        if any(re.match(peer.mark, name) for name in weights):
            break
    else:
        raise ValueError(f"{path}: weights of no system known here, e.g. {min(weights)}: see --help.")
    model = peer.make(weights, metadata)
    renamed = {}
    for name, value in weights.items():
        start = max((known for known in peer.names if name.startswith(known)), key=len, default=None)
        if re.match(peer.left_out, name):
            continue
        if start is None:
            raise ValueError(f"{path}: {peer.name} has no place for the weight {name}.")
        renamed[peer.names[start] + name[len(start) :]] = value
    missing, _ = model.load_state_dict(renamed, strict=False)
    unread = [name for name in missing if not name.startswith("model.")] if renamed else []
    if unread:
        raise ValueError(f"{path} lacks weights of {peer.name}: {', '.join(unread[:3])}.")
    return peer.name, model.eval()


def loss_with_titles(model: ModelForICDCoding, given: Tensors) -> torch.Tensor:
    """The loss of DR-CAML, note by note, since the file has words for the gold codes of each note apart: those of one code in
    two notes may differ."""
    losses = []
    model.train()  # the titles are learned from in training alone, and nothing is dropped
    for i, labels in enumerate(given["labels"]):
        words = given[f"descriptions.{i}"]
        model.score.titles = torch.zeros(model.num_labels, words.shape[1], dtype=torch.long)
        model.score.titles[labels.nonzero().flatten()] = words
        losses.append(model(input_ids=given["input_ids"][i : i + 1], labels=labels[None]).loss)
    model.eval()
    return torch.stack(losses).mean()


@torch.no_grad()
def differences(model: ModelForICDCoding, given: Tensors) -> dict[str, float]:
    """The largest difference of each output that the file has from what our model gives."""
    model.config.loss_reduction = "mean"  # as that of all of these
    notes = given.get("hidden_states", given.get("features"))
    inputs = {"input_ids": given["input_ids"]} if notes is None else {"hidden_states": notes}
    mask = torch.ones(next(iter(inputs.values())).shape[:2], dtype=torch.long)
    labels = given.get("labels", given.get("target"))
    has_titles = any(name.startswith("descriptions.") for name in given)
    output = model(
        **inputs,
        attention_mask=mask,
        labels=None if has_titles else labels,
        output_label_attentions="attention" in given,
    )
    loss = loss_with_titles(model, given) if has_titles else output.loss
    ours = {"logits": output.logits, "loss": loss, "attention": output.label_attentions}
    head: Any = model.score
    if "attention" in given and given["attention"].shape[-1] > mask.shape[1]:  # the place behind the note's end
        states = head.features(model.read_hidden_states(given["input_ids"], mask), mask)
        ours["attention"] = head.queries(states, head.places(mask))[1]
    if "logits_masked" in given:
        ours["logits_masked"] = model(**inputs, attention_mask=given["attention_mask"]).logits
    if "logits_coarse" in given:
        ours["logits_coarse"] = head.upper(notes, mask)[0]
    return {
        name: float((value.reshape(given[name].shape) - given[name]).abs().max())
        for name, value in ours.items()
        if name in given and value is not None
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    args = parser.parse_args(arguments)
    is_near = True
    for path in args.files:
        weights, given, metadata = read_file(path)
        name, model = load_peer(weights, metadata, path)
        found = differences(model, given)
        is_near &= bool(found) and max(found.values()) <= TOLERANCE
        print(f"{path.name:<28}{name:<14}" + "  ".join(f"{key} {value:.1e}" for key, value in found.items()))
    return 0 if is_near else 1


if __name__ == "__main__":
    sys.exit(run_command(main))

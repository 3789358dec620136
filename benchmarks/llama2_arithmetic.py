"""Memory, disk and time of each configuration `configs/llama2_7b_*.yaml`, by arithmetic alone: the tables of docs/llama2.md.

    python -m benchmarks.llama2_arithmetic

Everything here is an estimate. `benchmarks.llama2_shape` measures the part that grows with the layers, at Llama-2-7B's width, and
holds it against this.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import LlamaConfig

from modeling_icd.heads import head_of_config
from modeling_icd.modeling_icd import MODELS


LLAMA2_7B: dict[str, Any] = {
    "vocab_size": 32_000,
    "hidden_size": 4096,
    "intermediate_size": 11_008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
}
CONFIGS = ("llama2_7b_frozen", "llama2_7b_qlora", "llama2_7b_lora", "llama2_7b_full")
# MIMIC-III: notes of train, validation and test; tokens of one note by Llama-2's tokenizer, assumed; codes.
NUM_NOTES, NOTE_TOKENS, NUM_CODES = 52_722, 2500, 8921
# Dense bfloat16, as the makers state it, and the share of it that training commonly reaches.
FLOPS = {"RTX 4090, 24 GB": 165e12, "A100, 80 GB": 312e12, "8 x A100, 80 GB": 8 * 312e12}
UTILISATION = 0.4
GB = 1e9


def layer_weights(config: LlamaConfig) -> tuple[int, int]:
    """Weights of the linear layers of one Llama layer, and of its two norms."""
    width, inner = config.hidden_size, config.intermediate_size
    narrow = width * config.num_key_value_heads // config.num_attention_heads
    return 2 * width * width + 2 * width * narrow + 3 * width * inner, 2 * width


def lora_weights(config: LlamaConfig, rank: int) -> int:
    """Weights of LoRA on the seven projections of one layer."""
    width, inner = config.hidden_size, config.intermediate_size
    narrow = width * config.num_key_value_heads // config.num_attention_heads
    return rank * (2 * (width + width) + 2 * (width + narrow) + 3 * (width + inner))


@dataclass
class Road:
    """How a configuration file trains, as far as memory depends on it.

    Args:
        settings (`dict`): the file's content.
        on_gpu (`bool`): whether its paged 8-bit optimizer is there; on a CPU torch's own stands in its place.
    """

    settings: dict[str, Any]
    on_gpu: bool = True

    @property
    def type_bytes(self) -> int:
        return 4 if self.settings.get("dtype") == "float32" else 2

    @property
    def other_bytes(self) -> int:
        """Bytes of one weight of the embeddings and norms, and of one number of the hidden states: peft makes those of a
        quantised backbone float32."""
        return 4 if self.settings.get("load_in_4bit") else self.type_bytes

    @property
    def linear_bytes(self) -> float:
        """Bytes of one weight of a linear layer. NF4 with double quantisation: half a byte, a scale of one byte for 64
        weights, and four bytes for 256 scales."""
        return 0.5 + 1 / 64 + 4 / (64 * 256) if self.settings.get("load_in_4bit") else self.type_bytes

    @property
    def trained_bytes(self) -> int:
        """Bytes of one trained weight: itself, its gradient and AdamW's two moments."""
        is_8bit = self.on_gpu and "8bit" in self.settings.get("optim", "")
        return 4 + 4 + (2 if is_8bit else 8)

    @property
    def trains(self) -> str:
        if self.settings.get("freeze_backbone"):
            return "head"
        return "lora" if self.settings.get("lora_r") else "all"

    def layer_bytes(self, config: LlamaConfig, tokens: int) -> dict[str, float]:
        """Bytes that one more layer takes, by what they are for; `tokens` are those of all windows of a step, with padding."""
        linear, norms = layer_weights(config)
        weights: float
        learned: float
        if self.trains == "all":
            weights = self.type_bytes * (linear + norms)
            learned = (self.trained_bytes - 4) * (linear + norms)
        else:
            weights = self.linear_bytes * linear + self.other_bytes * norms
            learned = self.trained_bytes * lora_weights(config, self.settings.get("lora_r", 0))
        kept = 0 if self.trains == "head" else tokens * config.hidden_size * self.other_bytes
        return {"weights": weights, "gradients and optimizer": learned, "kept activations": kept}

    def backbone_bytes(self, config: LlamaConfig) -> float:
        """Bytes of the backbone's weights, embeddings included."""
        per_layer = self.layer_bytes(config, 0)["weights"]
        return config.num_hidden_layers * per_layer + self.other_bytes * config.vocab_size * config.hidden_size

    def flops_per_token(self, config: LlamaConfig) -> float:
        """Forward pass; training adds twice as much for what learns below, and once more where it is recomputed."""
        linear, _ = layer_weights(config)
        attention = (
            2 * self.settings["window_size"] * config.hidden_size
        )  # half the window on average, scores and sums
        forward = config.num_hidden_layers * (2 * linear + attention)
        if self.trains == "head":
            return forward
        # With LoRA the gradient of the weights themselves is not computed.
        backward = forward if self.trains == "lora" else 2 * forward
        return forward + backward + (forward if self.settings.get("gradient_checkpointing") else 0)


def read_road(name: str, on_gpu: bool = True) -> Road:
    """The road that `configs/NAME.yaml` describes."""
    return Road(yaml.safe_load(Path(f"configs/{name}.yaml").read_text()), on_gpu)


def window_tokens(settings: dict[str, Any], length: int) -> int:
    """Tokens that the backbone reads of one note of `length` tokens: of all its windows, each filled up to the longest."""
    size, stride = settings["window_size"], settings["window_stride"]
    return min(size, length) * (1 + max(0, -(-(length - size) // stride)))


def head_weights(settings: dict[str, Any], config: LlamaConfig, num_codes: int) -> int:
    """Weights of the head that a configuration file describes, counted in the head itself."""
    fields = ("pooling", "projection_size", "reduction_size", "window_size", "window_stride")
    given = {name: settings[name] for name in fields if name in settings}
    model_class = MODELS[settings["model"]]
    with torch.device("meta"):
        of_model = model_class.config_class.from_backbone(config, num_labels=num_codes, **given)
        head = head_of_config(of_model)
    return sum(weight.numel() for weight in head.parameters())


def table(config: LlamaConfig) -> list[list[str]]:
    """A row for each configuration: weights, what learns, activations, checkpoint, and time for an epoch of MIMIC-III."""
    rows = []
    cards = {"head": "RTX 4090, 24 GB", "lora": "A100, 80 GB", "all": "8 x A100, 80 GB"}
    for name in CONFIGS:
        road = read_road(name)
        settings = road.settings
        batch = 1 if road.trains == "head" else settings["per_device_train_batch_size"]
        tokens = window_tokens(settings, NOTE_TOKENS)
        parts = road.layer_bytes(config, batch * tokens)
        head = head_weights(settings, config, NUM_CODES)
        learned = (
            config.num_hidden_layers * parts["gradients and optimizer"] + (12 if road.trains != "head" else 0) * head
        )
        if road.trains == "all":
            learned += (road.trained_bytes - 4) * config.vocab_size * config.hidden_size
        # Of the layer that is being recomputed: about 12 vectors of the width and 4 of the inner width a token.
        recomputed = (
            batch * tokens * (12 * config.hidden_size + 4 * config.intermediate_size) * 2
        )  # computed in bfloat16
        kept = config.num_hidden_layers * parts["kept activations"]
        num_cards = 8 if road.trains == "all" else 1
        weights = road.backbone_bytes(config) + 4 * head
        total = (weights + learned) / num_cards + kept + recomputed
        card = "RTX 4090, 24 GB" if settings.get("load_in_4bit") else cards[road.trains]
        seconds = NUM_NOTES * tokens * road.flops_per_token(config) / (FLOPS[card] * UTILISATION)
        checkpoint: float = 12 * head + (
            0
            if road.trains == "head"
            else 12 * config.num_hidden_layers * lora_weights(config, settings.get("lora_r", 0))
        )
        if road.trains == "all":
            checkpoint += 12 * (road.backbone_bytes(config) / 4)
        rows.append(
            [
                name,
                card,
                f"{weights / GB:.1f}",
                f"{learned / GB:.1f}",
                f"{(kept + recomputed) / GB:.1f}",
                f"{total / GB:.1f}",
                f"{checkpoint / GB:.2f}",
                f"{NUM_NOTES * tokens / seconds:,.0f}",
                f"{seconds / 3600:.1f}",
            ]
        )
    return rows


HEADINGS = [
    "configuration", "hardware", "weights, GB", "gradients and optimizer, GB", "activations, GB", "in all on each card, GB",
    "checkpoint, GB", "tokens/s", "hours an epoch",
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    print("| " + " | ".join(HEADINGS) + " |")
    print("|---|---|" + "---:|" * (len(HEADINGS) - 2))
    for row in table(LlamaConfig(**LLAMA2_7B)):
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()

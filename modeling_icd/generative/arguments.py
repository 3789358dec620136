"""The arguments of `modeling-icd train` for a generative coder, beside those of the data set and of trl."""

from dataclasses import dataclass, field
from typing import Any

import torch
from trl import GRPOConfig, SFTConfig

from ..evaluation.decisions import DecisionArguments
from ..generative_icd import check_attention
from ..inference.loading import ReaderArguments
from ..prompts_icd import LONG_NOTES, SETTINGS, complete_settings
from ..training.arguments import check_start


STAGES = ("prompt", "sft", "grpo")
ORDERS = ("evidence", "frequency")


def setting(help: str, name: str) -> Any:
    """A field whose default is the backbone's setting, if it is a generative coder, else that of `SETTINGS`."""
    return field(default=None, metadata={"help": f"{help} Default: as of the backbone, else {SETTINGS[name]!r}."})


@dataclass
class GenerativeArguments(ReaderArguments):
    """The coder: which language model, how it is asked, and how it learns."""

    backbone: str = field(
        metadata={
            "help": "Folder or Hub id of a language model with a chat template, `smollm2`, or the folder of an earlier stage."
        }
    )
    stage: str = field(
        metadata={
            "help": "`prompt`: nothing is learned; `sft`: from notes and codes; `grpo`: from rewards for answers."
        }
    )
    model: str = field(default="generative", metadata={"help": "`generative`."})
    base_model: str | None = field(
        default=None,
        metadata={"help": "Hub id of the language model if `backbone` is a folder; the model's card names it."},
    )
    mode: str | None = setting(
        "`list`: an answer lists the codes of a note; `verify`: each code that the `retriever` proposes is asked about.",
        "mode",
    )
    retriever: str | None = field(
        default=None,
        metadata={
            "help": "`mode` verify: folder or Hub id of a coder whose best codes are verified: a classifier, a coder by terms or a fused "
            "model. It is copied into the model's folder. Default: that of the backbone."
        },
    )
    instruction: str | None = setting("What is asked in front of each note.", "instruction")
    codes_in_prompt: str | None = setting(
        "Whether the prompt lists all `codes`, or their `titles`, or `none`.", "codes_in_prompt"
    )
    titles: bool | None = setting("Whether an answer has the title behind each code.", "titles")
    shots: int = field(
        default=0,
        metadata={
            "help": "Training notes with their answers that stand in the prompt, drawn among the shorter half. They lie in the "
            "model's folder, which is then never published."
        },
    )
    order: str = field(
        default="evidence",
        metadata={
            "help": "Codes of an answer that is learned: by `evidence`, where the first words for each stand, if the data set marks "
            "them; else, or with `frequency`, the most frequent first."
        },
    )
    max_note_tokens: int | None = setting("Tokens of a note in one prompt at most; none is cut.", "max_note_tokens")
    long_notes: str | None = setting(
        f"What is done with longer ones, {' or '.join(LONG_NOTES)}: an error, or read part by part.", "long_notes"
    )
    max_codes: int | None = setting("Codes of an answer at most.", "max_codes")
    constrained: bool | None = setting("Whether codes of the set alone can be generated, none twice.", "constrained")
    num_beams: int | None = setting("Of a beam search; 1 is greedy.", "num_beams")
    num_samples: int | None = setting("Answers that are drawn for each note; 1: the best one alone.", "num_samples")
    sample_temperature: float | None = setting("At which they are drawn.", "temperature")
    tree_tokens: int | None = setting(
        "Tokens read beside an answer, at each of its codes, to score those that were not given.", "tree_tokens"
    )
    question: str | None = setting(
        "`mode` verify: what is asked about a code; {code} stands for it and its title.", "question"
    )
    num_candidates: int | None = setting(
        "`mode` verify: codes of a note that are asked about at most.", "num_candidates"
    )
    candidate_threshold: float | None = setting(
        "`mode` verify: the score that the retriever gives them at least.", "candidate_threshold"
    )
    passage_tokens: int | None = setting(
        "`mode` verify: tokens that are read around the words that a code was retrieved for; 0: whole notes.",
        "passage_tokens",
    )
    retriever_weight: float | None = setting(
        "`mode` verify: share of the retriever in a code's logit, in [0, 1].", "retriever_weight"
    )
    negatives: float = field(
        default=3.0,
        metadata={
            "help": "`mode` verify: wrong candidates that are learned from, the retriever's best ones, for each right one of a note; one at "
            "least."
        },
    )
    lora_r: int = field(default=16, metadata={"help": "Rank of LoRA on all linear layers; 0: all weights learn."})
    lora_alpha: int = 32
    lora_dropout: float = 0.0
    canaries: int = field(
        default=0,
        metadata={
            "help": "Training notes that get a sentence with a random number, so that publishing can measure whether the model has learned "
            "it by heart. The numbers lie in OUTPUT_DIR-private."
        },
    )
    invalid_penalty: float = field(
        default=0.1,
        metadata={"help": "`grpo`: what a code outside the set takes from the reward, which is the F1 of the note."},
    )

    def __post_init__(self):
        super().__post_init__()
        if self.model != "generative":
            raise ValueError(f"`model` must be 'generative' for these options, got {self.model!r}.")
        if self.stage not in STAGES:
            raise ValueError(f"`stage` must be one of {', '.join(STAGES)}, got {self.stage!r}.")
        if self.order not in ORDERS:
            raise ValueError(f"`order` must be {' or '.join(ORDERS)}, got {self.order!r}.")
        for name in ("shots", "lora_r", "canaries", "invalid_penalty", "negatives"):
            if getattr(self, name) < 0:
                raise ValueError(f"`{name}` must be at least 0, got {getattr(self, name)}.")
        if self.shots and self.stage != "prompt":
            raise ValueError(
                "`shots` put training notes into the prompt of a model that learns nothing: give `stage` 'prompt'."
            )
        check_attention(self.attn_implementation)
        if self.is_quantised:
            raise ValueError(
                "A generative coder is saved as a plain language model, and weights in 4 or 8 bits cannot take up what was learned: "
                "leave `load_in_4bit` and `load_in_8bit` out, and give `dtype` bfloat16 and `gradient_checkpointing` to save memory."
            )

    def settings(self, earlier: dict[str, Any]) -> dict[str, Any]:
        """`generative` of the configuration, from these arguments and those of the backbone, if it has the same `mode`.

        Raises:
            ValueError: where options do not belong to the mode.
        """
        mode = self.mode or earlier.get("mode", SETTINGS["mode"])
        earlier = earlier if earlier.get("mode", SETTINGS["mode"]) == mode else {}
        given = {name: getattr(self, name, None) for name in SETTINGS} | {"temperature": self.sample_temperature}
        settings = {**earlier, **{name: value for name, value in given.items() if value is not None}, "mode": mode}
        if mode != "verify" and self.retriever is not None:
            raise ValueError("`retriever` has an effect with `mode` verify alone: give that, too, or leave it out.")
        if mode == "verify" and self.stage == "grpo":
            raise ValueError("`mode` verify learns from right and wrong candidates: give `stage` 'sft', or 'prompt'.")
        if mode == "verify" and self.shots:
            raise ValueError("`shots` are notes with the codes that answer them: leave them out with `mode` verify.")
        return complete_settings(settings)


@dataclass
class _RunArguments(DecisionArguments):
    """What both kinds of training have in common."""

    threshold_rule: str = field(
        default="fixed",
        metadata={
            "help": "Which codes are predicted: `fixed`, those of the answer; or one of the other rules, fitted on validation notes."
        },
    )
    overwrite_output_dir: bool = field(
        default=False, metadata={"help": "Replace the finished model in OUTPUT_DIR once the new one is complete."}
    )


def _checked(args: Any, base: Any) -> None:
    """Run the checks of both parents; bfloat16 is learned in where there is a GPU that has it."""
    if args.bf16 is None:
        args.bf16 = not args.fp16 and torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    base.__post_init__(args)
    DecisionArguments.__post_init__(args)
    check_start(args)
    if args.push_to_hub:
        raise ValueError("`train` uploads nothing of a generative coder: push it with `modeling-icd publish`.")


@dataclass
class SFTArguments(_RunArguments, SFTConfig):
    """trl's `SFTConfig` with this task's defaults; of the stage `prompt`, too."""

    learning_rate: float = 2e-4
    gradient_checkpointing: bool = False
    max_length: int | None = field(
        default=None,
        metadata={
            "help": "With `packing`: tokens of a pack. No note is cut: one that is longer than a pack is an error."
        },
    )
    completion_only_loss: bool | None = True
    train_sampling_strategy: str = "group_by_length"
    save_strategy: str = "epoch"
    save_total_limit: int | None = 1
    report_to: str | None = "none"

    def __post_init__(self):
        _checked(self, SFTConfig)
        if not self.completion_only_loss:
            raise ValueError("`completion_only_loss` false would learn the words of notes: leave it out.")
        if self.packing and self.packing_strategy != "bfd":
            raise ValueError(
                f"`packing_strategy` {self.packing_strategy!r} cuts notes, or lets one see another: leave it out (bfd keeps notes whole "
                "and apart)."
            )
        if self.packing != (self.max_length is not None):
            raise ValueError(
                "`packing` and `max_length`, the tokens of a pack, need each other; without them no note is cut."
            )


@dataclass
class GRPOArguments(_RunArguments, GRPOConfig):
    """trl's `GRPOConfig` with this task's defaults."""

    learning_rate: float = 5e-6
    beta: float = field(
        default=0.04, metadata={"help": "How much answers are held to those of the backbone (KL divergence)."}
    )
    gradient_checkpointing: bool = False
    save_strategy: str = "steps"
    save_steps: float = 50
    save_total_limit: int | None = 1
    logging_steps: float = 1
    report_to: str | None = "none"

    def __post_init__(self):
        _checked(self, GRPOConfig)
        if self.log_completions:
            raise ValueError("`log_completions` writes notes to the model's folder: leave it out.")


ARGUMENTS: dict[str, Any] = {"prompt": SFTArguments, "sft": SFTArguments, "grpo": GRPOArguments}
"""The class of the training arguments of each stage."""

"""Trains a generative coder: notes -> prompts and answers -> trl -> a folder of a plain language model that codes notes.

modeling-icd train generative_prompt --data_dir DIR     nothing is learned: the language model is asked
modeling-icd train generative_sft --data_dir DIR        it learns answers from notes (`SFTTrainer`)
modeling-icd train generative_grpo --data_dir DIR       then from rewards for its own answers (`GRPOTrainer`)
"""

import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import datasets
from peft import LoraConfig, PeftModel
from transformers import AutoTokenizer, PreTrainedModel, set_seed
from trl import GRPOTrainer, SFTTrainer, TrlParser

from dataset_scripts.arguments import PROGRAM
from dataset_scripts.counts import counted
from dataset_scripts.files import make_folder, read_json, write_json

from ..answers_icd import check_written, read_codes
from ..evaluation.decisions import check_notes, fit_decision
from ..generative_icd import GenerativeConfig, GenerativeForICD, is_generative, plain_fields
from ..inference.gguf import convert_smollm2
from ..inference.loading import describe_reader, load_config, load_language_model, to_device
from ..inference.loop import logits_of_tokens
from ..inference.model_folder import CANARIES_FILE, RUN_FILE, read_canaries
from ..inference.processes import first_process_first, first_process_only
from ..prompts_icd import Prompter
from ..sharing_icd import RETRIEVER
from ..training.arguments import DataArguments, check_report_to
from ..training.checkpoints import clear_write_errors, whole_checkpoint
from ..training.config_files import USAGE, given_field
from ..training.models import with_earlier
from ..training.notes import readable_notes, say_who_may_have, warn_of_empty_notes
from ..training.run import find_checkpoint, notes_to_learn, open_folders, parse, remember_notes, train_to_end
from ..training.saving import save
from .arguments import ARGUMENTS, STAGES, GenerativeArguments
from .examples import (
    about_examples,
    draw_shots,
    learning_examples,
    marked,
    reward_of,
    rewarded_examples,
    with_canaries,
)
from .verifying import gather_retriever, seal_retriever, verifying_examples


def run(arguments: list[str]) -> int:
    """Parse the arguments of `modeling-icd train` and train; returns the exit status."""
    stage = given_field(arguments, "stage")
    if stage not in STAGES:
        given = "" if stage is None else f", got {stage!r}"
        raise ValueError(f"`stage` of a generative coder must be one of {', '.join(STAGES)}{given}.")
    classes = [GenerativeArguments, DataArguments, ARGUMENTS[stage]]
    parser = TrlParser(classes, prog=f"{PROGRAM} train", add_help=False, usage=USAGE)
    own, data_args, args = parse(parser, arguments)
    return train_to_end(lambda: train(own, data_args, args), args)


class Materials(NamedTuple):
    """What a run is made from.

    Args:
        coder (`GenerativeForICD`): before it learns.
        tokenizer: its own.
        splits (`dict[str, datasets.Dataset]`): `training` and `validation`.
        counts (`dict[str, int]`): training notes of each code.
    """

    coder: GenerativeForICD
    tokenizer: Any
    splits: dict[str, datasets.Dataset]
    counts: dict[str, int]


def train(own: GenerativeArguments, data_args: DataArguments, args: Any) -> Path:
    """Makes one generative coder and writes it, its tokenizer and `run.json` to `args.output_dir`."""
    check_report_to(args)
    # Of the backbone nothing is frozen; publishing asks every run for that.
    run = {"model": {**asdict(own), "freeze_backbone": False}, "data": asdict(data_args), "training": args.to_dict()}
    output_dir, private_dir = open_folders(run, args)
    set_seed(args.seed)
    materials = gather(own, data_args, args, private_dir)
    coder, is_first = materials.coder, args.process_index == 0
    validation = readable_notes(
        materials.splits["validation"], materials.tokenizer, coder.config.label2id or {}, "validation"
    )
    gold = list(validation.tokens["label_ids"])
    check_notes(gold, args, validation.num_unknown)  # before training
    if is_fitted(args):
        coder.check_lengths([len(ids) for ids in validation.tokens["input_ids"]])
    if is_first:
        say_who_may_have(data_args, coder.config.training_data or {})
    log: list[dict[str, Any]] = []
    canaries = plant(own, materials.splits, args.seed, private_dir)
    if own.stage == "prompt":
        log = [{"train_runtime": 0.0, "epoch": 0.0, "step": 0}]
    else:
        trainer = make_trainer(own, data_args, args, materials)
        trainer.train(resume_from_checkpoint=find_checkpoint(args, coder.config.training_data or {}))
        log = trainer.state.log_history
        coder.model = merged(trainer.accelerator.unwrap_model(trainer.model))
    if is_fitted(args):
        to_device(coder, args.device)
        logits = logits_of_tokens(coder.eval(), validation.tokens["input_ids"], args.per_device_eval_batch_size)
        counts = list(materials.counts.values())
        decision = fit_decision(logits, gold, args, training_counts=counts, num_unknown=validation.num_unknown)
        coder.config.update(decision)
    coder.config.training_data = {**(coder.config.training_data or {}), "seed": args.seed}
    about = {**run, "log": log, "canaries": len(canaries)}
    first_process_only(lambda: save_coder(coder, materials.tokenizer, about, output_dir))
    return output_dir


def plant(
    own: GenerativeArguments, splits: dict[str, datasets.Dataset], seed: int, private_dir: Path
) -> list[dict[str, str]]:
    """Hide numbers in training notes if that is asked for, and write down which, with those that an earlier run hid in the notes
    that the backbone learned from; see [`with_canaries`]."""
    canaries = read_canaries(Path(own.backbone))
    if own.canaries:
        splits["training"], planted = with_canaries(splits["training"], own.canaries, seed)
        canaries += planted
    if canaries:
        first_process_only(lambda: write_json({"canaries": canaries}, private_dir / CANARIES_FILE, private=True))
    return canaries


def is_fitted(args: Any) -> bool:
    """Whether how codes are decided on is fitted on validation notes, for which all of them are read."""
    return args.threshold_rule != "fixed" or args.calibration != "none" or args.review_precision is not None


def gather(own: GenerativeArguments, data_args: DataArguments, args: Any, private_dir: Path) -> Materials:
    """Build the data set, load the language model, and make the coder of them."""
    builder, splits, learned_splits, training_data = notes_to_learn(data_args, args, private_dir)
    remember_notes(learned_splits, data_args, training_data, private_dir)
    counts = dict(training_data["code_counts"])
    backbone = own.backbone
    if backbone == "smollm2":
        backbone = first_process_first(lambda: str(convert_smollm2()))
    causal_config = load_config(backbone)
    earlier = dict(causal_config.generative) if is_generative(causal_config) else {}
    training_data = with_earlier(training_data, causal_config, backbone)
    settings = own.settings(earlier) | {"seed": args.seed}
    if earlier and args.process_index == 0:
        warn_of_another_prompt(earlier, settings)
    codes, titles = list(counts), builder.code_descriptions
    retriever, its_record = gather_retriever(
        own, settings["mode"], backbone, codes, Path(args.output_dir), private_dir
    )
    model = load_language_model(backbone, **{"dtype": "float32", **own.options()})
    tokenizer = AutoTokenizer.from_pretrained(backbone)
    config = GenerativeConfig(
        id2label=dict(enumerate(codes)),
        label2id={code: i for i, code in enumerate(codes)},
        code_descriptions={code: titles[code] for code in codes if code in titles},
        training_data={**training_data, **its_record},
        causal_config=plain_fields(model),
        generative=settings,
    )
    if own.stage == "grpo":
        check_written(codes)
    coder = GenerativeForICD(config, model, tokenizer, retriever)
    if own.shots:
        evidence = marked(splits["training"], data_args.data_dir, own.order)
        shots = draw_shots(splits["training"], coder.prompter, counts, evidence, own.shots, args.seed)
        config.generative = settings = {**settings, "examples": shots}
        coder = GenerativeForICD(config, model, tokenizer)
    check_context(coder)
    if settings["examples"]:  # those drawn here, or those that the backbone has in its prompt
        make_folder(args.output_dir, private=True, ours=True)
        held = counted(len(settings["examples"]), "training note")
        print(f"The prompt holds {held}: the model's folder is as confidential as they are.")
    return Materials(coder, tokenizer, splits, counts)


def warn_of_another_prompt(earlier: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Print a warning where a coder is made of another one and is asked in other words than that one was: a configuration file may
    say so unseen, and answers get worse."""
    for name in ("instruction", "question", "codes_in_prompt", "titles"):
        if name in earlier and earlier[name] != settings[name]:
            print(
                f"warning: the backbone was made with `{name}` {earlier[name]!r} and is now asked with {settings[name]!r}, so its answers "
                f"may be worse: give --{name} {earlier[name]!r} to ask as it has learned.",
                file=sys.stderr,
            )


def check_context(coder: GenerativeForICD) -> None:
    """Raise a `ValueError` where a prompt with the longest note and the answer may be longer than the language model reads."""
    context, limit = getattr(coder.model.config, "max_position_embeddings", None), coder.settings["max_note_tokens"]
    window = sliding_window(coder.model.config)
    if coder.verifies:
        return check_questions(coder, context, window)
    prompt, answer = len(coder.prompter.prompt([])), coder.grammar.max_tokens
    if context is not None and prompt + limit + answer > context:
        raise ValueError(
            f"`max_note_tokens` ({limit}) leaves no room for the prompt ({prompt} tokens) and the answer (up to {answer}): the language "
            f"model reads {context} tokens. Lower it, or `max_codes`, or leave out `shots` or `codes_in_prompt`."
        )
    beside = coder.settings["tree_tokens"]
    if window is not None and prompt + limit + answer + beside > window:
        raise ValueError(
            f"Layers of this language model attend within {window} tokens, and codes are scored from a cache of all of them: `max_note_tokens` "
            f"({limit}), the prompt ({prompt}), the answer (up to {answer}) and `tree_tokens` ({beside}) are more. Lower them, or take "
            "another language model."
        )


def check_questions(coder: GenerativeForICD, context: int | None, window: int | None) -> None:
    """As [`check_context`], of a coder that asks about single codes."""
    limit, number = coder.settings["max_note_tokens"], coder.settings["num_candidates"]
    prompt = len(coder.prompter.before)
    question = max(len(coder.verifier.question(class_id)) for class_id in range(coder.config.num_labels))
    question += sum(map(len, coder.verifier.answers))
    if context is not None and prompt + limit + question > context:
        raise ValueError(
            f"`max_note_tokens` ({limit}) leaves no room for what stands in front of a note ({prompt} tokens) and a question with its answer "
            f"(up to {question}): the language model reads {context} tokens. Lower it."
        )
    if window is not None and prompt + limit + number * question > window:
        raise ValueError(
            f"Layers of this language model attend within {window} tokens, and all candidates of a text are asked about beside each other: "
            f"`max_note_tokens` ({limit}), what stands in front ({prompt}) and `num_candidates` ({number}) questions of up to {question} are "
            "more. Lower them, or take another language model."
        )


def sliding_window(config: Any) -> int | None:
    """How many tokens back layers of a language model attend; `None` where all attend to all."""
    layers = getattr(config, "layer_types", None)
    slides = layers is None or "sliding_attention" in layers
    return getattr(config, "sliding_window", None) if slides else None


class _WholeCheckpoints:
    """What this project's checkpoints need, for a Trainer of trl: the record of the data, no half of a checkpoint, no card of trl,
    which would name folders, and nothing that is sent anywhere."""

    training_data: Mapping[str, Any]

    def create_model_card(self, *args, **kwargs):
        """No card: `modeling-icd publish` writes one."""

    def _send_telemetry(self):
        pass

    def _save(self, output_dir=None, state_dict=None):
        super()._save(output_dir, state_dict)  # type: ignore[misc]
        path = Path(output_dir or self.args.output_dir) / "config.json"  # type: ignore[attr-defined]
        fields = read_json(path, "train again.") if path.is_file() else {}
        write_json({**fields, "training_data": self.training_data}, path)

    def _save_checkpoint(self, model, trial):
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"  # type: ignore[attr-defined]
        with whole_checkpoint(folder, self.args.should_save):  # type: ignore[attr-defined]
            super()._save_checkpoint(model, trial)  # type: ignore[misc]


class CoderSFTTrainer(_WholeCheckpoints, SFTTrainer):
    pass


class CoderGRPOTrainer(_WholeCheckpoints, GRPOTrainer):
    prompter: Prompter

    def _tokenize_prompts(self, prompts):
        """The tokens of conversations as a coder reads them, in which the words of a note are no special tokens."""
        return [self.prompter.prompt(self.prompter.text_tokens(turns[-1]["content"])) for turns in prompts], None, {}


def make_trainer(own: GenerativeArguments, data_args: DataArguments, args: Any, materials: Materials) -> Any:
    """The Trainer of trl, for either stage that learns."""
    coder, tokenizer, splits, counts = materials
    shared: dict[str, Any] = {"args": args, "processing_class": tokenizer, "peft_config": lora(own)}
    validates = args.eval_strategy != "no"
    if own.stage == "sft":

        def examples(name: str) -> datasets.Dataset:
            if coder.verifies:
                return verifying_examples(splits[name], coder, own.negatives, name)
            evidence = marked(splits[name], data_args.data_dir, own.order)
            return learning_examples(splits[name], coder.prompter, coder.grammar, counts, evidence)

        learned = examples("training")
        check_packs(learned["length"], args.max_length)
        if args.process_index == 0:
            print(about_examples(learned))
        trainer: Any = CoderSFTTrainer(
            coder.model, train_dataset=learned, eval_dataset=examples("validation") if validates else None, **shared
        )
    else:
        args.max_completion_length = min(args.max_completion_length, coder.grammar.max_tokens)
        sets = {name: rewarded_examples(split, coder.prompter, counts) for name, split in splits.items()}
        trainer = CoderGRPOTrainer(
            coder.model,
            reward_funcs=reward_function(coder, own.invalid_penalty),
            train_dataset=sets["training"],
            eval_dataset=sets["validation"] if validates else None,
            **shared,
        )
        trainer.prompter = coder.prompter
    trainer.training_data = coder.config.training_data
    num_empty = sum(not text.strip() for text in splits["training"]["text"])
    if args.process_index == 0:
        warn_of_empty_notes(num_empty, 0)
    return trainer


def check_packs(lengths: Sequence[int], max_length: int | None) -> None:
    """Raise a `ValueError` where an example is longer than a pack, which would be cut."""
    too_long = sum(length > (max_length or length) for length in lengths)
    if too_long:
        raise ValueError(
            f"{too_long} of {len(lengths)} examples are longer than a pack (`max_length` {max_length}), the longest {max(lengths)} tokens, "
            "and none is cut: raise `max_length`, or leave `packing` out."
        )


def lora(own: GenerativeArguments) -> LoraConfig | None:
    """LoRA on all linear layers but the last one, if that is asked for."""
    if not own.lora_r:
        return None
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=own.lora_r,
        lora_alpha=own.lora_alpha,
        lora_dropout=own.lora_dropout,
        target_modules="all-linear",
    )


def reward_function(coder: GenerativeForICD, penalty: float) -> Any:
    """What `GRPOTrainer` asks for the rewards of answers; see [`reward_of`]. The curve is in the log, as `reward`."""
    label2id = coder.config.label2id or {}

    def f1_of_note(completions, gold, log_metric=None, **unused) -> list[float]:
        found = [read_codes(turns[0]["content"], label2id) for turns in completions]
        if log_metric is not None:
            log_metric("invalid_codes", sum(one.num_invalid for one in found) / len(found))
        return [
            reward_of(one.class_ids, one.num_invalid, [label2id[code] for code in right], penalty)
            for one, right in zip(found, gold, strict=True)
        ]

    return f1_of_note


def merged(model: Any) -> PreTrainedModel:
    """A trained language model with LoRA in its weights, and without what trl put in front of its `forward`."""
    if isinstance(model, PeftModel):
        model = model.merge_and_unload()
    vars(model).pop("forward", None)
    return model.eval()


def save_coder(coder: GenerativeForICD, tokenizer: Any, run: dict[str, Any], output_dir: Path) -> None:
    """Write the coder, its tokenizer and `run.json`.

    Raises:
        OSError: where they cannot be written; the checkpoints are left as they are.
    """
    with clear_write_errors(output_dir):
        save(coder, tokenizer, output_dir)
        if coder.verifies:
            seal_retriever(coder, output_dir)
        elif (output_dir / RETRIEVER).is_dir():  # of an earlier run
            shutil.rmtree(output_dir / RETRIEVER)
        write_json({**run, "reader": describe_reader(coder)}, output_dir / RUN_FILE)

"""`python train.py configs/NAME.yaml`: data set -> tokens -> model -> Trainer -> a folder that `from_pretrained` loads."""

import contextlib
import copy
import json
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path

import datasets
import numpy as np
import torch
from huggingface_hub import snapshot_download
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoTokenizer, EarlyStoppingCallback, Trainer, set_seed
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, IntervalStrategy, SaveStrategy
from trl import TrlParser

from dataset_scripts import load_builder, parse_options
from dataset_scripts.files import whole_folder, write_text
from dataset_scripts.marker import is_synthetic

from ..configuration_icd import LlamaMultiResCNNConfig
from ..evaluation import make_compute_metrics
from ..evaluation.data import load_config
from ..evaluation.decisions import fit_decision, missable_notes
from ..evaluation.results import weights_digest
from ..modeling_llama_icd import LlamaForICDCoding, LlamaICDPreTrainedModel, LlamaMultiResCNNForICD
from ..publishing.folder import ADAPTER_DIR, check_weights
from ..publishing.hub import PushError
from ..publishing.release import ADAPTER_WEIGHTS
from .arguments import DataArguments, ICDTrainingArguments, ModelArguments
from .collator import ICDCollator
from .convert_gguf import convert_gguf, find_smollm2
from .hidden_states import HiddenStates
from .push import evaluate_and_push, take_push_plan


MODEL_CLASSES = {"direct": LlamaForICDCoding, "multirescnn": LlamaMultiResCNNForICD}
# What the arguments say of the model itself; the larger of the two configurations has every such field.
MODEL_FIELDS = [field.name for field in fields(ModelArguments) if hasattr(LlamaMultiResCNNConfig, field.name)]
# A converted backbone is public and the same for every run, so it lies with the other downloaded models.
SMOLLM2_DIR = Path.home() / ".cache" / "modeling_icd" / "smollm2-135m-instruct"


def code_vocabulary(*splits: datasets.Dataset) -> list[str]:
    """The codes of the splits that are trained on, in the order of the data set's own classes."""
    names = splits[0].features["codes"].feature.names
    seen = {code for split in splits for codes in split["codes"] for code in codes}
    return [name for i, name in enumerate(names) if i in seen]


def count_codes(*splits: datasets.Dataset) -> dict[str, int]:
    """How many notes of these splits have each code, so that evaluation can tell frequent codes from rare ones."""
    names = splits[0].features["codes"].feature.names
    counts = Counter(code for split in splits for codes in split["codes"] for code in codes)
    return {names[i]: counts[i] for i in sorted(counts)}


def tokenize_split(split: datasets.Dataset, tokenizer, label2id: dict[str, int]) -> datasets.Dataset:
    """Notes as `input_ids` (whole, never truncated), `label_ids` and `length`; codes outside the vocabulary are left out."""
    names = split.features["codes"].feature.names
    label_of = [label2id.get(name) for name in names]

    def tokenize(batch):
        input_ids = tokenizer(batch["text"], verbose=False)["input_ids"]
        labels = [[label_of[c] for c in codes if label_of[c] is not None] for codes in batch["codes"]]
        return {"input_ids": input_ids, "label_ids": labels, "length": [len(ids) for ids in input_ids]}

    # In memory: what `map` caches is the note again, and nothing of it should outlive the run.
    return split.map(tokenize, batched=True, remove_columns=split.column_names, keep_in_memory=True, desc="Tokenizing")


def build_model(args: ModelArguments, backbone: str, codes: list[str], descriptions: Mapping[str, str], training_data):
    """Our model on a pretrained backbone, its head newly initialised; with LoRA, the head is trained and saved whole."""
    model_class = MODEL_CLASSES[args.model]
    config_class = model_class.config_class
    given = {name: value for name in MODEL_FIELDS if (value := getattr(args, name)) is not None}
    unknown = [name for name in given if not hasattr(config_class, name)]
    if unknown:
        raise ValueError(
            f"{unknown} are not fields of {config_class.__name__}: leave them out, or take another model."
        )
    backbone_config = load_config(backbone)
    if hasattr(backbone_config, "training_data"):
        # One of ours, trained further: the notes that it has seen stay on record, since publishing asks for them.
        training_data = {**training_data, "earlier": known_training_data(backbone_config, backbone)}
    config = config_class.from_backbone(
        backbone_config,
        id2label=dict(enumerate(codes)),
        label2id={code: i for i, code in enumerate(codes)},
        code_descriptions={code: descriptions[code] for code in codes if code in descriptions},
        training_data=training_data,
        **given,
    )
    try:
        model = model_class.from_pretrained(backbone, config=config, dtype=torch.float32)
    except RuntimeError:  # what the library makes of weights in other shapes
        raise ValueError(
            f"The head in {backbone} has other shapes than one for {len(codes)} codes and these options. To train its backbone "
            "further under a new head, load it, save `model.model` and the tokenizer to a folder, and give that."
        ) from None
    if not args.lora_r:
        return model
    depth = len(model.model.layers)
    if args.lora_layers_from >= depth:
        raise ValueError(f"`lora_layers_from` ({args.lora_layers_from}) leaves none of the {depth} layers to train.")
    projections = "q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj"
    layers = "|".join(str(i) for i in range(args.lora_layers_from, depth))
    return get_peft_model(
        model,
        LoraConfig(
            task_type="SEQ_CLS",
            r=args.lora_r,
            lora_alpha=args.lora_alpha,
            lora_dropout=args.lora_dropout,
            # The backbone's projections alone: heads have layers of their own.
            target_modules=rf"model\.layers\.({layers})\..*\.({projections})",
            modules_to_save=["score"],
        ),
    )


def known_training_data(backbone_config, backbone: str) -> dict | None:
    """What a model of ours was trained on, or `None` where its weights have changed since that was recorded."""
    training_data = backbone_config.training_data
    folder = backbone if Path(backbone).is_dir() else snapshot_download(backbone, allow_patterns="*.safetensors")
    try:
        check_weights(training_data, folder)
    except (ValueError, FileNotFoundError) as error:
        print(f"warning: {error} The new model counts as one of restricted data.", file=sys.stderr)
        return None
    return training_data


class ShuffledLengthGroupedSampler(LengthGroupedSampler):
    """Batches of notes of similar length, in random order.

    transformers' own goes from long notes to short ones, several times an epoch and so at its end: batch norm would be
    left with the statistics of the shortest notes.
    """

    def __iter__(self):
        indices = list(super().__iter__())
        size = self.batch_size
        full = len(indices) // size
        for batch in torch.randperm(full, generator=self.generator).tolist():
            yield from indices[batch * size : (batch + 1) * size]
        yield from indices[full * size :]


class ICDTrainer(Trainer):
    """Trainer that shuffles batches grouped by length, with a learning rate of its own for the head."""

    args: ICDTrainingArguments

    def _get_train_sampler(self, train_dataset=None):
        sampler = super()._get_train_sampler(train_dataset)
        if isinstance(sampler, LengthGroupedSampler):
            return ShuffledLengthGroupedSampler(sampler.batch_size, lengths=list(sampler.lengths))
        return sampler

    def _save(self, output_dir=None, state_dict=None):
        super()._save(output_dir, state_dict)
        if isinstance(self.model, PeftModel):  # an adapter alone would not say what it was trained on
            self.model.config.save_pretrained(output_dir or self.args.output_dir)

    def create_optimizer(self, model=None):
        if self.args.head_learning_rate is not None and self.optimizer is None:  # type: ignore[has-type]
            trained = [(n, p) for n, p in self.model.named_parameters() if p.requires_grad]
            head = [p for n, p in trained if "score." in n]
            rest = [p for n, p in trained if "score." not in n]
            groups: list[dict] = [{"params": head, "lr": self.args.head_learning_rate}, {"params": rest}]
            self.optimizer = torch.optim.AdamW(
                [group for group in groups if group["params"]],
                lr=self.args.learning_rate,
                weight_decay=self.args.weight_decay,
            )
        return super().create_optimizer(model)


def train(model_args: ModelArguments, data_args: DataArguments, args: ICDTrainingArguments) -> Path:
    """Trains one model and writes it, its tokenizer and `run.json` to `args.output_dir`.

    How scores become decisions (calibration, thresholds, what is to be reviewed) is fitted on the validation split and
    saved in the model's configuration. With `refit_on_validation` the model that is saved has learned from validation too,
    after that was fitted.
    """
    if args.push_to_hub:
        raise ValueError("`train` uploads nothing: push the model with `python -m modeling_icd.publishing`.")
    set_seed(args.seed)
    output_dir = Path(args.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    # What can be turned back into notes never lies in the folder that is published.
    private_dir = Path(f"{output_dir}-private")
    options = data_args.dataset_options or []
    builder = load_builder(
        data_args.dataset,
        data_args.dataset_config,
        data_dir=data_args.data_dir,
        cache_dir=data_args.data_cache_dir or private_dir / "cache",
        **parse_options(data_args.dataset, options, "--dataset_options"),
    )
    train_split, validation_split = builder.as_dataset(split="train"), builder.as_dataset(split="validation")
    if data_args.max_train_notes is not None:
        train_split = train_split.select(range(min(data_args.max_train_notes, len(train_split))))
    learned_splits = [train_split, *([validation_split] if args.refit_on_validation else [])]
    codes = code_vocabulary(*learned_splits)
    backbone = (
        str(convert_gguf(find_smollm2(), SMOLLM2_DIR)) if model_args.backbone == "smollm2" else model_args.backbone
    )
    load_config(backbone)
    tokenizer = AutoTokenizer.from_pretrained(backbone)
    training_data = {
        "dataset": data_args.dataset,
        "config": builder.config.name,
        # Evaluation reads its notes in the same way. A path is of this machine alone.
        "options": [pair for pair in options if not pair.partition("=")[0].endswith(("_dir", "_file"))],
        "synthetic": is_synthetic(builder.config.data_dir),
        "code_counts": count_codes(*learned_splits),
    }
    model = build_model(model_args, backbone, codes, builder.code_descriptions, training_data)
    splits = {
        "train": tokenize_split(train_split, tokenizer, model.config.label2id),
        "validation": tokenize_split(validation_split, tokenizer, model.config.label2id),
    }
    gold = list(splits["validation"]["label_ids"])
    num_unknown = [len(c) - len(known) for c, known in zip(validation_split["codes"], gold, strict=True)]
    if args.target_recall is not None:
        missable_notes([len(known) for known in gold], num_unknown, args.target_recall)  # now, not after training
    print(
        f"{len(train_split)} notes to train on, {len(validation_split)} to validate on, {len(codes)} codes; "
        f"{sum(p.numel() for p in model.parameters() if p.requires_grad):,} trained weights"
    )
    store = None
    if model_args.freeze_backbone:
        model.to(args.device)
        store = HiddenStates(
            Path(data_args.hidden_states_dir or private_dir / "hidden_states"), model, data_args.hidden_states_dtype
        )
        store.fill(ids for split in splits.values() for ids in split["input_ids"])

    pad_token_id = next(x for x in (model.config.pad_token_id, tokenizer.pad_token_id, 0) if x is not None)
    collator = ICDCollator(len(codes), pad_token_id, store)
    resume = args.resume_from_checkpoint
    if isinstance(resume, str) and resume.lower() in ("true", "last"):
        resume = last_complete_checkpoint(output_dir)
    if resume:
        check_same_data(Path(resume), model.config.training_data)
    trainer = make_trainer(model, args, splits["train"], splits["validation"], collator, tokenizer)
    trainer.train(resume_from_checkpoint=resume)
    decision = fit_decision(
        predict_logits(trainer, splits["validation"]),
        gold,
        args,
        training_counts=[training_data["code_counts"].get(code, 0) for code in codes],
        num_unknown=num_unknown,
    )
    log = trainer.state.log_history
    if args.refit_on_validation:
        set_seed(args.seed)
        model = build_model(model_args, backbone, codes, builder.code_descriptions, training_data)
        trainer = make_trainer(
            model, args, datasets.concatenate_datasets(list(splits.values())), None, collator, tokenizer
        )
        trainer.train()
        log = [*log, *trainer.state.log_history]
    final = trainer.accelerator.unwrap_model(trainer.model)
    if model_args.lora_r:
        if model_args.save_adapter:
            save_adapter(final, output_dir / ADAPTER_DIR)
            final.config.training_data["adapter"] = weights_digest(output_dir / ADAPTER_DIR, ADAPTER_WEIGHTS)
        final = final.merge_and_unload()
    final.config.update(decision)
    final.config.training_data["seed"] = args.seed
    save(final, tokenizer, output_dir)
    run = {"model": asdict(model_args), "data": asdict(data_args), "training": args.to_dict()}
    run["log"] = log
    write_text(json.dumps(run, indent=2, default=str), output_dir / "run.json")
    return output_dir


def last_complete_checkpoint(output_dir: Path) -> str | None:
    """The newest checkpoint that was written to its end, or `None`; a killed run may leave a newer, broken one."""
    complete = {}
    for state in output_dir.glob(f"{PREFIX_CHECKPOINT_DIR}-*/{TRAINER_STATE_NAME}"):  # which is written last
        with contextlib.suppress(ValueError):
            complete[json.loads(state.read_text())["global_step"]] = str(state.parent)
    return complete[max(complete)] if complete else None


def check_same_data(checkpoint: Path, training_data: dict) -> None:
    """Refuse a checkpoint of other data: the finished model would say nothing of them.

    Raises:
        ValueError: where the checkpoint was trained on other data, or does not say on which.
    """
    config = checkpoint / "config.json"
    recorded = json.loads(config.read_text())["training_data"] if config.is_file() else None
    if recorded != json.loads(json.dumps(training_data)):
        raise ValueError(
            f"The checkpoint {checkpoint} is not of a run on these data and this backbone: resume with the arguments that "
            "it was started with, or give a finished model as `backbone` to train it further."
        )


def make_trainer(
    model,
    args: ICDTrainingArguments,
    train_split: datasets.Dataset,
    validation_split: datasets.Dataset | None,
    collator: ICDCollator,
    tokenizer,
) -> ICDTrainer:
    """A trainer over tokenized splits; without a validation split it neither evaluates nor keeps checkpoints."""
    if validation_split is None:
        args = copy.copy(args)
        args.eval_strategy, args.save_strategy = IntervalStrategy.NO, SaveStrategy.NO
        args.load_best_model_at_end = False
    patience = args.early_stopping_patience
    return ICDTrainer(
        model=model,
        args=args,
        train_dataset=train_split,
        eval_dataset=validation_split,
        data_collator=collator,
        compute_metrics=make_compute_metrics(
            collator.num_labels, tune_threshold=True, score_storage=args.score_storage
        ),
        processing_class=tokenizer,
        callbacks=[EarlyStoppingCallback(patience)] if patience is not None else [],
    )


@torch.no_grad()
def predict_logits(trainer: Trainer, split: datasets.Dataset) -> np.ndarray:
    """Logits of a split, fp32 `(N, C)`, in its own order; notes of similar length share a batch.

    The Trainer's own loader would give notes in another order than their labels.
    """
    trainer.model.eval()
    order = np.argsort(split["length"], kind="stable")
    logits = []
    for start in range(0, len(order), trainer.args.eval_batch_size):
        rows = order[start : start + trainer.args.eval_batch_size]
        batch = trainer.data_collator([split[int(row)] for row in rows])
        batch.pop("labels")
        inputs = {name: values.to(trainer.args.device) for name, values in batch.items()}
        logits.append(trainer.model(**inputs).logits.float().cpu().numpy())
    return np.concatenate(logits)[np.argsort(order)]


def save(model: LlamaICDPreTrainedModel, tokenizer, output_dir: Path) -> None:
    """The folder that `from_pretrained`, `pipeline` and the Hub read."""
    model.config.use_cache = False
    for path in output_dir.glob("model*.safetensors*"):
        path.unlink()  # of an earlier run: cut into other files than these, it would stay among them
    model.save_pretrained(output_dir)
    tokenizer.save_pretrained(output_dir)
    # Binds what the configuration says of the training data to these weights and no others.
    model.config.training_data = {**(model.config.training_data or {}), "weights": weights_digest(output_dir)}
    model.config.save_pretrained(output_dir)


def save_adapter(model: PeftModel, folder: Path) -> None:
    """LoRA's matrices and the head, which load over the pretrained backbone."""
    with whole_folder(folder) as partial:
        model.save_pretrained(partial, save_embedding_layers=False)


def main(arguments: list[str] | None = None) -> int:
    """The command line: a YAML file first, then any field of the three argument classes."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    parser = TrlParser([ModelArguments, DataArguments, ICDTrainingArguments])
    if arguments and not arguments[0].startswith("-"):
        arguments = ["--config", *arguments]
    try:
        if "--config" in arguments[:1] and not Path(arguments[1]).is_file():
            raise FileNotFoundError(f"No configuration file {arguments[1]}; configs/ holds those of this project.")
        model_args, data_args, training_args = parser.parse_args_and_config(arguments)
        plan = take_push_plan(model_args, training_args)
        output_dir = train(model_args, data_args, training_args)
        print(output_dir)
    except (ValueError, OSError, PushError) as error:  # transformers reports a missing backbone as an OSError
        print(f"error: {error}", file=sys.stderr)
        return 2
    if plan is None or not training_args.should_save:  # one of several processes pushes
        return 0
    return evaluate_and_push(plan, output_dir, data_args, training_args.per_device_eval_batch_size)

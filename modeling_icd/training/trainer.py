"""`ICDTrainer`: a `Trainer` that takes notes with codes as they are; batches by length; evaluation and prediction."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from peft import PeftModel
from torch import distributed
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, IntervalStrategy, SaveStrategy

from dataset_scripts.files import make_folder

from ..evaluation import make_compute_metrics
from ..evaluation.decide import check_readable, training_counts
from ..evaluation.decisions import DecisionArguments, check_notes, fit_decision
from ..inference.hidden_states import HiddenStates
from ..inference.loop import predict_logits
from ..inference.processes import first_process_only
from ..inference.tokens import is_raw
from ..modeling_icd import ModelForICDCoding
from .arguments import HEAD_STARTS, ICDTrainingArguments
from .arithmetic import fast_steps
from .checkpoints import check_same_backbone, whole_checkpoint
from .collator import ICDCollator, multi_hot
from .diagnostics import Diagnostics, is_of_head
from .label_graph import give_graph
from .notes import TokenizedNotes, evaluation_notes, notes_per_code, readable_notes, warn
from .processes import fill_states, share_buffers
from .sampler import SamplerEpoch, ShuffledLengthGroupedSampler
from .sharding import prepare_sharded
from .start import MAX_START_NOTES, start_head


KEPT_IN_MIND = 4  # tokenized sets whose hidden states are known to be there; of others they are looked for again


class ICDTrainer(Trainer):
    """Trainer of ICD coding models, which takes notes with codes as they are.

    A data set of *raw notes* has the columns `text` and `codes`: lists of code strings, or of ids of a `ClassLabel` as the
    builders of this project give them, or texts such as `"401.9;428.0"`. Wherever the Trainer takes a data set, it takes raw
    notes: it tokenizes them in memory, makes its own collator, and computes the metrics of this project, with a threshold tuned
    for best micro F1 among them (`f1_micro_tuned`). In training, notes without text and codes that the model does not know are
    left out; in evaluation, every gold code of such a note and every such code counts as missed. One warning says how many
    there are. Data sets with `input_ids` go through as they are.

    A model that is trained on raw notes counts as one of restricted data, since nothing is known of whose the notes are.

    Args:
        model: one of this project's, whose `config.label2id` has the codes to learn.
        args (`TrainingArguments`, *optional*): plain ones, or [`ICDTrainingArguments`].
        processing_class (*optional*): the backbone's tokenizer; raw notes need it.
        compute_metrics (`Callable`, *optional*): in place of this project's; it sees only the codes that the model knows.
        head_start (`str`): how a new head is started from raw training notes at the first call of [`train`]: from what sets
            the `notes` of each code apart, at the log odds of the codes (`prior`), or `random`. See [`start_head`]; with
            `model_init`, or LoRA on the model, call that yourself.
        hidden_states_dir (`str` or `Path`, *optional*): a folder where what a frozen backbone makes of raw notes is kept, so
            that it reads each note once, and not in every epoch. The folder is as confidential as the notes.
        hidden_states_format (`str`): in which form they are kept there; see state_formats.py. With the default each token takes
            2 bytes times the hidden size.
        diagnostics (`Diagnostics`, *optional*): what is logged at each evaluation beside the metrics.

    Raises:
        ValueError: where raw notes lack a column or are streamed, no note has text, none has a code that the model knows, or
            the tokenizer is missing; where `hidden_states_dir` is given and the backbone is not frozen.
    """

    args: ICDTrainingArguments

    def __init__(
        self,
        model=None,
        args=None,
        data_collator=None,
        train_dataset=None,
        eval_dataset=None,
        processing_class=None,
        *,
        head_start: str = "notes",
        hidden_states_dir: str | Path | None = None,
        hidden_states_format: str = "float16",
        diagnostics: Diagnostics | None = None,
        callbacks: list[TrainerCallback] | None = None,
        **kwargs,
    ):
        if head_start not in HEAD_STARTS:
            raise ValueError(f"`head_start` must be one of {', '.join(HEAD_STARTS)}, got {head_start!r}.")
        self.head_start, self.diagnostics = head_start, diagnostics
        self.is_collating = data_collator is None
        self.hidden_states_dir, self.hidden_states_format = hidden_states_dir, hidden_states_format
        self.hidden_states: HiddenStates | None = None
        self.with_states: list[Any] = []  # tokenized notes whose hidden states are there
        learns_from_notes = is_raw(train_dataset)
        patience = getattr(args, "early_stopping_patience", None)
        if patience is not None:
            callbacks = [*(callbacks or []), EarlyStoppingCallback(patience)]
        # transformers refuses a quantised model without an adapter, but the head, which learns, is never quantised.
        is_quantised = getattr(model, "is_quantized", False)
        if is_quantised:
            model.is_quantized = False
        super().__init__(
            model, args, data_collator, train_dataset, eval_dataset, processing_class, callbacks=callbacks, **kwargs
        )
        if is_quantised:
            model.is_quantized = True
        prepare_sharded(self)
        if hidden_states_dir is not None:
            self.keep_hidden_states(data_collator)
        self.own_metrics = False
        self.num_columns: int | None = None  # of the metrics of this project in the evaluation that runs now
        # Raw notes, and what was made of them; of those that were not given here the last ones alone.
        self.evaluated: list[tuple[Any, TokenizedNotes]] = []
        self.num_kept: int | None = None
        self.raw_train_dataset = train_dataset if learns_from_notes else None
        self.counts: dict[str, int] | None = None  # training notes of each code, where they are raw
        self.is_recorded = False
        if learns_from_notes:
            self.train_dataset = self.notes_to_learn_from(train_dataset)
        if isinstance(eval_dataset, dict):
            self.eval_dataset = {name: self.tokens_of(notes) for name, notes in eval_dataset.items()}
        elif eval_dataset is not None:
            self.eval_dataset = self.tokens_of(eval_dataset)
        self.num_kept = len(self.evaluated)

    @property
    def bare_model(self):
        """The model without what several processes wrap it in."""
        return self.accelerator.unwrap_model(self.model)

    def notes_to_learn_from(self, notes: datasets.Dataset) -> datasets.Dataset:
        """Tokenize raw training notes, and count their codes."""
        self.take_raw_notes()
        config = self.bare_model.config
        found = readable_notes(notes, self.processing_class, config.label2id, "training")
        counts = notes_per_code(found.tokens["label_ids"], config.num_labels)
        num_unknown = sum(found.num_unknown)
        if not counts.any():
            raise ValueError(
                f"No training note has one of the model's {config.num_labels} codes, such as {config.id2label[0]!r}: are those "
                "of the notes written in the same way, with the dot? `code_vocabulary(notes)` lists them for `id2label`."
            )
        self.say(len(found.empty_gold), "training notes have no text: they are left out.")
        self.say(num_unknown, "codes of training notes are none that the model knows: they are left out.")
        self.counts = {config.id2label[i]: int(count) for i, count in enumerate(counts) if count}
        return found.tokens

    def tokens_of(self, notes: Any) -> Any:
        """A data set to evaluate on, raw notes tokenized."""
        if not is_raw(notes):
            return notes
        for raw, found in self.evaluated:
            if raw is notes:
                return found.tokens
        self.take_raw_notes()
        found = evaluation_notes(notes, self.processing_class, self.bare_model.config.label2id, "evaluation")
        self.say(len(found.empty_gold), "notes to evaluate on have no text: each of their codes counts as missed.")
        self.say(
            sum(found.num_unknown),
            "codes of notes to evaluate on are none that the model knows: each counts as missed.",
        )
        if self.num_kept is not None:
            del self.evaluated[self.num_kept :]
        self.evaluated.append((notes, found))
        return found.tokens

    def take_raw_notes(self) -> None:
        """Make ready for raw notes: the collator reads columns that no model has, and metrics are those of this project.

        Raises:
            ValueError: where there is no tokenizer.
        """
        if self.processing_class is None:
            raise ValueError(
                "Raw notes need the backbone's tokenizer: `processing_class=AutoTokenizer.from_pretrained(BACKBONE)`."
            )
        if self.args.remove_unused_columns:
            self.args = copy.copy(self.args)  # the user's own stay as they are
            self.args.remove_unused_columns = False
        num_labels = self.bare_model.config.num_labels
        if self.is_collating:
            self.data_collator = ICDCollator(num_labels, hidden_states=self.hidden_states)
            self.is_collating = False
        if self.compute_metrics is None:  # type: ignore[has-type]
            self.compute_metrics, self.own_metrics = self.metrics_over(num_labels), True

    def keep_hidden_states(self, data_collator: Any) -> None:
        """Open the cache of a frozen backbone's hidden states, and let the Trainer's own collator read from it.

        Raises:
            ValueError: where the backbone is not frozen, or the collator is another one.
        """
        model = self.bare_model
        if not getattr(model.config, "has_fixed_states", False):
            raise ValueError(
                "`hidden_states_dir` keeps what a frozen backbone gives, and this one learns, or the mix of its layers does: load the "
                "model with `freeze_backbone=True` and without `layer_mix`, or leave it out."
            )
        if data_collator is not None:
            raise ValueError("`hidden_states_dir` is read by the Trainer's own collator: leave `data_collator` out.")
        folder = make_folder(str(self.hidden_states_dir), private=True)
        self.hidden_states = HiddenStates(folder, model, self.hidden_states_format)
        self.data_collator = ICDCollator(model.config.num_labels, hidden_states=self.hidden_states)
        self.is_collating = False

    def fill_hidden_states(self, tokens: Any) -> None:
        """Compute the hidden states of these tokenized notes, where they are to be kept and are not there yet."""
        store = self.hidden_states
        if store is not None and not any(tokens is filled for filled in self.with_states):
            if not store.is_open and self.train_dataset is None:
                raise ValueError(
                    f"`hidden_states_format` {store.format.name} is fitted on training notes: give a `train_dataset`, too."
                )
            fill_states(store, [tokens] if store.is_open else [self.train_dataset, tokens], self.args)
            store.check_head(self.bare_model.score)
            self.with_states = [*self.with_states, tokens][-KEPT_IN_MIND:]

    def metrics_over(self, num_columns: int):
        """The metrics of this project over the model's codes and those that it does not know, which have the last columns."""
        storage = getattr(self.args, "score_storage", "uint16")
        return make_compute_metrics(num_columns, tune_threshold=True, score_storage=storage, count_codes=True)

    def say(self, number: int, what: str) -> None:
        """Warn of a number of notes or codes, if there are any, once for all processes."""
        if number and self.args.process_index == 0:
            warn(f"{number:,} {what}")

    def _get_train_sampler(self, train_dataset=None):
        sampler = super()._get_train_sampler(train_dataset)
        if not isinstance(sampler, LengthGroupedSampler):
            return sampler
        args = self.args
        seed = args.seed if args.data_seed is None else args.data_seed
        sampler = ShuffledLengthGroupedSampler(
            sampler.batch_size * args.world_size, lengths=list(sampler.lengths), seed=seed
        )
        # The loaders of several processes do not tell it the epoch where a run is resumed within one.
        self.remove_callback(SamplerEpoch)
        self.add_callback(SamplerEpoch(sampler))
        return sampler

    def create_optimizer(self, model=None):
        is_new = self.optimizer is None  # type: ignore[has-type]
        optimizer = super().create_optimizer(model)
        learning_rate = getattr(self.args, "head_learning_rate", None)
        if is_new and learning_rate is not None:
            model = self.model if model is None else model
            head = {id(p) for name, p in model.named_parameters() if is_of_head(name)}
            set_head_learning_rate(optimizer, head, learning_rate)
        return optimizer

    def train(self, resume_from_checkpoint=None, *args, **kwargs):
        """As in transformers; before, a new head is started from raw notes, and the model's record of training data written."""
        if self.train_dataset is not None:
            self.fill_hidden_states(self.train_dataset)
        if self.raw_train_dataset is not None:
            if not resume_from_checkpoint:
                self.start_new_head()
            self.bare_model.head_is_new = False  # a second call goes on with it
            self.record_training_data()
        result = super().train(resume_from_checkpoint, *args, **kwargs)
        self.fold_into_head()
        return result

    def compute_loss(self, model, inputs, *args, **kwargs):
        # What is computed again in the backward pass, outside of this, must be computed in the same way.
        head_alone = isinstance(model, ModelForICDCoding) and "hidden_states" in inputs
        parts = (model.score if head_alone else model).modules()
        is_again = any(getattr(part, "gradient_checkpointing", False) for part in parts)
        with nullcontext() if is_again else fast_steps(self.args.device):
            return super().compute_loss(model, inputs, *args, **kwargs)

    def fold_into_head(self) -> None:
        """Let the head give for whole hidden states what it gives for those of the cache; see [`HiddenStates.fold_into`]. For
        the latter it gives the same as before, so that training can go on."""
        store = getattr(self.data_collator, "hidden_states", None)
        if store is not None and store.is_open:
            store.fold_into(self.bare_model.score)

    def save_model(self, *args, **kwargs):
        self.fold_into_head()
        super().save_model(*args, **kwargs)

    def start_new_head(self) -> None:
        """Start the head as `head_start` says, unless it was loaded with its model, started, or trained before."""
        model = self.bare_model
        if not getattr(model, "head_is_new", False):
            return
        if not isinstance(model, PeftModel):
            give_graph(model, self.train_dataset)
        if self.head_start == "random":
            return
        if isinstance(model, PeftModel):
            if self.args.process_index == 0:
                warn("a head within LoRA is not started from the notes: call `start_head` before `get_peft_model`.")
            return
        start_head(
            model,
            self.train_dataset,
            None if self.hidden_states is None else self.hidden_states.read,
            MAX_START_NOTES if self.head_start == "notes" else 0,
            self.args.seed,
            show_progress=not self.args.disable_tqdm,
        )

    def record_training_data(self) -> None:
        """Write into the model's configuration that it learns from notes of which nothing is known but their codes."""
        config = self.bare_model.config
        if self.is_recorded:
            return
        earlier = getattr(config, "training_data", None)
        config.training_data = {
            **{"synthetic": False, "open": False, "code_counts": self.counts, "seed": self.args.seed},
            **({} if earlier is None else {"earlier": earlier}),
        }
        self.is_recorded = True

    def training_step(self, *args, **kwargs):
        loss = super().training_step(*args, **kwargs)
        if not torch.isfinite(loss):
            raise ValueError(
                f"The loss is {loss.item()} at step {self.state.global_step + 1}: nothing is learned from here on. Lower "
                "`learning_rate`, or train in float32; where it is the first step, see whether the backbone's weights are "
                "whole."
            )
        return loss

    def _get_grad_norm(self, model, grad_norm=None):
        grad_norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        if self.diagnostics is not None:
            self.diagnostics.gradients.add_step(self.model, grad_norm)
        return grad_norm

    def evaluate(self, eval_dataset=None, *args, **kwargs):
        """As in transformers, of raw notes too."""
        if eval_dataset is not None and not isinstance(eval_dataset, dict | str):
            eval_dataset = self.tokens_of(eval_dataset)
        return super().evaluate(eval_dataset, *args, **kwargs)

    def predict(self, test_dataset, *args, **kwargs):
        """As in transformers, of raw notes too; notes without text are not among the predictions.

        Returns:
            `predictions`, logits `(N, C)` of the notes with text, in their order, `label_ids` `(N, C)`, and `metrics`.

        Raises:
            ValueError: where raw notes have no `codes` to compare with.
        """
        if is_raw(test_dataset) and "codes" not in test_dataset.column_names:
            raise ValueError(
                "These notes have no `codes` to compare with. To code them, save the model and give their texts to "
                '`pipeline("icd-coding", model=FOLDER, trust_remote_code=True)`.'
            )
        return super().predict(self.tokens_of(test_dataset), *args, **kwargs)

    def evaluation_loop(self, dataloader, *args, metric_key_prefix: str = "eval", **kwargs):
        share_buffers(self.model, self.args)
        found = next((found for _, found in self.evaluated if found.tokens is dataloader.dataset), None)
        self.fill_hidden_states(dataloader.dataset)
        with self.metrics_of(found):
            output = super().evaluation_loop(dataloader, *args, metric_key_prefix=metric_key_prefix, **kwargs)
        if found is not None and isinstance(output.predictions, np.ndarray):
            num_labels = self.bare_model.config.num_labels
            output = output._replace(
                predictions=output.predictions[:, :num_labels], label_ids=output.label_ids[:, :num_labels]
            )
        if self.diagnostics is not None and metric_key_prefix == "eval":
            figures = self.diagnostics.at_evaluation(self)
            output.metrics.update({f"eval_{name}": value for name, value in figures.items()})
        return output

    @contextmanager
    def metrics_of(self, notes: TokenizedNotes | None) -> Iterator[None]:
        """While raw notes are evaluated, let the metrics of this project know the codes that the model does not know, and the
        notes that it cannot read."""
        if notes is None or not self.own_metrics:
            yield
            return
        usual, num_columns = self.compute_metrics, notes.num_columns
        metrics = self.metrics_over(num_columns)
        self.num_columns = num_columns
        self.compute_metrics = count_as_missed(metrics, notes.empty_gold, num_columns) if notes.empty_gold else metrics
        try:
            yield
        finally:
            self.compute_metrics, self.num_columns = usual, None

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """As in transformers; codes that the model does not know get columns behind its own, with a score of 0."""
        unknown_ids = inputs.pop("unknown_ids", None)
        loss, logits, labels = super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
        if self.num_columns is None or unknown_ids is None or logits is None:
            return loss, logits, labels
        logits = logits[0] if isinstance(logits, tuple) else logits  # (B, C)
        missing = self.num_columns - logits.shape[1]
        ids = [[code - logits.shape[1] for code in of_note if code >= 0] for of_note in unknown_ids.tolist()]
        unknown = multi_hot(ids, missing).to(labels)
        never = logits.new_full((len(logits), missing), -torch.inf)
        return loss, torch.cat([logits, never], dim=1), torch.cat([labels, unknown], dim=1)

    def fit_decision(
        self, notes: datasets.Dataset | None = None, args: DecisionArguments | None = None
    ) -> dict[str, Any]:
        """Fit how the model decides (calibration, threshold rule, what is to be reviewed), and write it into its configuration.

        Args:
            notes (`datasets.Dataset`, *optional*): raw or tokenized notes that the model has not learned from; by default the
                `eval_dataset`.
            args (`DecisionArguments`, *optional*): what to fit; by default as the Trainer's own arguments say, and with plain
                ones one threshold for the best micro F1.

        Returns:
            The fields that are now in `model.config`; see [`~modeling_icd.evaluation.decisions.fit_decision`].

        Raises:
            ValueError: where there are no notes, none has a code that the model knows, or the rule promises what they cannot
                show.
        """
        if args is None:
            args = self.args if isinstance(self.args, DecisionArguments) else DecisionArguments()
        notes = self.eval_dataset if notes is None else notes
        if notes is None or isinstance(notes, dict):
            raise ValueError(
                "`fit_decision` needs one data set of notes that the model has not learned from: `notes=...`."
            )
        if any(are_same(notes, learned) for learned in (self.raw_train_dataset, self.train_dataset)):
            self.say(
                len(notes),
                "notes to fit a decision on are those that the model learned from: thresholds will be too high.",
            )
        tokens = self.tokens_of(notes)
        found = next((found for _, found in self.evaluated if found.tokens is tokens), None)
        gold, num_unknown = list(tokens["label_ids"]), None
        if found is not None:
            num_unknown = found.num_unknown
            check_readable(len(found.empty_gold), len(found.empty_gold) + len(gold), args)
        check_notes(gold, args, num_unknown)
        self.fill_hidden_states(tokens)
        logits = predict_split(self, tokens)
        config = self.bare_model.config
        counts = training_counts(config)
        decision = first_process_only(
            lambda: fit_decision(logits, gold, args, training_counts=counts, num_unknown=num_unknown)
        )
        config.update(decision)
        return decision

    def _save(self, output_dir=None, state_dict=None):
        super()._save(output_dir, state_dict)
        if isinstance(self.model, PeftModel):  # an adapter alone would not say what it was trained on
            self.model.config.save_pretrained(output_dir or self.args.output_dir)

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        check_same_backbone(Path(resume_from_checkpoint), self.bare_model)
        super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _save_rng_state(self, output_dir):
        super()._save_rng_state(output_dir)
        if self.args.world_size > 1:
            distributed.barrier()  # the file that makes a checkpoint complete comes after those of all processes

    def _save_checkpoint(self, model, trial):
        folder = Path(self._get_output_dir(trial)) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        with whole_checkpoint(folder, self.args.should_save):
            super()._save_checkpoint(model, trial)


def are_same(notes: Any, others: Any) -> bool:
    """Whether two data sets hold the same notes: they are one object, or were made from the same data in the same way."""
    fingerprint = getattr(notes, "_fingerprint", None)
    return notes is others or (fingerprint is not None and fingerprint == getattr(others, "_fingerprint", None))


def set_head_learning_rate(optimizer: torch.optim.Optimizer, head: set[int], learning_rate: float) -> None:
    """Split every group of an optimizer that has not stepped yet, so that the head's weights have their own rate.

    All else of a group stays as it is: betas, epsilon, weight decay. The head's groups come first, since the rate of the
    first group is the one that is logged.

    Args:
        head (`set[int]`): `id` of each of the head's parameters.

    Raises:
        ValueError: where the optimizer does not hold them.
    """
    groups = []
    for is_head in (True, False):
        for group in optimizer.param_groups:
            params = [p for p in group["params"] if (id(p) in head) == is_head]
            if params:
                groups.append({**group, "params": params, **({"lr": learning_rate} if is_head else {})})
    if not groups or groups[0]["lr"] != learning_rate:
        raise ValueError(
            f"`head_learning_rate` has no effect with {type(optimizer).__name__}, which does not hold the head's weights in "
            "groups: leave it out, or take another `optim`."
        )
    optimizer.param_groups[:] = groups


def make_trainer(
    model,
    args: ICDTrainingArguments,
    train_split: datasets.Dataset,
    validation_split: datasets.Dataset | None,
    collator: ICDCollator,
    tokenizer,
    empty_gold: list[list[int]] | None = None,
    further: Sequence[datasets.Dataset] = (),
) -> ICDTrainer:
    """A trainer over tokenized splits; without a validation split it neither evaluates nor keeps checkpoints.

    Args:
        empty_gold (`list[list[int]]`, *optional*): codes of validation notes without text, which are not in
            `validation_split`: no code is predicted for them, so each of theirs counts as missed.
        further (`Sequence[datasets.Dataset]`): what else is learned from, tokenized as the training notes are; the figures that
            are logged, such as the codes' frequencies, are those of the notes alone.
    """
    if validation_split is None:
        args = copy.copy(args)
        args.eval_strategy, args.save_strategy = IntervalStrategy.NO, SaveStrategy.NO
        args.load_best_model_at_end = False
    compute_metrics = make_compute_metrics(
        collator.num_labels, tune_threshold=True, score_storage=args.score_storage, count_codes=True
    )
    diagnostics = None
    if validation_split is not None:
        diagnostics = Diagnostics(train_split, validation_split, collator.num_labels, empty_gold or [])
    return ICDTrainer(
        model=model,
        args=args,
        train_dataset=datasets.concatenate_datasets([train_split, *further]) if further else train_split,
        eval_dataset=validation_split,
        data_collator=collator,
        compute_metrics=(
            count_as_missed(compute_metrics, empty_gold, collator.num_labels) if empty_gold else compute_metrics
        ),
        processing_class=tokenizer,
        diagnostics=diagnostics,
    )


def count_as_missed(compute_metrics, gold: list[list[int]], num_columns: int) -> Callable[..., dict[str, float]]:
    """Wraps `compute_metrics`, so that notes which no model can read are included, with scores of 0."""
    labels = multi_hot(gold, num_columns).numpy()

    def compute(prediction, compute_result: bool = True):
        if compute_result:
            compute_metrics.accumulator.add_batch(np.zeros_like(labels), labels)
        return compute_metrics(prediction, compute_result)

    return compute


def predict_split(trainer: Trainer, split: datasets.Dataset) -> np.ndarray:
    """Logits of a tokenized split, fp32 `(N, C)`, in its order; processes share the batches, and each returns all logits.

    The Trainer's own data loader would change the order of the notes, but not that of their labels.
    """
    args = trainer.args
    share_buffers(trainer.model, args)
    return predict_logits(
        trainer.model,
        list(split["input_ids"]),
        args.eval_batch_size,
        getattr(trainer.data_collator, "hidden_states", None),
        process=args.process_index,
        num_processes=args.world_size,
        show_progress=not args.disable_tqdm,
    )

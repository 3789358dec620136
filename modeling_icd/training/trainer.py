"""`ICDTrainer`: a `Trainer` with batches by length and a separate learning rate for the head; evaluation and prediction."""

import copy
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import torch
from peft import PeftModel
from torch import distributed
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback
from transformers.trainer_pt_utils import LengthGroupedSampler, get_length_grouped_indices
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, IntervalStrategy, SaveStrategy

from ..evaluation import make_compute_metrics
from ..inference.loop import predict_logits
from .arguments import ICDTrainingArguments
from .checkpoints import whole_checkpoint
from .collator import ICDCollator, multi_hot
from .diagnostics import Diagnostics, is_of_head
from .processes import share_buffers


class ShuffledLengthGroupedSampler(LengthGroupedSampler):
    """Batches of notes of similar length in random order, which depends only on the seed and the epoch.

    So all processes of a run use the same order, and a resumed run continues in the order of the interrupted one.
    transformers' own goes from long notes to short ones, several times an epoch and so at its end: batch norm would be
    left with the statistics of the shortest notes.

    Args:
        batch_size (`int`): notes of one step, over all processes.
        lengths (`list[int]`): tokens of every note.
        seed (`int`): seeds the order, together with the epoch (see [`set_epoch`]).
    """

    def __init__(self, batch_size: int, lengths: list[int], seed: int = 0):
        super().__init__(batch_size, lengths=lengths)
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self):
        generator = torch.Generator()
        generator.manual_seed(int(np.random.SeedSequence([self.seed, self.epoch]).generate_state(1)[0]))
        indices = get_length_grouped_indices(self.lengths, self.batch_size, generator=generator)
        size = self.batch_size
        full = len(indices) // size
        for batch in torch.randperm(full, generator=generator).tolist():
            yield from indices[batch * size : (batch + 1) * size]
        yield from indices[full * size :]


class ICDTrainer(Trainer):
    """Trainer that shuffles batches grouped by length, with a learning rate of its own for the head.

    Args:
        diagnostics (`Diagnostics`, *optional*): what is logged at each evaluation beside the metrics.
    """

    args: ICDTrainingArguments

    def __init__(self, model, *args, diagnostics: Diagnostics | None = None, **kwargs):
        self.diagnostics = diagnostics
        # transformers refuses a quantised model without an adapter, but the head, which learns, is never quantised.
        is_quantised = getattr(model, "is_quantized", False)
        if is_quantised:
            model.is_quantized = False
        super().__init__(model, *args, **kwargs)
        if is_quantised:
            model.is_quantized = True

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
        if is_new and self.args.head_learning_rate is not None:
            model = self.model if model is None else model
            head = {id(p) for name, p in model.named_parameters() if is_of_head(name)}
            set_head_learning_rate(optimizer, head, self.args.head_learning_rate)
        return optimizer

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

    def evaluation_loop(self, *args, metric_key_prefix: str = "eval", **kwargs):
        share_buffers(self.model, self.args)
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        if self.diagnostics is not None and metric_key_prefix == "eval":
            found = self.diagnostics.at_evaluation(self)
            output.metrics.update({f"eval_{name}": value for name, value in found.items()})
        return output

    def _save(self, output_dir=None, state_dict=None):
        super()._save(output_dir, state_dict)
        if isinstance(self.model, PeftModel):  # an adapter alone would not say what it was trained on
            self.model.config.save_pretrained(output_dir or self.args.output_dir)

    def _save_rng_state(self, output_dir):
        super()._save_rng_state(output_dir)
        if self.args.world_size > 1:
            distributed.barrier()  # the file that makes a checkpoint complete comes after those of all processes

    def _save_checkpoint(self, model, trial):
        folder = Path(self._get_output_dir(trial)) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        with whole_checkpoint(folder, self.args.should_save):
            super()._save_checkpoint(model, trial)


class SamplerEpoch(TrainerCallback):
    """Callback that tells a sampler which epoch begins."""

    def __init__(self, sampler: ShuffledLengthGroupedSampler):
        self.sampler = sampler

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.sampler.set_epoch(int(state.epoch or 0))


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
) -> ICDTrainer:
    """A trainer over tokenized splits; without a validation split it neither evaluates nor keeps checkpoints.

    Args:
        empty_gold (`list[list[int]]`, *optional*): codes of validation notes without text, which are not in
            `validation_split`: no code is predicted for them, so each of theirs counts as missed.
    """
    if validation_split is None:
        args = copy.copy(args)
        args.eval_strategy, args.save_strategy = IntervalStrategy.NO, SaveStrategy.NO
        args.load_best_model_at_end = False
    patience = args.early_stopping_patience
    compute_metrics = make_compute_metrics(
        collator.num_labels, tune_threshold=True, score_storage=args.score_storage, count_codes=True
    )
    diagnostics = None
    if validation_split is not None:
        diagnostics = Diagnostics(train_split, validation_split, collator.num_labels, empty_gold or [])
    return ICDTrainer(
        model=model,
        args=args,
        train_dataset=train_split,
        eval_dataset=validation_split,
        data_collator=collator,
        compute_metrics=count_as_missed(compute_metrics, empty_gold, collator) if empty_gold else compute_metrics,
        processing_class=tokenizer,
        callbacks=[EarlyStoppingCallback(patience)] if patience is not None else [],
        diagnostics=diagnostics,
    )


def count_as_missed(compute_metrics, gold: list[list[int]], collator: ICDCollator) -> Callable[..., dict[str, float]]:
    """Wraps `compute_metrics`, so that notes which no model can read are included, with scores of 0."""
    labels = multi_hot(gold, collator.num_labels).numpy()

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
        trainer.data_collator.hidden_states,
        process=args.process_index,
        num_processes=args.world_size,
        show_progress=not args.disable_tqdm,
    )

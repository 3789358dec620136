"""The order in which a training reads its notes: batches of similar length, in random order."""

import numpy as np
import torch
from transformers import TrainerCallback
from transformers.trainer_pt_utils import LengthGroupedSampler, get_length_grouped_indices


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


class SamplerEpoch(TrainerCallback):
    """Callback that tells a sampler which epoch begins."""

    def __init__(self, sampler: ShuffledLengthGroupedSampler):
        self.sampler = sampler

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.sampler.set_epoch(int(state.epoch or 0))

"""The stage of prediction: codes one chunk of notes, and writes its part. The same class works in the process of the command,
in worker processes, and as an actor of Ray Data."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ..pipeline_icd import CPU_BATCH_TOKENS, ICDCodingPipeline
from .linear import fast_linear_layers
from .loading import ReaderArguments, load_model
from .predict_notes import ChunkReader, Notes
from .predict_parts import Part, Parts


# Notes that the model reads together at most. On a CPU a batch is bounded by its tokens, so that only short notes are many.
BATCH_SIZE, CPU_BATCH_SIZE = 8, 32


@dataclass(frozen=True)
class Job:
    """All that a process needs to know of a run; it can be sent to another.

    Args:
        model (`str`): a folder or Hub id.
        notes (`Notes`): what to code.
        parts (`Parts`): where finished chunks go.
        rule (`dict`): `threshold`, `top_k`, `num_spans` of the pipeline, where given.
        batch_size (`int`, *optional*): notes that the model reads together at most.
        trust_remote_code (`bool`): whether to run code that came with the model.
        reader (`ReaderArguments`): how to load it.
    """

    model: str
    notes: Notes
    parts: Parts
    rule: Mapping[str, Any] = field(default_factory=dict)
    batch_size: int | None = None
    trust_remote_code: bool = False
    reader: ReaderArguments = field(default_factory=ReaderArguments)


def load_pipeline(model_id: str, trust_remote_code: bool, reader: ReaderArguments) -> ICDCodingPipeline:
    """A model as `pipeline("icd-coding")`, set up to read long notes; raises as `load_model` does."""
    # Of each note it says how it is cast, and that `kernels`, which nothing here needs, is not installed.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    model, tokenizer = load_model(model_id, trust_remote_code, reader)
    if model.device.type == "cpu" and hasattr(model, "tokens_per_pass"):
        # One window of a long note at a time, as one batch of short notes: more would leave the processor's caches, and the
        # last window, which is shorter, would be padded.
        model.tokens_per_pass = CPU_BATCH_TOKENS
    return ICDCodingPipeline(model=model, tokenizer=tokenizer, device=model.device)


class NoteCoder:
    """Codes notes with a model that it loads, as `pipeline("icd-coding")` codes them.

    Args:
        job (`Job`): the run.

    Raises:
        ValueError, FileNotFoundError: as `load_model` does.
    """

    def __init__(self, job: Job):
        self.job = job
        self.pipeline = load_pipeline(job.model, job.trust_remote_code, job.reader)
        self.batch_size = job.batch_size or (CPU_BATCH_SIZE if self.pipeline.device.type == "cpu" else BATCH_SIZE)
        self.chunks = ChunkReader(job.notes)

    def code_notes(self, texts: Sequence[str]) -> list[list[dict[str, Any]]]:
        """The codes of each note, as the pipeline gives them."""
        with fast_linear_layers(self.pipeline.device):
            return self.pipeline(list(texts), batch_size=self.batch_size, **self.job.rule)

    def code_chunk(self, number: int) -> Part:
        """Code a chunk and write its part.

        Raises:
            ValueError: where the model gives NaN or infinity; the message says which rows the chunk has.
        """
        rows = self.chunks.read(number)
        try:
            coded = iter(self.code_notes([row.text for row in rows if not row.reason]))
        except ValueError as error:
            raise ValueError(
                f"Rows {rows[0].row} to {rows[-1].row} of {self.job.notes.path} cannot be coded: {error}"
            ) from None
        return self.job.parts.write(
            number,
            (
                {"row": row.row, "id": row.id, **({"reason": row.reason} if row.reason else {"codes": next(coded)})}
                for row in rows
            ),
        )

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[int]]:
        """As an actor of Ray Data: codes the chunks whose numbers `batch["chunk"]` has, but for those that are finished, and
        says how many notes each holds."""
        parts = [self.job.parts.check(number) or self.code_chunk(number) for number in map(int, batch["chunk"])]
        return {"notes": [part.notes for part in parts]}


def use_device(worker: int) -> None:
    """Give worker number `worker` a GPU of its own where there are several."""
    if torch.cuda.is_available():
        torch.cuda.set_device(worker % torch.cuda.device_count())

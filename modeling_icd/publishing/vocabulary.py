"""Removes rare words, such as names, from a vocabulary of whole words before it is published.

They are removed from the tokenizer and the embeddings of the published copy, which reads them as unknown; every other
word keeps its embedding. The model's own folder stays as it is.
"""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from ..sharing_icd import files_digest, is_sealed, seal_training_data
from .folder import read_content, weights_header
from .privacy import TrainingNotes
from .release import WEIGHTS, WEIGHTS_INDEX_FILE, as_json
from .tokens import SAVE_AGAIN, check_largest_id, load_tokenizer, read_tokenizer, vocabulary_of


# Of a Llama and of a reader of words; and the vectors that DR-CAML reads the titles of codes with.
EMBEDDINGS = re.compile(r"(model\.(embed_tokens|embeddings)|score\.(members\.\d+\.)?title_words)\.weight")
# Other files of a tokenizer repeat its vocabulary; `tokenizer.json` alone is a whole one.
REPEATED = {"vocab.json", "vocab.txt", "merges.txt", "added_tokens.json", "tokenizer.model"}
NOTES_PER_BATCH = 256


def drop_rare_words(
    files: Mapping[str, Path | bytes], notes: TrainingNotes, min_notes: int, work_dir: str | Path
) -> tuple[dict[str, Path | bytes], int]:
    """Take the words that fewer than `min_notes` training notes have out of the files of a release.

    A tokenizer of pieces of words is left as it is. Changed weights go into `work_dir`.

    Returns:
        The files, and how many words left.

    Raises:
        ValueError: where the tokenizer has no token for unknown words, or an adapter would go out, whose embeddings are
            those of another repository.
    """
    tokenizer = read_tokenizer(files["tokenizer.json"]) if "tokenizer.json" in files else {"model": {}}
    if tokenizer["model"].get("type") != "WordLevel":
        return dict(files), 0
    if tokenizer["model"].get("unk_token") not in tokenizer["model"]["vocab"]:
        raise ValueError(
            "tokenizer.json has no token for unknown words, which rare words have to become: give it one."
        )
    ids = vocabulary_of(tokenizer)
    kept = frequent_tokens(tokenizer, notes, min_notes)
    num_dropped = len(set(ids.values()) - set(kept))
    if not num_dropped:
        return dict(files), 0
    if any(name.startswith("adapter_model") for name in files):
        raise ValueError(
            f"{num_dropped} words of the adapter's vocabulary are in fewer than {min_notes} training notes, and the "
            "embeddings lie in the backbone's repository: push the merged model, without `--adapter`."
        )
    new_id = {old: new for new, old in enumerate(kept)}
    changed = {name: content for name, content in files.items() if name not in REPEATED}
    changed["tokenizer.json"] = as_json(_shorten_tokenizer(tokenizer, new_id))
    if "tokenizer_config.json" in files:
        config = json.loads(read_content(files["tokenizer_config.json"]))
        if "added_tokens_decoder" in config:
            added = config["added_tokens_decoder"].items()
            config["added_tokens_decoder"] = {str(new_id[int(i)]): token for i, token in added if int(i) in new_id}
        changed["tokenizer_config.json"] = as_json(config)
    changed |= _shorten_embeddings(changed, kept, Path(work_dir))
    config = _shorten_config(json.loads(read_content(files["config.json"])), new_id)
    weights = [path for name, path in sorted(changed.items()) if WEIGHTS.fullmatch(name)]
    if weights and config.get("training_data"):
        record = {**config["training_data"], "weights": files_digest(weights)}  # type: ignore[arg-type]  # they are paths
        config["training_data"] = seal_training_data(record) if is_sealed(config["training_data"]) else record
    changed["config.json"] = as_json(config)
    return changed, num_dropped


def frequent_tokens(tokenizer: Mapping[str, Any], notes: TrainingNotes, min_notes: int) -> list[int]:
    """Ids of the tokens that at least so many notes have, and of the special ones, in order."""
    reader = load_tokenizer(tokenizer)
    reader.no_padding()
    reader.no_truncation()
    ids = vocabulary_of(tokenizer)
    counts = np.zeros(max(ids.values()) + 1, np.int64)
    texts: list[str] = []

    def count() -> None:
        for encoding in reader.encode_batch_fast(texts, add_special_tokens=False):
            counts[np.unique(encoding.ids).astype(np.int64)] += 1
        texts.clear()

    for record in notes.records:
        texts.append(record["text"])
        if len(texts) == NOTES_PER_BATCH:
            count()
    count()
    special = {token["id"] for token in tokenizer.get("added_tokens") or [] if token["special"]}
    special.add(ids[tokenizer["model"]["unk_token"]])
    if tokenizer.get("padding"):
        special.add(tokenizer["padding"]["pad_id"])
    _change_ids(tokenizer.get("post_processor") or {}, special.add)  # those that it puts around a text
    if unknown := special - set(ids.values()):
        raise ValueError(
            f"`padding` or `post_processor` of tokenizer.json names the id {min(unknown)}, which no token has: {SAVE_AGAIN}"
        )
    return sorted(i for i in set(ids.values()) if i in special or counts[i] >= min_notes)


def _change_ids(processor: Mapping[str, Any], change: Callable[[int], Any]) -> dict[str, Any]:
    """A post-processor of any type, each id in it changed."""
    changed = dict(processor)
    if "processors" in processor:
        changed["processors"] = [_change_ids(part, change) for part in processor["processors"]]
    if "special_tokens" in processor:
        tokens = processor["special_tokens"].items()
        changed["special_tokens"] = {
            name: {**token, "ids": [change(i) for i in token["ids"]]} for name, token in tokens
        }
    for name in {"sep", "cls"} & processor.keys():
        token, i = processor[name]
        changed[name] = [token, change(i)]
    return changed


def _shorten_tokenizer(tokenizer: dict[str, Any], new_id: Mapping[int, int]) -> dict[str, Any]:
    vocabulary = {word: new_id[i] for word, i in tokenizer["model"]["vocab"].items() if i in new_id}
    all_added = tokenizer.get("added_tokens") or []
    added = [{**token, "id": new_id[token["id"]]} for token in all_added if token["id"] in new_id]
    shorter = {**tokenizer, "model": {**tokenizer["model"], "vocab": vocabulary}, "added_tokens": added}
    if tokenizer.get("padding"):
        shorter["padding"] = {**tokenizer["padding"], "pad_id": new_id[tokenizer["padding"]["pad_id"]]}
    if tokenizer.get("post_processor"):
        shorter["post_processor"] = _change_ids(tokenizer["post_processor"], new_id.__getitem__)
    return shorter


def _shorten_config(config: dict[str, Any], new_id: Mapping[int, int]) -> dict[str, Any]:
    """With the new size of the vocabulary and the new ids of special tokens; one that named a rare word names nothing."""

    def renumber(value: Any) -> Any:
        return [new_id[i] for i in value if i in new_id] if isinstance(value, list) else new_id.get(value)

    renumbered = {key: renumber(value) for key, value in config.items() if key.endswith("_token_id")}
    if "backbone_config" in config:
        shorter = {**config, **renumbered, "backbone_config": _shorten_config(config["backbone_config"], new_id)}
        if (config.get("head_options") or {}).get("description_words"):
            shorter["head_options"] = {**config["head_options"], "description_words": len(new_id)}
        return shorter
    return {**config, **renumbered, "vocab_size": len(new_id)}


def _shorten_embeddings(files: Mapping[str, Path | bytes], kept: list[int], work_dir: Path) -> dict[str, Path | bytes]:
    """The files of weights that have embeddings, and the index of the files where there is one."""
    weights = {name: path for name, path in files.items() if isinstance(path, Path) and path.suffix == ".safetensors"}
    changed: dict[str, Path | bytes] = {}
    removed_weights = removed_bytes = 0
    for name, path in weights.items():
        header = weights_header(path)
        found = [tensor for tensor in header.shapes if EMBEDDINGS.fullmatch(tensor)]
        if not found:
            continue
        tensors = load_file(path)
        for tensor in found:
            old = tensors[tensor]
            check_largest_id(kept, len(old))
            tensors[tensor] = old[torch.tensor(kept)].clone()
            removed_weights += old.numel() - tensors[tensor].numel()
            removed_bytes += old.nbytes - tensors[tensor].nbytes
        save_file(tensors, work_dir / name, header.metadata or None)
        changed[name] = work_dir / name
    if changed and WEIGHTS_INDEX_FILE in files:
        index = json.loads(read_content(files[WEIGHTS_INDEX_FILE]))
        for key, size in (("total_size", removed_bytes), ("total_parameters", removed_weights)):
            if key in index["metadata"]:
                index["metadata"][key] -= size
        changed[WEIGHTS_INDEX_FILE] = as_json(index)
    return changed

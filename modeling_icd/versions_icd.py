"""The version of this code, and what models saved by other versions mean by their configuration."""

import re
from typing import Any


VERSION = "0.2.0"
"""Of this project: the one place that the distribution, the package and every saved model take it from."""


def check_version(version: str | None) -> None:
    """Refuse a configuration that newer code has written: its fields or weights may mean something else here.

    The layout of a saved model changes with the first two figures of the version, and older layouts are read.

    Args:
        version (`str`, *optional*): Version of the code that wrote it; older code wrote none.

    Raises:
        ValueError: where it is newer than this code, or not a version; the message says which code to use.
    """
    if version is None:
        return
    own_code = "the code that was saved with it (`trust_remote_code=True`, where modeling_icd has not been imported)"
    match = re.match(r"(\d+)\.(\d+)(\.|$)", str(version))
    if match is None:
        raise ValueError(
            f"`modeling_icd_version` ({version!r}) is no version, so the layout of this model is not known: load it with "
            f"{own_code}."
        )
    if tuple(map(int, match.groups()[:2])) > tuple(map(int, VERSION.split(".")[:2])):
        raise ValueError(
            f"This model was saved by modeling-icd {version}, and this is {VERSION}, which does not know its layout: load "
            f"it with modeling-icd {version} or newer, or with {own_code}."
        )


def with_older_meaning(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of a saved configuration; where version 0.1 saved it, with what was meant by fields that it lacks."""
    is_ours = fields.get("model_type") in ("icd", "llama_icd", "llama_multirescnn_icd")
    if not is_ours or not re.match(r"0\.1(\.|$)", str(fields.get("modeling_icd_version") or "0.1")):
        return fields
    fields = {"loss_reduction": "mean", **fields}
    if fields.get("model_type") == "llama_multirescnn_icd":
        return {"architecture": "paper", **fields}
    if fields.get("head") == "multirescnn":
        return {**fields, "head_options": {"architecture": "paper", **(fields.get("head_options") or {})}}
    return fields

"""What Meta's licenses ask of whoever shares a model that was made with a Llama of theirs."""

import re
from typing import NamedTuple


class LlamaTerms(NamedTuple):
    """Of one generation of Llama.

    Args:
        built_with (`str`): the words that the license asks for, e.g. "Built with Llama 2".
        license (`str`): its id on the Hub.
        name (`str`): its name.
        url (`str`): its text.
        notice (`str`): the notice that goes with every copy.
    """

    built_with: str
    license: str
    name: str
    url: str
    notice: str


# `meta-llama/Llama-2-7b-hf`, and models that others made of one and named after it; not SmolLM2, TinyLlama or OpenLLaMA, and
# not a size in place of a generation (`llama-3b`). Code Llama is under the license of Llama 2.
_NAME = re.compile(r"(?:^|[/_-])(?<!open[_-])(?:meta-)?llama[_-]?(2|3(?:[._][1-3])?|4)(?![\d.b])", re.IGNORECASE)
_CODE_LLAMA = re.compile(r"code-?llama", re.IGNORECASE)


def llama_terms(base_model: str | None) -> LlamaTerms | None:
    """The terms of a backbone, by its Hub id; `None` where it is not known to come from a Llama of Meta, or there is none."""
    if base_model is None:
        return None
    found = _NAME.search(base_model)
    if found is None and not _CODE_LLAMA.search(base_model):
        return None
    version = "2" if found is None else found.group(1).replace("_", ".")
    title = {"2": "Llama 2", "3": "Meta Llama 3"}.get(version, f"Llama {version}")
    pages = {"2": "https://ai.meta.com/llama/license/"}
    license_name = f"{title.upper() if version == '2' else title} Community License"
    return LlamaTerms(
        built_with=f"Built with {title if version in ('2', '3') else 'Llama'}",
        license=f"llama{version}",
        name=license_name,
        url=pages.get(version, f"https://www.llama.com/llama{version.replace('.', '_')}/license/"),
        notice=f"{title} is licensed under the {license_name}, Copyright (c) Meta Platforms, Inc. All Rights Reserved.",
    )

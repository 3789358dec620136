"""What the card of a fused model says of its parts: which it is made of, what its evidence is, and whose titles are in its tensors."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from ..configuration_icd import head_of
from ..fusion_features_icd import PARTS
from ..fusion_icd import FusionConfig, parts_with_evidence


class TitleSource(NamedTuple):
    """Where titles in another language than that of the classification come from.

    Args:
        language (`str`): in a sentence.
        package (`str`): on PyPI.
        version (`str`): of the package, whose metadata say what follows.
        url (`str`): of the package.
        license (`str`): as the package states it.
        origin (`str`): where the package has them from, as it says.
        author (`str`): of the package.
    """

    language: str
    package: str
    version: str
    url: str
    license: str
    origin: str
    author: str

    @property
    def rights(self) -> str:
        """Whose words these are, and under which terms, as the card and NOTICE say it."""
        return (
            f"words of titles of ICD-10 in {self.language}, from the package {self.package} ({self.url}) of {self.author}, which as of "
            f"version {self.version} is under the license {self.license} and has them from {self.origin}; of the rights of the World "
            "Health Organization in the text of ICD-10 it says nothing"
        )


# By the `title_language` of a run. What is said here stands in the metadata of the package, which has no other file on its license.
TITLE_SOURCES = {
    "es": TitleSource(
        language="Spanish",
        package="cie",
        version="0.208",
        url="https://pypi.org/project/cie/",
        license="MIT",
        origin="icdcode.info and deis.cl",
        author="Andrés Vazquez",
    )
}
# What the evidence of each part does, behind "the text that is shown".
_EVIDENCE = {
    "phrases": "says a term that training notes mark for it",
    "titles": "says its title",
    "head": "weighs most in the head for it",
}


def is_fused(config: Mapping[str, Any]) -> bool:
    """Whether a model joins tables, and a head over hidden states."""
    return config.get("model_type") == FusionConfig.model_type


def parts_of(config: Mapping[str, Any]) -> tuple[str, ...]:
    """What a fused model is joined of; of any other model nothing."""
    if not is_fused(config):
        return ()
    return PARTS if config.get("parts") is None else tuple(config["parts"])


def tables_of(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The parts of a fused model that are tables, which its trees weigh."""
    return tuple(part for part in parts_of(config) if part not in ("words", "head"))


def lacks_head(config: Mapping[str, Any]) -> bool:
    """Whether this is a fused model that reads no hidden states."""
    return is_fused(config) and "head" not in parts_of(config)


def evidence_of(config: Mapping[str, Any]) -> str | None:
    """What the text that a fused model shows behind a code does; `None` where it has none to show."""
    shown = parts_with_evidence(parts_of(config), head_of(config).attends)
    return ", or ".join(_EVIDENCE[part] for part in shown) or None


def title_source(config: Mapping[str, Any], run: Mapping[str, Any]) -> TitleSource | None:
    """Whose titles in another language are in the tensors of a fused model, by its `config.json` and its `run.json`; `None` where there
    are none."""
    if "titles" not in parts_of(config):
        return None
    return TITLE_SOURCES.get(run["model"].get("title_language"))

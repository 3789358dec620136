"""Coders that come with the package, there before anything is trained: small research models of published cases.

Each is a head-only folder over SmolLM2, built by `python -m benchmarks.coders` from CodiEsp (CC BY 4.0), with its card and its
results beside it. `modeling-icd try`, `predict` and `space` take them by name.
"""

from pathlib import Path


CODERS_DIR = Path(__file__).parent
CODERS = {
    "codiesp-en": "all diagnoses of CodiEsp's training cases, in English (ICD-10-CM)",
    "codiesp-en-top50": "the 50 most frequent of them, in English",
    "codiesp-es": "all of them, in Spanish",
}
DEFAULT_CODER = "codiesp-en"
NOTICE = (
    "A small research model of 500 published cases. It assists, does not decide, and is not for use in care: check each code. "
    "It does not understand denials such as 'no fever'."
)


def find_coder(model: str) -> str:
    """The folder of a coder that comes with the package, by its name; any other folder or Hub id as it is given."""
    return str(CODERS_DIR / model) if model in CODERS and not Path(model).exists() else model


def notice_of(model: str) -> str | None:
    """What to say of a model before its codes, where it is one of those that come with the package."""
    return NOTICE if Path(find_coder(model)).parent == CODERS_DIR else None

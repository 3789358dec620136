"""Which source files anyone may have: known by what is in them, since any notes can lie under a public data set's name."""

import hashlib
import logging
from collections.abc import Iterable
from pathlib import Path

from .records import ICDBuilder


logger = logging.getLogger(__name__)

# SHA-256 over those of all files that a configuration reads; see [`content_digest`]. A copy with other documents, or other
# line ends, is not known here, and counts as restricted until someone who has compared it with the original adds it.
PUBLIC_CONTENT: dict[str, frozenset[str]] = {
    # 780 of the challenge's 978 training reports, as its file came through a public repository.
    "CMC2007": frozenset({"5191b68f0e6b26db2fd9463fb4ff8e36d407ef12d535e68055715d3eb41b910a"}),
    # Version 3, all of `train` and half of `dev`.
    "CodiEsp": frozenset(
        {
            "11d06968f1ffcbdd1ec5a80d13aa4ffc606cb2b69e5e82d0f0f7cd358b1f03c1",  # English, with the background cases
            "c7ad845c636bc30aa2abdecd05ebab0af37a587c041eeefd4999aae7dd6d7df6",  # English
            "8e45f3664fad204175e0ab12404ac010969bdbd27d00236a0a4c84dac976b5ac",  # Spanish
        }
    ),
}


def is_public(builder: ICDBuilder) -> bool:
    """Whether a data set is made from published files that anyone may have, and from no other.

    Args:
        builder (`ICDBuilder`): Of any data set.
    """
    name = type(builder).__name__
    if name not in PUBLIC_CONTENT:
        return False
    is_known = content_digest(builder._find_sources(builder.config)) in PUBLIC_CONTENT[name]
    if not is_known:
        logger.warning(
            "These files of %s are none of the published ones that this project knows (dataset_scripts/builders/public_files.py), so a "
            "model that is trained on them counts as one of restricted data.",
            name,
        )
    return is_known


def content_digest(files: Iterable[Path]) -> str:
    """SHA-256 over what is in some files, whatever they are called and in whatever order."""
    digests = sorted(hashlib.sha256(file.read_bytes()).hexdigest() for file in files)
    return hashlib.sha256(" ".join(digests).encode()).hexdigest()

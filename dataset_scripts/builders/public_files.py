"""Tells whether source files are published, open data: compares a digest of their content with known ones."""

import hashlib
import logging
from collections.abc import Iterable
from pathlib import Path

from ..marker import is_synthetic
from .own_files import OwnFiles
from .records import ICDBuilder


logger = logging.getLogger(__name__)


def is_public(builder: ICDBuilder) -> bool:
    """Whether a data set is made from published files that anyone may have, and from no other.

    A copy with other documents, or other line ends, is not known, and counts as restricted until someone who has
    compared it with the original adds its digest to the `PUBLIC_CONTENT` of the builder.

    Args:
        builder (`ICDBuilder`): Of any data set.
    """
    if not builder.PUBLIC_CONTENT:
        return False
    is_known = content_digest(builder._find_sources(builder.config)) in builder.PUBLIC_CONTENT
    if not is_known:
        logger.warning(
            "These files of %s are not among the published ones that this project knows (`PUBLIC_CONTENT` of the builder), so "
            "a model that is trained on them counts as one of restricted data.",
            type(builder).__name__,
        )
    return is_known


def content_digest(files: Iterable[Path]) -> str:
    """SHA-256 over what is in some files, whatever they are called and in whatever order."""
    digests = sorted(hashlib.sha256(file.read_bytes()).hexdigest() for file in files)
    return hashlib.sha256(" ".join(digests).encode()).hexdigest()


def is_invented(builder: ICDBuilder) -> bool:
    """Whether a data set is read from an invented corpus, as this project wrote it.

    The user's own files are none: the marker of a corpus says nothing of other files that lie beside it.
    """
    return not isinstance(builder, OwnFiles) and is_synthetic(builder.config.data_dir)

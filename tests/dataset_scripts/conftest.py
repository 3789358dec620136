"""`folder` and `build` are of MIMIC-III where a module has none of its own; `build_own` is of the user's own notes."""

from mimic3_tables import build, folder
from own_tables import build_own


__all__ = ["build", "build_own", "folder"]

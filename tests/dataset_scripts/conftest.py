"""`folder` and `build` are of MIMIC-III where a module has none of its own."""

from mimic3_tables import build, folder


__all__ = ["build", "folder"]

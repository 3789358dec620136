"""Commands for special needs, each in a file of its own; run `python -m modeling_icd.extras.NAME --help`."""

import argparse


def command_parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """The parser of one of these commands, which is described by the docstring of its module."""
    return argparse.ArgumentParser(
        prog=f"python -m modeling_icd.extras.{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )

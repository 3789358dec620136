"""Codes one note, and shows on the console which words each code was read from.

    modeling-icd try "Admitted with fever and cough. Chest X-ray: pneumonia."
    modeling-icd try --file note.txt --model codiesp-es
    modeling-icd try

Without a note, an invented one is coded. What is typed on the command line stays in the shell's history: give real notes
as a file, or as `--file -` through a pipe.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text
from transformers.utils.logging import disable_progress_bar

from dataset_scripts.arguments import command_parser
from dataset_scripts.command import run_command

from ..coders import CODERS, DEFAULT_CODER, find_coder, notice_of
from .loading import ReaderArguments
from .predict_coder import load_pipeline


EXAMPLE = (
    "A 61-year-old woman with type 2 diabetes and arterial hypertension came in with fever, cough and shortness of breath of "
    "three days. The chest X-ray showed pneumonia of the right lower lobe. On the second day urine output fell and creatinine "
    "rose to 3.1: acute renal failure, which recovered with intravenous fluids. Abdominal pain and vomiting on the fourth "
    "day; the ultrasound found gallstones. She went home on antibiotics."
)
EXAMPLES = {
    "codiesp-es": "Mujer de 61 años con diabetes mellitus tipo 2 e hipertensión arterial que acude por fiebre, tos y disnea de tres "
    "días de evolución. La radiografía de tórax mostró neumonía del lóbulo inferior derecho. Al segundo día presentó "
    "insuficiencia renal aguda, que se resolvió con fluidoterapia. Dolor abdominal y vómitos al cuarto día; la ecografía "
    "evidenció colelitiasis."
}
# Told apart by most people who are colour-blind (Okabe and Ito), and readable on dark and on light.
COLORS = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#0072B2", "#D55E00", "#999999")
BAR = 12  # columns
NEAREST = 3


def main(arguments: list[str] | None = None) -> int:
    parser = command_parser("try", __doc__)
    parser.add_argument("text", nargs="?", help="the note")
    parser.add_argument("--file", help="a text file (UTF-8) with the note; `-`: standard input")
    names = "; ".join(f"`{name}`: {what}" for name, what in CODERS.items())
    parser.add_argument("--model", default=DEFAULT_CODER, help=f"a model folder, a Hub id, or {names}")
    rule = parser.add_mutually_exclusive_group()
    rule.add_argument(
        "--threshold", type=float, help="show codes whose score is greater; default: as the model decides"
    )
    rule.add_argument("--top_k", type=int, help="show the k best codes, whatever their score")
    parser.add_argument("--trust_remote_code", action="store_true")
    args = parser.parse_args(arguments)
    return run_command(lambda: try_note(args))


def try_note(args: argparse.Namespace) -> int:
    """Reads the note, codes it and prints the codes."""
    note = read_note(args.text, args.file, EXAMPLES.get(args.model, EXAMPLE))
    disable_progress_bar()
    coder = load_pipeline(find_coder(args.model), args.trust_remote_code, ReaderArguments())
    rule = {name: value for name in ("threshold", "top_k") if (value := getattr(args, name)) is not None}
    codes = coder(note, **rule)
    console = Console(highlight=False)
    if not codes and "top_k" not in rule:
        console.print(f"No code reaches the threshold. The {NEAREST} nearest are:")
        codes = [{**code, "decision": "below the threshold"} for code in coder(note, top_k=NEAREST)]
    show(console, note, codes)
    console.print(
        f"[dim]{escape(args.model)}. {notice_of(args.model) or 'It assists, and does not decide: check each code.'}[/dim]"
    )
    return 0


def read_note(text: str | None, file: str | None, example: str) -> str:
    """The note that was given, or the example.

    Raises:
        ValueError: where two notes are given, or the one that is given is blank or is not UTF-8.
        OSError: where the file cannot be read.
    """
    if text is not None and file is not None:
        raise ValueError("Give the note itself or `--file`, not both.")
    if text is not None and len(text) < 256 and "\n" not in text and Path(text).is_file():
        raise ValueError(f"{text} is a file: give it as `--file {text}`.")
    try:
        if file == "-":
            file = "standard input"
            text = sys.stdin.buffer.read().decode("utf-8-sig")
        elif file is not None:
            text = Path(file).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8 text (byte {error.start}): save it as UTF-8.") from None
    if text is None:
        print("No note was given, so an invented one is coded.\n")
        return example
    if not text.strip():
        raise ValueError("The note is blank: give some text.")
    return text


def show(console: Console, note: str, codes: Sequence[dict]) -> None:
    """Prints a note with the words that each code was read from, and the codes, numbered alike.

    Args:
        codes (`Sequence[dict]`): what `pipeline("icd-coding")` gives for the note.
    """
    console.print(marked(note, codes))
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in ("", "code", "title", "score", "", ""):
        table.add_column(column, no_wrap=column != "title")
    for number, code in enumerate(codes, 1):
        color = COLORS[(number - 1) % len(COLORS)]
        filled = round(BAR * code["score"])
        bar = Text("█" * filled + "░" * (BAR - filled), style=color)
        score = Text(f"{code['score']:.2f}")
        table.add_row(
            Text(str(number), style=f"bold {color}"),
            Text(code["code"], style="bold"),
            Text(code["description"] or ""),
            score,
            bar,
            Text(code["decision"] or ""),
        )
    console.print(table)


def marked(note: str, codes: Sequence[dict]) -> Text:
    """The note, in which the words that speak for a code have its colour, and its number behind them; where codes share a
    word, the colour is the first one's."""
    spans: dict[tuple[int, int], list[int]] = {}
    for number, code in enumerate(codes, 1):
        for span in code["evidence"] or ():
            spans.setdefault((span["start"], span["end"]), []).append(number)
    text, place = Text(), 0
    for (start, end), numbers in sorted(spans.items()):
        if start < place:  # within a longer span that another code has
            continue
        color = COLORS[(numbers[0] - 1) % len(COLORS)]
        text.append(note[place:start])
        text.append(note[start:end], style=f"bold underline {color}")
        text.append(f"[{','.join(map(str, numbers))}]", style=color)
        place = end
    text.append(note[place:])
    return text


if __name__ == "__main__":
    sys.exit(main())

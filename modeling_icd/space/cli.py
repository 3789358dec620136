"""Starts a page in the browser on which a note is coded, and its codes are looked at, corrected and downloaded.

Example:
    modeling-icd space
    modeling-icd space runs/my_model
    modeling-icd space runs/my_model runs/other_model --port 8000

MODEL is a model folder, a Hub id, or a coder that comes with the package (codiesp-en, which is the
default); with two, a note can be coded by both side by side. Nothing that is entered is written to
disk, logged, or sent to anyone. Only this machine can reach the page, unless
--host says otherwise; then --auth should ask for a password. A file for --auth has a line
USER:PASSWORD for each user; what stands on the command line itself, all users of the machine can see.
"""

import argparse
import logging
import sys
import threading
import warnings

from dataset_scripts.arguments import command_parser
from dataset_scripts.codes.published_titles import INSTALL
from dataset_scripts.command import run_command

from ..coders import DEFAULT_CODER, find_coder, notice_of


EXTRA = 'pip install "modeling-icd[space]"'
LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")


def make_parser() -> argparse.ArgumentParser:
    parser = command_parser("space", __doc__, "[MODEL [MODEL]] [options]")
    parser.add_argument("models", nargs="*", metavar="MODEL")
    parser.add_argument("--host", default="127.0.0.1", metavar="NAME", help="address to listen at; default: 127.0.0.1")
    parser.add_argument("--port", type=int, default=7860, metavar="N", help="default: 7860")
    parser.add_argument("--auth", metavar="USER:PASSWORD", help="ask for a login; or a file with such lines")
    parser.add_argument(
        "--max_waiting", type=int, default=20, metavar="N", help="notes that may wait for the model; default: 20"
    )
    parser.add_argument("--trust_remote_code", action="store_true", help="run the code that came with the model")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns its exit status."""
    args = make_parser().parse_args(arguments)
    return run_command(lambda: serve(args), interrupted="The page is closed.")


def serve(args: argparse.Namespace) -> int:
    """Serve the page until the command is ended."""
    check_options(args)
    try:
        from .access import read_accounts
        from .coding import Coder
        from .server import Page, check_address, launch, make_server

        check_gradio()
    except ImportError as error:
        raise ValueError(f"The page needs packages that are not installed ({error.name}): {EXTRA}") from None
    accounts = None if args.auth is None else read_accounts(args.auth)
    check_address(args.host, args.port)
    coders = [
        Coder(find_coder(model), key, args.trust_remote_code, notice=notice_of(model) or "")
        for model, key in zip(args.models or [DEFAULT_CODER], "ab", strict=False)
    ]
    page = Page(coders, args.max_waiting)
    quiet_libraries()
    address = launch(make_server(page, accounts, any_host=args.host not in LOCAL_HOSTS), page, args.host, args.port)
    if page.titles.lacking:
        systems = " and ".join(page.titles.lacking)
        told = f"note: of {systems} only titles that the model brings can be searched; `{INSTALL}` brings the others."
        print(told, file=sys.stderr)
    print(f"The page is at {address} (Ctrl-C ends it).", flush=True)
    try:
        threading.Event().wait()
    finally:
        page.close()
    return 0


def check_options(args: argparse.Namespace) -> None:
    """Raises a `ValueError` for a wrong option; warns of a page that others can reach and that asks for no password."""
    if len(args.models) > 2:
        raise ValueError(f"{len(args.models)} models are named: the page compares two at most.")
    if not 0 < args.port < 65536:
        raise ValueError(f"`--port` must be a number from 1 to 65535, got {args.port}.")
    if args.max_waiting < 0:
        raise ValueError(f"`--max_waiting` must be at least 0, got {args.max_waiting}.")
    if args.host not in LOCAL_HOSTS and args.auth is None:
        print(
            f"warning: with --host {args.host} others can reach the page, and it asks nobody for a password: give --auth.",
            file=sys.stderr,
        )


def check_gradio() -> None:
    """Raises an `ImportError` where Gradio is missing."""
    import gradio  # noqa: F401


def quiet_libraries() -> None:
    """No library writes a line for every request, nor warns of what users of the page cannot change."""
    for name in ("httpx", "uvicorn.access", "pypdf", "transformers"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"gradio|pypdf|starlette")


if __name__ == "__main__":
    sys.exit(main())

"""Takes the pictures of the page that the README and the documents show.

Example:
    python tests/space/screenshots.py docs/screenshots codiesp-en codiesp-en-top50

The first example note of the page is coded by the model; with two models, they are compared, too. Nothing but
pictures is written. The size of the page as it goes over the line is printed.
"""

import argparse
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image
from serving import served
from visit import PHONE, Visit, Windows, open_browser, page_weight, result_of

from modeling_icd.coders import find_coder, notice_of
from modeling_icd.space.coding import Coder


SIZE = {"viewport": {"width": 1440, "height": 900}, "reduced_motion": "reduce"}


def code_example(here: Visit) -> None:
    here.page.click("#examples button >> nth=0")
    here.page.click("#run")
    here.page.wait_for_selector("#results .pick:visible", timeout=120_000)


def show_evidence(here: Visit) -> None:
    """The best code accepted, another one rejected, and the words of the second best on show."""
    code_example(here)
    codes = [row["code"] for row in here.rows()]
    here.page.click(f"[aria-label='Accept {codes[0]}']")
    if len(codes) > 2:
        here.page.click(f"[aria-label='Reject {codes[2]}']")
    here.select(codes[min(1, len(codes) - 1)])


def show_codes(here: Visit) -> None:
    show_evidence(here)
    here.page.evaluate("scrollTo(0, 0)")


def show_audit(here: Visit) -> None:
    here.page.click("#examples button >> nth=0")
    codes = result_of(here.address, here.page.input_value("#text"))["codes"]
    found = [code["code"] for code in codes if code["predicted"]]
    doubted = [code["code"] for code in codes if not code["predicted"]]
    here.page.click("nav [data-view=audit]")
    here.page.fill("#assigned", ", ".join([*found[:2], *doubted[-1:]]))
    here.page.click("#run")
    here.page.wait_for_selector("#results .row:visible", timeout=120_000)
    here.page.evaluate("scrollTo(0, 0)")


def show_comparison(here: Visit) -> None:
    here.page.click("nav [data-view=compare]")
    code_example(here)
    here.page.evaluate("scrollTo(0, 0)")


def show_batch(here: Visit) -> None:
    here.page.click("#examples button >> nth=0")
    note = here.page.input_value("#text").replace('"', '""')
    table = "note_id,text\n" + "".join(f'{i},"{note}"\n' for i in range(1, 61))
    here.page.click("nav [data-view=batch]")
    here.page.set_input_files("#batch-file", {"name": "notes.csv", "mimeType": "text/csv", "buffer": table.encode()})
    here.page.click("#batch-run")
    here.page.wait_for_selector("#batch-progress-text:text-matches('^[2-5][0-9] of 60')", timeout=120_000)


PICTURES: dict[str, tuple[Callable[[Visit], None], dict[str, Any]]] = {
    "codes": (show_codes, SIZE),
    "codes-dark": (show_codes, {**SIZE, "color_scheme": "dark"}),
    "codes-phone": (show_evidence, {**PHONE, "reduced_motion": "reduce"}),
    "audit": (show_audit, SIZE),
    "batch": (show_batch, SIZE),
    "compare": (show_comparison, SIZE),
}


def save_small(picture: bytes, path: Path) -> None:
    """Save a picture in 256 colours, which are enough for it, and a third of the bytes."""
    image = Image.open(io.BytesIO(picture)).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    image.save(path, optimize=True)


def take_pictures(folder: Path, address: str, names: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with open_browser() as browser:
        windows = Windows(browser)
        for name in names:
            show, options = PICTURES[name]
            here = Visit(windows, address, **options)
            show(here)
            here.page.wait_for_timeout(300)  # until the last frame is painted
            path = folder / f"{name}.png"
            save_small(here.page.screenshot(), path)
            print(f"{path} ({path.stat().st_size // 1000} kB)")
            weight = page_weight(here)
            here.close()
    print(f"The page: {len(weight)} files, {sum(weight.values()) / 1000:.0f} kB.")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        prog="screenshots.py",
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("models", nargs="+", metavar="MODEL", help="one or two model folders or Hub ids")
    args = parser.parse_args()
    coders = [
        Coder(find_coder(model), key, notice=notice_of(model) or "")
        for model, key in zip(args.models, "ab", strict=False)
    ]
    names = [name for name in PICTURES if name != "compare" or len(coders) == 2]
    with served(coders) as (_, address, _):
        take_pictures(args.folder, address + "/", names)


if __name__ == "__main__":
    main()

"""A page with two tiny models, served as users are served, and a browser to look at it with."""

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from serving import served
from visit import Visit, Windows, browser_path, open_browser

from modeling_icd import LlamaForICDCoding
from modeling_icd.space.coding import Coder
from modeling_icd.space.server import Page


CODES = {
    "A41.9": "Sepsis, unspecified organism",
    "D64.9": "Anemia, unspecified",
    "E11.9": "Type 2 diabetes mellitus without complications",
    "I10": "Essential (primary) hypertension",
    "I50.9": "Heart failure, unspecified",
    "J18.9": "Pneumonia, unspecified organism",
    "J96.01": "Acute respiratory failure with hypoxia",
    "N17.9": "Acute kidney failure, unspecified",
    "R05.9": "Cough, unspecified",
    "R50.9": "Fever, unspecified",
    "02HV33Z": "Insertion of infusion device into superior vena cava, percutaneous approach",
    "5A1935Z": "Respiratory ventilation, less than 24 consecutive hours",
    "B24BZZZ": "Ultrasonography of heart with aorta",
}


def write_coder(folder: Path, backbone: str, seed: int) -> str:
    """A model with evidence whose scores lie far apart, so that it is sure of some codes and not of others."""
    torch.manual_seed(seed)
    model = LlamaForICDCoding.from_pretrained(
        backbone, id2label=dict(enumerate(CODES)), pooling="label_attention", window_size=64, window_stride=48
    )
    model.config.update(
        {"code_descriptions": CODES, "threshold": 0.5, "review_threshold": 0.75, "review_precision": 0.9}
    )
    with torch.no_grad():
        model.score.queries.weight.normal_(std=1.5)
        model.score.output.weight.normal_(std=2.0)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(Path(backbone) / name, folder)
    (Path(folder) / "README.md").write_text("---\nlanguage: en\n---\n")
    return str(folder)


@pytest.fixture(scope="session")
def coders(backbone, tmp_path_factory) -> list[str]:
    """Two model folders that code the same codes differently."""
    folder = tmp_path_factory.mktemp("coders")
    return [write_coder(folder / name, backbone, seed) for name, seed in (("first-coder", 18), ("second-coder", 23))]


@pytest.fixture(scope="session")
def server(coders) -> Iterator[tuple[Page, str]]:
    """The page on the server's side, and its address."""
    pytest.importorskip("gradio", reason="gradio is not installed")
    with served([Coder(folder, key) for folder, key in zip(coders, "ab", strict=True)]) as (page, address, _):
        yield page, address + "/"


@pytest.fixture
def busy_model(server) -> Iterator[threading.Event]:
    """Keeps the model from reading until the event is set."""
    released = threading.Event()
    server[0].thread.submit(released.wait)
    yield released
    released.set()


@pytest.fixture(scope="session")
def address(server) -> str:
    """Where the page is served."""
    return server[1]


@pytest.fixture(scope="module")
def browser():
    """One browser for the tests of a file; it is closed at its end, since it holds the thread's event loop."""
    pytest.importorskip("playwright", reason="playwright is not installed")
    if browser_path() is None:
        pytest.skip("there is no browser: neither chromium nor google-chrome is on the PATH")
    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def windows(browser) -> Windows:
    return Windows(browser)


@pytest.fixture
def visit(windows, address) -> Iterator[Callable[..., Visit]]:
    """Opens the page in a new window. When the test ends, the page must have kept to itself and complained of nothing."""
    visits: list[Visit] = []

    def open_page(**options) -> Visit:
        visits.append(Visit(windows, address, **options))
        return visits[-1]

    yield open_page
    for made in visits:
        made.close()
    for made in visits:
        made.check()

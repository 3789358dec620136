"""A tiny model, the page's server around it, and a client that speaks its protocol; for the tests of the page."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from transformers import AutoTokenizer

from modeling_icd import LlamaForICDCoding
from modeling_icd.space.coding import Coder
from modeling_icd.space.server import Page, launch, make_server
from modeling_icd.space.titles import Code, TitleSearch


CODES = [
    "I10",
    "E11.9",
    "I50.22",
    "N17.9",
    "J18.9",
    "A41.9",
    "0BH17EZ",
    "5A1955Z",
    *(f"T{i:02}.1" for i in range(8, 70)),
]
http = httpx.Client(
    timeout=60, trust_env=False
)  # one for all questions: each new one reads all certificates of the machine
WINDOW = {"window_size": 16, "window_stride": 12}


def save_coder(backbone: str, folder: Path, **fields) -> str:
    """Saves a model of width 16 with an untrained head of 70 codes, of which some are predicted for any note."""
    torch.manual_seed(3)
    settings = {
        "id2label": dict(enumerate(CODES)),
        "pooling": "label_attention",
        "threshold": 0.55,
        **WINDOW,
        **fields,
    }
    settings.setdefault(
        "code_descriptions", {"I10": "High blood pressure", "0BH17EZ": "Insertion of airway into trachea"}
    )
    model = LlamaForICDCoding.from_pretrained(backbone, **settings)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(backbone).save_pretrained(folder)
    return str(folder)


@lru_cache
def search_of(codes: tuple[Code, ...]) -> TitleSearch:
    """The titles for these codes, built once for all tests: that takes a second."""
    return TitleSearch(codes)


@contextmanager
def served(coders: list[Coder], accounts=None, **settings) -> Iterator[tuple[Page, str, Any]]:
    """The page, its address, and its server, which is closed at the end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("modeling_icd.space.server.TitleSearch", lambda codes: search_of(tuple(codes)))
        page = Page(coders, **settings)
    server = make_server(page, accounts)
    address = launch(server, page, "127.0.0.1", free_port()).rstrip("/")
    try:
        yield page, address, server
    finally:
        server.get_blocks().close(verbose=False)
        page.close()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def join(address: str, name: str, data: list) -> str:
    """The event id of a new call."""
    body = json.dumps({"data": data})  # in ASCII: a browser, too, can send half of a character so
    answer = http.post(f"{address}/gradio_api/call/{name}", content=body, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()["event_id"]


def messages(address: str, name: str, data: list) -> Iterator[dict]:
    """The messages of a call, one after the other, each once."""
    event = join(address, name, data)
    with http.stream("GET", f"{address}/gradio_api/call/{name}/{event}", timeout=60) as stream:
        kind = ""
        for line in stream.iter_lines():
            field, _, value = line.partition(": ")
            if field == "event":
                kind = value
            elif field == "data" and kind == "generating":
                yield json.loads(value)[0]
            elif field == "data":
                assert kind in ("complete", "heartbeat"), (kind, value)


def last(address: str, name: str, data: list) -> dict:
    """The last message of a call."""
    return list(messages(address, name, data))[-1]


def code(address: str, text: str, assigned=(), model: str = "a", token: str = "") -> dict:
    """The last message of coding a note."""
    return last(address, "code_note", [text, model, list(assigned), token])


def upload(address: str, route: str, name: str, content: bytes) -> httpx.Response:
    return http.post(f"{address}/api/{route}", content=content, headers={"X-File-Name": name}, timeout=60)


def wait_until(holds, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def routes_of(server) -> list[tuple[str, str]]:
    """Method and path of all routes, Gradio's own and those of the page."""
    routers = [server, *(route.original_router for route in server.routes if hasattr(route, "original_router"))]
    routes = [route for router in routers for route in router.routes if hasattr(route, "path")]
    return [(method, route.path) for route in routes for method in getattr(route, "methods", None) or ["GET"]]

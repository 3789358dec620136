"""Looks at the page as a person does, with a real browser, and asks its server directly for what should be on it."""

import contextlib
import json
import shutil
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from serving import code


BROWSERS = ("chromium", "google-chrome")
ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
NOTE = (
    "The patient has fever and cough.\n\nNo evidence of pneumonia, ruled out. Sepsis due to acute renal failure, "
    "with fever and acute failure of the patient.\n"
)
PHONE = {"viewport": {"width": 360, "height": 740}, "device_scale_factor": 2, "is_mobile": True, "has_touch": True}
SIZES = """() => [...performance.getEntriesByType("resource"), ...performance.getEntriesByType("navigation")]
    .filter((part) => !part.name.includes("api/")).map((part) => [part.name, part.decodedBodySize])"""
MARKS = """() => [...CSS.highlights].flatMap(([name, highlight]) => [...highlight].map((range) => {
    if (range.startContainer.parentNode.id !== "note" || range.endContainer !== range.startContainer) throw "elsewhere";
    return [name, range.startOffset, range.endOffset, range.toString()];
}))"""
ROWS = """() => [...document.querySelectorAll("#results .row")].filter((row) => row.checkVisibility()).map((row) => ({
    code: row.dataset.code, state: row.dataset.state, status: row.dataset.status,
    score: row.querySelector(".number").lastChild.data, word: row.querySelector(".state").textContent,
    kind: row.closest(".group").dataset.kind, title: row.querySelector(".title").textContent,
}))"""


def browser_path() -> str | None:
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


@contextlib.contextmanager
def open_browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path(), args=list(ARGUMENTS))
        yield browser
        browser.close()


def page_weight(here: "Visit") -> dict[str, int]:
    """Bytes of each file of the page, as the browser got it."""
    return dict(here.page.evaluate(SIZES))


def result_of(address: str, text: str, model: str = "a", assigned: Sequence[str] = ()) -> dict[str, Any]:
    """What the server says of a note, asked without the page; with its codes by code, too."""
    result = code(address.rstrip("/"), text, assigned, model)["result"]
    return {**result, "by_code": {code["code"]: code for code in result["codes"]}}


class Windows:
    """The windows of a browser. One that is given back is lent again, since opening one takes longer than most tests.

    Args:
        browser: of Playwright.
    """

    MEDIA = ("color_scheme", "reduced_motion", "forced_colors")

    def __init__(self, browser: Any):
        self.browser = browser
        self._free: list[Any] = []

    def lend(self, script: str = "", viewport: dict[str, int] | None = None, **options: Any) -> Any:
        """An empty window. One with a script or with more options than its size, colours and motion is a new one."""
        viewport = viewport or {"width": 1440, "height": 900}
        media = {name: options.pop(name, None) for name in self.MEDIA}
        if script or options or not self._free:
            window = self.browser.new_context(viewport=viewport, **options).new_page()
            window.is_plain = not (script or options)
            if script:
                window.add_init_script(script)
        else:
            window = self._free.pop()
            if window.viewport_size != viewport:
                window.set_viewport_size(viewport)
        window.emulate_media(**{name: value or "null" for name, value in media.items()})
        return window

    def take_back(self, window: Any) -> None:
        """Close a window, or keep a plain one for the next who asks, whose page takes the place of the one that it shows."""
        if window.is_closed():
            return
        window.unroute_all()
        if window.is_plain:
            self._free.append(window)
        else:
            window.context.close()


class Visit:
    """A window of the browser with the page, and a record of what it asked for and complained of.

    Args:
        windows (`Windows`): of the browser.
        address (`str`): of the page.
        faults (`bool`): whether the server is to refuse something, of which the browser itself writes to its console.
        options: of the window, such as `color_scheme` and `viewport`; a `script` runs before the page's own.
    """

    def __init__(self, windows: Windows, address: str, faults: bool = False, **options: Any):
        self.address, self.faults, self.windows = address, faults, windows
        self.page = windows.lend(**options)
        self.page.set_default_timeout(20_000)
        self.requests: list[Any] = []
        self.complaints: list[str] = []
        self.typed: list[str] = []
        self._listeners = {
            "request": lambda request: self.requests.append(request),
            "pageerror": lambda error: self.complaints.append(str(error)),
            "console": self._hear,
        }
        for event, listener in self._listeners.items():
            self.page.on(event, listener)
        self.page.goto(address)
        self.page.wait_for_selector("#version:not(:empty)", state="attached")

    def _hear(self, message: Any) -> None:
        of_network = message.text.startswith("Failed to load resource")
        if message.type in ("error", "warning") and not (self.faults and of_network):
            self.complaints.append(message.text)

    def close(self) -> None:
        self.kept = self.page.evaluate(
            "[localStorage.length, sessionStorage.length, document.cookie, location.search]"
        )
        for event, listener in self._listeners.items():
            self.page.remove_listener(event, listener)
        self.windows.take_back(self.page)

    def check(self) -> None:
        """The page asked nobody but its server, put no text into an address, kept nothing, and complained of nothing."""
        assert self.complaints == []
        hosts = {urlsplit(request.url).netloc for request in self.requests if not request.url.startswith("blob:")}
        assert hosts == {urlsplit(self.address).netloc}
        words = {word for text in self.typed for word in text.split() if len(word) > 3 and word.isalpha()}
        assert not [r.url for r in self.requests if any(word in r.url for word in words - {"code", "note"})]
        assert self.kept == [0, 0, "", ""]

    def paste(self, text: str, into: str = "#text") -> None:
        """Put a text where a person would, as one input."""
        self.typed.append(text)
        self.page.locator(into).fill(text)

    def code(self, text: str = NOTE) -> None:
        """Paste a note, and code it."""
        self.paste(text)
        self.page.click("#run")
        self.page.wait_for_selector("#results .row:visible")

    def rows(self) -> list[dict[str, str]]:
        """The codes that can be seen, from top to bottom."""
        return self.page.evaluate(ROWS)

    def row(self, code: str) -> Any:
        return self.page.locator(f'#results .row[data-code="{code}"]')

    def select(self, code: str) -> None:
        """Select a code by a click; one that is selected already stays so."""
        pick = self.row(code).locator(".pick")
        if pick.get_attribute("aria-pressed") == "false":
            pick.click()

    def marks(self) -> list[tuple[str, int, int, str]]:
        """What is marked in the note: name, start, end in UTF-16 code units, and the words, by place."""
        return sorted((tuple(mark) for mark in self.page.evaluate(MARKS)), key=lambda mark: mark[1])

    def final(self) -> list[tuple[str, str]]:
        """The final list: code and status."""
        items = "(items) => items.map((item) => [item.dataset.code, item.dataset.status])"
        return [tuple(pair) for pair in self.page.eval_on_selector_all("#final li", items)]

    def message(self) -> str:
        """The one message that is on show, once there is one."""
        self.page.wait_for_selector("#message .message p")
        box, size = self.page.locator("#message .message").bounding_box(), self.page.viewport_size
        assert box["y"] >= 0 and box["y"] + box["height"] <= size["height"]  # wherever the page is scrolled to
        return self.page.inner_text("#message .message p")

    def heard(self, words: str) -> None:
        """Wait until the page has said something to people who hear it."""
        self.page.wait_for_selector(f"#status:has-text({json.dumps(words)})", state="attached")

    def select_words(self, start: int, end: int) -> None:
        """Select a stretch of the note, as a mouse does."""
        self.page.evaluate(
            """([start, end]) => {
                const range = document.createRange();
                const node = document.querySelector("#note").firstChild;
                range.setStart(node, start);
                range.setEnd(node, end);
                getSelection().removeAllRanges();
                getSelection().addRange(range);
            }""",
            [start, end],
        )

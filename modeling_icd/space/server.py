"""The server of the page: its routes, and the queue in front of the models. Gradio's server mode carries both.

Nothing that is sent to it is written to a disk or to a log. What a call needs is in memory until it is answered.
"""

import asyncio
import logging
import os
import re
import socket
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

from ..versions_icd import VERSION
from .access import STATIC, Gate, message_response, place_of, read_json, static_page
from .batch import MAX_BATCH_BYTES, MAX_BATCH_ROWS, Batch, BatchError, Batches, batch_csv, read_batch
from .calls import CallGuard
from .coding import Coder, CodingError
from .documents import MAX_DOCUMENT_BYTES, DocumentError, read_document
from .fhir import SYSTEM_URIS, codes_bundle, codes_csv
from .line import Cancelled, Line, LineIsFull, Place, Watch
from .titles import MAX_LIMIT, OTHER, TitleSearch


logger = logging.getLogger(__name__)

PRIVACY = (
    "What you enter is in the memory of this server only while it waits there and is coded (a file of notes that you do not have "
    "coded is dropped after 15 minutes); it is never written to a disk, logged, or sent to anyone. What the page shows is in this "
    "tab of your browser alone, and is gone when you close or reload it."
)
BANNER = f"The codes are suggestions of a program: it assists a trained coder and does not decide. {PRIVACY}"
EXAMPLES = Path(__file__).parent / "examples"
MAX_CHARACTERS = 200_000  # of a note: about 30,000 words
MAX_EXPORTED = 2000
TELL_SECONDS = 0.5  # between two messages on how far the work is
WAIT_SECONDS = 2.0
GONE = "The file of notes is no longer here: choose it again."
FAILED = (
    "Something went wrong while this note was coded. Try again; if it happens again, the log of the server says where."
)


@dataclass
class Page:
    """What the server holds: the models, and the work that is under way.

    Args:
        coders (`Sequence[Coder]`): one model or two.
        max_waiting (`int`): how many notes may wait for the model beside the one that it reads.
        login (`bool`): whether who uses the page has logged in, and so can log out.
    """

    coders: Sequence[Coder]
    max_waiting: int = 20
    login: bool = False
    line: Line = field(init=False)
    batches: Batches = field(default_factory=Batches)
    watches: dict[str, Watch] = field(default_factory=dict)
    titles: TitleSearch = field(init=False)
    # The models read one note at a time: two at once would take as long, and twice the memory.
    thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "model"))

    def __post_init__(self):
        self.line = Line(self.max_waiting)
        self.titles = TitleSearch(code for coder in self.coders for code in coder.codes)
        for coder in self.coders:
            coder.titles = self.titles

    def about(self) -> dict[str, Any]:
        """What the page is told when it is opened."""
        return {
            "banner": BANNER,
            "models": [coder.about() for coder in self.coders],
            "limits": {
                "max_characters": MAX_CHARACTERS,
                "max_document_bytes": MAX_DOCUMENT_BYTES,
                "max_batch_bytes": MAX_BATCH_BYTES,
                "max_batch_rows": MAX_BATCH_ROWS,
            },
            "examples": examples(),
            "login": self.login,
            "title_systems": self.titles.systems,
            "titles_lacking": self.titles.lacking,
            "version": VERSION,
        }

    def coder(self, key: str) -> Coder | None:
        return next((coder for coder in self.coders if coder.key == key), None)

    def cancel(self, token: str) -> bool:
        """Call off the work of a token, or drop the file of notes that has it."""
        if self.batches.take(token) is not None:
            return True
        watch = self.watches.get(token)
        if watch is not None:
            watch.cancel()
        return watch is not None

    def close(self) -> None:
        """Call off all work, so that the process can end."""
        for watch in list(self.watches.values()):
            watch.cancel()
        self.thread.shutdown(wait=True, cancel_futures=True)

    async def code_note(self, text: str, key: str, assigned: list[str], token: str) -> AsyncIterator[dict[str, Any]]:
        """Messages on how far a note is, and at last its result."""
        coder = self.coder(key)
        if coder is None:
            yield error_message("This model is not here: reload the page.")
        elif len(text) > MAX_CHARACTERS:
            yield error_message(
                f"The note has {len(text):,} characters, and at most {MAX_CHARACTERS:,} are read at once: shorten it or divide it."
            )
        else:
            async for message in self._work(
                token,
                lambda place, watch: self._code_note(coder, text, assigned, place, watch),
                len(text.split()),
                coder,
            ):
                yield message

    async def code_batch(self, batch_token: str, key: str, token: str) -> AsyncIterator[dict[str, Any]]:
        """Messages on how far a file of notes is, and at last its codes."""
        coder, batch = self.coder(key), self.batches.take(batch_token)
        if coder is None or batch is None:
            yield error_message("This model is not here: reload the page." if coder is None else GONE)
        else:
            work = self._work(token, lambda place, watch: self._code_batch(coder, batch, place, watch), None, coder)
            async for message in work:
                yield message

    async def _work(
        self,
        token: str,
        work: Callable[[Place, Watch], AsyncIterator[dict[str, Any]]],
        words: int | None,
        coder: Coder,
    ) -> AsyncIterator[dict[str, Any]]:
        """Work in the line that can be called off by its token. However it ends, and also where nobody listens any more, its
        place in the line is free again. `words` are those of its one note; `None` for a file of notes."""
        watch, token, is_done = Watch(), token or uuid.uuid4().hex, False
        if token in self.watches:
            yield error_message("This is being coded already.")
            return
        try:
            place = self.line.join(words or 0, coder.key, None if words is None else watch)
        except LineIsFull as full:
            yield {"status": "busy", "message": str(full)}
            return
        self.watches[token] = watch
        try:
            async for message in work(place, watch):
                is_done = message["status"] == "done" and words is not None
                yield message
        except Cancelled:
            yield {"status": "cancelled"}
        except CodingError as error:
            yield error_message(str(error))
        except Exception as error:
            logger.error("A note could not be coded: %s.", place_of(error))
            yield error_message(FAILED)
        finally:
            watch.cancel()  # where it is still read
            self.watches.pop(token, None)
            self.line.leave(place, is_done)

    async def _code_note(
        self, coder: Coder, text: str, assigned: list[str], place: Place, watch: Watch
    ) -> AsyncIterator[dict[str, Any]]:
        async for message in self._waiting(place, watch):
            yield message
        future = self._in_thread(coder.code_note, text, assigned, watch)
        while not future.done():
            yield {"status": "reading", **progress(watch)}
            await asyncio.wait([future], timeout=TELL_SECONDS)
        yield {"status": "done", "result": future.result()}

    async def _code_batch(
        self, coder: Coder, batch: Batch, place: Place, watch: Watch
    ) -> AsyncIterator[dict[str, Any]]:
        """After each of its rows a file gives way to the notes that wait."""
        coded = []
        rejected = []
        of_row = Watch(_cancelled=watch._cancelled)
        async for message in self._waiting(place, watch):
            yield message
        watch.begin(len(batch.rows))
        told = 0.0
        for row in batch.rows:
            place.words = len(row.text.split())
            while self.line.ahead_of(place):
                yield {"status": "reading", **progress(watch)}
                await self.line.wait(place, WAIT_SECONDS)
                watch.check()
            reason = row.reason
            if not reason:
                future = self._in_thread(coder.code_row, row.text, of_row)
                while not (await asyncio.wait([future], timeout=TELL_SECONDS))[0]:
                    yield {"status": "reading", **progress(watch)}
                try:
                    coded.append((row._replace(text=""), future.result()))
                except CodingError:
                    reason = "gives no finite numbers with this model"
            if reason:
                rejected.append({"row": row.row, "reason": reason})
            watch.done += 1
            self.line.give_way(place, is_done=not reason)
            if time.monotonic() - told > TELL_SECONDS:
                told = time.monotonic()
                yield {"status": "reading", **progress(watch)}
            watch.check()
        yield {"status": "done", "csv": batch_csv(coded), "rejected": rejected}

    def _in_thread(self, function: Callable[..., Any], *arguments: Any) -> asyncio.Future:
        future = asyncio.get_running_loop().run_in_executor(self.thread, function, *arguments)
        # Where the page was closed, nobody asks how the work ended, and asyncio would log that as a fault.
        future.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        return future

    async def _waiting(self, place: Place, watch: Watch) -> AsyncIterator[dict[str, Any]]:
        """Messages on how many are before a place, until it is its turn."""
        while ahead := self.line.ahead_of(place):
            total = place.ahead_at_first
            seconds = self.line.seconds_until(place)
            yield {
                "status": "waiting",
                "done": max(0, total - ahead),
                "total": total,
                "seconds_left": rounded(seconds),
            }
            await self.line.wait(place, WAIT_SECONDS)
            watch.check()


def error_message(message: str) -> dict[str, Any]:
    return {"status": "error", "message": message}


def progress(watch: Watch) -> dict[str, Any]:
    return {"done": watch.done, "total": watch.total, "seconds_left": rounded(watch.seconds_left())}


def rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)


def examples() -> list[dict[str, str]]:
    """Invented notes to try the page on; the first line of each file is its title."""
    found = []
    for path in sorted(EXAMPLES.glob("*.txt")):
        title, _, text = path.read_text(encoding="utf-8").partition("\n")
        found.append({"title": title, "text": text})
    return found


# Routes


def make_server(page: Page, accounts: Mapping[str, str] | None = None, any_host: bool = False):
    """Gradio's server with the page's routes and calls; `launch` starts it.

    Args:
        page (`Page`): the models.
        accounts (`Mapping[str, str]`, *optional*): passwords by user; without any, whoever reaches the server may use it.
        any_host (`bool`): answer by whatever name the server is asked for; else by the names of this machine alone.
    """
    page.login = bool(accounts)
    # Read on import, and before: nothing is reported to anyone, and nothing of a call is kept.
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_RUN_HISTORY": "False", "GRADIO_SHARE": "False"}
    import gradio
    import matplotlib.pyplot  # noqa: F401  # what Gradio would read at the first call, which would wait for it

    server = gradio.Server(openapi_url=None, docs_url=None, redoc_url=None, title="ICD coding")
    server.add_middleware(CallGuard, checks=CHECKS, blocks_of=server.get_blocks)
    parents = "'self' https://huggingface.co" if os.environ.get("SPACE_ID") else "'none'"
    server.add_middleware(Gate, accounts=accounts, parents=parents, any_host=any_host)
    add_pages(server)
    add_routes(server, page)

    # None of both is bounded here: the line bounds them, and can say to those who wait how many are before them.
    @server.api(name="code_note", concurrency_limit=None)
    async def code_note(text: str, model_id: str, assigned: list[str], token: str) -> AsyncIterator[dict]:
        async for message in page.code_note(text, model_id, assigned, token):
            yield message

    @server.api(name="code_batch", concurrency_limit=None)
    async def code_batch(batch: str, model_id: str, token: str) -> AsyncIterator[dict]:
        async for message in page.code_batch(batch, model_id, token):
            yield message

    return server


def check_address(host: str, port: int) -> None:
    """Raise an `OSError` where a server cannot listen at an address, so that this is said before a model is loaded."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do after one that has just ended
            probe.bind(address)
    except OSError as error:
        raise _no_address(host, port) from error


def _no_address(host: str, port: int) -> OSError:
    return OSError(
        f"The page cannot be at port {port} of {host}: the port is taken, or this is no address of this machine. Give another "
        "--port or --host."
    )


def launch(server, page: Page, host: str, port: int) -> str:
    """Start a server in a thread of its own; returns its address.

    Raises:
        OSError: where it cannot listen there.
    """
    # Gradio asks the server whether it is there, and must not ask a proxy.
    os.environ["NO_PROXY"] = ",".join(filter(None, [os.environ.get("NO_PROXY"), "localhost", "127.0.0.1", host]))
    try:
        _, address, _ = server.launch(
            server_name=host,
            server_port=port,
            prevent_thread_lock=True,
            max_threads=page.max_waiting + 40,
            **NOT_WANTED,
        )
    except OSError:  # which tells neither the address nor what is wrong with it
        raise _no_address(host, port) from None
    return address


# What Gradio does if nothing is said: a tunnel to the internet, a history of calls, a process of Node, pages of its own.
NOT_WANTED: dict[str, Any] = {
    **dict.fromkeys(
        ("share", "run_history", "enable_monitoring", "mcp_server", "ssr_mode", "pwa", "inbrowser"), False
    ),
    **dict.fromkeys(("show_error", "_frontend"), False),
    "quiet": True,
    "footer_links": [],
    "num_workers": 0,
}


def is_text(value: Any, longest: int) -> bool:
    return isinstance(value, str) and len(value) <= longest


CHECKS: dict[str, Callable[[Any], bool]] = {
    "code_note": lambda data: (
        isinstance(data, list)
        and len(data) == 4
        and isinstance(data[0], str)
        and isinstance(data[2], list)
        and all(is_text(code, 100) for code in data[2])
        and is_text(data[1], 10)
        and is_text(data[3], 100)
    ),
    "code_batch": lambda data: (
        isinstance(data, list) and len(data) == 3 and all(is_text(value, 100) for value in data)
    ),
}
"""What is a well-formed call; what its values mean is seen to where it is answered."""


def add_pages(server) -> None:
    types = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}

    @server.get("/")
    async def index() -> Response:
        return static_page("index.html")

    @server.get("/static/{name}")
    async def static(name: str) -> Response:
        path = STATIC / name
        if path.suffix not in types or not path.is_file():
            return message_response(404, "There is nothing here.")
        return FileResponse(path, media_type=types[path.suffix])


def add_routes(server, page: Page) -> None:
    @server.get("/api/about")
    async def about() -> Response:
        return JSONResponse(page.about())

    @server.post("/api/document")
    async def document(request: Request) -> Response:
        name, content = file_name(request), await request.body()
        try:
            text, warnings = await run_in_threadpool(read_document, name, content)
        except DocumentError as error:
            return message_response(422, str(error))
        return JSONResponse({"text": text, "warnings": warnings})

    @server.post("/api/batch")
    async def batch(request: Request) -> Response:
        name, content = file_name(request), await request.body()
        try:
            read = await run_in_threadpool(read_batch, name, content, MAX_CHARACTERS)
            return JSONResponse({"batch": page.batches.add(read), "rows": len(read.rows)})
        except BatchError as error:
            return message_response(422, str(error))

    @server.post("/api/titles")
    async def titles(request: Request) -> Response:
        given = read_json(await request.body())
        query, system, limit = (
            (given.get(name) for name in ("query", "system", "limit")) if isinstance(given, dict) else [None] * 3
        )
        limit = 20 if limit is None else limit
        if not isinstance(query, str) or type(limit) is not int or not 0 < limit <= MAX_LIMIT:
            return message_response(400, f"A search needs `query`, a text, and a `limit` of 1 to {MAX_LIMIT}.")
        if not (system is None or isinstance(system, str)):
            return message_response(400, "`system` must be a text, such as icd10cm, or be left out.")
        try:
            found = await run_in_threadpool(page.titles.search, query, system or None, limit)
        except ValueError as error:
            return message_response(400, str(error))
        return JSONResponse(
            {
                "titles": [
                    {**code._asdict(), "heading": page.titles.is_heading(code), "because": because}
                    for code, because in found
                ]
            }
        )

    @server.post("/api/export")
    async def export(request: Request) -> Response:
        given = read_json(await request.body())
        codes, kind = (given.get("codes"), given.get("format")) if isinstance(given, dict) else (None, None)
        if fault := fault_of_codes(codes):
            return message_response(400, fault)
        confirmed = given.get("confirmed", False) if isinstance(given, dict) else None
        if not isinstance(confirmed, bool):
            return message_response(400, "`confirmed` must be true or false, or be left out.")
        if not isinstance(kind, str) or kind not in EXPORTS:
            return message_response(400, f"`format` must be one of {', '.join(EXPORTS)}.")
        write, media_type, name = EXPORTS[kind]
        return Response(
            write(codes, confirmed),
            media_type=media_type,
            headers={"Content-Disposition": f'attachment; filename="{name}"'},
        )

    @server.post("/api/cancel")
    async def cancel(request: Request) -> Response:
        given = read_json(await request.body())
        token = given.get("token") if isinstance(given, dict) else None
        return JSONResponse({"cancelled": isinstance(token, str) and page.cancel(token)})


EXPORTS: dict[str, tuple[Callable[[Any, bool], Any], str, str]] = {
    "csv": (lambda codes, confirmed: codes_csv(codes), "text/csv; charset=utf-8", "codes.csv"),
    "fhir": (
        lambda codes, confirmed: JSONResponse(codes_bundle(codes, confirmed)).body,
        "application/fhir+json",
        "codes.fhir.json",
    ),
}


def file_name(request: Request) -> str:
    """The name of an uploaded file, for messages and for its format."""
    return unquote(request.headers.get("x-file-name", ""), errors="replace")[:1000]


def fault_of_codes(codes: Any) -> str:
    """What is wrong with codes that are to be exported, as a sentence; `""` if nothing is."""
    if not isinstance(codes, list) or len(codes) > MAX_EXPORTED or not all(isinstance(code, dict) for code in codes):
        return f"`codes` must be a list of at most {MAX_EXPORTED:,} codes."
    allowed = {
        "kind": ("diagnosis", "procedure", OTHER),
        "system": (*SYSTEM_URIS, OTHER),
        "decision": ("confident", "review", None),
        "status": ("accepted", "added"),
    }
    for number, code in enumerate(codes, start=1):
        if not is_text(code.get("code"), 100) or not re.fullmatch(r"[^\s\x00-\x1f]+( [^\s\x00-\x1f]+)*", code["code"]):
            return f"Code {number} has no `code`."
        if not (code.get("title") is None or is_text(code["title"], 1000)):
            return f"Code {number} has a `title` that is no text."
        score = code.get("score")
        if not (
            score is None or (isinstance(score, (int, float)) and not isinstance(score, bool) and 0 <= score <= 1)
        ):
            return f"Code {number} has a `score` that is not a number from 0 to 1."
        for name, values in allowed.items():
            if code.get(name) not in values:
                return f"Code {number}: `{name}` must be one of {', '.join(map(str, values))}."
    return ""

"""Who may reach the page, and what of the server can be reached at all.

Gradio's server has many routes of its own: its user interface, uploads, which it writes to disk, files, a history of calls. Here
only what the page needs is open, everything else is as if it were not there.
"""

import asyncio
import hmac
import html
import json
import logging
import math
import re
import secrets
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send


logger = logging.getLogger(__name__)

STATIC = Path(__file__).parent / "static"
# What can be reached: methods, the pattern of the path, and how many bytes a body may have.
OPEN = (
    (("GET", "HEAD"), r"/", 0),
    (("GET", "HEAD"), r"/static/[\w.-]+", 0),
    (("GET",), r"/api/about", 0),
    (("POST",), r"/api/document", 20 << 20),
    (("POST",), r"/api/batch", 20 << 20),
    (("POST",), r"/api/export", 4 << 20),
    (("POST",), r"/api/(titles|cancel)", 16 << 10),
    (("POST",), r"/gradio_api/call/(code_note|code_batch)", 4 << 20),
    (("GET",), r"/gradio_api/call/(code_note|code_batch)/\w+", 0),
)
LOCAL_HOST = r"(127\.0\.0\.1|localhost|\[::1\])(:\d+)?"
STARTUP = "/gradio_api/startup-events"  # which the server asks itself, once
BEFORE_LOGIN = ("/login", "/static/page.css")
COOKIE = "modeling-icd-session"
SESSION_SECONDS = 12 * 60 * 60
FAILURE_DELAY = 0.1  # seconds of waiting after each wrong password
FREE_FAILURES = 5  # wrong passwords of one address before it has to wait
FIRST_LOCK_SECONDS, LONGEST_LOCK_SECONDS = 2, 120  # doubled with each wrong password after those
FORGOTTEN_SECONDS = 15 * 60  # after the last wrong password of an address, all of them are forgotten
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors {parents}"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class TooLarge(Exception):
    """Raised where a body is longer than its route takes."""


class Gate:
    """Middleware in front of everything: closes what the page does not need, bounds what is sent, asks for the login, and lets
    no fault of the program show more than that there was one.

    Args:
        app (`ASGIApp`): what is behind it.
        accounts (`Mapping[str, str]`, *optional*): passwords by user; without any, no login is asked for.
        parents (`str`): which pages may show this one in a frame, as the Content Security Policy has it.
        any_host (`bool`): whether requests for any host are answered, and not those for this machine alone. A website whose
            name is made to lead to this machine could otherwise read the page.
    """

    def __init__(
        self,
        app: ASGIApp,
        accounts: Mapping[str, str] | None = None,
        parents: str = "'none'",
        any_host: bool = False,
    ):
        self.any_host = any_host
        self.app = app
        self.login = Login(accounts) if accounts else None
        self.headers = {name: value.format(parents=parents) for name, value in HEADERS.items()}
        self._has_started = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        if scope["type"] != "http":
            return  # no other protocol is spoken
        has_begun = False

        async def send_with_headers(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                headers = MutableHeaders(scope=message)
                for name, value in self.headers.items():
                    headers[name] = value
            await send(message)

        try:
            answer = await self._answer(scope, receive)
            if answer is None:
                await self.app(scope, self._bounded(scope, receive), send_with_headers)
            else:
                await answer(scope, receive, send_with_headers)
        except TooLarge:
            if not has_begun:
                await too_large()(scope, receive, send_with_headers)
        except Exception as error:
            logger.error("A request failed: %s.", place_of(error))
            if not has_begun:
                await message_response(500, "Something went wrong in the server.")(scope, receive, send_with_headers)

    async def _answer(self, scope: Scope, receive: Receive) -> Response | None:
        """What to answer in place of the routes; `None` where a route is to answer."""
        path, method = scope["path"], scope["method"]
        if path == STARTUP and method == "GET" and not self._has_started:
            self._has_started = True
            return None
        headers = Headers(scope=scope)
        host = headers.get("host", "").lower()
        if not self.any_host and not re.fullmatch(LOCAL_HOST, host):
            return message_response(
                403, "This page is answered at localhost alone: start it with --host for other names."
            )
        origin = headers.get("origin", "").lower()
        # A proxy may ask by another name than the browser did; then the browser's own word counts.
        is_own = origin.partition("://")[2] == host or headers.get("sec-fetch-site") == "same-origin"
        if method != "GET" and origin and not is_own:
            return message_response(403, "Another website may not use this page.")
        if headers.get("sec-fetch-site") in ("cross-site", "same-site") and method != "GET":
            return message_response(403, "Another website may not use this page.")
        if self.login is not None:
            if path in ("/login", "/logout"):
                return await self.login.answer(scope, receive)
            if path not in BEFORE_LOGIN and not self.login.knows(headers):
                is_page = path == "/" and method == "GET"
                return RedirectResponse("login", 303) if is_page else message_response(401, "Log in first.")
        limit = limit_of(path, method)
        if limit is None:
            return message_response(404, "There is nothing here.")
        length = headers.get("content-length", "0")
        return too_large() if not length.isdecimal() or int(length) > limit else None

    @staticmethod
    def _bounded(scope: Scope, receive: Receive) -> Receive:
        """Receives a body as long as it is not longer than its route takes, whatever its header says."""
        left = limit_of(scope["path"], scope["method"]) or 0

        async def receive_bounded() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise TooLarge
            return message

        return receive_bounded


def limit_of(path: str, method: str) -> int | None:
    """How many bytes the body of a request may have; `None` where it cannot be reached at all."""
    for methods, pattern, limit in OPEN:
        if method in methods and re.fullmatch(pattern, path):
            return limit
    return None


def message_response(status: int, message: str) -> JSONResponse:
    """A fault as the page expects it: one clear sentence."""
    return JSONResponse({"message": message}, status)


def too_large() -> JSONResponse:
    return message_response(413, "This is too large to be taken at once: send less.")


def place_of(error: BaseException) -> str:
    """Where an error arose, for the log: without its message, which may hold text of a note."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" in {Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{where}"


@dataclass
class Failures:
    """Wrong passwords of one address, and until when it has to wait for its next attempt."""

    count: int = 0
    last: float = 0.0
    locked_until: float = 0.0


class Login:
    """The login with a user and a password, and the sessions of those who are in.

    Args:
        accounts (`Mapping[str, str]`): passwords by user.
    """

    def __init__(self, accounts: Mapping[str, str]):
        self.accounts = dict(accounts)
        self._sessions: dict[str, float] = {}  # when each ends, by its token
        self._failures: dict[str, Failures] = {}  # by the address that they came from

    def knows(self, headers: Headers) -> bool:
        """Whether a request comes from someone who is in."""
        return self._sessions.get(session_of(headers), 0) > time.monotonic()

    async def answer(self, scope: Scope, receive: Receive) -> Response:
        """The answer to `/login` and `/logout`."""
        method = scope["method"]
        if scope["path"] == "/logout" and method == "POST":
            self._sessions.pop(session_of(Headers(scope=scope)), None)
            response = RedirectResponse("login", 303)
            response.delete_cookie(COOKIE)
            return response
        if scope["path"] != "/login" or method not in ("GET", "HEAD", "POST"):
            return message_response(404, "There is nothing here.")
        return await self._log_in(scope, receive) if method == "POST" else login_page()

    async def _log_in(self, scope: Scope, receive: Receive) -> Response:
        host = (scope.get("client") or ("",))[0]
        if seconds := self._locked_seconds(host):
            return too_many_attempts(seconds)
        fields = parse_qs((await read_body(receive, 4096)).decode("utf-8", errors="replace"))
        user, password = (fields.get(name, [""])[0] for name in ("user", "password"))
        if seconds := self._locked_seconds(host):  # others of this address were wrong while the body came
            return too_many_attempts(seconds)
        if not self._is_right(user, password):
            seconds = self._count_failure(host)
            await asyncio.sleep(FAILURE_DELAY)
            return too_many_attempts(seconds) if seconds else login_page(401, "User or password is wrong.")
        self._failures.pop(host, None)
        now = time.monotonic()
        self._sessions = {token: end for token, end in self._sessions.items() if end > now}
        token = secrets.token_urlsafe(32)
        self._sessions[token] = now + SESSION_SECONDS
        response = RedirectResponse("./", 303)
        is_secure = scope["scheme"] == "https"
        response.set_cookie(COOKIE, token, SESSION_SECONDS, httponly=True, samesite="strict", secure=is_secure)
        return response

    def _locked_seconds(self, host: str) -> int:
        """How long an address must still wait before its next attempt; 0 where it need not. Other addresses do not wait."""
        failures = self._failures.get(host)
        return 0 if failures is None else max(0, math.ceil(failures.locked_until - time.monotonic()))

    def _count_failure(self, host: str) -> int:
        """Count a wrong password of an address; returns how many seconds it must wait now."""
        now = time.monotonic()
        self._failures = {key: kept for key, kept in self._failures.items() if now - kept.last < FORGOTTEN_SECONDS}
        failures = self._failures.setdefault(host, Failures())
        failures.count, failures.last = failures.count + 1, now
        doublings = failures.count - FREE_FAILURES - 1
        seconds = 0 if doublings < 0 else min(LONGEST_LOCK_SECONDS, FIRST_LOCK_SECONDS << min(doublings, 20))
        failures.locked_until = now + seconds
        return seconds

    def _is_right(self, user: str, password: str) -> bool:
        expected = self.accounts.get(user, "")
        is_same = hmac.compare_digest(password.encode(), expected.encode())
        return is_same and user in self.accounts


def session_of(headers: Headers) -> str:
    """The token of a session in the cookies of a request; `""` without one."""
    try:
        cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return "" if cookie is None else cookie.value


def static_page(name: str, status: int = 200, **values: str) -> HTMLResponse:
    """A page of `static`: `{head}` in it is what the heads of all pages have in common, and `{name}` a value, escaped."""
    head = (STATIC / "head.html").read_text(encoding="utf-8")
    page = (STATIC / name).read_text(encoding="utf-8").replace("{head}", head.strip())
    for key, value in values.items():
        page = page.replace(f"{{{key}}}", html.escape(value))
    return HTMLResponse(page, status)


def login_page(status: int = 200, message: str = "") -> HTMLResponse:
    return static_page("login.html", status, message=message)


def too_many_attempts(seconds: int) -> HTMLResponse:
    wait = "1 second" if seconds == 1 else f"{seconds} seconds"
    answer = login_page(429, f"Too many wrong attempts from your address: wait {wait}, then try again.")
    answer.headers["Retry-After"] = str(seconds)
    return answer


async def read_body(receive: Receive, limit: int) -> bytes:
    """The body of a request.

    Raises:
        TooLarge: where it is longer than the limit.
    """
    body = b""
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > limit:
            raise TooLarge
        more = message.get("more_body", False)
    return body


def read_json(body: bytes) -> object:
    """JSON that a browser sent; `None` where it is none."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def read_accounts(given: str) -> dict[str, str]:
    """The accounts that `--auth` names: `USER:PASSWORD`, or a file with one such line for each user.

    Raises:
        ValueError: where it is neither; the message holds no password.
    """
    path = Path(given)
    try:
        is_file = path.is_file()
    except OSError:  # a name that is too long to be one
        is_file = False
    if not is_file and ":" not in given and (path.suffix or "/" in given):  # a path; anything else may be a password
        raise ValueError(
            f"{given[:200]} is not a file: --auth takes the path of a text file with a line USER:PASSWORD for each user, or "
            "USER:PASSWORD itself."
        )
    try:
        lines = path.read_text(encoding="utf-8").splitlines() if is_file else [given]
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text: write a line USER:PASSWORD for each user.") from None
    accounts: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        user, colon, password = line.strip().partition(":")
        if not (user and colon and password):
            where = f"{path}, line {number}" if is_file else "--auth"
            raise ValueError(
                f"{where} must be USER:PASSWORD, neither of them empty, or the path of a file with such lines."
            )
        accounts[user] = password
    if not accounts:
        raise ValueError(f"{path} names no user: write a line USER:PASSWORD for each.")
    return accounts

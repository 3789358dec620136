"""Watches over the calls in Gradio's queue: lets only well-formed ones in, and drops what is left of them in memory.

Gradio prints the values that it was given where there are too few of them, keeps the last answers of calls for which nobody came
back, and the last call that it has seen. All may hold what was written in a note.
"""

import asyncio
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .access import message_response, read_body, read_json


PATH = re.compile(r"/gradio_api/call/(?P<name>\w+)(/(?P<event>\w+))?")
CALLED_FOR_SECONDS = 30
MAX_CALL_BYTES = 4 << 20


class CallGuard:
    """Middleware between the gate and Gradio's routes.

    Args:
        app (`ASGIApp`): what is behind it.
        checks (`Mapping[str, Callable]`): what says of the data of a call, by its name, whether it is well-formed.
        blocks_of (`Callable`): gives Gradio's `Blocks` once the server runs.
    """

    def __init__(self, app: ASGIApp, checks: Mapping[str, Callable[[Any], bool]], blocks_of: Callable[[], Any]):
        self.app, self.checks, self.blocks_of = app, checks, blocks_of
        self._uncalled: dict[str, asyncio.TimerHandle] = {}
        self._calls: dict[str, Any] = {}  # Gradio's own objects, by their ids
        self._tasks: set[asyncio.Task] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match = PATH.fullmatch(scope["path"]) if scope["type"] == "http" else None
        if match is None:
            await self.app(scope, receive, send)
        elif match["event"]:
            await self._stream(match["event"], scope, receive, send)
        else:
            await self._join(match["name"], scope, receive, send)

    async def _join(self, name: str, scope: Scope, receive: Receive, send: Send) -> None:
        given = read_json(await read_body(receive, MAX_CALL_BYTES))
        data = given.get("data") if isinstance(given, dict) else None
        if not self.checks[name](data):
            await message_response(400, "This is no well-formed request of the page: reload it.")(scope, receive, send)
            return
        bodies = [json.dumps({"data": data}).encode()]
        kept = [pair for pair in scope["headers"] if pair[0] not in (b"content-length", b"content-type")]
        scope = {**scope, "headers": [*kept, (b"content-type", b"application/json")]}
        answered = b""

        async def receive_again() -> Message:
            if not bodies:
                return await receive()  # that the client is gone
            return {"type": "http.request", "body": bodies.pop(), "more_body": False}

        async def send_and_read(message: Message) -> None:
            nonlocal answered
            answered += message.get("body", b"")
            if message["type"] == "http.response.body" and not message.get("more_body"):
                self._note(read_json(answered))
            await send(message)

        await self.app(scope, receive_again, send_and_read)

    def _note(self, answer: object) -> None:
        """Note a call that Gradio has taken, by its answer, so that it is forgotten once it is over or nobody comes back for it."""
        event = answer.get("event_id") if isinstance(answer, dict) else None
        if isinstance(event, str):
            self._calls[event] = self.blocks_of()._queue.event_ids_to_events.get(event)
            loop = asyncio.get_running_loop()
            self._uncalled[event] = loop.call_later(CALLED_FOR_SECONDS, self._forget_soon, event)

    async def _stream(self, event: str, scope: Scope, receive: Receive, send: Send) -> None:
        if (timer := self._uncalled.pop(event, None)) is not None:
            timer.cancel()
        try:
            await self.app(scope, receive, send)
        finally:
            self._forget_soon(event)

    def _forget_soon(self, event: str) -> None:
        self._uncalled.pop(event, None)
        task = asyncio.get_running_loop().create_task(self._forget(event))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _forget(self, event: str) -> None:
        """End a call if it still runs, and drop its messages and its session. Without a session of its own, a call's id is that
        of its session."""
        blocks = self.blocks_of()
        queue = blocks._queue
        await queue.clean_events(session_hash=event)
        if (call := self._calls.pop(event, None)) is not None:
            call.alive, call.data, call.request = False, None, None  # Gradio may hold it until the next one comes
        queue.pending_messages_per_session.pop(event, None)
        queue.pending_event_ids_session.pop(event, None)
        queue.event_analytics.pop(event, None)
        blocks.app.state_holder.session_data.pop(event, None)

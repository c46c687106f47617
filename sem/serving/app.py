"""The routes: completions, models, health, and the page.

No request names a file, and none is read for one. A browser's other pages cannot use the server: a completion must be
``application/json``, which they may not send elsewhere, and on this machine's own addresses the name that a request was
sent to has to be one of them.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, TypeVar
from urllib.parse import urlsplit

from sem.config_sections import GenerationConfig
from sem.data import Tokenizer
from sem.extras import how_to_install
from sem.generation import prompt_tokens
from sem.model import SEMModel
from sem.serving import protocol
from sem.serving.completion import Completion, Progress
from sem.serving.protocol import Limits, Reply, RequestError
from sem.serving.scheduler import Busy, Scheduler

try:
    from fastapi import Depends, FastAPI, Request, Response
    from fastapi.responses import HTMLResponse, JSONResponse, StreamingResponse
    from starlette.concurrency import run_in_threadpool
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect
except ImportError:
    raise ImportError(f"sem serve needs FastAPI and uvicorn: {how_to_install('serve')}") from None

RETRY_AFTER = 5
"""Seconds after which a client that was turned away may ask again."""
BODY_SECONDS = 30.0
"""How long a client may take to send a request."""
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; connect-src 'self'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}
_T = TypeVar("_T")


@dataclass(frozen=True)
class Served:
    """What a server serves.

    Attributes:
        name: of the model, as clients know it.
        model: in evaluation mode.
        tokenizer: the model's.
        defaults: for what a request leaves out.
        created: when the parameters were written, in seconds since 1970.
        limits: of every request.
    """

    name: str
    model: SEMModel
    tokenizer: Tokenizer
    defaults: GenerationConfig
    created: int
    limits: Limits


def build_app(served: Served, scheduler: Scheduler, *, local_only: bool = True) -> FastAPI:
    """The application.

    Args:
        served: the model and what belongs to it.
        scheduler: draws the texts.
        local_only: refuse requests that were sent to a name that is not this machine's own (``localhost``).
    """
    app = FastAPI(
        title="sem",
        docs_url=None,  # those pages load scripts from elsewhere
        redoc_url=None,
        openapi_url=None,
        dependencies=[Depends(_sent_to_this_machine)] if local_only else [],
    )
    page = files("sem.serving").joinpath("page.html").read_text(encoding="utf-8")
    entry = {"id": served.name, "object": "model", "created": served.created, "owned_by": "sem"}
    limits = served.limits
    start = served.model.init_state(1)

    @app.exception_handler(RequestError)
    async def refused(_: Request, error: RequestError) -> JSONResponse:
        return JSONResponse(error.body, error.status, error.headers)

    @app.exception_handler(HTTPException)
    async def not_found(request: Request, error: HTTPException) -> JSONResponse:
        message = f"{request.method} {request.url.path[:100]}: {error.detail}"
        return JSONResponse(RequestError(message).body, error.status_code, error.headers)

    @app.exception_handler(ClientDisconnect)
    async def gone(_: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=499)  # to nobody

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse(_server_error(error).body, 500)

    @app.get("/")
    async def index() -> Response:
        return HTMLResponse(page, headers=PAGE_HEADERS)

    @app.get("/health")
    async def health() -> Response:
        alive = scheduler.alive
        body = {"status": "ok" if alive else "stopped", "running": scheduler.running, "waiting": scheduler.queued}
        return JSONResponse(body, 200 if alive else 503)

    @app.get("/v1/models")
    async def models() -> Response:
        return JSONResponse({"object": "list", "data": [entry]})

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> Response:
        if name != served.name:
            message = f"model = {name[:100]!r}: expected {served.name!r}, the one that is served"
            raise RequestError(message, status=404, param="model", code="model_not_found")
        return JSONResponse(entry)

    @app.post("/v1/completions")
    async def completions(request: Request) -> Response:
        values = await _json_body(request, limits.body_bytes)
        asked = protocol.read_request(values, model=served.name, defaults=served.defaults, limits=limits)
        prompt = await run_in_threadpool(_prompt, served, asked.settings.prompt)
        events: asyncio.Queue[Progress] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def tell(progress: Progress) -> None:
            loop.call_soon_threadsafe(events.put_nowait, progress)

        try:
            drawn = served.model, served.tokenizer, prompt, asked.settings, asked.stops, start
            completion = Completion(*drawn, tell)
        except ImportError as error:
            raise RequestError(str(error)) from None
        reply = Reply(f"cmpl-{uuid.uuid4().hex}", served.name, int(time.time()), len(prompt) - 1)
        _submit(scheduler, completion)
        if asked.stream:
            body = _server_sent_events(reply, events, usage=asked.usage)
            return _Stream(body, lambda: scheduler.withdraw(completion))
        try:
            return JSONResponse(await _unless_gone(request, _whole(reply, events)))
        finally:
            scheduler.withdraw(completion)

    return app


class _Stream(StreamingResponse):
    """Server-sent events; however it ends, ``done`` is called."""

    media_type = "text/event-stream"

    def __init__(self, body: AsyncIterator[str], done: Callable[[], None]) -> None:
        super().__init__(body, headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        self._done = done

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            with suppress(ClientDisconnect):
                await super().__call__(scope, receive, send)
        finally:
            self._done()


def _sent_to_this_machine(request: Request) -> None:
    """Refuse what a browser was led here with under another site's name."""
    host = request.headers.get("host", "")
    try:
        name = urlsplit(f"//{host}").hostname or ""
        local = name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        local = False
    if not local:
        raise RequestError(f"Host: expected localhost or its address, got {host[:100]!r}", status=403)


async def _json_body(request: Request, most: int) -> Any:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise RequestError(f"Content-Type: expected application/json, got {kind[:100]!r}", status=415)
    try:
        body = await asyncio.wait_for(_limited(request, most), BODY_SECONDS)
    except asyncio.TimeoutError:
        raise RequestError(f"body: expected within {BODY_SECONDS:g} seconds", status=408) from None
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:  # the latter of brackets in brackets
        reason = str(error) if isinstance(error, json.JSONDecodeError) else type(error).__name__
        raise RequestError(f"body: expected JSON ({reason})") from None


async def _limited(request: Request, most: int) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise RequestError(f"body: expected at most {most} bytes", status=413)
    return bytes(body)


def _prompt(served: Served, text: str) -> list[int]:
    try:
        tokens = prompt_tokens(served.tokenizer, text)
    except ValueError as error:
        raise RequestError(str(error), param="prompt") from None
    count, most = len(tokens) - 1, served.limits.prompt_tokens
    if count > most:
        message = f"prompt: expected at most {most} tokens, got {count}"
        raise RequestError(message, param="prompt", code="context_length_exceeded")
    return tokens


def _submit(scheduler: Scheduler, completion: Completion) -> None:
    try:
        scheduler.submit(completion)
    except Busy as error:
        raise RequestError(
            f"the server is busy: {error}",
            status=503,
            kind="server_error",
            code="overloaded",
            headers={"Retry-After": str(RETRY_AFTER)},
        ) from None
    except RuntimeError as error:
        raise _server_error(error) from None


async def _server_sent_events(reply: Reply, events: asyncio.Queue[Progress], *, usage: bool) -> AsyncIterator[str]:
    progress = Progress("", 0)
    while not progress.last:
        progress = await events.get()
        if progress.error is not None:
            yield _event(_server_error(progress.error).body)
        else:
            yield _event(reply.body(progress.text, progress.finish_reason))
    if usage and progress.error is None:
        yield _event(reply.body("", None, progress.tokens, choice=False))
    yield "data: [DONE]\n\n"


def _event(body: Any) -> str:
    return f"data: {json.dumps(body)}\n\n"


async def _whole(reply: Reply, events: asyncio.Queue[Progress]) -> dict[str, Any]:
    pieces = []
    while True:
        progress = await events.get()
        if progress.error is not None:
            raise _server_error(progress.error)
        pieces.append(progress.text)
        if progress.last:
            return reply.body("".join(pieces), progress.finish_reason, progress.tokens)


async def _unless_gone(request: Request, answer: Awaitable[_T]) -> _T:
    """``answer``, unless the client goes away before it is there.

    Raises:
        ClientDisconnect: it went.
    """

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    tasks = [asyncio.ensure_future(answer), asyncio.ensure_future(gone())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not tasks[0].done():
            raise ClientDisconnect
        return tasks[0].result()  # type: ignore[return-value]
    finally:
        for task in tasks:
            task.cancel()


def _server_error(error: Exception) -> RequestError:
    """What the server could not do, in as many words as are meant for a user."""
    known = isinstance(error, (RuntimeError, ArithmeticError, MemoryError))
    message = str(error).partition("\n")[0] if known else ""
    return RequestError(message or "something went wrong in the server", status=500, kind="server_error")

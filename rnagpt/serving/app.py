"""The HTTP side of `rnagpt serve`: a FastAPI application on one `Engine`.

POST /v1/chat/completions    an answer, whole or streamed (server-sent events)
GET  /v1/models              the one model
GET  /health                 for a load balancer; needs no key
GET  /metrics                for Prometheus
"""

import asyncio
import hmac
import json
import logging
import math
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from rnagpt.serving.confidence import confidence_of
from rnagpt.serving.engine import Answer, Engine
from rnagpt.serving.schema import ChatRequest
from rnagpt.serving.worker import Worker
from rnagpt_core.errors import UserError
from rnagpt_core.safe_text import one_line, printable

LOG = logging.getLogger("rnagpt.serving.serve_command")
KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
    504: "timeout_error",
}


@dataclass(frozen=True)
class Limits:
    """What one server takes on."""

    max_waiting: int = 64  # requests beyond those answered at the same time
    timeout: float = 120.0  # seconds per request, waiting included
    max_body: int = 1_000_000  # bytes
    read_timeout: float = 30.0  # seconds for a request's body to arrive


class Metrics:
    """Counters for Prometheus, in a registry of their own: two applications in one process do not mix."""

    def __init__(self, engine: Engine):
        self.registry = CollectorRegistry()
        here = {"registry": self.registry}
        self.requests = Counter("rnagpt_requests", "Chat completions by HTTP status", ["status"], **here)
        self.ended = Counter("rnagpt_answers", "Answers by the reason of their end", ["reason"], **here)
        self.tokens = Counter("rnagpt_tokens", "Tokens by kind", ["kind"], **here)
        self.first = Histogram("rnagpt_first_token_seconds", "From request to first piece of text", **here)
        self.whole = Histogram("rnagpt_answer_seconds", "From request to the end of the answer", **here)
        Gauge("rnagpt_answering", "Answers under way", **here).set_function(lambda: len(engine.active))
        Gauge("rnagpt_waiting", "Answers waiting for room", **here).set_function(lambda: len(engine.waiting))
        Gauge("rnagpt_cached_bytes", "Keys and values kept", **here).set_function(lambda: engine.prefixes.bytes)

    def count(self, answer: Answer) -> None:
        """Take note of a finished answer."""
        self.ended.labels(answer.finish_reason).inc()
        self.tokens.labels("prompt").inc(len(answer.prompt_ids))
        self.tokens.labels("prompt_cached").inc(answer.cached_tokens)
        self.tokens.labels("answer").inc(len(answer.token_ids))


class Exchange:
    """One request being answered: the engine's thread on one side, the event loop on the other."""

    def __init__(self, desk: "Desk", request: ChatRequest):
        self.desk, self.request = desk, request
        self.id, self.created = f"chatcmpl-{uuid.uuid4().hex}", int(time.time())
        self.began = time.monotonic()
        self.pieces: asyncio.Queue[str | None] = asyncio.Queue()  # None: the answer is finished
        self.loop = asyncio.get_running_loop()
        self.answer: Answer | None = None
        self.first_passed = False

    async def start(self) -> None:
        """Prepare the answer and hand it to the engine; UserError for what it cannot take."""
        self.answer = await run_in_threadpool(self._prepare)
        self.desk.worker.submit(self.answer)

    def _prepare(self) -> Answer:
        return self.desk.engine.prepare(
            self.request.conversation(),
            self.request.sampling(),
            stream_to=self._pass_on,
            confidence=self.request.confidence or self.request.weigh,
            deadline=self.began + self.desk.limits.timeout,
            when_done=lambda answer: self._pass_on(None),
        )

    def _pass_on(self, piece: str | None) -> None:
        try:
            self.loop.call_soon_threadsafe(self.pieces.put_nowait, piece)
        except RuntimeError:  # the loop is closed: nobody listens any more
            self.answer.cancel()

    async def next_piece(self) -> str | None:
        """The next piece of text, or None at the end."""
        piece = await self.pieces.get()
        if piece is not None and not self.first_passed:
            self.first_passed = True
            self.desk.metrics.first.observe(time.monotonic() - self.began)
        return piece

    def close(self) -> None:
        """Give its place free; an answer that nobody waits for is cancelled."""
        if self.answer is not None:
            self.answer.cancel()
            self.desk.metrics.count(self.answer)
        seconds = time.monotonic() - self.began
        self.desk.metrics.whole.observe(seconds)
        self.desk.mean_seconds += 0.1 * (seconds - self.desk.mean_seconds)
        self.desk.admitted -= 1

    def usage(self) -> dict:
        """Tokens, as OpenAI counts them."""
        prompt, completion = len(self.answer.prompt_ids), len(self.answer.token_ids)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": self.answer.cached_tokens},
        }

    def chunk(self, delta: dict, finish_reason: str | None = None, **more) -> str:
        """One event of a stream."""
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return event({**self.head("chat.completion.chunk"), "choices": [choice], **more})

    def head(self, kind: str) -> dict:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.desk.name}

    def confidence(self) -> dict:
        """{"rnagpt": ...} for requests with `confidence`."""
        confidence = confidence_of(self.answer)
        return {"rnagpt": confidence.as_json()} if confidence else {}

    def failure(self) -> tuple[int, str] | None:
        """Status and sentence for an answer that did not come to its end."""
        reason = self.answer.finish_reason
        if reason == "timeout":
            return 504, f"the answer was not finished within {self.desk.limits.timeout:g} s"
        if reason == "error":
            LOG.error("answering failed", exc_info=self.answer.error)
            return 500, "answering failed; the server's log says why"
        return None


class Desk:
    """Where requests are admitted or turned away; used by the event loop's thread alone."""

    def __init__(self, engine: Engine, name: str, limits: Limits):
        self.engine, self.name, self.limits = engine, name, limits
        self.worker, self.metrics = Worker(engine), Metrics(engine)
        self.admitted = 0
        self.mean_seconds = 1.0

    def admit(self, request: ChatRequest) -> Exchange:
        """A place for this request, or 429 with the time after which one is likely free."""
        if self.admitted >= self.engine.max_answers + self.limits.max_waiting:
            seconds = math.ceil(self.mean_seconds * self.limits.max_waiting / self.engine.max_answers)
            raise HTTPException(
                429, "too many requests are waiting: try again later", {"Retry-After": str(min(max(seconds, 1), 60))}
            )
        self.admitted += 1
        return Exchange(self, request)


def build_app(
    engine: Engine,
    name: str,
    limits: Limits | None = None,
    api_key: str | None = None,
    hosts: tuple[str, ...] = ("127.0.0.1", "localhost"),
) -> FastAPI:
    """The application.

    Args:
        name: of the model, in /v1/models and in requests.
        api_key: asked for as `Authorization: Bearer KEY` everywhere but at /health; None asks for none.
        hosts: accepted in the Host header, so that a web page elsewhere cannot have a browser talk to this server.
    """
    limits = limits or Limits()
    desk = Desk(engine, name, limits)

    @asynccontextmanager
    async def lifespan(app: FastAPI):
        with desk.worker:
            yield

    async def check_key(request: Request) -> None:
        if api_key is None:
            return
        given = request.headers.get("authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {api_key}".encode()):
            raise HTTPException(401, "the API key is missing or wrong: send it as `Authorization: Bearer KEY`")

    # docs_url=None: its page loads scripts from elsewhere
    app = FastAPI(title="RNA-GPT", docs_url=None, redoc_url=None, lifespan=lifespan)
    app.state.desk = desk
    errors = {status: {"description": kind} for status, kind in KINDS.items()}
    guarded = {"dependencies": [Depends(check_key)], "responses": {401: errors[401], 400: errors[400]}}

    @app.get("/health")
    async def health() -> dict:
        return {"status": "ok", "answering": len(engine.active), "waiting": len(engine.waiting)}

    @app.get("/metrics", response_class=PlainTextResponse, **guarded)
    async def metrics() -> PlainTextResponse:
        return PlainTextResponse(generate_latest(desk.metrics.registry))

    @app.get("/v1/models", **guarded)
    async def models() -> dict:
        return {"object": "list", "data": [{"id": name, "object": "model", "created": 0, "owned_by": "rnagpt"}]}

    @app.post("/v1/chat/completions", dependencies=[Depends(check_key)], responses=errors)
    async def chat_completions(body: ChatRequest, request: Request):
        if body.model != name:
            raise HTTPException(404, f"there is no model {one_line(body.model)[:80]!r} here, only {name!r}")
        exchange = desk.admit(body)
        try:
            await exchange.start()
        except BaseException:
            exchange.close()
            raise
        if body.stream:
            return EventStream(exchange)
        try:
            return await whole(exchange, request)
        finally:
            exchange.close()

    app.add_exception_handler(HTTPException, lambda _, error: failed(error.status_code, error.detail, error.headers))
    app.add_exception_handler(UserError, lambda _, error: failed(400, str(error)))
    app.add_exception_handler(RequestValidationError, lambda _, error: failed(400, validation_sentence(error)))
    app.add_middleware(Gate, limits=limits, counter=desk.metrics.requests)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))
    return app


async def whole(exchange: Exchange, request: Request) -> JSONResponse:
    """The answer in one piece; cancelled when the client goes away."""

    async def wait_for_end() -> None:
        while await exchange.next_piece() is not None:
            pass

    end = asyncio.ensure_future(wait_for_end())
    try:
        while not end.done():
            await asyncio.wait([end], timeout=0.25)
            if not end.done() and await request.is_disconnected():
                return failed(408, "the client went away")
    finally:
        end.cancel()
    if failure := exchange.failure():
        return failed(*failure)
    message = {"role": "assistant", "content": printable(exchange.answer.text), "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": exchange.answer.finish_reason}
    return JSONResponse(
        {**exchange.head("chat.completion"), "choices": [choice], "usage": exchange.usage(), **exchange.confidence()}
    )


class EventStream(StreamingResponse):
    """The answer as server-sent events; cancelled when the client goes away, be it before the first of them."""

    def __init__(self, exchange: Exchange):
        super().__init__(events(exchange), media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        self.exchange = exchange

    async def __call__(self, scope, receive, send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.exchange.close()


async def events(exchange: Exchange) -> AsyncIterator[str]:
    """The events of a streamed answer, in OpenAI's form."""
    yield exchange.chunk({"role": "assistant", "content": ""})
    while (piece := await exchange.next_piece()) is not None:
        yield exchange.chunk({"content": printable(piece)})
    if failure := exchange.failure():
        yield event(error_body(*failure))
    else:
        yield exchange.chunk({}, exchange.answer.finish_reason, **exchange.confidence())
        options = exchange.request.stream_options
        if options and options.include_usage:
            yield event({**exchange.head("chat.completion.chunk"), "choices": [], "usage": exchange.usage()})
    yield "data: [DONE]\n\n"


def event(data: dict) -> str:
    """One server-sent event."""
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n"


def error_body(status: int, sentence: str) -> dict:
    """An error as OpenAI words it."""
    error = {"message": sentence, "type": KINDS.get(status, "server_error"), "param": None, "code": status}
    return {"error": error}


def failed(status: int, sentence: str, headers: dict | None = None) -> JSONResponse:
    """The response for an error."""
    return JSONResponse(error_body(status, sentence), status, headers)


def validation_sentence(error: RequestValidationError) -> str:
    """What is wrong with a request's body, and where; of the alternatives of a union the one that went furthest."""
    first = max(error.errors(), key=lambda found: len(found["loc"]))
    steps = [str(step) for step in first["loc"] if step != "body"]
    if first["type"] == "json_invalid" or not steps:  # an empty body, one without its header, or a list
        return "the body is no JSON object: send one, with the header Content-Type: application/json"
    place = ".".join(step for step in steps if "[" not in step)  # without pydantic's names of alternatives
    return one_line(f"{place[:200]}: {first['msg']}" if place else str(first["msg"]))


class Gate:
    """ASGI middleware: reads a request's body before anything else, at most so many bytes in so many seconds, so that
    no handler waits for a slow or endless one; counts the statuses of chat completions."""

    def __init__(self, app, limits: Limits, counter: Counter):
        self.app, self.limits, self.counter = app, limits, counter

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return await self.app(scope, receive, send)

        async def counted(message):
            if message["type"] == "http.response.start" and scope["path"] == "/v1/chat/completions":
                self.counter.labels(str(message["status"])).inc()
            await send(message)

        too_large = failed(413, f"the request's body is larger than {self.limits.max_body:,} bytes")
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self.limits.max_body:
            return await too_large(scope, receive, counted)
        body = bytearray()
        try:
            async with asyncio.timeout(self.limits.read_timeout):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    body += message.get("body", b"")
                    more = message.get("more_body", False)
                    if len(body) > self.limits.max_body:
                        return await too_large(scope, receive, counted)
        except TimeoutError:
            return await failed(408, "the request's body did not arrive in time")(scope, receive, counted)
        unread = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def replayed():
            return unread.pop() if unread else await receive()

        return await self.app(scope, replayed, counted)

"""The raters' page over HTTP: `/<token>/`, and below it nothing but this study.

Raters are not trusted. Whoever lacks the token gets the same 404 for everything. A request's body
is at most `Limits.body_bytes`; requests are counted by address, and answers by rater; names and
numbers are checked against what there is before they touch a file or the database. The page has no
cookie and no inline script; a rater's key is sent as a header, which no other site can do.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import math
import re
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response
from pydantic import BaseModel, ConfigDict, StrictInt, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.studying.answers import Answers, RefusedError, clip_file
from orchestrator.studying.limits import Buckets, Limits
from orchestrator.studying.plan import REFERENCE

_log = logging.getLogger(__name__)
_PAGE = Path(__file__).with_name("static")
_ASSETS = {
    "icon.svg": "image/svg+xml",
    "study.css": "text/css; charset=utf-8",
    "study.js": "text/javascript; charset=utf-8",
}
_KEY = re.compile("[A-Za-z0-9_-]{32}")
_FOR_GOOD = "private, max-age=604800, immutable"
_CONNECTIONS = 512
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "referrer-policy": "no-referrer",  # the address holds the token
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "x-robots-tag": "noindex",
}


class GivenAnswer(BaseModel):
    """The body of an answer."""

    model_config = ConfigDict(extra="forbid")
    position: StrictInt
    value: StrictInt


def build(answers: Answers, limits: Limits, clock: Callable[[], float] = time.monotonic) -> ASGIApp:
    """The application. clock: seconds, for the limits."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.include_router(_Routes(answers, limits, clock).router)
    app.add_exception_handler(AnyHTTPException, _told)
    app.add_exception_handler(RefusedError, _refused)
    app.add_exception_handler(sqlite3.Error, _not_stored)
    return _Guard(app, Buckets(limits.address_rate, limits.address_burst, clock))


def server(answers: Answers, limits: Limits) -> uvicorn.Server:
    """The application's server, to be run on a socket that listens."""
    return uvicorn.Server(
        uvicorn.Config(
            build(answers, limits),
            http="h11",
            ws="none",
            lifespan="off",
            log_level="warning",
            access_log=False,  # addresses hold the token
            proxy_headers=False,  # anyone can write them
            server_header=False,
            limit_concurrency=_CONNECTIONS,
            timeout_graceful_shutdown=5,
        )
    )


class _Routes:
    """What there is below the token. Answers' calls wait for the disk, so threads make them."""

    def __init__(self, answers: Answers, limits: Limits, clock: Callable[[], float]) -> None:
        self._answers, self._limits = answers, limits
        self._joins = Buckets(limits.join_rate, limits.join_burst, clock)
        self._asks = Buckets(limits.rater_rate, limits.rater_burst, clock)
        self._files = {
            f"{name}.png": clip_file(answers.folder, name)
            for names in answers.clips.values()
            for name in names
        }
        self.router = router = APIRouter(prefix="/{token}", dependencies=[Depends(self._token)])
        router.get("")(self.slash)
        router.get("/")(self.page)
        router.get("/study")(self.study)
        router.post("/raters")(self.join)
        router.get("/state")(self.state)
        router.post("/answers")(self.answer)
        router.get("/clips/{file}")(self.clip)
        router.get("/{asset}")(self.asset)

    def _token(self, token: str) -> None:
        if not secrets.compare_digest(token.encode(), self._answers.token.encode()):
            raise HTTPException(404)

    async def slash(self) -> Response:
        """The page's links are relative, so its address ends with a slash."""
        return RedirectResponse(f"/{self._answers.token}/", 308)

    async def page(self) -> Response:
        return _asset("index.html", "text/html; charset=utf-8")

    async def asset(self, asset: str) -> Response:
        if asset not in _ASSETS:
            raise HTTPException(404)
        return _asset(asset, _ASSETS[asset])

    async def clip(self, file: str) -> Response:
        if file not in self._files:  # a name we gave: no path is made of what was asked for
            raise HTTPException(404)
        data = await run_in_threadpool(self._files[file].read_bytes)
        return Response(data, media_type="image/png", headers={"cache-control": _FOR_GOOD})

    async def study(self) -> Response:
        study = self._answers.study
        return _json(
            {
                "mode": study.mode,
                "of": study.length,
                "fps": study.fps,
                "references": _urls(self._answers.clips.get(REFERENCE, [])),
            }
        )

    async def join(self, request: Request) -> Response:
        _demand(self._joins.take(address_of(request.scope)))
        key = await run_in_threadpool(self._answers.join, self._limits.raters)
        return _json({"key": key}, 201)

    async def state(self, request: Request) -> Response:
        return await self._standing(await self._rater(request))

    async def answer(self, request: Request) -> Response:
        rater = await self._rater(request)
        try:
            given = GivenAnswer.model_validate_json(await self._body(request))
        except ValidationError:
            raise HTTPException(400, "an answer is {position: integer, value: integer}") from None
        try:
            await run_in_threadpool(self._answers.answer, rater, given.position, given.value)
        except ValueError as error:
            raise HTTPException(400, str(error)) from None
        return await self._standing(rater)

    async def _standing(self, rater: int) -> Response:
        standing = await run_in_threadpool(self._answers.standing, rater)
        return _json(
            {
                "code": standing.code,
                "done": standing.done,
                "of": self._answers.study.length,
                "shown": _urls(standing.shown),
                "coming": _urls(standing.coming),
            }
        )

    async def _rater(self, request: Request) -> int:
        key = request.headers.get("x-rater", "")
        rater = None
        if _KEY.fullmatch(key):
            rater = await run_in_threadpool(self._answers.rater, key)
        if rater is None:
            raise HTTPException(401, "no rater of this study has this key")
        _demand(self._asks.take(str(rater)))
        return rater

    async def _body(self, request: Request) -> bytes:
        """The body, read no further than the limit."""
        read = b""
        try:
            async with asyncio.timeout(self._limits.body_s):
                async for part in request.stream():
                    read += part
                    if len(read) > self._limits.body_bytes:
                        raise HTTPException(413, f"at most {self._limits.body_bytes} bytes")
        except TimeoutError:
            raise HTTPException(408, "the body did not come") from None
        return read


class _Guard:
    """Around everything: the limit by address, and the headers of every answer."""

    def __init__(self, app: ASGIApp, addresses: Buckets) -> None:
        self._app, self._addresses = app, addresses

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=message["headers"])
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store")
            await send(message)

        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        wait_s = self._addresses.take(address_of(scope))
        app = self._app if wait_s == 0 else _too_many(wait_s)
        await app(scope, receive, send_guarded)


def address_of(scope: Scope) -> str:
    """The peer's address, an IPv6 one as its /64: what one subscriber has."""
    host = scope["client"][0] if scope.get("client") else ""
    try:
        if ipaddress.ip_address(host).version == 6:
            return str(ipaddress.ip_network(f"{host}/64", strict=False))
    except ValueError:
        pass
    return host


def _demand(wait_s: float) -> None:
    if wait_s > 0:
        raise HTTPException(429, "too many requests", {"retry-after": str(math.ceil(wait_s))})


def _too_many(wait_s: float) -> Response:
    return _json({"error": "too many requests"}, 429, {"retry-after": str(math.ceil(wait_s))})


def _asset(name: str, kind: str) -> Response:
    return Response((_PAGE / name).read_bytes(), media_type=kind)


def _urls(clips: Iterable[str]) -> list[str]:
    return [f"clips/{name}.png" for name in clips]


def _json(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse(content, status, headers)


async def _told(_: Request, error: Exception) -> Response:
    assert isinstance(error, AnyHTTPException)
    return _json({"error": error.detail}, error.status_code, error.headers)


async def _refused(_: Request, error: Exception) -> Response:
    return _json({"error": str(error)}, 409)


async def _not_stored(_: Request, error: Exception) -> Response:
    _log.error("the answers cannot be stored: %s", error)
    return _json({"error": "not stored; try again"}, 503, {"retry-after": "2"})

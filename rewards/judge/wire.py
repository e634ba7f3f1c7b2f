"""One HTTP exchange with an OpenAI-compatible server: a bounded body in, a bounded time, no redirects, no secrets out."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx2

from align.errors import RecipeError, first_line
from align.rewards.judge.client import JudgeFailure
from align.rewards.judge.retry import retry_after
from align.rewards.judge.settings import JudgeSettings

_LARGEST_BODY = 8 << 20  # bytes
_LARGEST_COMPLAINT = 1 << 14
_IDLE_SECONDS = 2.0  # of a connection: servers close theirs after five or so, and a request that meets that is lost


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """What came back: the body of a 200 whole, of a 4xx its beginning, of others nothing."""

    status: int
    body: bytes
    retry_after: float | None


class NotConnected(JudgeFailure):
    """The request was not sent."""


class Wire:
    """Connections to one server; for one event loop."""

    def __init__(self, settings: JudgeSettings, route: str = "/chat/completions") -> None:
        assert settings.base_url is not None
        self._url, self._timeout = f"{settings.base_url}{route}", settings.timeout
        self._key = api_key(settings)
        count = settings.max_concurrency
        self._http = httpx2.AsyncClient(
            timeout=httpx2.Timeout(settings.timeout, connect=min(settings.timeout, 15.0)),
            limits=httpx2.Limits(max_connections=count, max_keepalive_connections=count, keepalive_expiry=_IDLE_SECONDS),
            follow_redirects=False,  # another host would be sent the prompts, and the key
            trust_env=not _is_local(settings.base_url),  # a company's proxy and certificates, but never for this machine
        )

    async def post(self, body: Mapping[str, Any]) -> Response:
        """Send a request. Raises JudgeFailure ("timeout", "unreachable", "garbage") where no usable response comes in time."""
        headers = {"Content-Type": "application/json", "Accept": "application/json", "Accept-Encoding": "identity"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        try:
            async with (
                asyncio.timeout(self._timeout),
                self._http.stream("POST", self._url, content=json.dumps(body).encode(), headers=headers) as response,
            ):
                content = await _read(response)
                return Response(
                    status=response.status_code, body=content, retry_after=retry_after(response.headers.get("retry-after"))
                )
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout) as error:
            raise NotConnected(f"no connection to the judge: {self.without_key(first_line(error))}", kind="unreachable") from None
        except (TimeoutError, httpx2.TimeoutException):
            message = f"the judge did not answer within {self._timeout:g} s"
            raise JudgeFailure(message, kind="timeout") from None
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            # The exception itself is not chained: it holds the request, and with it the key.
            message = f"the connection to the judge broke: {self.without_key(first_line(error))}"
            raise JudgeFailure(message, kind="unreachable") from None

    def complaint(self, response: Response) -> str:
        """What a refusing server says, in a line; nothing of one that complains about the key, which it may quote."""
        if response.status in (401, 403):
            return "it does not accept the API key" if self._key else "it wants an API key"
        try:
            content = json.loads(response.body)
            error = content.get("error", content)
            text = error.get("message") if isinstance(error, dict) else error
        except (ValueError, AttributeError, RecursionError):
            text = None
        return " ".join(self.without_key(text).split())[:300] if isinstance(text, str) else "it does not say why"

    def without_key(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text

    async def close(self) -> None:
        await self._http.aclose()


async def _read(response: httpx2.Response) -> bytes:
    """The body as far as it is wanted: that of an error may look like an answer and is never read as one."""
    if response.status_code != 200 and not 400 <= response.status_code < 500:
        return b""
    if response.headers.get("content-encoding", "identity") != "identity":
        raise JudgeFailure("the judge's answer is compressed, which was not asked for", kind="garbage")
    bound = _LARGEST_BODY if response.status_code == 200 else _LARGEST_COMPLAINT
    body = bytearray()
    async for piece in response.aiter_raw():
        body += piece
        if len(body) > bound:
            if response.status_code != 200:
                break
            raise JudgeFailure(f"the judge's answer is larger than {bound >> 20} MiB", kind="garbage")
    return bytes(body)


def api_key(settings: JudgeSettings) -> str | None:
    """The key from the environment. Raises RecipeError, without the key, where there is none or it cannot be one."""
    name = settings.api_key_env
    if name is None:
        return None
    key = os.environ.get(name, "").strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        what = "is not set" if not key else "holds what cannot be a key: it has spaces or special characters"
        raise RecipeError(f"the environment variable {name} {what}", place="api_key_env", fix=f"export {name}=... before the run")
    return key


def _is_local(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

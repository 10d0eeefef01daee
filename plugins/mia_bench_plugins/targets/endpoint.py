"""A service that makes images, asked over HTTP."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import logging
import os
import ssl
import threading
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib.metadata import version
from time import monotonic
from typing import TYPE_CHECKING, Any

from mia_bench import Capability, Target, TargetMeta, hookimpl
from mia_bench.black_box import BlackBox, Request
from mia_bench.errors import NetworkError, SampleError, UsageError, brief

if TYPE_CHECKING:
    import httpx2

TOKEN = "MIA_BENCH_ENDPOINT_TOKEN"
AT_ONCE = 4  # requests
TRIES = 5  # of one request
TIMEOUT_S = 300.0  # that one try may take, answer included: large models are slow, and some start when first asked
CONNECT_S = 10.0
BACKOFF_S = 1.0  # before the second try, twice as long before each further one
LONGEST_S = 300.0  # that a service may ask to wait
LOST = 5  # requests in a row of which no try got through: the service is down
MAX_BYTES = 32 * 2**20  # of an answer
HOPELESS = {401, 404, 405, 407, 410}  # whatever is asked


class _AgainError(Exception):
    """Asking again may help.

    Args:
        why: What went wrong.
        wait: Seconds that the service asks to wait, if it says so.
    """

    def __init__(self, why: str, wait: float | None = None) -> None:
        self.why, self.wait = why, wait
        super().__init__(why)


class Endpoint(BlackBox):
    """POST of JSON `{caption, seed, size, steps, guidance[, image, strength]}`, answered with one image.

    `image` is a PNG in base64. The answer is an image file (PNG, JPEG, WebP), or JSON with one in base64: `{"image":
    ...}`. A service that answers otherwise is asked through a few lines of one's own: see `callable`.

    A bearer token is read from MIA_BENCH_ENDPOINT_TOKEN and neither stored nor shown. Four requests at a time. 408,
    425, 429, 5xx and lost connections are tried five times, as late as Retry-After asks; another refusal costs its
    sample. Redirects are not followed.

    A service may become another model behind the same address, and nothing here can notice: name what it is with
    --revision.
    """

    meta = TargetMeta(
        name="endpoint",
        summary="a service that makes images: POST of {caption, seed, size, steps, guidance[, image, strength]}",
        kind="pixel",
        capabilities=frozenset({Capability.GENERATE, Capability.CAPTION, Capability.VARY}),
        argument="URL",
    )

    @cached_property
    def url(self) -> str:
        """Where it is asked.

        Raises:
            UsageError: It is no address, or holds a password.
        """
        import httpx2

        fix = "write --target endpoint:https://HOST/PATH"
        try:
            parsed = httpx2.URL(self.argument)
        except (httpx2.InvalidURL, ValueError) as error:
            raise UsageError("target endpoint", brief(error), fix) from error
        if parsed.userinfo:
            raise UsageError("target endpoint", "its address holds a password", f"set {TOKEN} instead")
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise UsageError(f"target endpoint:{self.argument}", "that is no address of a service", fix)
        return self.argument

    def weights(self) -> Mapping[str, str]:
        return {}  # out of sight

    def settings(self) -> Mapping[str, Any]:
        return {**super().settings(), "url": self.url}

    def facts(self) -> Mapping[str, Any]:
        return {"url": self.url, "revision": self.options.revision or "not named: the service may change unnoticed"}

    def load(self) -> None:
        super().load()
        self._ready, self._lost, self._answered = 0.0, 0, False
        log = logging.getLogger("mia_bench")
        if not self.options.revision:
            log.warning("target %s may change unnoticed; say with --revision which model it is", self.url)
        if self._token and self.url.startswith("http://") and not _is_here(self.url):
            log.warning("target %s is not https: the token can be read on the way", self.url)

    @property
    def _token(self) -> str:
        return os.environ.get(TOKEN, "").strip()

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        import httpx2

        return httpx2.create_ssl_context()

    @cached_property
    def _loop(self) -> asyncio.AbstractEventLoop:
        """One of its own, in a thread that holds up nobody: Ctrl-C is heeded at once, also in a notebook."""
        loop = asyncio.new_event_loop()
        threading.Thread(target=loop.run_forever, daemon=True).start()
        return loop

    def made(self, requests: Sequence[Request]) -> list[bytes | SampleError]:
        work = asyncio.run_coroutine_threadsafe(self._all(requests), self._loop)
        try:
            return work.result()
        except BaseException:
            work.cancel()
            raise

    async def _all(self, requests: Sequence[Request]) -> list[bytes | SampleError]:
        import httpx2

        headers = {"User-Agent": f"mia-bench/{version('mia-bench')}", "Accept": "image/*, application/json"}
        headers |= {"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {self._token}"} if self._token else {})
        slots = asyncio.Semaphore(AT_ONCE)
        timeout = httpx2.Timeout(TIMEOUT_S, connect=CONNECT_S)
        async with httpx2.AsyncClient(headers=headers, timeout=timeout, verify=self._tls) as client:
            tasks = [asyncio.create_task(self._one(client, slots, request)) for request in requests]
            try:
                return await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()

    async def _one(self, client: httpx2.AsyncClient, slots: asyncio.Semaphore, request: Request) -> bytes | SampleError:
        """An answer, or why this request has none."""
        why = ""
        for attempt in range(TRIES):
            async with slots:
                while (wait := self._ready - monotonic()) > 0:
                    await asyncio.sleep(wait)
                try:
                    answer = await self._ask(client, request)
                    self._lost, self._answered = 0, True
                    return answer
                except SampleError as error:
                    self._lost, self._answered = 0, True
                    return error
                except _AgainError as error:
                    why, wait = error.why, BACKOFF_S * 2**attempt if error.wait is None else error.wait
                    if wait > LONGEST_S:
                        self._end(f"{why}, and asks to wait {wait:.0f} s", "run the same command again after that")
                    if attempt + 1 < TRIES:
                        self._ready = max(self._ready, monotonic() + wait)
        self._lost += 1
        if self._lost >= LOST or not self._answered:
            fix = "see to the service, and run the same command again: what is stored is kept"
            self._end(f"{why}, {TRIES} times" + (f" for {self._lost} images in a row" if self._answered else ""), fix)
        return self._refusal(request, f"no answer in {TRIES} tries: {why}")

    async def _ask(self, client: httpx2.AsyncClient, request: Request) -> bytes:
        """One try."""
        import httpx2

        from mia_bench.fetch.client import retry_after

        try:
            async with (
                asyncio.timeout(TIMEOUT_S),
                client.stream("POST", self.url, json=_content(request)) as response,
            ):
                body = bytearray()
                packed = response.headers.get("content-encoding", "identity").lower() != "identity"
                async for chunk in response.aiter_raw(2**16):
                    body += chunk
                    if len(body) > MAX_BYTES:
                        raise self._refusal(request, f"its answer is larger than {MAX_BYTES:,} bytes")
        except TimeoutError:
            raise _AgainError(f"no answer within {TIMEOUT_S:g} s") from None
        except httpx2.TimeoutException as error:
            raise _AgainError(f"timeout: {type(error).__name__}") from None
        except httpx2.TransportError as error:
            if _of_tls(error):
                self._end(f"TLS: {brief(error)}", "give an address whose certificate can be checked")
            raise _AgainError(f"connection: {brief(error)}") from None
        status = response.status_code
        said = "" if packed else _message(bytes(body))
        why = self._hidden(f"HTTP {status}" + (f": {said}" if said else ""))
        if status in (408, 425, 429) or status >= 500:
            raise _AgainError(why, retry_after(response.headers.get("retry-after", "")))
        if response.is_redirect:
            place = self._hidden(str(response.headers["location"])[:200])
            self._end(f"HTTP {status}: it redirects to {place}", "if you trust that address, give it as the target")
        if status in HOPELESS:
            token = f"set {TOKEN} to a token that is valid there"
            self._end(why, token if status in (401, 407) else "check the address and that it takes POST")
        if status != 200:
            raise self._refusal(request, why)
        if packed:
            raise self._refusal(request, "its answer is packed, though that was not asked for")
        return self._image(request, bytes(body))

    def _image(self, request: Request, body: bytes) -> bytes:
        """The bytes of an image file, taken out of JSON if they are in it."""
        if body.lstrip()[:1] != b"{":
            return body
        try:
            found = json.loads(body)["image"]
            return base64.b64decode("".join(found.rpartition(",")[2].split()), validate=True)  # after `data:...,`
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            said = _message(body)
            why = f"its JSON holds no `image` in base64{f': {said}' if said else ''}"
            raise self._refusal(request, self._hidden(why)) from error

    def _refusal(self, request: Request, why: str) -> SampleError:
        return SampleError(f"target {self.url} on sample {request.sample!r}", f"the endpoint refused: {why}")

    def _end(self, why: str, fix: str) -> None:
        raise NetworkError(f"target endpoint:{self.url}", why, fix)

    def _hidden(self, text: str) -> str:
        """A service's words without the token, should it repeat it."""
        return text.replace(self._token, "***") if self._token else text


def _content(request: Request) -> dict[str, Any]:
    given = {n: getattr(request, n) for n in ("caption", "seed", "size", "steps", "guidance")}
    if request.image is None:
        return given
    file = io.BytesIO()
    request.image.save(file, "PNG")
    return {**given, "image": base64.b64encode(file.getvalue()).decode(), "strength": request.strength}


def _message(body: bytes) -> str:
    """What a JSON answer says went wrong, if it says so in one of the usual places."""
    try:
        found = json.loads(body[: 2**16])
    except (ValueError, RecursionError):
        return ""
    for key in ("error", "message", "detail"):
        if isinstance(found, dict) and key in found:
            found = found[key]
    return brief(found) if isinstance(found, str) else ""


def _of_tls(error: BaseException) -> bool:
    """Whether a certificate, or the handshake, is behind it."""
    chain: BaseException | None = error
    while chain is not None and not isinstance(chain, ssl.SSLError):
        chain = chain.__cause__ or chain.__context__
    return chain is not None


def _is_here(url: str) -> bool:
    import httpx2

    return httpx2.URL(url).host in ("localhost", "127.0.0.1", "::1")


@hookimpl
def mia_bench_targets() -> list[type[Target]]:
    return [Endpoint]

"""One url, asked once: bounded in time, bytes and redirects, and never an exception for what a server does."""

from __future__ import annotations

import asyncio
import re
import ssl
import time
import zlib
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from importlib.metadata import version

import httpcore2
import httpx2

from mia_bench.errors import brief
from mia_bench.fetch.guard import Guard, RefusedError, UnresolvedError

MAX_BYTES = 32 * 2**20  # of a body, packed and unpacked
LARGE_BYTES = 2**20  # of a body that few may have in memory at once; the others, one for each connection
LARGE_AT_ONCE = 8
MAX_REDIRECTS = 5
CONNECT_S = 10.0  # for one address, handshake included
REDIRECTS = {301, 302, 303, 307, 308}
OPT_OUT = re.compile(r"\bno(image)?ai\b", re.IGNORECASE)  # whichever crawler it is said to
WAITS = "waits"  # a redirect to a host that asked to wait; no answer of its own
PACKED = {"gzip", "x-gzip", "deflate"}


@dataclass(frozen=True)
class Answer:
    """What asking a url gave.

    Attributes:
        final_url: Where the redirects led.
        status: HTTP status of `final_url`, if it answered.
        content_type: As the server has it.
        body: The whole body, unpacked; empty unless `error` is.
        error: Why there is no body, in a word; empty if there is one.
        note: The same in a line.
        wait: Seconds that the server asks to wait; None if it does not, or if asking again would not help.
        temporary: Whether asking again soon may help.
    """

    final_url: str
    status: int | None = None
    content_type: str = ""
    body: bytes = b""
    error: str = ""
    note: str = ""
    wait: float | None = None
    temporary: bool = False


class Client:
    """Asks urls, over few connections to each host.

    Proxies, cookies and stored passwords are not used: through a proxy, the address could not be checked.

    Args:
        resolvers: Threads that wait for the resolver.
        connections: At most so many at once.
        per_host: At most so many at once to one host.
        timeout: Seconds that one request may take, body included; a redirect is another request.
        allowed: Host and port of the one origin that may be a private address.
    """

    def __init__(
        self,
        resolvers: Executor,
        connections: int,
        per_host: int,
        timeout: float,
        allowed: tuple[str, int] | None = None,
    ) -> None:
        self.timeout = timeout
        self.pool = httpcore2.AsyncConnectionPool(
            ssl_context=httpcore2.default_ssl_context(),
            network_backend=Guard(resolvers, allowed),
            max_connections=connections,
            keepalive_expiry=5.0,
        )
        self.large = asyncio.Semaphore(LARGE_AT_ONCE)
        self.slots: defaultdict[bytes, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(per_host))
        agent = f"mia-bench/{version('mia-bench')} (membership-inference research; honours X-Robots-Tag: noai)"
        # Packed bodies are not asked for: images are packed already.
        self.headers = {"User-Agent": agent, "Accept": "image/*,*/*;q=0.1", "Accept-Encoding": "identity"}

    async def close(self) -> None:
        await self.pool.aclose()

    async def get(self, url: str, held: AsyncExitStack, wait: Callable[[str], float] = lambda host: 0.0) -> Answer:
        """Ask a url and follow its redirects.

        Args:
            url: Whatever the list has.
            held: Closed once the body is no longer needed: until then, a large one counts as in memory.
            wait: Seconds until a host may be asked; a redirect to one that may not be is not followed.
        """
        answer = Answer(url)
        for hop in range(MAX_REDIRECTS + 1):
            try:
                parsed = httpx2.URL(answer.final_url.strip()).copy_with(fragment=None)
                if parsed.scheme not in ("http", "https"):
                    return replace(answer, error="scheme", note=f"{parsed.scheme or 'no'} scheme")
                if not parsed.host or not 0 < (parsed.port or 80) < 65536:
                    raise ValueError("no host, or no port that exists")
                if hop and (seconds := wait(parsed.netloc.decode("ascii"))):
                    return replace(answer, error=WAITS, wait=seconds, temporary=True)
                answer, location = await self._ask(parsed, held)
                if location is None:
                    return answer
                answer = replace(answer, final_url=str(parsed.join(location)))
            except (httpx2.InvalidURL, ValueError) as error:
                return replace(answer, error="bad-url", note=brief(error))
        return replace(answer, error="redirects", note=f"more than {MAX_REDIRECTS} redirects")

    async def _ask(self, url: httpx2.URL, held: AsyncExitStack) -> tuple[Answer, str | None]:
        """One request: its answer, and where it redirects to."""
        answer = Answer(str(url))
        target = httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
        headers = [("Host", url.netloc.decode("ascii")), *self.headers.items()]
        extensions = {"timeout": {"connect": min(CONNECT_S, self.timeout)}}
        async with self.slots[url.netloc]:
            try:
                async with (
                    asyncio.timeout(self.timeout) as limit,
                    self.pool.stream("GET", target, headers=headers, extensions=extensions) as response,
                ):
                    fields = httpx2.Headers(response.headers)
                    kind = fields.get("content-type", "")[:100]
                    answer = replace(answer, status=response.status, content_type=kind)
                    if any(OPT_OUT.search(value) for value in fields.get_list("x-robots-tag")):
                        return replace(answer, error="noai", note="X-Robots-Tag opts out"), None
                    if response.status in REDIRECTS and "location" in fields:
                        return answer, fields["location"]
                    if response.status != 200:
                        soon = response.status in (408, 425, 429) or response.status >= 500
                        wait = retry_after(fields.get("retry-after", "")) if soon else None
                        return replace(answer, error=f"http-{response.status}", wait=wait, temporary=soon), None
                    return await _read(answer, response, fields, lambda: self._enlarge(held, limit)), None
            except TimeoutError:
                error = "slow" if answer.status else "timeout"
                return replace(answer, error=error, note=f"over {self.timeout:g} s", temporary=not answer.status), None
            except Exception as error:  # of many layers; each one costs this url alone
                word, temporary = _fault(error, answer.status is not None)
                return replace(answer, error=word, note=brief(error), temporary=temporary), None

    async def _enlarge(self, held: AsyncExitStack, limit: asyncio.Timeout) -> None:
        """Wait until one more large body may be in memory, which is no time that the server takes."""
        loop, until = asyncio.get_running_loop(), limit.when()
        assert until is not None
        left = until - loop.time()
        limit.reschedule(None)
        await held.enter_async_context(self.large)
        limit.reschedule(loop.time() + left)


async def _read(
    answer: Answer, response: httpcore2.Response, fields: Mapping[str, str], enlarge: Callable[[], Awaitable[None]]
) -> Answer:
    """The answer with its body, or with why it has none; `enlarge` waits until the body may be a large one."""
    too_big = replace(answer, error="too-big", note=f"more than {MAX_BYTES:,} bytes")
    length = fields.get("content-length", "")
    if length.isdecimal() and int(length) > MAX_BYTES:
        return too_big
    packing = fields.get("content-encoding", "").strip().lower()
    if packing not in {"", "identity", *PACKED}:
        return replace(answer, error="encoding", note=f"content-encoding {packing[:40]}")
    unpack = zlib.decompressobj(wbits=47) if packing in PACKED else None  # 47: gzip or zlib, as the first bytes say
    body, arrived, large = bytearray(), 0, False
    async for chunk in response.aiter_stream():
        if not large and (unpack or arrived + len(chunk) > LARGE_BYTES):  # a few packed bytes may be many
            await enlarge()
            large = True
        arrived += len(chunk)
        body += unpack.decompress(chunk, MAX_BYTES + 1 - len(body)) if unpack else chunk
        if max(arrived, len(body)) > MAX_BYTES:
            return too_big
    if unpack and not unpack.eof:
        return replace(answer, error="cut", note="the packed body ends too early", temporary=True)
    return replace(answer, body=bytes(body))


def _fault(error: Exception, answered: bool) -> tuple[str, bool]:
    """What went wrong in a word, and whether asking again soon may help."""
    chain: list[BaseException] = [error]
    while following := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(following)
    if isinstance(error, RefusedError):
        return "private", False
    if isinstance(error, UnresolvedError):
        return "dns", error.temporary
    if any(isinstance(e, ssl.SSLError) for e in chain):
        return "tls", False
    if isinstance(error, httpcore2.ConnectError | httpcore2.ConnectTimeout):
        return "connect", True
    if isinstance(error, httpcore2.NetworkError | httpcore2.TimeoutException):  # timeouts of the system's own
        return "reset", True
    if isinstance(error, httpcore2.RemoteProtocolError) and (answered or "disconnected" in str(error)):
        return ("cut" if answered else "reset"), True
    if isinstance(error, zlib.error):
        return "encoding", False
    return "protocol", False


def retry_after(text: str) -> float | None:
    """Seconds that a Retry-After header asks for (a number, or a date), at least 0; None if it says nothing."""
    text = text.strip()
    if text.isdecimal() and text.isascii():
        return float(text[:9])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None

"""Which addresses may be reached: none that is private, and always the very one that was looked at."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from queue import SimpleQueue
from threading import Thread
from typing import Any

import httpcore2

UNICAST = IPv6Network("2000::/3")
NAT64 = IPv6Network("64:ff9b::/96")  # an IPv4 address in the last four bytes
# What IANA's registries of special-purpose addresses hold, and what else is no web server. What `ipaddress` says of an
# address differs between releases of Python, and it does not know of clouds.
SPECIAL: tuple[IPv4Network | IPv6Network, ...] = tuple(
    map(
        ip_network,
        (
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",  # carriers' NAT; 100.100.100.200 is Alibaba's metadata service
            "127.0.0.0/8",
            "168.63.129.16/32",  # Azure's host: public, but it answers each machine there
            "169.254.0.0/16",  # 169.254.169.254 is the metadata service of most clouds
            "172.16.0.0/12",
            "192.0.0.0/24",  # 192.0.0.192 is Oracle's metadata service
            "192.0.2.0/24",
            "192.31.196.0/24",
            "192.52.193.0/24",
            "192.88.99.0/24",  # relays to 6to4
            "192.168.0.0/16",
            "192.175.48.0/24",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/4",
            "240.0.0.0/4",
            "2001::/23",  # Teredo, ORCHID and others
            "2001:db8::/32",
            "2002::/16",  # 6to4, which leads to any IPv4 address
            "2620:4f:8000::/48",
            "3fff::/20",
        ),
    )
)  # of IPv6, only what lies within UNICAST: the rest is refused anyhow
MAX_ADDRESSES = 4  # tried of one host


class RefusedError(Exception):
    """The host is, or resolves to, an address that must not be reached."""


class UnresolvedError(Exception):
    """The host has no address.

    Args:
        message: What the resolver said.
        temporary: Whether it may say something else soon.
    """

    def __init__(self, message: str, temporary: bool) -> None:
        self.temporary = temporary
        super().__init__(message)


def is_public(text: str) -> bool:
    """Whether an address belongs to the public internet: not private, loopback, link-local, multicast, reserved, a
    cloud's metadata service, nor an IPv6 address that stands for such an IPv4 address.
    """
    try:
        address = ip_address(text)
    except ValueError:
        return False
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return _public(address.ipv4_mapped)
        if address in NAT64:
            return _public(IPv4Address(int(address) & 0xFFFFFFFF))
        return address.scope_id is None and address in UNICAST and _public(address)
    return _public(address)


def _public(address: IPv4Address | IPv6Address) -> bool:
    if any(address in network for network in SPECIAL):  # one of the other IP version holds none
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def parse_origin(text: str) -> tuple[str, int]:
    """`HOST:PORT` (`[::1]:8000` for IPv6) as host and port.

    Raises:
        ValueError: It is not of this form.
    """
    host, _, port = text.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if not bare or not port.isdecimal() or not 0 < int(port) < 65536 or (":" in bare and not host.startswith("[")):
        raise ValueError(f"{text!r} is not HOST:PORT")
    return bare.lower(), int(port)


class Resolvers(Executor):
    """Daemon threads: unlike a pool's, none that waits for the resolver keeps the process from ending.

    Args:
        count: At most so many.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._threads: list[Thread] = []
        self._tasks: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self._tasks.put((future, lambda: function(*args, **kwargs)))
        if len(self._threads) < self._count:
            self._threads.append(Thread(target=self._work, name="resolver", daemon=True))
            self._threads[-1].start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let the threads end once each has nothing more to do; none is waited for."""
        for _ in self._threads:
            self._tasks.put(None)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            future, call = task
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(call())
            except BaseException as error:
                future.set_exception(error)


class Guard(httpcore2.AsyncNetworkBackend):
    """Opens connections: resolves the name itself, and connects to an address it has checked.

    So a name that resolves to something else a moment later, or a redirect, leads nowhere it should not.

    Args:
        resolvers: Wait for the resolver, `Resolvers` in a process that may be asked to end meanwhile.
        allowed: Host and port of the one origin that is not checked.
    """

    def __init__(self, resolvers: Executor, allowed: tuple[str, int] | None = None) -> None:
        self.resolvers, self.allowed = resolvers, allowed
        self.network = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        failed: Exception = RefusedError(host)
        for address in await self.addresses(host, port):
            try:
                return await self.network.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failed = error
        raise failed

    async def connect_unix_socket(self, *args: Any, **options: Any) -> httpcore2.AsyncNetworkStream:
        raise RefusedError("a socket file")

    async def addresses(self, host: str, port: int) -> list[str]:
        """The addresses of a host that may be reached, at least one.

        Raises:
            RefusedError: None of them is public.
            UnresolvedError: There is none.
        """
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(self.resolvers, _resolve, host, port)
        except (OSError, UnicodeError) as error:  # UnicodeError: a label too long or empty
            temporary = getattr(error, "errno", None) == socket.EAI_AGAIN
            raise UnresolvedError(str(error), temporary) from error
        public = found if (host.lower(), port) == self.allowed else [a for a in found if is_public(a)]
        if not public:
            raise RefusedError(f"{host} is {', '.join(found[:MAX_ADDRESSES])}")
        return public[:MAX_ADDRESSES]


def _resolve(host: str, port: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))

"""Whose turn it is: few urls of one host at a time, none while it asks to wait or seems down."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import inf
from time import monotonic

import httpx2

from mia_bench.fetch.links import Link

DOWN_AFTER = 5  # urls in a row that did not get through


@dataclass
class Job:
    """One url, and the rows that have it."""

    url: str
    links: list[Link]
    attempts: int = 0


@dataclass
class Host:
    """What is still to be asked of one host, and how it behaved."""

    name: str
    jobs: deque[Job] = field(default_factory=deque)
    ready: float = 0.0  # on the monotonic clock; infinity if it is to be asked no more
    failures: int = 0

    @property
    def down(self) -> bool:
        return self.failures >= DOWN_AFTER


class Turns:
    """Hands out urls, each host's in order, hosts in the order in which they may be asked.

    A url that has to wait occupies nobody: its host's turn comes later.

    Args:
        jobs: In the order wanted.
        per_host: So many turns of a host at a time.
    """

    def __init__(self, jobs: Iterable[Job], per_host: int) -> None:
        self.hosts: dict[str, Host] = {}
        self.left = 0
        self.ended = asyncio.Event()
        self._order = itertools.count()
        self._queue: asyncio.PriorityQueue[tuple[float, int, Host]] = asyncio.PriorityQueue()
        for job in jobs:
            host = self.host(host_of(job.url))
            host.jobs.append(job)
            self.left += 1
            if len(host.jobs) <= per_host:
                self._queue.put_nowait((0.0, next(self._order), host))
        if not self.left:
            self.ended.set()

    def host(self, name: str) -> Host:
        """What is known of a host, also of one that urls only redirect to."""
        return self.hosts.setdefault(name, Host(name))

    def wait(self, name: str) -> float:
        """Seconds until a host may be asked: 0 for now, infinity for not in this run."""
        return max(0.0, self.host(name).ready - monotonic())

    async def take(self) -> tuple[Host, Job]:
        """The next url, once its host may be asked. Each one taken is given back, by `done` or `again`."""
        while True:
            at, _, host = await self._queue.get()
            if at >= host.ready:
                await asyncio.sleep(max(0.0, at - monotonic()))
            if at < host.ready:  # it has asked to wait meanwhile
                self._next(host, host.ready)
            elif host.jobs:
                return host, host.jobs.popleft()

    def done(self, host: Host) -> None:
        """A url is settled."""
        self._settle(1)
        self._next(host, host.ready)

    def again(self, host: Host, job: Job, wait: float) -> None:
        """A url is to be asked again, in so many seconds at the earliest."""
        host.jobs.append(job)
        self._next(host, max(host.ready, monotonic() + wait))

    def rest(self, host: Host) -> int:
        """Ask a host no more; returns how many of its urls are left unasked."""
        dropped = len(host.jobs)
        host.jobs.clear()
        host.ready = inf
        self._settle(dropped)
        return dropped

    def _next(self, host: Host, at: float) -> None:
        if host.jobs:
            self._queue.put_nowait((at, next(self._order), host))

    def _settle(self, count: int) -> None:
        self.left -= count
        if not self.left:
            self.ended.set()


def host_of(url: str) -> str:
    """Host and port of a url, as those of its connections are named; nothing if it has none that can be read."""
    try:
        return httpx2.URL(url.strip()).netloc.decode("ascii")
    except (httpx2.InvalidURL, ValueError):
        return ""


def jobs_of(links: Sequence[Link]) -> list[Job]:
    """One job for each url, in the order of the first row that has it."""
    jobs: dict[str, Job] = {}
    for link in links:
        jobs.setdefault(link.url, Job(link.url, [])).links.append(link)
    return list(jobs.values())

"""From a list of urls to a frozen list of survivors; what the ledger holds is not asked again."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Protocol

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict

from mia_bench.errors import NothingError, UnavailableError, UsageError
from mia_bench.fetch.client import Answer, Client
from mia_bench.fetch.hosts import Host, Job, Turns, jobs_of
from mia_bench.fetch.images import Images, RejectedError
from mia_bench.fetch.ledger import Ledger, Row, settled, writing
from mia_bench.fetch.links import Link, UrlList
from mia_bench.fetch.survivors import Survival, freeze, hashed, judge, kinds_of, lost, survival

ATTEMPTS = 3  # of one url in one run
BACKOFF_S = 1.0  # before the second; four times as long before the third
MAX_WAIT_S = 60.0  # a host that asks to wait longer is left alone until the next run
UNREACHED = {"dns", "connect", "timeout", "host-down"}
GIVE_UP_AFTER = 30  # urls of ten hosts or more, none of which was reached: there is no network


@dataclass(frozen=True)
class FetchOptions:
    """What a user can choose.

    Attributes:
        limit: Urls of each class, in the order of their ids' hashes; None for all.
        workers: Urls asked at once.
        per_host: Of those, at one host.
        timeout: Seconds that one request may take.
        allow_origin: Host and port that may be a private address.
        again: Ask again also what is settled: pages that are gone, or no images.
    """

    limit: int | None = None
    workers: int = 32
    per_host: int = 2
    timeout: float = 30.0
    allow_origin: tuple[str, int] | None = None
    again: bool = False


class Watch(Protocol):
    """Is told how it goes."""

    def start(self, total: int, known: int) -> None:
        """So many urls are to be asked; so many more are known already."""

    def step(self, row: Row) -> None:
        """A row was written."""


class Fetched(BaseModel):
    """What a fetch ended with.

    Attributes:
        dataset: As given.
        folder: Of ledger, images and lists.
        list: Hash of the frozen list of survivors, which names its file.
        revision: What results will name.
        asked: Urls asked now.
        left: Urls left for the next run: their hosts asked to wait.
        survival: By class.
        lost: Rows without an image, by why.
    """

    model_config = ConfigDict(frozen=True)

    dataset: str
    folder: str
    list: str
    revision: str
    asked: int
    left: int
    survival: tuple[Survival, ...]
    lost: dict[str, int]


def fetch(dataset: UrlList, options: FetchOptions, watch: Watch) -> Fetched:
    """Ask what has not been asked, then freeze the list of survivors.

    Raises:
        UnavailableError: The list of urls cannot be had, or nothing can be reached.
        NothingError: Not one image survives.
        UsageError: The cache cannot be written, or another fetch holds it.
        KeyboardInterrupt: What was fetched is kept.
    """
    dataset.download()
    folder = dataset.folder
    links = first(dataset.links, options.limit)
    with _locked(folder):
        ledger, images = Ledger(folder / "ledger.jsonl"), Images(folder / "images")
        for half in (*folder.glob(".*.tmp"), *folder.glob("*/.*.tmp")):  # of a killed fetch; nobody else writes here
            half.unlink(missing_ok=True)
        rows = ledger.rows()
        wanted = [link for link in links if _wanted(link, rows.get(link.id), images, options.again)]
        # What failed before comes last: a url for which its host always asks to wait must not keep others waiting.
        jobs = jobs_of(sorted(wanted, key=lambda link: link.id in rows))
        watch.start(len(wanted), len(links) - len(wanted))
        left = 0
        if jobs:
            with ledger.appending():
                left = asyncio.run(_Fetcher(ledger, images, options, watch, rows.keys()).run(jobs))
            rows = ledger.rows()
        known = {link.id for link in dataset.links}
        tried = [row for row in rows.values() if row.id in known]
        verdicts = judge(tried)
        counts = survival(kinds_of(dataset.links), tried, verdicts)
        if not any(count.survived for count in counts):
            why = ", ".join(f"{word} {count}" for word, count in lost(verdicts).items()) or "none was asked"
            raise NothingError(f"dataset {dataset.spec}", f"none of its {len(tried)} urls gave an image: {why}", AGAIN)
        facts = {
            "dataset": dataset.spec,
            "source": dataset.source,
            "time": _now(),
            "survival": [count.model_dump() for count in counts],
            "lost": lost(verdicts),
        }
        made = freeze(folder, tried, verdicts, facts)
    return Fetched(
        dataset=dataset.spec,
        folder=str(folder),
        list=made.digest,
        revision=dataset.revision,
        asked=len(jobs) - left,
        left=left,
        survival=tuple(counts),
        lost=lost(verdicts),
    )


AGAIN = "run the same command again another day, or fetch more with a larger --limit"


def first(links: Sequence[Link], limit: int | None) -> list[Link]:
    """Links in the order of their ids' hashes, at most `limit` of each class."""
    taken, counts = [], Counter[str]()
    for link in sorted(links, key=lambda link: hashed(link.id)):
        counts[link.kind] += 1
        if limit is None or counts[link.kind] <= limit:
            taken.append(link)
    return taken


def _wanted(link: Link, row: Row | None, images: Images, again: bool) -> bool:
    if row is None or row.url != link.url:
        return True
    if row.error:
        return again or not settled(row)
    return not images.holds(row.sha256, row.bytes)


class _Fetcher:
    """One run over some urls."""

    def __init__(
        self, ledger: Ledger, images: Images, options: FetchOptions, watch: Watch, known: Collection[str]
    ) -> None:
        self.ledger, self.images, self.options, self.watch, self.known = ledger, images, options, watch, known
        self.reached = False
        self.unreached: list[str] = []  # hosts, while none was reached
        self.left = 0

    async def run(self, jobs: Sequence[Job]) -> int:
        """Ask them all; returns how many were left for the next run."""
        options, turns = self.options, Turns(jobs, self.options.per_host)
        workers = min(options.workers, len(jobs))
        resolvers = ThreadPoolExecutor(workers, "resolver")
        self.decoders = ThreadPoolExecutor(min(2, os.cpu_count() or 1), "decoder")  # each may hold a large image
        self.client = Client(resolvers, workers, options.per_host, options.timeout, options.allow_origin)
        tasks = [asyncio.create_task(self._work(turns)) for _ in range(workers)]
        ended = asyncio.create_task(turns.ended.wait())
        try:
            done, _ = await asyncio.wait([ended, *tasks], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()  # raises what stopped a worker
        finally:
            for task in (ended, *tasks):
                task.cancel()
            await asyncio.gather(ended, *tasks, return_exceptions=True)
            self.decoders.shutdown(cancel_futures=True)
            resolvers.shutdown(wait=False, cancel_futures=True)  # a resolver may take long to give up
            with contextlib.suppress(Exception):
                await self.client.close()
        return self.left

    async def _work(self, turns: Turns) -> None:
        while True:
            host, job = await turns.take()
            if host.down:
                self._record(job, Answer(job.url, error="host-down", note=f"{host.name} did not answer before"))
                turns.done(host)
                continue
            job.attempts += 1
            answer = await self.client.get(job.url)
            self._note(host, job, answer)
            wait = answer.wait if answer.wait is not None else BACKOFF_S * 4 ** (job.attempts - 1)
            if answer.wait and answer.wait > MAX_WAIT_S:
                self.left += turns.rest(host)
            elif answer.wait:
                host.ready = max(host.ready, monotonic() + answer.wait)
            if answer.temporary and job.attempts < ATTEMPTS and wait <= MAX_WAIT_S and not host.down:
                turns.again(host, job, wait)
                continue
            await self._keep(job, answer)
            turns.done(host)

    def _note(self, host: Host, job: Job, answer: Answer) -> None:
        """Whether the host, and the network, can be reached at all."""
        through = answer.error not in UNREACHED and answer.error != "slow"
        host.failures = 0 if through else host.failures + 1
        if answer.error not in UNREACHED:
            self.reached = True
        elif not self.reached and job.links[0].id not in self.known:  # a url that failed before says nothing
            self.unreached.append(host.name)
            if len(self.unreached) >= GIVE_UP_AFTER and len(set(self.unreached)) >= 10:
                why = f"none of {len(set(self.unreached))} hosts could be reached, the last one: {answer.note}"
                fix = "run it where there is a network (proxies are not used); what was fetched is kept"
                raise UnavailableError("downloading", why, fix)

    async def _keep(self, job: Job, answer: Answer) -> None:
        if answer.error:
            self._record(job, answer)
            return
        loop = asyncio.get_running_loop()
        found: dict[str, object] = {"bytes": len(answer.body)}
        try:
            kept = await loop.run_in_executor(self.decoders, self.images.keep, answer.body, answer.content_type)
            found |= vars(kept)
        except RejectedError as error:
            found |= {"error": error.word, "note": str(error)[:160]}
        self._record(job, answer, **found)

    def _record(self, job: Job, answer: Answer, **found: object) -> None:
        for link in job.links:
            facts = {
                "id": link.id,
                "kind": link.kind,
                "url": link.url,
                "final_url": answer.final_url[:2000],
                "status": answer.status,
                "content_type": answer.content_type,
                "error": answer.error,
                "note": answer.note,
                "attempts": job.attempts,
                "time": _now(),
            }
            row = Row.model_validate(facts | found)
            self.ledger.append(row)
            self.watch.step(row)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder against a second fetch. The system drops the lock of a killed process by itself."""
    lock = FileLock(folder / ".lock", timeout=0)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout:
            raise UsageError(f"cache {folder}", "another fetch is writing to it", "wait for it to end") from None
    try:
        yield
    finally:
        lock.release()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")

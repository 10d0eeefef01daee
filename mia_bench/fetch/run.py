"""From a list of urls to a frozen list of survivors; what the ledger holds is not asked again."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from math import ceil
from pathlib import Path
from time import monotonic

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict

from mia_bench.engine.blame import blaming
from mia_bench.engine.hashes import HashCache
from mia_bench.errors import NothingError, UnavailableError, UsageError
from mia_bench.fetch.client import WAITS, Answer, Client
from mia_bench.fetch.guard import Resolvers
from mia_bench.fetch.hosts import Host, Job, Turns, host_of, jobs_of
from mia_bench.fetch.images import Images, RejectedError
from mia_bench.fetch.ledger import Ledger, Row, settled, writing
from mia_bench.fetch.links import Link, UrlList
from mia_bench.fetch.survivors import Survival, freeze, hashed, judge, kinds_of, lost, survival
from mia_bench.fetch.watch import Watch

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
        survivors: Images of each class that are needed: the first urls are asked, in the same order, until there are as
            many; then `limit` is not read.
        workers: Urls asked at once.
        per_host: Of those, at one host.
        timeout: Seconds that one request may take.
        allow_origin: Host and port that may be a private address.
        again: Ask again also what is settled: pages that are gone, or no images.
    """

    limit: int | None = None
    survivors: int | None = None
    workers: int = 32
    per_host: int = 2
    timeout: float = 30.0
    allow_origin: tuple[str, int] | None = None
    again: bool = False


class Fetched(BaseModel):
    """What a fetch ended with.

    Attributes:
        dataset: As given.
        pinned: The same, with this very list of survivors.
        folder: Of ledger, images and lists.
        list: Hash of the frozen list of survivors, which names its file.
        asked: Urls asked now.
        left: Urls left for the next run: their hosts asked to wait.
        survival: By class.
        lost: Rows without an image, by why.
    """

    model_config = ConfigDict(frozen=True)

    dataset: str
    pinned: str
    folder: str
    list: str
    asked: int
    left: int
    survival: tuple[Survival, ...]
    lost: dict[str, int]


def fetch(dataset: UrlList, options: FetchOptions, watch: Watch) -> Fetched:
    """Ask what has not been asked, then freeze the list of survivors.

    Raises:
        UnavailableError: The list of urls cannot be had, nothing can be reached, or HF_HUB_OFFLINE is set.
        NothingError: Not one image survives.
        UsageError: The cache cannot be written, or another fetch holds it.
        KeyboardInterrupt: What was fetched is kept.
    """
    if offline():
        why = "its images have to be fetched, and HF_HUB_OFFLINE is set"
        raise UnavailableError(f"dataset {dataset.spec}", why, dataset.elsewhere)
    with blaming("dataset", dataset.spec, type(dataset)):
        dataset.download()
        _ = dataset.links  # kept for later
    folder, kinds = dataset.folder, kinds_of(dataset.links)
    known = {link.id for link in dataset.links}
    with _locked(folder):
        ledger, images = Ledger(folder / "ledger.jsonl"), Images(folder / "images")
        for half in (*folder.glob(".*.tmp"), *folder.glob("*/.*.tmp")):  # of a killed fetch; nobody else writes here
            half.unlink(missing_ok=True)
        rows = ledger.rows()
        fetcher = _Fetcher(ledger, images, options, watch, rows)
        taken: set[str] = set()
        limits: Mapping[str, int | None] = dict.fromkeys(kinds, options.survivors or options.limit)
        asked = 0
        while True:
            links = [link for link in first(dataset.links, limits) if link.id not in taken]
            taken |= {link.id for link in links}
            wanted = [link for link in links if _wanted(link, rows.get(link.id), images, options.again)]
            # What failed before comes last: a url for which its host always asks to wait must not keep others waiting.
            jobs = jobs_of(sorted(wanted, key=lambda link: link.id in rows))
            watch.start(len(wanted), len(links) - len(wanted))
            if jobs:
                with ledger.appending():
                    asyncio.run(fetcher.run(jobs))
                rows = ledger.rows()
                asked += len(jobs)
            tried = [row for row in rows.values() if row.id in known]
            verdicts = judge(tried)
            survived = Counter(rows[i].kind for i in taken if i in rows and not verdicts[i])
            wider = {kind: _wider(limits[kind], survived[kind], options.survivors) for kind in kinds}
            if all(wider[kind] == limits[kind] or (limits[kind] or 0) >= kinds[kind] for kind in kinds):
                break
            limits = wider
        counts = survival(kinds, tried, verdicts)
        if not any(count.survived for count in counts):
            why = ", ".join(f"{word} {count}" for word, count in lost(verdicts).items()) or "none was asked"
            why = f"none of its {len(tried)} urls gave an image: {why}"
            raise NothingError(f"dataset {dataset.spec}", why, _remedy(verdicts.values(), len(tried) < len(known)))
        facts = {
            "dataset": dataset.spec,
            "source": dataset.source,
            "time": _now(),
            "survival": [count.model_dump() for count in counts],
            "lost": lost(verdicts),
        }
        made = freeze(folder, tried, verdicts, facts)
    vars(dataset).pop("survivors", None)  # read anew
    return Fetched(
        dataset=dataset.spec,
        pinned=dataset.listed(made.digest),
        folder=str(folder),
        list=made.digest,
        asked=asked - fetcher.left,
        left=fetcher.left,
        survival=tuple(counts),
        lost=lost(verdicts),
    )


def offline() -> bool:
    """Whether the user asked for no network."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def first(links: Sequence[Link], limits: Mapping[str, int | None]) -> list[Link]:
    """Links in the order of their ids' hashes, at most so many of each class."""
    taken, counts = [], Counter[str]()
    for link in sorted(links, key=lambda link: hashed(link.id)):
        counts[link.kind] += 1
        if (limit := limits[link.kind]) is None or counts[link.kind] <= limit:
            taken.append(link)
    return taken


def _remedy(reasons: Iterable[str], more: bool) -> str:
    """What may help where nothing survived."""
    reasons = set(reasons)
    if reasons <= UNREACHED:
        return "check the network (proxies are not used), then run the same command again"
    if reasons == {"private"}:
        return "private addresses are refused; --allow-origin HOST:PORT opens one"
    return "run the same command again another day" + (", or with a larger --limit" if more else "")


def _wider(limit: int | None, survived: int, needed: int | None) -> int | None:
    """How many urls to ask for so many images, after `limit` of them gave `survived`."""
    if limit is None or needed is None or survived >= needed:
        return limit
    return limit + ceil((needed - survived) * (limit + 2) / (survived + 1))


def _wanted(link: Link, row: Row | None, images: Images, again: bool) -> bool:
    if row is None or row.url != link.url:
        return True
    if row.error:
        return again or not settled(row)
    return not images.holds(row.sha256, row.bytes)


class _Fetcher:
    """One run over some urls."""

    def __init__(
        self, ledger: Ledger, images: Images, options: FetchOptions, watch: Watch, known: Mapping[str, Row]
    ) -> None:
        self.ledger, self.images, self.options, self.watch, self.known = ledger, images, options, watch, known
        self.hashes = HashCache()
        self.resting: set[str] = set()  # hosts that asked to wait until the next run
        self.reached = False
        self.unreached: list[str] = []  # hosts, while none was reached
        self.left = 0

    async def run(self, jobs: Sequence[Job]) -> None:
        """Ask them all; `left` counts those that are left for the next run."""
        options = self.options
        turns = Turns(jobs, options.per_host)
        self.left += sum(turns.rest(turns.host(name)) for name in self.resting)
        workers = min(options.workers, len(jobs))
        resolvers = Resolvers(workers)
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
            resolvers.shutdown()
            with contextlib.suppress(Exception):
                await self.client.close()

    async def _work(self, turns: Turns) -> None:
        while True:
            host, job = await turns.take()
            if host.down:
                self._record(job, Answer(job.url, error="host-down", note=f"{host.name} did not answer before"))
                turns.done(host)
                continue
            async with contextlib.AsyncExitStack() as held:
                await self._ask(turns, host, job, held)

    async def _ask(self, turns: Turns, host: Host, job: Job, held: contextlib.AsyncExitStack) -> None:
        job.attempts += 1
        answer = await self.client.get(job.url, held, turns.wait)
        at = turns.host(host_of(answer.final_url))  # the host that answered, or did not
        if answer.error != WAITS:
            self._note(host, at, job, answer)
            if answer.wait and answer.wait > MAX_WAIT_S:
                self.left += turns.rest(at)
                self.resting.add(at.name)
            elif answer.wait:
                at.ready = max(at.ready, monotonic() + answer.wait)
        wait = BACKOFF_S * 4 ** (job.attempts - 1) if answer.wait is None else answer.wait
        wait = max(wait, turns.wait(host.name))
        if answer.temporary and job.attempts < ATTEMPTS and wait <= MAX_WAIT_S and not (host.down or at.down):
            turns.again(host, job, wait)
            return
        if answer.error == WAITS:
            self.left += 1
        else:
            await self._keep(job, answer)
        turns.done(host)

    def _note(self, host: Host, at: Host, job: Job, answer: Answer) -> None:
        """Whether hosts, and the network, can be reached at all; one that redirects elsewhere was reached."""
        through = answer.error not in UNREACHED and answer.error != "slow"
        host.failures = 0 if through or at is not host else host.failures + 1
        if at is not host:
            at.failures = 0 if through else at.failures + 1
        if answer.error not in UNREACHED or at is not host:
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
            found |= {"sha256": kept.sha256, "width": kept.width, "height": kept.height}
            self.hashes.add({kept.sha256: kept.dhash})
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
            row, earlier = Row.model_validate(facts | found), self.known.get(link.id)
            if job.attempts or earlier is None or not earlier.error:  # else it was not asked now, and its row stays
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

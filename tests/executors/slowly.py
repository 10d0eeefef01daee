"""A plugin for workers of other processes: the tiny benchmark's, and an attack that takes its time or kills them."""

import os
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import tiny

from mia_bench import Access, Meta, hookimpl

mia_bench_targets, mia_bench_datasets = tiny.mia_bench_targets, tiny.mia_bench_datasets


def _wait_for_others(count):
    """Until so many processes have begun, so that nobody has done it all before another came up."""
    log, until = Path(os.environ["SLOWLY_LOG"]), time.monotonic() + 100
    while len({line.split()[0] for line in log.read_text(encoding="utf-8").splitlines()}) < count:
        assert time.monotonic() < until, f"{count} processes never came"
        time.sleep(0.01)


class Slowly(tiny.Logged):
    """The loss; a line `PID SAMPLE` for every sample, and what the environment asks for."""

    meta = Meta(name="slowly", summary="loss, slowly", paper="none", access=Access.LOSS)

    def measure(self, batch, target):
        with Path(os.environ["SLOWLY_LOG"]).open("a", encoding="utf-8") as file:
            file.writelines(f"{os.getpid()} {i}\n" for i in batch.ids)
        _wait_for_others(int(os.environ.get("SLOWLY_TOGETHER", "1")))
        time.sleep(float(os.environ.get("SLOWLY_S", "0")))
        if (deadly := os.environ.get("SLOWLY_DEADLY")) and deadly in batch.ids:
            once = os.environ.get("SLOWLY_ONCE")
            if not once or not Path(once).exists():
                if once:
                    Path(once).touch()
                os.kill(os.getpid(), signal.SIGKILL)
        if os.environ.get("SLOWLY_FAULT"):
            raise ZeroDivisionError("as the test asked")
        return super().measure(batch, target)


@hookimpl
def mia_bench_attacks():
    return [tiny.Logged, Slowly]

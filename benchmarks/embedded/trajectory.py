"""Audit every checkpoint: AUC against passes over the data, and against queries.

    python trajectory.py WORK OUT.json [FIGURE.svg]

The counterparts of Figures 2 and 3 of Zhai et al. 2024 (arXiv:2405.14800) on the embedded benchmark. The second is
computed from the stored terms of the last checkpoints, without another query.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mia_bench.attack import Measured
from mia_bench.engine.plan import read_plan
from mia_bench.engine.prepare import RunOptions, instances
from mia_bench.engine.provenance import environment
from mia_bench.engine.run import run
from mia_bench.metrics import Metric, evaluate
from mia_bench.plugins import Registry
from mia_bench.result import Result
from mia_bench.store import Store

HERE = Path(__file__).parent
TRAININGS = ("overtrain", "realworld")
# Nested, so that the first n are a design of their own; the attacks' published three come first.
TIMESTEPS = (450, 440, 460, 400, 500, 350, 550, 300, 600, 250)
GRID = {"mc": {"t": TIMESTEPS}, "clid": {"t": TIMESTEPS}, "clid@null": {}}
COLUMNS = {"mc": 1, "clid": 5, "clid@null": 2}  # queries per timestep


def checkpoints(work: Path) -> Iterator[tuple[str, int, Path]]:
    """Name, passes and folder of every checkpoint, in order."""
    paths = (path for name in TRAININGS for path in (work / "checkpoints" / name).glob("[0-9]*"))
    found = [(path.parent.name, int(path.name), path) for path in paths]
    return iter(sorted(found))


def audit(work: Path, run_name: str, pipeline: Path, *, mirror: bool = False, **options: Any) -> tuple[Path, Result]:
    """A run of attacks on a pipeline and the work folder's images, resumed if it was made before."""
    dataset, out = "built-mirror" if mirror else "built", work / "runs" / run_name
    wanted = RunOptions(dataset=f"{dataset}:{work / 'fluent_emoji'}", target=str(pipeline), out=out, **options)
    return out, run(Registry.load([HERE / "built.py"]), wanted)


def point(metric: Metric) -> dict[str, float | None]:
    return {"value": metric.value, "low": metric.low, "high": metric.high}


def against_passes(work: Path) -> dict[str, dict[int, Any]]:
    """Name -> passes -> attack -> AUC and TPR@1%FPR with intervals."""
    found: dict[str, dict[int, Any]] = {}
    for name, passes, folder in checkpoints(work):
        _, result = audit(work, f"trajectory-{name}-{passes}", folder, attacks="all,clid@null")
        rows = {r.label: r.evaluation for r in result.rows if r.evaluation}
        metrics = {label: {"auc": point(e.auc), "tpr_at_1": point(e.tpr_at_1)} for label, e in rows.items()}
        found.setdefault(name, {})[passes] = metrics
        print(name, passes, {label: round(m["auc"]["value"], 3) for label, m in metrics.items()}, flush=True)
    return found


def against_queries(work: Path) -> dict[str, dict[str, list[Any]]]:
    """Name -> attack -> [queries, AUC with interval], at the last checkpoint, from its stored terms."""
    found: dict[str, dict[str, list[Any]]] = {}
    last = {name: (passes, folder) for name, passes, folder in checkpoints(work)}
    for name, (passes, folder) in last.items():
        options = {"attacks": ",".join(GRID), "options": {k: v for k, v in GRID.items() if v}}
        out, _ = audit(work, f"queries-{name}-{passes}", folder, **options)
        plan, store = read_plan(Store(out)), Store(out)
        attacks = instances(Registry.load(), plan)
        for planned in plan.attacks:
            if planned.control:
                continue
            rows, terms = store.terms(planned.fingerprint, plan.samples.pairs)
            assert rows.all()
            samples = plan.samples
            for n in range(1, len(TIMESTEPS) + 1):
                part = {term: values[:, :n] for term, values in terms.items()}
                everything = Measured(part, samples.id, samples.audit, samples.group)
                known = everything.select(samples.calibrating)
                labelled = Measured(
                    known.terms, known.ids, known.audit, known.groups, samples.is_member[samples.calibrating]
                )
                given = attacks[planned.label].score(everything, labelled)
                values = np.asarray(getattr(given, "values", given))
                auc = evaluate(values[samples.audit], samples.is_member[samples.audit], n_resamples=1).auc
                queries = n * COLUMNS[planned.label]
                found.setdefault(name, {}).setdefault(planned.label, []).append({"queries": queries, **point(auc)})
    return found


def draw(content: dict[str, Any], path: Path) -> None:
    """Two rows of panels, one column a training: AUC against passes, and against queries."""
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    mpl.rcParams.update(
        {"svg.hashsalt": "mia-bench", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    )
    names = sorted(content["passes"])
    found = {label for by_passes in content["passes"].values() for metrics in by_passes.values() for label in metrics}
    attacks = sorted(label for label in found if not label.startswith("blind"))
    styles = {label: {"color": f"C{i}"} for i, label in enumerate(attacks)}
    styles["blind"] = {"color": "black", "linestyle": ":"}
    figure, axes = plt.subplots(2, len(names), figsize=(4.5 * len(names), 7), sharey="row", squeeze=False)
    for column, name in enumerate(names):
        by_passes = content["passes"][name]
        x = sorted(by_passes, key=int)
        for label, style in styles.items():
            _line(axes[0, column], [int(p) for p in x], [by_passes[p][label]["auc"] for p in x], label, **style)
        for label, points in sorted(content["queries"][name].items()):
            _line(axes[1, column], [p["queries"] for p in points], points, label, **styles[label])
        axes[0, column].set(title=f"emoji-{name}", xlabel="passes over the members", xscale="log")
        axes[1, column].set(xlabel="queries per image", xscale="log")
        for panel, ticks in ((axes[0, column], [int(p) for p in x]), (axes[1, column], [1, 2, 5, 10, 20, 50])):
            panel.set_xticks(ticks, [str(tick) for tick in ticks])
            panel.minorticks_off()
    for row in axes:
        row[0].set_ylabel("AUC with 95 % interval")
        row[-1].legend(frameon=False, fontsize=8, loc="best")
        for panel in row:
            panel.axhline(0.5, color="black", linewidth=0.5)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=150)


def _line(panel: Any, x: list[int], points: list[dict[str, float]], label: str, **style: Any) -> None:
    (line,) = panel.plot(x, [p["value"] for p in points], marker=".", label=label, **style)
    panel.fill_between(x, [p["low"] for p in points], [p["high"] for p in points], alpha=0.12, color=line.get_color())


if __name__ == "__main__":
    place, out, *figure = (Path(argument) for argument in sys.argv[1:])
    measured = {"benchmark": "trajectory", "environment": environment("cpu")}
    measured |= {"passes": against_passes(place), "queries": against_queries(place)}
    out.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    for path in figure:
        draw(json.loads(out.read_text(encoding="utf-8")), path)

"""Pictures that explain scores: for each attack the samples it is surest of, either way, and those in the middle."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mia_bench.attack import Attack
from mia_bench.diffusion.noise import SaltedNoise
from mia_bench.engine.blame import fault
from mia_bench.engine.label import Label
from mia_bench.engine.loader import load
from mia_bench.engine.measure import make_batch
from mia_bench.engine.plan import Plan
from mia_bench.store import ARTIFACTS

if TYPE_CHECKING:
    from mia_bench.dataset import Sample
    from mia_bench.diffusion.noise import NoiseSource
    from mia_bench.store import Store
    from mia_bench.target import Target

INDEX = "index.json"


def extremes(scores: NDArray[np.float64], count: int) -> dict[str, list[int]]:
    """Rows of the `count` highest, median and lowest scores, no row twice; fewer where there are fewer."""
    order = np.argsort(-scores, kind="stable").tolist()
    high, rest = order[:count], order[count:]
    low, rest = rest[max(0, len(rest) - count) :], rest[: max(0, len(rest) - count)]
    start = max(0, (len(rest) - count) // 2)
    return {"highest": high, "median": rest[start : start + count], "lowest": low}


def explain(
    plan: Plan,
    attacks: Mapping[str, Attack],
    samples: Mapping[str, Sample],
    target: Target,
    noise: NoiseSource,
    store: Store,
    count: int,
    size: int,
    among: NDArray[np.bool_] | None = None,
) -> dict[str, str]:
    """Save the pictures of every attack that has any, under `artifacts/` of the run folder.

    Each sample gets a folder with one PNG for each picture; `index.json` says which sample, score and label it is of.
    Pictures are made anew by the opened target, from the same noise, so they are those that were scored.

    Args:
        plan: Of a run that has been scored.
        attacks: label -> attack instance.
        samples: id -> sample.
        target: Opened.
        noise: Where noise comes from.
        store: The run folder.
        count: How many of the highest, of the median and of the lowest scores.
        size: Samples per batch.
        among: Of which samples of the plan, bool `(N,)`; the audit set if None.

    Returns:
        Label -> why its pictures could not be made.
    """
    scores = pq.read_table(store.folder / "scores.parquet").to_pylist()
    wanted = plan.samples.audit if among is None else among
    ids = {i for i, kept in zip(plan.samples.id, wanted, strict=True) if kept}
    index: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    for planned in plan.attacks:
        attack = attacks[planned.label]
        if type(attack).artifacts is Attack.artifacts:
            continue
        label = Label.parse(planned.label)
        own = [s for s in scores if (s["attack"], s["preset"]) == (label.unset, label.preset) and s["sample_id"] in ids]
        chosen = extremes(np.array([s["score"] for s in own]), count)
        rows = [own[i] for ranked in chosen.values() for i in ranked]
        ranks = [f"{rank}-{i}" for rank, ranked in chosen.items() for i in range(1, len(ranked) + 1)]
        try:
            own_noise = SaltedNoise(noise, planned.name) if plan.independent_noise else noise
            pictures = _pictures(attack, [samples[row["sample_id"]] for row in rows], target, own_noise, size)
            for i, (row, rank) in enumerate(zip(rows, ranks, strict=True)):
                folder = store.folder / ARTIFACTS / _safe(planned.label) / rank
                folder.mkdir(parents=True, exist_ok=True)
                files = {title: _save(images[i], folder / f"{_safe(title)}.png") for title, images in pictures.items()}
                where = {title: str(path.relative_to(store.folder)) for title, path in files.items()}
                about = {"attack": planned.label, "rank": rank, "sample": row["sample_id"], "score": row["score"]}
                index.append({**about, "member": row["label"], "pictures": where})
        except Exception as error:  # a picture that cannot be made must not cost the scores
            failed[planned.label] = fault(error, type(attack))
    (store.folder / ARTIFACTS).mkdir(exist_ok=True)
    store.write_json(f"{ARTIFACTS}/{INDEX}", {"schema_version": 1, "rows": index})
    return failed


def _pictures(
    attack: Attack, samples: Sequence[Sample], target: Target, noise: NoiseSource, size: int
) -> dict[str, NDArray[np.uint8]]:
    """Name -> `(N, H, W, 3)`, a batch at a time."""
    import torch

    found: dict[str, list[NDArray[np.uint8]]] = {}
    for start in range(0, len(samples), size):
        some = samples[start : start + size]
        batch = make_batch(load(some, target.image_size).complete(), target, noise)
        with torch.no_grad():
            for title, values in attack.artifacts(batch, target).items():
                levels = ((values.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
                found.setdefault(title, []).append(levels.permute(0, 2, 3, 1).cpu().numpy())
    return {title: np.concatenate(parts) for title, parts in found.items()}


def _save(levels: NDArray[np.uint8], path: Path) -> Path:
    from PIL import Image

    Image.fromarray(levels).save(path)
    return path


def _safe(text: str) -> str:
    """As a file name; a long one keeps its end, where presets differ, and is told from others by its hash."""
    name = "".join(c if c.isalnum() or c in "-._@[]" else "_" for c in text).strip(".")
    if len(name) <= 80:
        return name
    return f"{name[:40]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}-{name[-30:]}"

"""An audit as one page that needs nothing else: no network, no script."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from mia_bench.engine.finished import Finished, read_finished
from mia_bench.evidence import Audit, ImageEvidence
from mia_bench.plugins import Registry
from mia_bench.report import figures
from mia_bench.report.audit import caveats, head, images_answer, percent, power_rows, set_answer, set_facts
from mia_bench.report.gallery import explained_walls, pictured
from mia_bench.report.page import render, short, write
from mia_bench.report.run_html import coded, command_of, provenance

PICTURES = 12
LISTED = 1000  # images in the table


def write_audit(path: Path, found: Audit, registry: Registry, command: str = "", pictures: int = PICTURES) -> None:
    """Write the page of an audit.

    Args:
        path: The file; replaced if it exists.
        found: The audit; its run folder must be there.
        registry: All plugins, for the dataset.
        command: What was typed for this audit.
        pictures: Images in question that are shown, those that stand out most; 0 for none.

    Raises:
        UnavailableError: The run cannot be read.
        UsageError: The file cannot be written.
    """
    write(path, page(found, read_finished(Path(found.folder), registry, with_samples=pictures > 0), command, pictures))


def page(found: Audit, run: Finished, command: str = "", pictures: int = PICTURES) -> str:
    """The page's text."""
    alone, power = len(found.images) == 1, None
    if found.set and (found.set.power or found.set.false_positives):
        rows, missing = power_rows(found.set)
        who = "the images in question" if found.set.power_of == "suspects" else "known members"
        power = {"rows": rows, "missing": missing, "who": who}
        power["headers"] = ("images in the set", "noticed", "unseen, noticed wrongly")
    return render(
        "audit.html",
        found=found,
        alone=alone,
        head=head(found),
        gaps=run.gaps,
        answer=list(set_answer(found)),
        facts=set_facts(found.set) if found.set else [],
        power=power,
        level=f"{100 * found.alpha:g} %",
        plots=[_plot(found, label, f"a{i}") for i, label in enumerate(found.attacks)],
        each=images_answer(found) if found.images else [],
        headers=["image", "", "by chance", *([] if alone else ["among all"]), *found.attacks],
        rows=[_row(found, one, alone) for one in found.images[:LISTED]],
        more=max(0, len(found.images) - LISTED),
        pictures=[_item(run, one) for one in found.images[:pictures]],
        explained=[(label, explained_walls(run, label)) for label in dict.fromkeys(e.attack for e in run.explained)]
        if pictures
        else [],
        caveats=caveats(found),
        commands=list(dict.fromkeys(text for text in (command_of(run)[0], command) if text)),
        provenance=provenance(run),
        coded=coded,
    )


def _plot(found: Audit, label: str, name: str) -> dict[str, Any]:
    """Where the images in question lie among the unseen, by one attack."""
    usual = found.usual[label]
    readings = [one.readings[label] for one in found.images if label in one.readings]
    svg = figures.places(usual.low, usual.high, usual.counts, [r.score for r in readings], usual.top, name)
    shares = [100 * reading.percentile for reading in readings]
    if len(shares) == 1:
        said = f"It scores above {shares[0]:.1f} % of the unseen images."
    else:
        low, middle, high = np.percentile(shares, [25, 50, 75]) if shares else (0.0,) * 3
        said = (
            f"Half of the images in question score above {middle:.0f} % of the unseen or more; the middle half of them "
            f"lies between {low:.0f} and {high:.0f} %. Were they as the unseen, that would be 50 %, 25 and 75 %."
        )
    return {"label": label, "svg": Markup(svg), "said": said if shares else ""}


def _row(found: Audit, one: ImageEvidence, alone: bool) -> list[str]:
    above = [
        f"{100 * one.readings[label].percentile:.1f} %" if label in one.readings else "–" for label in found.attacks
    ]
    return [one.sample, one.verdict, percent(one.p_value), *([] if alone else [percent(one.over_all)]), *above]


def _item(run: Finished, one: ImageEvidence) -> dict[str, Any]:
    """An image with its most telling attack."""
    label, best = min(one.readings.items(), key=lambda item: (item[1].holm, -item[1].percentile))
    sample = (run.samples or {}).get(one.sample)
    item = {
        "id": one.sample,
        "out": one.verdict == "stands out",
        "where": f"{one.verdict}, {percent(one.p_value)} by chance",
        "above": f"above {100 * best.percentile:.1f} % of unseen ({label})",
        "caption": short(sample.caption) if sample else "",
        "image": "",
        "reason": "",
    }
    return pictured(item, run, sample)

"""Figures as inline SVG: no text of a plugin or a dataset is in them, and colours are those of the page's style sheet.

matplotlib writes colours as numbers; each that is used here stands for a variable of the style sheet and is replaced by
it, so that a figure follows the page's light or dark scheme.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mia_bench.metrics import exact_roc, resample, tpr_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SERIES = 6  # curves of one figure, each with a colour of its own
NAMES = ("ink", "soft", "line", "member", "nonmember", "unknown", *(f"c{i}" for i in range(1, SERIES + 1)))
COLOURS = {name: f"#fe01{i:02x}" for i, name in enumerate(NAMES)}
WIDTH, HEIGHT, LOW = 4.6, 4.2, 2.3  # inches: as wide as a phone, so that text keeps its size there
STEPS, RESAMPLES = 24, 500  # of the band around a curve
BINS = 40
FEW = 12  # points that can all be numbered
Band = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]  # rates, low and high ends


@dataclass(frozen=True, eq=False)
class Curve:
    """One ROC curve: corners to be joined by steps, a band if there is one, and how it is drawn."""

    fpr: Sequence[float]
    tpr: Sequence[float]
    colour: str
    dashed: bool = False
    band: Band | None = None


@dataclass(frozen=True)
class Point:
    """One attack in the plane of cost and AUC; `number` is its place in the table."""

    number: int
    cost: float
    auc: float
    low: float
    high: float


def band(members: NDArray[np.float64], others: NDArray[np.float64]) -> Band:
    """95 % interval of the TPR at false-positive rates from 1 / N to 1, each by itself: rates, low, high."""
    scores = np.concatenate([members, others])
    curve = exact_roc(scores, np.arange(scores.size) < members.size)
    counts = np.unique(np.geomspace(1, curve.n_neg, STEPS).round().astype(int))
    rates = (counts / curve.n_neg).tolist()
    resamples = resample(curve, rates, n_resamples=RESAMPLES)
    found = [tpr_interval(curve, resamples, rate) for rate in rates]
    return np.array(rates), np.array([e.low for e in found]), np.array([e.high for e in found])


def roc(curves: Sequence[Curve], n_members: int, n_nonmembers: int, name: str, height: float = HEIGHT) -> str:
    """Log-log ROC curves with their bands and the diagonal.

    Args:
        curves: At most `SERIES`, and dashed ones.
        n_members: Positives; nothing below one of them can be shown.
        n_nonmembers: Negatives; likewise.
        name: Of the figure, unique on the page.
        height: In inches.
    """
    with _axes(height) as (figure, axes):
        least = min(1 / n_nonmembers, 1 / n_members)
        axes.plot([least, 1], [least, 1], color=COLOURS["soft"], linewidth=1, linestyle=(0, (2, 3)))
        for curve in curves:
            colour = COLOURS[curve.colour]
            if curve.band:
                x, low, high = curve.band
                axes.fill_between(x, np.maximum(low, least / 2), np.maximum(high, least / 2), step="post",
                                  color=colour, alpha=0.15, linewidth=0)  # fmt: skip
            y = np.maximum(curve.tpr, least / 2)
            style: Any = (0, (4, 2)) if curve.dashed else "-"
            axes.step(curve.fpr, y, where="post", color=colour, linewidth=1.3 if curve.dashed else 1.8, linestyle=style)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlim(1 / n_nonmembers, 1)
        axes.set_ylim(least, 1.08)
        for axis, resolved in ((axes.xaxis, n_nonmembers), (axes.yaxis, 1 / least)):
            _logarithmic(axis, lambda x: f"{100 * x:g} %", close=resolved < 400)
        axes.set_xlabel("false-positive rate")
        axes.set_ylabel("true-positive rate")
        return _svg(figure, name)


def histogram(groups: Sequence[tuple[str, NDArray[np.float64]]], marks: Sequence[tuple[float, str]], name: str) -> str:
    """Shares of scores in equal bins, for each class its own.

    Args:
        groups: Colour and scores of each class; infinite scores and outliers are in the outermost bins.
        marks: Thresholds, and the style of their line.
        name: As for `roc`.
    """
    finite = np.concatenate([values[np.isfinite(values)] for _, values in groups])
    low, high = np.quantile(finite, [0.005, 0.995]) if finite.size else (0.0, 1.0)
    if not low < high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, BINS + 1)
    with _axes(LOW) as (figure, axes):
        for colour, values in groups:
            counts, _ = np.histogram(np.clip(values, low, high), edges)
            share = 100 * counts / max(1, values.size)
            axes.stairs(share, edges, color=COLOURS[colour], fill=True, alpha=0.22, linewidth=0)
            axes.stairs(share, edges, color=COLOURS[colour], linewidth=1.4)
        for value, style in marks:
            if low <= value <= high:
                axes.axvline(value, color=COLOURS["ink"], linewidth=1, linestyle=style)
        axes.set_xlim(low, high)
        axes.set_xlabel("score, higher = more likely a member")
        axes.set_ylabel("% of the class")
        axes.locator_params(axis="x", nbins=5)
        return _svg(figure, name)


def places(low: float, high: float, counts: Sequence[int], marks: Sequence[float], top: float | None, name: str) -> str:
    """A histogram of usual scores with others marked above it; those beyond it by more than its width are moved in.

    Args:
        low: Left edge of the first bin.
        high: Right edge of the last.
        counts: Of bins of equal width.
        marks: Scores that are marked.
        top: A score to be shown by a line; None for none.
        name: As for `roc`.
    """
    if not low < high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, len(counts) + 1)
    share = 100 * np.asarray(counts) / max(1, sum(counts))
    reach, most = high - low, float(share.max())
    at = np.clip(np.asarray(marks, dtype=np.float64), low - reach, high + reach)
    left, right = min([low, *at]), max([high, *at])
    margin = 0.03 * (right - left)
    with _axes(LOW) as (figure, axes):
        axes.stairs(share, edges, color=COLOURS["unknown"], fill=True, alpha=0.3, linewidth=0)
        axes.stairs(share, edges, color=COLOURS["unknown"], linewidth=1.2)
        if top is not None and low <= top <= high:
            axes.axvline(top, color=COLOURS["soft"], linewidth=1, linestyle=(0, (2, 3)))
        alpha = 0.9 if len(marks) <= 40 else 0.35
        axes.vlines(at, 1.06 * most, 1.22 * most, color=COLOURS["c1"], linewidth=1.6, alpha=alpha)
        axes.set_xlim(left - margin, right + margin)
        axes.set_ylim(0, 1.28 * most)
        axes.set_xlabel("score, higher = more likely seen")
        axes.set_ylabel("% of the unseen")
        axes.locator_params(axis="x", nbins=5)
        return _svg(figure, name)


def costs(points: Sequence[Point], label: str, name: str) -> str:
    """AUC with its interval against a cost on a log scale, and the best that each cost buys.

    Where there are many, only those on that front are numbered. Equal costs stand beside each other.
    """
    ordered = sorted(points, key=lambda p: (p.cost, -p.auc))
    front = [p for i, p in enumerate(ordered) if all(p.auc > q.auc for q in ordered[:i])]
    with _axes(LOW) as (figure, axes):
        axes.axhline(0.5, color=COLOURS["soft"], linewidth=1, linestyle=(0, (2, 3)))
        steps = [(p.cost, p.auc) for p in front] + [(ordered[-1].cost, front[-1].auc)]
        axes.step(*zip(*steps, strict=True), where="post", color=COLOURS["line"], linewidth=1.2)
        seen: dict[float, int] = {}
        for p in ordered:
            place = seen[p.cost] = seen.get(p.cost, -1) + 1
            x, colour = p.cost * 1.04**place, COLOURS["c1" if p in front else "unknown"]
            axes.plot([x, x], [p.low, p.high], color=colour, linewidth=1, alpha=0.6)
            axes.plot([x], [p.auc], marker="o", markersize=4 if p in front else 3, color=colour)
            if p in front or len(ordered) <= FEW:
                axes.annotate(str(p.number), (x, p.high), (0, 2), textcoords="offset points", ha="center", va="bottom",
                              fontsize=7.5, color=COLOURS["ink"])  # fmt: skip
        axes.set_xscale("log")
        _logarithmic(axes.xaxis, lambda x: f"{x:g}")
        axes.margins(x=0.08, y=0.1)
        axes.set_xlabel(label)
        axes.set_ylabel("AUC")
        return _svg(figure, name)


@contextmanager
def _axes(height: float = HEIGHT) -> Iterator[tuple[Figure, Axes]]:
    """One pair of axes in the page's colours; nothing that a user has set for matplotlib applies."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        settings: Any = {
            "svg.fonttype": "none",
            "svg.hashsalt": "mia-bench",
            "font.family": "sans-serif",
            "font.size": 9,
            "axes.edgecolor": COLOURS["line"],
            "axes.labelcolor": COLOURS["soft"],
            "xtick.color": COLOURS["soft"],
            "ytick.color": COLOURS["soft"],
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.color": COLOURS["line"],
            "grid.linewidth": 0.5,
        }
        matplotlib.rcParams.update(settings)
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        figure.patch.set_visible(False)
        axes = figure.add_subplot()
        axes.patch.set_visible(False)
        axes.set_axisbelow(True)
        yield figure, axes


def _logarithmic(axis: Any, text: Callable[[float], str], close: bool = False) -> None:
    """Label powers of ten as they are read; 2 and 5 too, where the axis spans few of them."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if close else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda x, _: text(x)))
    axis.set_minor_formatter(NullFormatter())


def _svg(figure: Figure, name: str) -> str:
    """The figure's SVG element, its identifiers its own, its colours the page's."""
    file = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(file, format="svg", metadata=nothing)
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<style.*?</style>", "", text, count=1, flags=re.DOTALL)  # it would hold for the whole page
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text).replace("xlink:href", "href")  # within HTML these are known
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r'(href="#|url\(#)', rf"\1{name}-", text)
    text = re.sub(r"font-family: [^;\"]*", "font-family: inherit", text)
    for colour, number in COLOURS.items():
        text = text.replace(number, f"var(--{colour})")
    return re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', 'aria-hidden="true"', text, count=1)

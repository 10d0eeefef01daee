"""An audit in plain words: what the set shows, what each image shows, with error rates, and what neither means."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from math import ceil, floor, log10

from mia_bench.errors import ExitStatus
from mia_bench.evidence import Audit, Draws, ImageEvidence, SetEvidence, Usual
from mia_bench.metrics import Metric
from mia_bench.metrics.conformal import needed
from mia_bench.report.text import json_text, printable, table

WIDTH = 100
SHOWN = 10  # images in the table
DRAWN = 3  # images whose readings are shown one by one
SMALL = 0.095  # chances below are said as `1 in N`
ROUNDING = 1e-9
BARS = " ▁▂▃▄▅▆▇█"


def show_audit(found: Audit, as_json: bool) -> None:
    """Print an audit, or its record as JSON."""
    if as_json:
        print(json_text(found.model_dump(mode="json")))
        return
    bullets = [textwrap.fill(line, WIDTH, initial_indent="- ", subsequent_indent="  ") for line in caveats(found)]
    last = "\n".join(["WHAT THIS MEANS, AND WHAT NOT", *bullets])
    blocks = ["\n".join(head(found)), *_of_set(found), *_of_images(found), last]
    print("\n\n".join(printable(block) for block in blocks))


def exit_status(found: Audit) -> int:
    """4 if an attack of the run is at fault, 5 if the images are too few for any verdict, 3 if some were left out."""
    if found.failed:
        return ExitStatus.BROKEN_PLUGIN
    thin = (found.set is None or found.set.verdict == "thin") and all(i.verdict == "thin" for i in found.images)
    if thin:
        return ExitStatus.NOTHING
    return ExitStatus.UNAVAILABLE if found.left_out else ExitStatus.OK


def chance(p: float) -> str:
    """`1 in 400` where it is small, else `23 %`; never below `p`."""
    return f"1 in {floor(1 / p):,}" if p < SMALL else f"{min(100, floor(100 * p) + 1)} %"


def percent(p: float) -> str:
    """`0.25 %`, `23 %`: two digits, never below `p`; for columns."""
    if p >= 0.995:
        return "100 %"
    scale = 10.0 ** (1 - floor(log10(100 * p)))
    return f"{ceil(100 * p * scale - ROUNDING) / scale:.{max(0, round(log10(scale)))}f} %"


def head(found: Audit) -> list[str]:
    """What was asked, of what."""
    said = [f"Was {found.target} trained on these images?"]
    said += [f"{_images(found.n_suspects)} in question, {_images(found.n_nonmembers)} known to be unseen"]
    said[-1] += f" ({found.left_out} more could not be used)" if found.left_out else ""
    said += [f"images: {found.dataset.removeprefix('audit:')}", f"attacks: {', '.join(found.attacks)}"]
    if found.suspects == "members":
        said.append("No image is of unknown membership, so those labelled members are the ones in question.")
    if found.nonmembers == "calibration":
        said.append("The unseen images are those of the calibration set, so only attacks that are not fitted count.")
    return said


def _of_set(found: Audit) -> Iterator[str]:
    one = found.set
    title = "ALL IMAGES TOGETHER" if found.n_suspects > 1 else "THE IMAGE"
    answer = "\n".join([title, *map(_wrapped, set_answer(found))])
    yield answer
    if one is None:
        return
    yield "\n".join(_wrapped(line, "  ") for line in set_facts(one))
    if one.power or one.false_positives:
        yield _power(one)


def set_facts(one: SetEvidence) -> list[str]:
    """What the answer rests on."""
    lines = [f"what is tested: {', '.join(f'{a} {100 * w:.0f} %' for a, w in _by_weight(one))} of the weight"]
    if one.auc.value is not None:
        lines.append(f"an image in question scores above an unseen one in {_span(one.auc)} of pairs; 50 % is chance")
    if known := [control for control in one.controls if control.auc.value is not None]:
        best = max(known, key=lambda control: control.auc.value or 0.0)
        lines.append(f"without asking the model: {_span(best.auc)} of pairs ({best.label})")
    lines += [f"{label} has no part: {why}" for label, why in one.left_out.items()]
    if one.straddling:
        lines.append(f"{_images(one.straddling)} left out: near-duplicates on both sides")
    return lines


def set_answer(found: Audit) -> Iterator[str]:
    """The verdict on the set in sentences, with what weakens it."""
    one = found.set
    if one is None:
        yield (
            "Not tested: no attack scored enough of both kinds, or all images of one kind have a near-duplicate among "
            "the other."
        )
        return
    yield from _verdict(one, alone=found.n_suspects == 1)
    if one.verdict != "split" and (blind := one.best_finding):
        so = (
            "Scores may be low or high for that alone, so neither this answer nor another would mean much."
            if one.verdict in ("none", "thin")
            else "The attacks do better than that; how much of the rest is due to the choice of images is not known."
            if one.verdict == "evidence"
            else ""
        )
        yield (
            "Warning: the unseen images are not like those in question. A classifier that never asks the model tells "
            f"them apart in {_span(blind.auc)} of pairs ({blind.label}; chance is 50 %). {so}"
        ).rstrip()


def _compared(one: SetEvidence) -> str:
    """Attacks and the control that the verdict rests on, with the difference."""
    blind = next((control for control in one.controls if one.blind and control.label == one.blind.against), None)
    if blind is None or one.blind is None or one.blind.value is None:
        return ""
    low, high = (100 * (end or 0.0) for end in (one.blind.low, one.blind.high))
    return (
        f"{_span(blind.auc)} of pairs ({blind.label}) against the attacks' {_span(one.auc)}; the difference is "
        f"{100 * one.blind.value:+.0f} points [{low:+.0f}, {high:+.0f}]"
    )


def _span(auc: Metric) -> str:
    return f"{100 * (auc.value or 0):.0f} % [{100 * (auc.low or 0):.0f}, {100 * (auc.high or 0):.0f}]"


def _verdict(one: SetEvidence, alone: bool) -> Iterator[str]:
    them, some = ("it", "") if alone else ("them", ", or on some of them")
    level = f"{100 * one.alpha:g} %"
    if one.verdict == "thin":
        yield (
            f"Too thin: {_images(one.n)} beside {one.n_nonmembers} unseen (near-duplicates counted once) cannot stand "
            f"out at {level}, whatever the scores. It takes {_images(one.needed)} known to be unseen at least."
        )
        return
    rate = f"{chance(one.p_value)} cases at most" if one.p_value < SMALL else f"{chance(one.p_value)} of cases"
    by_chance = (
        "Had the model seen none of them, and were they like the unseen images otherwise, scores this high would come "
        f"up by chance in {rate} (p = {one.p_value:.2g})."
    )
    if one.verdict == "none":
        yield f"No evidence, at an error rate of {level}, that the model was trained on {them}. {by_chance}"
        if one.detectable_auc < 1:
            pairs = f"score above unseen ones in {100 * one.detectable_auc:.0f} % of pairs or more"
            yield (
                "That does not show that it was not: in sets of these sizes it is noticed in 4 of 5 cases only where "
                f"images in question {pairs}."
            )
        else:
            yield "That does not show that it was not: in sets so small it is seldom noticed."
        return
    if one.verdict == "split":
        yield (
            f"{'It stands' if alone else 'They stand'} out; but a classifier that never asks the model also tells "
            f"{them} from the unseen images: {_compared(one)}. So this cannot be told from how the images were chosen: "
            "it shows neither that the model was trained on them nor that it was not."
        )
    else:
        yield f"Evidence that the model was trained on {them}{some}."
    yield by_chance
    if one.verdict == "unresolved":
        yield (
            "The images are too few to show that their choice plays no part. A classifier that never asks the model is "
            f"not shown to tell {them} apart by itself, nor to do so less well than the attacks: {_compared(one)}."
        )
    if one.verdict in ("unresolved", "unchecked") and one.unchecked:
        yield (
            "Not shown: that their choice plays no part, since not all was compared with what never asks the model "
            f"({one.unchecked}). If the pictures alone tell {them} from the unseen images as well, this is evidence of "
            "how the images were chosen."
        )


def _power(one: SetEvidence) -> str:
    """How often random sets are noticed, and how often unseen ones are, by size."""
    cells, missing = power_rows(one)
    who = "the images in question" if one.power_of == "suspects" else "known members"
    title = f"how often random sets of {who}, and of unseen images, are noticed at {100 * one.alpha:g} %:"
    grid = table(cells, ["images in the set", "noticed", "unseen, noticed wrongly"], right=(0,))
    grid += f"\n{missing}" if missing else ""
    return f"  {title}\n{textwrap.indent(grid, '  ')}"


def power_rows(one: SetEvidence) -> tuple[list[list[object]], str]:
    """Size, share noticed, share noticed wrongly; and what a dash means."""
    found, wrongly = ({d.n: _share(d) for d in part} for part in (one.power, one.false_positives))
    sizes = sorted({*found, *wrongly})
    why = []
    if any(n not in found for n in sizes):
        why.append("there are no more of them to draw other sets from")
    if any(n not in wrongly for n in sizes):
        why.append("the unseen images are too few to divide")
    cells: list[list[object]] = [[n, found.get(n, "–"), wrongly.get(n, "–")] for n in sizes]
    return cells, f"–: {'; or '.join(why)}" if why else ""


def _share(draws: Draws) -> str:
    return f"{100 * draws.rejected / draws.draws:.0f} % [{100 * draws.low:.0f}, {100 * draws.high:.0f}]"


def _of_images(found: Audit) -> Iterator[str]:
    images = found.images
    if not images:
        return
    title = "ONE BY ONE" if found.n_suspects > 1 else "ITS PLACE AMONG THE UNSEEN"
    yield f"{title}\n" + "\n".join(map(_wrapped, images_answer(found)))
    if tabled(found):
        yield textwrap.indent(_table(images), "  ")
    for one in images[:DRAWN]:
        yield _reading(found, one)


def tabled(found: Audit) -> bool:
    """Whether there are several images, and enough unseen ones for a verdict on any."""
    return len(found.images) > 1 and any(one.verdict != "thin" for one in found.images)


def images_answer(found: Audit) -> list[str]:
    """What is said of the images one by one, in sentences."""
    images, level = found.images, f"{100 * found.alpha:g} %"
    if all(one.verdict == "thin" for one in images):
        count = "1 attack" if len(found.attacks) == 1 else f"{len(found.attacks)} attacks"
        why = f"{found.n_nonmembers} unseen images are too few for {count}, {found.needed} needed"
        fewer = "" if len(found.attacks) == 1 else ", or a single attack that is chosen beforehand (--attacks NAME)"
        return [f"Too thin for a verdict at {level} on any one image: {why}{fewer}."]
    if len(images) > 1:
        out = sum(one.verdict == "stands out" for one in images)
        return [
            f"{out} of {len(images)} stand out, each with an error rate of {level}: had none been seen, "
            f"{found.alpha * len(images):.3g} would do so by chance, on average at most.",
            _among_all(found),
        ]
    p, stands = images[0].p_value, images[0].verdict == "stands out"
    rate = f"{chance(p)} cases at most" if p < SMALL else f"up to {chance(p)} of cases"
    far = f"an image that was never seen stands out as far, in any of these attacks, in {rate}"
    return [f"It {'stands' if stands else 'does not stand'} out at {level}: {far}."]


def _among_all(found: Audit) -> str:
    """How many stand out even for whoever picks the most telling of all."""
    enough = needed(found.alpha, len(found.images) * len(found.attacks))
    if enough > found.n_nonmembers:
        why = f"that takes {enough:,} unseen images"
        return f"Whether a single one stands out among so many (`among all`) cannot be said: {why}."
    sure = sum(one.over_all <= found.alpha for one in found.images)
    return (
        f"{sure or 'None'} of them so far that, had none been seen, even one such would come up in "
        f"{100 * found.alpha:g} % of cases at most (`among all`)."
    )


def _table(images: Sequence[ImageEvidence]) -> str:
    cells = []
    for one in images[:SHOWN]:
        label, best = min(one.readings.items(), key=lambda item: (item[1].holm, -item[1].percentile))
        above = f"{100 * best.percentile:.1f} % of unseen"
        cells.append([one.sample, one.verdict, percent(one.p_value), percent(one.over_all), label, above])
    grid = table(cells, ["image", "", "by chance", "among all", "most telling", "above"], right=(2, 3))
    return grid + (f"\n... and {len(images) - SHOWN} more; --json has all" if len(images) > SHOWN else "")


def _reading(found: Audit, one: ImageEvidence) -> str:
    """One image among the unseen ones, attack by attack, drawn."""
    cells = [
        [
            label,
            strip(found.usual[label], reading.score),
            f"{100 * reading.percentile:.1f} %",
            f"{reading.p_value:.3g}",
            f"{reading.holm:.3g}",
        ]
        for label, reading in one.readings.items()
    ]
    headers = ["attack", "unseen images, and where this one is (◆)", "above", "p", "p (Holm)"]
    lines = [f"{one.sample}:", textwrap.indent(table(cells, headers, right=(2, 3, 4)), "  ")]
    for label, pictures in one.pictures.items():
        lines += [f"  {label}, {title}: {found.folder}/{file}" for title, file in pictures.items()]
    return "\n".join(lines)


def strip(usual: Usual, score: float) -> str:
    """Usual scores as a histogram in one line, with a mark before the bin of `score`."""
    most, size = max(usual.counts), len(usual.counts)
    bars = [BARS[-(-count * (len(BARS) - 1) // most)] for count in usual.counts]
    place = (score - usual.low) / (usual.high - usual.low) if usual.high > usual.low else 2.0 * (score > usual.low)
    at = size if place > 1 else max(0, min(size - 1, floor(place * size)))
    return "".join([*bars[:at], "◆", *bars[at:]])


def caveats(found: Audit) -> list[str]:
    """What holds of every answer, and what of this one."""
    one = found.set
    said = [
        "All error rates hold as far as the unseen images are like those in question: of the same kind, time and "
        "source, cut, compressed and captioned alike. Where they differ, so do scores, whatever the model saw.",
        "An error rate says how often images that were never seen look like this. It is not the chance that these were "
        "not seen.",
        "That images do not stand out does not show that they were not trained on.",
    ]
    if one and (one.verdict in ("split", "unresolved", "unchecked") or one.best_finding):
        said.append("What is said of them together holds one by one: to stand out may be due to how they were chosen.")
    if len(found.attacks) > 1:
        said.append("p (Holm) pays for looking at several attacks; one chosen beforehand (--attacks) costs nothing.")
    if tabled(found):
        said.append("Who picks the images that stand out most must go by `among all`, which pays for having picked.")
    if one and one.false_positives:
        said.append(
            "`noticed wrongly` checks the arithmetic, on unseen images divided at random; it cannot show whether they "
            "are like those in question."
        )
    for reason in dict.fromkeys(found.without.values()):
        labels = ", ".join(label for label, why in found.without.items() if why == reason)
        said.append(f"no scores of {labels}: {reason}")
    said += [f"unfinished: {found.unfinished}"] if found.unfinished else []
    return said


def _wrapped(text: str, indent: str = "") -> str:
    return textwrap.fill(text, WIDTH, initial_indent=indent, subsequent_indent=indent)


def _by_weight(one: SetEvidence) -> list[tuple[str, float]]:
    return sorted(one.weights.items(), key=lambda item: -item[1])


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"

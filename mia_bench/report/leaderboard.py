"""`leaderboard.md`: recorded results as one section for each dataset and target."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

from tabulate import tabulate

from mia_bench.engine.run import read_result
from mia_bench.engine.seeds import Spread, apart
from mia_bench.errors import NothingError, UnavailableError, UsageError
from mia_bench.report.markdown import markdown
from mia_bench.report.table import interval, percent, tail
from mia_bench.report.text import seconds_text
from mia_bench.report.verdicts import blind_value, without_pairs, word
from mia_bench.result import MEMBERSHIP, Result, Row

HEADERS = (
    "attack",
    "N",
    "AUC [95 %]",
    "over seeds",
    "TPR@1%FPR",
    "ASR*",
    "blind",
    "verdict",
    "mirror",
    "queries",
    "per image",
    "notes",
)
ALIGN = ("left", *["right"] * 6, "left", "right", "right", "right", "left")
MIRROR = HEADERS.index("mirror")
INTRODUCTION = """\
# Leaderboard

Written by `mia-bench leaderboard` from the recorded results in `{folder}`; not to be edited by hand.

- **AUC** and the other metrics are of the lowest seed, with 95 % intervals over images; **over seeds** is the mean ± \
standard deviation of the AUC over noise seeds (how many), on the same images. Neither says how another training of \
the same recipe would vary.
- **N** is the number of audit images; presets called `quick` measure fewer.
- **TPR@1%FPR** is in percent, with the false-positive rate realised; `!`: few false positives behind it, too unsteady \
to rank by.
- **ASR\\*** is the largest accuracy (percent) over thresholds chosen on the audit set itself: optimistic.
- **blind** is the best AUC of classifiers that read what the attack reads and never ask the target, on the same \
images. **Verdicts** are on the AUC: *clears blind* where the attack is better than chance and than all of them \
(paired, p < 0.05 after Holm over the table's attacks), *at chance* where its interval holds 0.5, *does not clear \
blind* elsewhere.
- **mirror** is AUC + AUC_mirror − 1 with its 95 % interval (`mia-bench mirror`): 0 for an attack that reads the model \
alone; *the split shows* where it is not (p < 0.05 after Holm).
- **queries** and time are per image, as if the attack ran alone; times are of the device named below each table.
"""


def leaderboard(folder: Path, called: str) -> str:
    """The whole page.

    Args:
        folder: Holds the results: JSON files as `run --json` prints them; other JSON files, and results of other
            tasks than membership and of imported scores, are passed over.
        called: What the page calls the folder.

    Raises:
        NothingError: The folder holds no result.
        UsageError: Two results of one dataset and target do not belong together.
        UnavailableError: A result is damaged.
    """
    results = recorded(folder)
    if not results:
        raise NothingError(
            f"leaderboard from {folder}", "no result there", f"`mia-bench run --json > {folder}/NAME.json`"
        )
    key = _section_of
    mirrors = mirrored(folder)
    sections = [
        _section(title, dict(same), mirrors) for title, same in groupby(sorted(results.items(), key=key), key=key)
    ]
    return "\n".join([INTRODUCTION.format(folder=called), *sections])


def recorded(folder: Path) -> dict[str, Result]:
    """File name -> result on membership; JSON files that are none (no `rows`, another task, imported)
    are passed over.

    Raises:
        UnavailableError: A file is no JSON, or a damaged result.
    """
    found = {}
    for path in sorted(folder.glob("*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UnavailableError(f"result {path}", f"not JSON: {error}", "record it again") from error
        if isinstance(content, dict) and "rows" in content and "schema_version" in content:
            found[path.name] = read_result(path)
    return {name: result for name, result in found.items() if result.task == MEMBERSHIP and not result.sources}


def mirrored(folder: Path) -> dict[str, dict[str, str]]:
    """Target -> attack -> its deviation in words, from what `mia-bench mirror` found and the folder keeps.

    Raises:
        UnavailableError: A file is damaged.
    """
    found: dict[str, dict[str, str]] = {}
    for path in sorted(folder.glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or content.get("benchmark") != "mirror":
            continue
        try:
            words = {
                row["label"]: f"{row['deviation']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"
                + ("" if row["passes"] else "; the split shows")
                for row in content["attacks"]
            }
            found |= {target: words for target in content["runs"]}
        except (KeyError, TypeError, ValueError) as error:
            raise UnavailableError(f"result {path}", f"no mirror test: {error!r}", "record it again") from error
    return found


def _section_of(item: tuple[str, Result]) -> str:
    return f"{item[1].dataset} × {item[1].target}"


def _section(title: str, results: Mapping[str, Result], mirrors: Mapping[str, Mapping[str, str]]) -> str:
    ordered = sorted(results.values(), key=lambda result: result.seed or 0)
    _belong_together(title, results)
    first = ordered[0]
    rows = sorted(first.rows, key=lambda row: (row.control, -_auc(row), row.label))
    mirror = mirrors.get(first.target, {})
    body = [_cells(row, ordered, mirror.get(row.label, "")) for row in rows]
    shown = [i for i in range(len(HEADERS)) if i != MIRROR or mirror]
    table = tabulate(
        [[line[i] for i in shown] for line in body],
        headers=[HEADERS[i] for i in shown],
        tablefmt="pipe",
        colalign=[ALIGN[i] for i in shown],
        disable_numparse=True,
    )
    return f"## {markdown(title)}\n\n{table}\n\n{_provenance(ordered)}\n"


def _belong_together(title: str, results: Mapping[str, Result]) -> None:
    """Finished results of one training, one sample list and one set of definitions, each seed once.

    Later seeds may lack rows of the first, not the other way about: the first decides what is shown.
    """
    name, first = min(results.items(), key=lambda item: item[1].seed or 0)
    seeds: dict[int | None, str] = {}
    for other_name, other in results.items():
        differing = apart(first, other) if len(results) > 1 else []
        if other.seed in seeds:
            differing.append(f"seed {other.seed} twice")
        if differing:
            why = f"{seeds.get(other.seed, name)} and {other_name} do not belong together: {', '.join(differing)}"
            raise UsageError(f"section {title}", why, "record both again with the same options, or remove one")
        if other.unfinished:
            raise UsageError(
                f"result {other_name}", f"unfinished: {other.unfinished}", "finish the run, and record it again"
            )
        seeds[other.seed] = other_name


def _auc(row: Row) -> float:
    value = row.evaluation.auc.value if row.evaluation else None
    return -1.0 if value is None else value


def _cells(row: Row, results: Sequence[Result], mirror: str) -> list[str]:
    if row.evaluation is None:
        return [markdown(row.label), "0", "–", "", "", "", "", row.status, "", "", "", markdown(row.reason or "")]
    same = [other.evaluation for result in results for other in result.rows if other.label == row.label]
    auc = Spread.of([evaluation.auc for evaluation in same if evaluation])
    seeds = "" if auc.sd is None or row.control else f"{auc.mean:.3f} ± {auc.sd:.3f} ({len(auc.values)})"
    blind = blind_value(row)
    notes = [f"{name}={row.params[name]}" for name in row.changed] + [*row.tags]
    notes += [f"{name} {value:.3g}" for name, value in row.fitted.items() if name not in row.changed]
    return [
        markdown(row.label),
        str(row.n),
        interval(row.evaluation.auc),
        seeds,
        tail(row.evaluation.tpr_at_1),
        percent(row.evaluation.asr_oracle),
        "" if blind is None else f"{blind:.3f}",
        "control" if row.control else word(row),
        mirror,
        "–" if row.queries is None else f"{row.queries:.4g}",
        "–" if row.seconds is None else seconds_text(row.seconds),
        markdown(", ".join(notes)),
    ]


def _provenance(results: Sequence[Result]) -> str:
    """What made the numbers, one line each."""
    first = results[0]
    environments = {json.dumps(e, sort_keys=True): e for result in results for e in result.environments}
    lines = [
        f"{first.n_members} members, {first.n_nonmembers} non-members; dataset revision {first.dataset_revision}, "
        f"samples {first.samples_hash[:12]}",
        f"target {first.target_fingerprint[:12]}; {first.dtype}, latents by {first.latent}; "
        f"noise seeds {', '.join(str(result.seed) for result in results)}",
    ]
    lines += without_pairs(first)
    for made in environments.values():
        device, libraries = made.get("device", {}), made.get("libraries", {})
        versions = ", ".join(
            f"{name} {version}" for name, version in {"Python": made.get("python"), **libraries}.items()
        )
        commit = f"commit {str(made.get('commit'))[:12]}" + (" with local changes" if made.get("dirty") else "")
        lines.append(f"{device.get('name')} ({device.get('type')}); {versions}; {commit}")
    return "\n".join(f"- {markdown(line)}" for line in lines)

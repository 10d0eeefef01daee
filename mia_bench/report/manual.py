"""The pages of docs/reference: made of the commands, the hooks, the contracts and the records themselves."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any

from mia_bench.report.markdown import code, markdown, markdown_table, prose
from mia_bench.report.parameters import meaning
from mia_bench.report.source import about, fields, function, methods

TEMPLATES = Path(__file__).parent / "templates" / "reference"
SCORES = {
    "attack": "Name, with the encoder in brackets where there is one.",
    "preset": "Empty for the defaults.",
    "sample_id": "As the dataset has it.",
    "split": "`audit`, `calibration` or `memorised`.",
    "label": "Whether it is a member; null where that is unknown.",
    "score": "Higher = more likely a member.",
}
MEASUREMENTS = {
    "fingerprint": "Identity of the measurement, as `run.json` and `results.json` have it.",
    "sample_id": "As the dataset has it.",
    "sample_digest": "Hash of all that an attack reads of the sample.",
    "term": "Name of the term.",
    "shape": "Shape of the term for one sample; empty for a single number.",
    "values": "The term, flattened in row-major order.",
    "shard": "The batch it was measured in; the file's metadata say what made each.",
}


def page(name: str) -> str:
    """One page of the reference; the prose around its entries is in `templates/reference`."""
    text = (TEMPLATES / f"{name}.md").read_text(encoding="utf-8")
    for key, entries in PAGES[name]().items():
        text = text.replace(f"{{{key}}}", entries)
    return text


def _commands() -> dict[str, str]:
    import click

    from mia_bench.cli import COMMANDS, group
    from mia_bench.errors import ExitStatus

    blocks = []
    for name in COMMANDS:
        command = group.get_command(click.Context(group, info_name="mia-bench"), name)
        assert command is not None
        context = click.Context(command, info_name=f"mia-bench {name}")
        usage = " ".join([context.info_name or "", *command.collect_usage_pieces(context)])
        records = [one.get_help_record(context) for one in command.params if isinstance(one, click.Option)]
        spans = [(code(spelt).replace(r"\|", "|"), prose(text)) for spelt, text in filter(None, records)]
        options = "\n".join(f"- {spelt}: {text}" for spelt, text in spans)
        paragraphs = inspect.cleandoc(command.help or "").split("\n\n")
        blocks += [f"## {name}", f"```text\n{usage}\n```", *map(prose, paragraphs), options]
    statuses = markdown_table(
        [[str(one.default), prose(one.meaning)] for one in fields(ExitStatus)], ["status", "meaning"]
    )
    return {"entries": "\n\n".join(filter(None, blocks)), "statuses": statuses}


def _hooks() -> dict[str, str]:
    from mia_bench import hookspecs
    from mia_bench.engine import events

    specs = [made for name, made in vars(hookspecs).items() if name.startswith(f"{hookspecs.PROJECT}_")]
    shown = "\n\n".join(
        f"### {made.__name__}\n\n{prose(inspect.getdoc(made))}\n\n```python\n{_signature(made)}\n```" for made in specs
    )
    return {"hooks": shown, "events": _records(_classes_of(events))}


def _signature(made: Callable[..., Any]) -> str:
    return function(made).partition("\n    ")[0].rpartition("@hookspec\n")[2].rstrip(":")


def _contracts() -> dict[str, str]:
    from mia_bench import attack, batch, dataset, encoder, executor, target, target_meta
    from mia_bench.diffusion import denoiser

    parts: dict[str, list[type]] = {
        "attack": [attack.Meta, attack.Access, attack.Capability, attack.Parameters, attack.Attack, attack.Control],
        "measure": [batch.Batch, denoiser.Denoiser],
        "score": [attack.Measured, attack.Scores],
        "dataset": [dataset.Sample, dataset.DatasetMeta, dataset.Dataset],
        "target": [target_meta.TargetMeta, target_meta.TargetOptions, target.Target],
        "encoder": [encoder.EncoderMeta, encoder.Offer, encoder.Encoder],
        "executor": [
            executor.ExecutorMeta,
            executor.Executor,
            executor.Job,
            executor.Task,
            executor.Ready,
            executor.Report,
            executor.Lost,
            executor.Failed,
        ],
    }
    links = _anchors(cls for classes in parts.values() for cls in classes)
    shown = {key: "\n\n".join(_contract(cls, links) for cls in classes) for key, classes in parts.items()}
    makers = "\n\n".join(f"```python\n{function(made)}\n```" for made in (attack.by_kind, attack.scoring))
    return {**shown, "parameters": makers}


def _contract(cls: type, links: Mapping[str, str]) -> str:
    """What it holds, then what it does."""
    listed = methods(cls)
    return _record(cls, links) + (f"\n\n```python\n{listed}\n```" if listed else "")


def _schema() -> dict[str, str]:
    from mia_bench import evidence, result, shard_files
    from mia_bench.benches import definition
    from mia_bench.engine import compare, plan, samples, score
    from mia_bench.metrics import models

    results = [result.Result, *(c for c in _classes_of(result) if c is not result.Result), *_classes_of(models)]
    return {
        "results": _records(results),
        "plan": _records(
            [plan.Plan, *(c for c in _classes_of(plan) if c is not plan.Plan), samples.SampleTable], known=results
        ),
        "audit": _records([evidence.Audit, *(c for c in _classes_of(evidence) if c is not evidence.Audit)], results),
        "bench": _bench(definition.Bench, definition.GateTable, compare.Gate),
        "scores": _arrow(score.SCORES, SCORES),
        "measurements": _arrow(shard_files.SCHEMA, MEASUREMENTS),
    }


def _bench(bench: type, table: type, gate: type) -> str:
    """Keys of `*.bench.toml`: what they do not say themselves, the option or the gate of that name does."""
    links, options = _anchors([bench, table]), inspect.getdoc(gate) or ""
    keys = _record(bench, links, lambda name: f"As `--{name.replace('_', '-')}`.", hidden=("path",))
    return f"{keys}\n\n{_record(table, links, lambda name: meaning(name, options))}"


def _arrow(schema: Any, meanings: Mapping[str, str]) -> str:
    rows = [[code(column.name), code(column.type), prose(meanings[column.name])] for column in schema]
    return markdown_table(rows, ["column", "type", "meaning"])


def _classes_of(module: ModuleType) -> list[type]:
    """Public classes that a module itself defines, in the order of its source."""
    return [
        made
        for name, made in vars(module).items()
        if isinstance(made, type) and made.__module__ == module.__name__ and name[0] != "_"
    ]


def _records(classes: Iterable[type], known: Iterable[type] = ()) -> str:
    """Sections of records, whose types are links where the page has them too."""
    classes = list(classes)
    links = _anchors([*known, *classes])
    return "\n\n".join(_record(cls, links) for cls in classes)


def _anchors(classes: Iterable[type]) -> dict[str, str]:
    return {cls.__name__: f"#{cls.__name__.lower()}" for cls in classes}


def _record(
    cls: type,
    links: Mapping[str, str],
    otherwise: Callable[[str], str] = lambda name: "",
    hidden: Sequence[str] = (),
) -> str:
    """One record; `otherwise` says what a field means that does not say it itself."""

    def linked(text: str) -> str:
        return re.sub(r"\w+", lambda word: f"[{word[0]}]({links[word[0]]})" if word[0] in links else word[0], text)

    rows = [
        [
            code(one.name),
            linked(markdown(one.type)),
            code(one.default) if one.default else "",
            prose(one.meaning or otherwise(one.name)),
        ]
        for one in fields(cls)
        if one.name not in hidden
    ]
    headers = ["name", "type", "value" if issubclass(cls, Enum) else "default", "meaning"]
    kept = [i for i in range(len(headers)) if any(row[i] for row in rows)]
    table = markdown_table([[row[i] for i in kept] for row in rows], [headers[i] for i in kept]) if rows else ""
    paragraphs = [prose(paragraph) for paragraph in about(cls).split("\n\n")]
    return "\n\n".join(filter(None, [f"### {cls.__name__}", *paragraphs, table]))


PAGES: Mapping[str, Callable[[], dict[str, str]]] = {
    "cli": _commands,
    "hooks": _hooks,
    "contracts": _contracts,
    "schema": _schema,
}

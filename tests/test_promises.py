"""The same numbers whatever the order, subset, companions, sharing, threads or interruptions, on the embedded model.

Bit for bit at one row count; within rounding at another.
"""

import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny

from mia_bench.engine.prepare import RunOptions, prepare
from mia_bench.engine.run import run
from mia_bench.plugins import Registry
from mia_bench.store import Store

LIMIT = 10
ROWS = 8  # a chain asks for one timestep at a time, and a call with fewer rows is padded
SUITE = "loss,pia,pian,secmi,clid"  # each attack by itself, on a tiny target: test_every_attack.py
TRANSDUCTIVE = ("clid", "blind")  # their scores are scaled by, or fitted on, the other samples of the run
RELATIVE = {"secmi": 5e-4}  # between row counts, else 1e-5; SecMI subtracts nearby predictions


def measured(folder, **options):
    result = run(Registry.load(), RunOptions(out=folder, **{"limit": LIMIT, "attacks": SUITE, "rows": ROWS, **options}))
    assert {r.status for r in result.rows} == {"ok"} or options.get("limit", LIMIT) < LIMIT
    return folder


def content(folder):
    return (folder / "scores.parquet").read_bytes()


def terms(folder, **options):
    """(label, sample id) -> all stored terms, flat; controls measure no calibration sample."""
    plan = prepare(Registry.load(), RunOptions(out=folder, **{"limit": LIMIT, "attacks": SUITE, **options})).plan
    found = {}
    for attack in plan.attacks:
        have, values = Store(folder).terms(attack.fingerprint, plan.samples.pairs)
        assert np.array_equal(have, (np.array(plan.samples.split) != "calibration") | (not attack.control))
        rows = np.concatenate([v.reshape(have.sum(), -1) for _, v in sorted(values.items())], axis=1)
        found.update({(attack.label, i): row for i, row in zip(np.array(plan.samples.id)[have], rows, strict=True)})
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return measured(tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize(
    "change",
    [
        {"threads": 3, "batch": 7},  # other companions, other shards
        {"threads": 1, "share": False},
        {"attacks": ",".join(reversed(SUITE.split(",")))},
    ],
    ids=lambda c: ",".join(c),
)
def test_the_same_bits(whole, tmp_path, change):
    other = measured(tmp_path, **change)
    if "attacks" in change:
        assert tiny.scores(other) == tiny.scores(whole)
    else:
        assert content(other) == content(whole)


def test_the_order_of_the_dataset_does_not_matter(whole, tmp_path, monkeypatch):
    from mia_bench_plugins.datasets.fluent_emoji import FluentEmoji

    samples = list(FluentEmoji().samples())
    np.random.default_rng(0).shuffle(samples)
    monkeypatch.setattr(FluentEmoji, "samples", lambda self: samples)
    assert content(measured(tmp_path)) == content(whole)


def test_a_subset_agrees_on_its_samples(whole, tmp_path):
    few, many = measured(tmp_path, limit=2), tiny.scores(whole)
    compared = {key: value for key, value in tiny.scores(few).items() if not key[0].startswith(TRANSDUCTIVE)}
    assert len(compared) == 4 * 10, "all but clid on 2 of each: audit and calibration of both classes, memorised"
    assert all(many[key] == value for key, value in compared.items())
    ours, theirs = terms(few, limit=2), terms(whole)
    assert {label for label, _ in ours} >= {"clid", "blind"}
    assert all(np.array_equal(theirs[key], value) for key, value in ours.items()), "what is measured, for every attack"


def test_each_attack_alone_agrees_with_all_together(whole, tmp_path):
    together = tiny.scores(whole)
    for attack in ("pian", "clid"):
        alone = tiny.scores(measured(tmp_path / attack, attacks=attack))
        assert all(together[key] == value for key, value in alone.items())


def test_resuming_gives_the_same_bits(whole, tmp_path):
    def interrupt(event):
        if event.batch == 2:
            raise KeyboardInterrupt

    made = Registry.load()
    made.add("interrupt", "tests", "", lambda: tiny.plugin(batch_measured=interrupt))
    with pytest.raises(KeyboardInterrupt):
        run(made, RunOptions(attacks=SUITE, out=tmp_path, limit=LIMIT, rows=ROWS, batch=6))
    measured(tmp_path, attacks="loss")
    assert content(measured(tmp_path, batch=5)) == content(whole)


@pytest.mark.parametrize("rows", [1, 5])
def test_other_row_counts_agree_within_rounding(whole, tmp_path, rows):
    ours, theirs = terms(measured(tmp_path, rows=rows, limit=2), limit=2), terms(whole)
    for (label, i), values in ours.items():
        rtol = RELATIVE.get(label, 1e-5)
        np.testing.assert_allclose(values, theirs[label, i], rtol=rtol, atol=0, err_msg=f"{label} on {i}")


def test_scores_table_is_in_a_fixed_order(whole):
    rows = pq.read_table(whole / "scores.parquet").to_pylist()
    ids = [r["sample_id"] for r in rows if r["attack"] == "loss"]
    assert all(
        ids == [r["sample_id"] for r in rows if (r["attack"], r["preset"]) == k] for k in (("pia", ""), ("pian", ""))
    )

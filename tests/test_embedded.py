"""What the embedded benchmark promises, read from the recorded results."""

import json
from pathlib import Path

import pytest

from mia_bench.engine.run import read_result

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"


def read(name):
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def attacks(target):
    rows = read_result(RESULTS / f"{target}-seed0.json").rows
    return {row.label: row for row in rows if not row.control}


def test_no_blind_classifier_leaves_chance_by_three_null_errors():
    used = read("blind")["draws"][-1]
    assert len(used["auc"]) >= 10
    for name, auc in used["auc"].items():
        assert abs(auc - 0.5) <= 3 * used["null_error"], name
    assert used["distance"]["p_value"] >= 0.05


def test_attacks_are_spread_on_realworld_and_higher_on_overtrain():
    mild, strong = attacks("emoji-realworld"), attacks("emoji-overtrain")
    clear = [label for label, row in mild.items() if row.verdicts["auc"].verdict == "clears blind"]
    assert len(clear) >= 4
    for label in clear:
        assert mild[label].evaluation.auc.value <= 0.97
        assert strong[label].evaluation.auc.value > mild[label].evaluation.auc.value


def test_training_free_scores_point_the_right_way_or_the_docs_say_why_not():
    rows = attacks("emoji-overtrain")
    free = {label: row for label, row in rows.items() if "label-assisted" not in row.tags}
    astray = {label for label, row in free.items() if row.evaluation.auc.low <= 0.5}
    assert len(free) >= 10
    weak = {"secmi", "wen", "drc[emoji-lpips]", "rediffuse[ssim]"}
    weak |= {f"iip[emoji-clip]@string{part}" for part in ("", "-d", "-m")}
    assert astray == weak, "docs/embedded.md explains these: `Where attacks are weak here, and why`"


def test_attacks_that_draw_no_noise_do_not_vary_with_the_seed():
    seeds = [
        {row.label: row.evaluation.auc.value for row in read_result(RESULTS / f"emoji-realworld-seed{n}.json").rows}
        for n in range(5)
    ]
    same = {label for label in seeds[1] if len({found[label] for found in seeds}) == 1}
    assert same >= {"pia", "pian", "secmi", "sima", "structural"}
    assert not same & {"loss", "mc", "pfami", "clid", "clid-vec", "wen"}


def test_attacks_pass_the_mirror_test():
    for row in read("mirror")["attacks"]:
        assert row["passes"], row


def test_memorised_images_are_told_apart_only_where_they_were_repeated():
    found = read("memorised")["targets"]
    assert any(row["auc"] > 0.9 and row.get("holm", 1) < 0.001 for row in found["emoji-overtrain"])
    assert all(row["holm"] > 0.05 for row in found["emoji-realworld"] if "holm" in row)


@pytest.mark.parametrize("target", ["emoji-realworld", "emoji-overtrain", "emoji-mirror"])
def test_the_records_are_of_the_shipped_weights(target):
    from mia_bench.engine.named import open_target
    from mia_bench.plugins import Registry

    fingerprint = open_target(Registry.load(), target).fingerprint
    seeds = [read_result(RESULTS / f"{target}-seed{seed}.json") for seed in range(5)]
    assert {result.target_fingerprint for result in seeds} == {fingerprint}
    assert [result.seed for result in seeds] == list(range(5))

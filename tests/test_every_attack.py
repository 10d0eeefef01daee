"""Every registered attack is blind to labels of the audit set and gives the same bits however it is run.

On a tiny target that can do everything, so that no attack is left out.
"""

from dataclasses import replace

import numpy as np
import pytest
import tiny
from able import Able

from mia_bench.attack import Control
from mia_bench.engine.label import Label
from mia_bench.engine.prepare import RunOptions
from mia_bench.engine.run import read_result, run
from mia_bench.plugins import Registry

ATTACKS = sorted(name for name, cls in Registry.load().attacks.items() if not issubclass(cls, Control))
RANDOM = {  # whether the score of a sample depends on the seed of the noise
    "clid": True,
    "clid-vec": True,
    "drc": True,
    "gsa": True,
    "iip": False,  # the prompt of the quick preset is a string
    "loss": True,
    "mc": True,
    "noise-probe": False,
    "pfami": True,
    "pfami-nns": True,
    "pia": False,
    "pian": False,
    "rediffuse": True,
    "secmi": False,
    "secmi-nns": False,
    "sima": False,
    "structural": False,
    "sweep": True,
    "wen": True,
    **dict.fromkeys(["wu-ip", "wu-is", "wu-iip", "wu-iis", "wu-iii", "wu-iv"], True),
}


def samples(permute=None):
    """Audit, calibration and memorised images; `permute` gives the audit labels to other samples."""
    given = tiny.icons(10, 10, (6, 6))  # what the controls need, and a few to train on
    given += [replace(s, id=f"memorised-{s.id}", split="memorised") for s in given[:3]]
    if permute is None:
        return given
    labels = iter(np.random.default_rng(permute).permutation([s.member for s in given if s.split == "audit"]).tolist())
    return [replace(s, member=next(labels)) if s.split == "audit" else s for s in given]


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """Runs of all attacks, measured anew each: as it is, other audit labels, another seed, cut up otherwise."""

    def go(given, **options):
        folder, made = tmp_path_factory.mktemp("run"), Registry.load()
        made.targets["able"], made.datasets["given"] = Able, tiny.dataset(given, ("able",), "quick")
        given = {"dataset": "given", "reference": "able:8", "threads": 1, "rows": 16, **options}
        result = run(made, RunOptions(out=folder, **given))
        assert not result.skipped and {row.status for row in result.rows} == {"ok"}, "every attack takes part"
        return folder, tiny.scores(folder)

    return {
        "plain": go(samples()),
        "permuted": go(samples(permute=0)),
        "seed": go(samples(), seed=1),
        "cut": go(samples()[::-1], batch=7, threads=2, share=False),
    }


def of(scores, name):
    """By sample; an attack's default row, or the cheap one that it has instead."""
    found = {}
    for (text, sample), value in scores.items():
        label = Label.parse(text)
        if label.name == name and label.preset in ("", "quick"):
            found[sample] = value
    return found


@pytest.mark.parametrize("name", ATTACKS)
def test_permuting_the_audit_labels_changes_no_score(scored, name):
    plain, permuted = (of(scored[key][1], name) for key in ("plain", "permuted"))
    assert len(plain) == len(samples()) and len(set(plain.values())) > 1
    assert plain == permuted, "bit for bit"


def test_the_labels_were_permuted(scored):
    """What may see labels, a control, scores otherwise; and the same scores earn other figures."""
    (folder, plain), (other, permuted) = scored["plain"], scored["permuted"]
    assert of(plain, "blind") != of(permuted, "blind")
    before, after = ({r.label: r.evaluation.auc.value for r in read_result(run).rows} for run in (folder, other))
    assert before["loss"] != after["loss"]


@pytest.mark.parametrize("name", ATTACKS)
def test_only_what_is_random_depends_on_the_seed(scored, name):
    assert name in RANDOM, "say in this table whether it depends on the seed"
    before, after = of(scored["plain"][1], name), of(scored["seed"][1], name)
    assert before.keys() == after.keys() and (before != after) == RANDOM[name]


@pytest.mark.parametrize("name", ATTACKS)
def test_order_batches_threads_and_sharing_change_no_bit(scored, name):
    assert of(scored["cut"][1], name) == of(scored["plain"][1], name)

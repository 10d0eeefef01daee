"""CLiD against the authors' programs: caption reductions, tokens, losses, and the threshold score."""

import golden
import numpy as np
import pytest

from mia_bench_plugins.attacks.clid import CLiD

TEXTS = {"importance": ("t1_clid_impt", "cut_texts"), "clip": ("t1_clid_clip", "clip_texts")}


@pytest.fixture(scope="module", params=sorted(TEXTS))
def case(request, sd):
    """Reduction, attack, batch and golden numbers."""
    name, texts = TEXTS[request.param]
    noise, wanted = golden.load(f"noise_{name}"), golden.load(f"golden_{name}")
    ts = tuple(int(t) for t in wanted["t"])
    arrays = {("eps", t, 0): noise["eps"][:, j] for j, t in enumerate(ts)}
    weights = None
    if request.param == "importance":
        weights = [tuple(float(w) for w in line.split()) for line in wanted["importance"]]
    made = golden.batch(sd, {("latent", None, 0): noise["vae"], **arrays}, word_weights=weights)
    wanted["texts"] = wanted[texts]
    return CLiD(CLiD.Params(t=ts, reduction=request.param)), made, wanted


def test_reduced_captions(case):
    attack, made, wanted = case
    assert attack.reduced(made) == wanted["texts"].tolist()


def test_token_ids(case, sd):
    attack, made, wanted = case
    for texts, ids in zip(attack.reduced(made), wanted["input_ids_cond"], strict=True):
        assert (sd.tokens(texts).numpy() == ids).all()
    assert (sd.tokens([""] * golden.B).numpy() == wanted["input_ids_null"]).all()


def test_losses_and_differences(case, sd):
    attack, made, wanted = case
    losses = golden.measure(attack, made, sd)["losses"].mean(axis=1)
    assert golden.relative(losses[:, 0], wanted["cond0"]) < golden.LOSS
    for i, name in enumerate(["cond1_dif", "cond2_dif", "cond3_dif", "condNull_dif"], 1):
        assert golden.absolute(losses[:, i] - losses[:, 0], wanted[name]) < golden.DIFFERENCE, name


def test_terms(case, sd):
    attack, made, wanted = case
    discrepancy, likelihood = attack.terms(golden.measure(attack, made, sd))
    assert golden.relative(-likelihood, wanted["l_and_clidavg"][:, 0]) < golden.LOSS
    assert golden.absolute(-discrepancy, wanted["l_and_clidavg"][:, 1]) < golden.DIFFERENCE


def test_threshold_score(case, sd):
    attack, made, wanted = case
    measured = golden.measure(attack, made, sd)
    for alpha, score in zip(wanted["alphas"], wanted["th_score"], strict=True):
        scorer = CLiD(attack.params.model_copy(update={"alpha": float(alpha)}))
        found = scorer.score(measured, None)
        assert found.tags == ("transductive",)
        assert golden.absolute(-found.values, score) < golden.TH_SCORE, alpha  # there, lower = member


def test_default_alpha_is_the_published_one(case, sd):
    attack, made, wanted = case
    found = attack.score(golden.measure(attack, made, sd), None)
    (row,) = np.flatnonzero(wanted["alphas"] == 0.9)
    assert found.fitted == {"alpha": 0.9}
    assert golden.absolute(-found.values, wanted["th_score"][row]) < golden.TH_SCORE

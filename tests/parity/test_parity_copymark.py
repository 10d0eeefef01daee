"""What CopyMark calls PIA, PIAN and SecMI, as presets of the attacks they really are or come nearest to."""

import golden
import numpy as np
import pytest

from mia_bench_plugins.attacks.mc import MonteCarlo
from mia_bench_plugins.attacks.secmi import SecMI

SIZE = 4 * 16 * 16


@pytest.mark.parametrize("name", ["pia", "pian"])
def test_pia_is_a_loss_with_one_noise(sd, name):
    noise, wanted = golden.load("noise_t1_copymark_pia"), golden.load("golden_t1_copymark_pia")
    made = golden.batch(sd, {("latent", None, 0): noise["vae"], ("eps", None, 0): noise["eps"]})
    attack = MonteCarlo(MonteCarlo.Params.model_validate(MonteCarlo.presets[f"copymark-{name}"]))
    assert list(attack.params.t) == wanted["t_model"].tolist() and attack.queries() == 50
    measured = golden.measure(attack, made, sd)
    assert golden.relative(measured["losses"] * SIZE, wanted[f"{name}_all_steps"]) < golden.LOSS
    assert golden.relative(-attack.score(measured, None) * 50 * SIZE, wanted[f"{name}_sum"]) < golden.LOSS


def test_secmi_with_random_noise(sd):
    noise, wanted = golden.load("noise_t1_copymark_secmi"), golden.load("golden_t1_copymark_secmi")
    arrays = {("eps", int(t), 0): noise["eps"][j] for j, t in enumerate(wanted["t"])}
    made = golden.batch(sd, {("latent", None, 0): noise["vae"], **arrays})
    for column, t in enumerate(wanted["t"]):
        attack = SecMI(SecMI.Params(t=int(t), ahead=int(wanted["unit"]), noising="random"))
        found = golden.measure(attack, made, sd)["error"]
        assert golden.relative(found, wanted["all_steps"][:, column]) < golden.SECMI, t
    preset = SecMI(SecMI.Params.model_validate(SecMI.presets["copymark"]))
    assert preset.queries() == 2
    score = preset.score(golden.measure(preset, made, sd), None)
    assert golden.relative(-score, wanted["score_index14"]) < golden.SECMI
    assert golden.relative(np.sort(-score), np.sort(wanted["all_steps"][:, 13])) > golden.SECMI

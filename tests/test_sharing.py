"""What attacks share: equal queries of one batch are run once, and sharing changes no bit.

Figures are queries per image, as the denoiser itself counts them: asked, and executed after sharing.
"""

from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

from mia_bench.attack import Control
from mia_bench.batch import Batch
from mia_bench.diffusion.noise import KeyedNoise, SaltedNoise
from mia_bench.engine.label import Label
from mia_bench.engine.select import select
from mia_bench.images import to_pixels
from mia_bench.plugins import Registry
from mia_bench.testing import StubEncoder, TinyGenerator, TinyPixels, TinyTarget

ATTACKS = {name: cls for name, cls in sorted(Registry.load().attacks.items()) if not issubclass(cls, Control)}
SUITE = "loss mc pia pian secmi pfami clid"
WU = "wu-ip wu-is wu-iip wu-iis wu-iii wu-iv"

# What is shared: kind of target, attacks, queries one by one, queries together.
FACTS = {
    "the noise of the clean image": ("latent", "pia pian secmi", 16, 14),
    "PIA's and PIAN's second query is their own": ("latent", "pia pian", 4, 3),
    "PIA at other times": ("latent", "pia pia@t200 pia@t400 pia@p5", 8, 4),
    "PIA and PIAN as their authors' script": ("latent", "pia@repo-sd pian@repo-sd", 8, 6),
    "an inversion that is told where it comes from": ("latent", "pia structural@source", 4, 3),
    "SecMI's chain, however long": ("latent", "secmi@cifar-code secmi@paper secmi@ldm-code", 39, 16),
    "SecMI's chain, another last step": ("latent", "secmi@paper secmi@clid-baseline", 24, 13),
    "SecMI's four variants": (
        "latent",
        "secmi@cifar-code secmi@paper secmi@ldm-code secmi@clid-baseline",
        51,
        17,
    ),
    "SecMI's error and its map": ("latent", "secmi secmi-nns", 24, 12),
    "SecMI's in pixel space": ("pixel", "secmi secmi-nns secmi@paper", 11 + 11 + 12, 12),
    "equal time, noise and caption": ("latent", "clid mc loss", 19, 15),
    "all of CLiD's, by trees": ("latent", "clid clid-vec", 30, 15),
    "the null caption": ("latent", "clid@null clid", 21, 15),
    "whole and null captions": ("latent", "clid clid@importance", 30, 24),
    "captions with noise": ("latent", "clid@gaussian clid-vec@gaussian", 30, 15),
    "PFAMI's grid in pixel space": ("pixel", "pfami pfami-nns", 130, 110),
    "PFAMI's grid on latents, without the crop": ("latent", "pfami pfami-nns", 130, 120),
    "PFAMI's original at the loss's time": ("pixel", "pfami loss", 21, 20),
    "a reference model is asked by itself": ("latent", "pfami pfami@calibrated", 60, 40),
    "the suite on latents": ("latent", SUITE, 55, 49),
    "with SecMI's other variants": (
        "latent",
        f"{SUITE} secmi@cifar-code secmi@ldm-code secmi@clid-baseline",
        55 + 11 + 16 + 12,
        49 + 5,
    ),
    "one generation for all of Wu et al.": ("latent", WU, 600, 100),
    "a generation that is watched": ("latent", "wu-is wen@steps50", 200, 100),
    "the first of several generations": ("latent", "wen@steps50 wen@steps50x4", 500, 400),
    "the first step from noise, at any guidance": ("latent", "drc@guided wu-is wen", 202, 198),
    "inversions without a caption": ("latent", "iip@string iip@random", 120, 99),
    "an inversion and what is optimised on its way back": ("latent", "iip", 580, 579),
    "distances of one set of images": ("latent", "sweep@quick sweep[ssim]@quick", 124, 62),
    "variations": ("latent", "rediffuse rediffuse@resnet", 20, 10),
    "a variation's first step": ("pixel", "rediffuse loss", 21, 20),
    "what is looked at of a restoration": ("latent", "drc drc@hidden", 100, 50),
    "nothing of different ways up": ("latent", "structural structural@null iip@string secmi", 76, 76),
    "nothing of other strengths": ("latent", "sweep@quick rediffuse@quick", 72, 72),
    "nothing by a pass with gradients": ("latent", "gsa gsa@gsa2", 20, 20),
}


def attack_of(label, kind="latent"):
    parts = Label.parse(label)
    cls = ATTACKS[parts.name]
    given = {**cls.presets.get(parts.preset, {}), **({"encoder": parts.encoder} if parts.encoder else {})}
    return cls(cls.Params.model_validate(given).resolved(kind))


# Pictures: attacks; what is counted, rows per image one by one and together.
LOOKED = {
    "Wu et al.'s pictures": (WU, {"encoder blip": (6, 2)}),
    "one original for several attacks": ("wu-iis iip[blip]@string", {"encoder blip": (4, 3)}),
    "another generation, one original": ("wu-iis wu-iis@captioned", {"encoder blip": (4, 3)}),
    "distances of embeddings from one original": (  # both sweeps' lowest strength is one step from the lowest level
        "sweep[dreamsim]@quick sweep[dreamsim]@mean",
        {"encoder dreamsim": (2 * 32, 1 + 30), "decoder": (7 + 25, 30)},
    ),
    "what attention is on": ("drc drc@guided", {"encoder dino": (10, 8)}),
    "a generation and its decoding": (WU, {"decoder": (6, 1)}),
    "crops of equal size": ("pfami pfami-nns", {"vae": (12, 10)}),
}


PAGE = Path(__file__).parents[1] / "docs" / "explanation" / "sharing.md"


def opened(kind="latent", **options):
    """A target that can do everything, with the encoders of the attacks in question."""
    family = {"latent": TinyTarget, "pixel": TinyPixels}[kind]
    target = family()
    target.reference = family("8")
    labels = {label for row in FACTS.values() if row[0] == kind for label in row[1].split()}
    labels |= {*ATTACKS, *(f"{name}@quick" for name, cls in ATTACKS.items() if "quick" in cls.presets)}
    target.encoders = {spec: StubEncoder() for label in labels for spec in attack_of(label, kind).encoders()}
    target.open(rows=16, **options)
    return target


@pytest.fixture(scope="module")
def targets():
    return {kind: opened(kind) for kind in ("latent", "pixel")}


@pytest.fixture(scope="module")
def separate():
    return {kind: opened(kind, share=False) for kind in ("latent", "pixel")}


def batch_of(target, noise=None):
    target.forget()
    samples = tiny.icons(2, 0)
    images = [sample.open() for sample in samples]
    pixels = torch.from_numpy(np.stack([to_pixels(image, 32) for image in images]))
    captions = [sample.caption for sample in samples]
    weights = [tuple(range(len(caption.split(" ")))) for caption in captions]
    return Batch([s.id for s in samples], captions, images, pixels, target, noise or KeyedNoise(0), weights)


def measured(target, labels, salted=False):
    """What attacks measure on one batch, and what each asked and had run: queries per image."""
    batch, found = batch_of(target), {}
    common = batch.noise
    for label in labels:
        attack, denoiser = attack_of(label, target.meta.kind), target.denoiser
        before = np.array([denoiser.asked.total(), denoiser.executed])
        batch.noise = SaltedNoise(common, attack.meta.name) if salted else common
        with torch.no_grad():
            terms = {name: torch.as_tensor(term).clone() for name, term in attack.measure(batch, target).items()}
        found[label] = terms, (np.array([denoiser.asked.total(), denoiser.executed]) - before) / len(batch)
    return found


def looked(target, labels):
    """Rows per image that each network but the denoiser ran for attacks."""
    before = {name: rows.done for name, rows in target.networks.items()}
    found = measured(target, labels)
    return found, {name: (rows.done - before[name]) / 2 for name, rows in target.networks.items()}


def totals(found):
    """Asked and executed by all."""
    return tuple(sum(counts for _, counts in found.values()))


@pytest.mark.parametrize("fact", FACTS)
@pytest.mark.parametrize("turned", [False, True], ids=["", "turned"])
def test_equal_queries_are_run_once(targets, fact, turned):
    kind, labels, asked, executed = FACTS[fact]
    assert totals(measured(targets[kind], labels.split()[:: -1 if turned else 1])) == (asked, executed)


@pytest.mark.parametrize("fact", FACTS)
def test_sharing_changes_no_bit(targets, separate, fact):
    kind, labels, asked, _ = FACTS[fact]
    together = measured(targets[kind], labels.split())
    alone = measured(separate[kind], labels.split())
    assert totals(alone) == (asked, asked)
    for label, (terms, _) in together.items():
        for name, values in terms.items():
            assert torch.equal(values, alone[label][0][name]), (label, name)


def test_noise_of_its_own_leaves_only_what_has_none(targets):
    kind, labels, asked, _ = FACTS["the suite on latents"]
    assert totals(measured(targets[kind], labels.split(), salted=True)) == (asked, asked - 2), "e(z, 0, c), three times"
    kind, labels, asked, executed = FACTS["the noise of the clean image"]
    assert totals(measured(targets[kind], labels.split(), salted=True)) == (asked, executed)


# Pictures -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fact", LOOKED)
def test_equal_pictures_are_made_and_looked_at_once(targets, separate, fact):
    labels, rows = LOOKED[fact]
    together, shared = looked(targets["latent"], labels.split())
    alone, unshared = looked(separate["latent"], labels.split())
    assert {name: (unshared[name], shared[name]) for name in rows} == rows
    for label, (terms, _) in together.items():
        for name, values in terms.items():
            assert torch.equal(values, alone[label][0][name]), (label, name)


@pytest.mark.parametrize("ask", ["embed", "attention"])
def test_a_changed_picture_is_looked_at_anew(targets, ask):
    target = targets["latent"]
    batch, encoder = batch_of(target), target.encoders["dino"]
    look = getattr(encoder, ask)
    before, first, made = encoder.rows.done, look(batch.pixels), target.shown(batch.x0)
    assert torch.equal(look(batch.pixels), first) and encoder.rows.done - before == 2
    assert not torch.equal(look(made), first) and encoder.rows.done - before == 4
    for change in (lambda x: x.mul_(0.5), lambda x: x[:, 0].zero_(), lambda x: x.__setitem__((0, 0), 1.0)):
        changed = target.shown(batch.x0)
        change(changed)
        found, rows = look(changed), encoder.rows.done
        assert torch.equal(found, look(changed.clone())) and encoder.rows.done == rows + 2
        assert not torch.equal(found, look(made))
    with pytest.raises(RuntimeError, match="nference"):
        first.add_(1)


def test_the_next_batch_is_looked_at_anew(targets):
    target = targets["latent"]
    encoder = target.encoders["dino"]
    rows = encoder.rows.done
    for _ in range(2):
        encoder.embed(batch_of(target).pixels)
    assert encoder.rows.done == rows + 4 and len(encoder._seen) == 1


def test_two_batches_pictures_are_never_taken_for_each_other(targets):
    target = targets["latent"]
    whole, encoder = batch_of(target), target.encoders["dino"]
    embedded = encoder.embed(whole.pixels)
    for i in range(2):
        assert torch.equal(encoder.embed(whole.single(i).pixels)[0], embedded[i])
        assert torch.equal(encoder.embed(target.shown(whole.single(i).x0))[0], encoder.embed(target.shown(whole.x0))[i])


def test_a_service_is_asked_once_and_its_answer_looked_at_once():
    target = TinyGenerator()
    target.encoders = {"blip": StubEncoder()}
    target.open(rows=4)
    batch = batch_of(target)
    for label in WU.split():
        attack_of(label, "pixel").measure(batch, target)
    assert target.denoiser.asked[""] == 6 * 2 and target.denoiser.executed == 2
    assert target.encoders["blip"].rows.done == 2 * 2


# The page -----------------------------------------------------------------------------------------------------------


def of_all(target, preset):
    """For each attack that `all` takes: queries asked, run by itself, and run after those before it."""
    chosen = [one for one in select(Registry.load(), preset=preset) if not (one.control or one.requires)]
    labels = {}  # presets that differ in scoring alone are measured once
    for one in chosen:
        if preset == "" or one.cls.meta.name != "noise-probe":  # the embedded targets have no base model
            labels.setdefault((one.cls, repr(one.params.resolved("latent").measuring())), one.label)
    together = measured(target, labels.values())
    return {
        Label.parse(label).name: (*(int(n) for n in measured(target, [label])[label][1]), int(together[label][1][1]))
        for label in labels.values()
    }


def test_the_page_tells_what_is_counted(targets):
    """A new attack, or another price, belongs into the page: the lines that are missing there are those below."""
    target = targets["latent"]
    published, cheap = (of_all(target, preset) for preset in ("", "quick"))
    rows = {name: (*published[name], *(cheap.get(name, ("–",) * 3)[::2])) for name in published}
    rows |= {"**all**": tuple(sum(n for n in column if n != "–") for column in zip(*rows.values(), strict=True))}
    page = PAGE.read_text(encoding="utf-8")
    lines = [f"| {name} | " + " | ".join(f"{n:,}" if n != "–" else n for n in row) + " |" for name, row in rows.items()]
    assert "\n".join(lines) in page, "\n" + "\n".join(lines)

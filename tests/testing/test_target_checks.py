"""Each check of targets passes sound ones and catches a planted fault."""

import pytest
import torch
from broken import caught, the

from mia_bench import Capability, Target
from mia_bench.testing import TinyGenerator, TinyPixels, TinyTarget, checks
from mia_bench.testing.suite import NotHere


def changed(base=TinyTarget, meta=None, **body):
    made = base.meta.model_copy(update=meta or {})
    return type("Changed", (base,), {"__doc__": "Broken.", "__module__": __name__, "meta": made, **body})


@pytest.mark.parametrize(
    "check", [c for cls in (TinyTarget, TinyPixels, TinyGenerator) for c in checks(cls)], ids=lambda check: check.id
)
def test_sound_targets_pass(check):
    try:
        check.run()
    except NotHere as error:
        assert check.case.plugin is TinyGenerator, error


def test_loads():
    class Unfinished(Target):
        meta = TinyTarget.meta

    caught("loads", Unfinished, "does not implement load, predict, weights")


@pytest.mark.parametrize(
    ("meta", "words"),
    [
        ({"name": "Tiny"}, "the name 'Tiny'"),
        ({"summary": "x" * 200}, "a summary of 200"),
        ({"capabilities": frozenset({Capability.CAPTION})}, "its capabilities are"),
        ({"capabilities": frozenset(Capability)}, "it claims a reference"),
    ],
)
def test_metadata(meta, words):
    caught("metadata", changed(meta=meta), words)


def test_fingerprint():
    def of_loaded(self):
        if not hasattr(self, "net"):
            self.load()
        return {"weights": str(self.net.weight.sum())}

    caught("fingerprint", changed(weights=of_loaded), "needs the model loaded")
    kept = []
    unsteady = changed(weights=lambda self: kept.append(self) or {"object": str(len(kept))})
    caught("fingerprint", unsteady, "two instances of one model have two fingerprints")
    growing = changed(settings=lambda self: {"loaded": hasattr(self, "net")})
    caught("fingerprint", growing, "changes when the model is loaded")


def test_facts():
    caught("facts", changed(facts=lambda self: {"when": object()}), "`facts` gave")


def test_shapes():
    def larger(self):
        TinyTarget.load(self)
        self.sample_shape = (4, 16, 16)

    caught("shapes", changed(load=larger), "encode gave torch.float32 (3, 4, 8, 8)")
    caught("shapes", changed(picture=lambda self, latents: latents[:, :3]), "decode gave torch.float32 (3, 3, 8, 8)")
    caught("shapes", changed(picture=lambda self, x: TinyTarget.picture(self, x) / 0), "finite: False")


def test_schedule():
    def backwards(self):
        TinyTarget.load(self)
        self.schedule.signal, self.schedule.noise = self.schedule.noise, self.schedule.signal

    caught("schedule", changed(load=backwards), "1000 levels, not in order")


def test_noise():
    def predicts(function):
        return changed(predict=lambda self, x, t, encoder_hidden_states: function(self, x, t, encoder_hidden_states))

    whole = TinyTarget.predict
    zero = torch.zeros_like
    caught("noise", predicts(lambda self, x, t, s: whole(self, zero(x), t, encoder_hidden_states=s)), "another input")
    caught(
        "noise", predicts(lambda self, x, t, s: whole(self, x, zero(t), encoder_hidden_states=s)), "another timestep"
    )
    caught("noise", predicts(lambda self, x, t, s: whole(self, x, t, encoder_hidden_states=zero(s))), "another caption")
    caught("noise", predicts(lambda self, x, t, s: x[:, :2]), "the denoiser gave torch.float32 (3, 2, 8, 8)")


def test_captions():
    def ragged(self, texts):
        length = max(map(len, texts))
        return torch.tensor([[ord(c) for c in text.ljust(length)] for text in texts])

    caught("captions", changed(tokens=ragged), "changes with its companions")
    caught("captions", changed(tokens=lambda self, texts: torch.ones(len(texts), 4)), "two captions have equal states")


def test_row_independence():
    def mixing(self, x, t, encoder_hidden_states):
        return TinyTarget.predict(self, x - x.mean(0), t, encoder_hidden_states=encoder_hidden_states)

    caught("row-independence", changed(predict=mixing), "denoiser of a sample changes with its companions")

    def rounded(self, x, t, encoder_hidden_states):
        found = TinyTarget.predict(self, x, t, encoder_hidden_states=encoder_hidden_states)
        return found * (1 + len(x) / 100)

    caught("row-independence", changed(predict=rounded), "denoiser changes with the row count")


def test_generation():
    usual = TinyTarget.generate

    def generates(function):
        return changed(generate=lambda self, batch, captions, **how: function(self, batch, captions, how))

    loud = generates(lambda self, batch, captions, how: usual(self, batch, captions, **how) * 9)
    caught("generation", loud, "values up to", "clip")
    fresh = generates(lambda self, batch, captions, how: torch.rand(len(batch), 3, 32, 32))
    caught("generation", fresh, "asked again, it makes another image")
    deaf = generates(lambda self, batch, captions, how: usual(self, batch, [""] * len(batch), **how))
    caught("generation", deaf, "other captions make the same images")
    few = generates(lambda self, batch, captions, how: usual(self, batch, captions, **how)[:2])
    caught("generation", few, "generate gave torch.float32 (2, 3, 32, 32)")


def test_variation():
    def reversed_(self, batch, captions, strength=None, **how):
        return TinyTarget.generate(self, batch, captions, strength=None if strength is None else 1.1 - strength, **how)

    caught("variation", changed(generate=reversed_), "at strength 0.1 they are")


def test_gradients():
    def detached(self, x, t, encoder_hidden_states):
        return TinyTarget.predict(self, x.detach(), t, encoder_hidden_states=encoder_hidden_states)

    caught("gradients", changed(predict=detached), "missing or not finite")
    caught("gradients", changed(network=lambda self: torch.nn.Identity()), "`network` has no weights")

    def unread(self):
        return torch.nn.Linear(2, 2)

    caught("gradients", changed(network=unread), "missing or not finite")


def test_what_it_does_not_claim_is_not_asked():
    mute = changed(meta={"capabilities": frozenset({Capability.DENOISE})}, conditioned=False)
    for name in ("generation", "variation", "gradients", "captions"):
        with pytest.raises(NotHere, match=r"does not claim|takes no captions"):
            the(name, mute).run()
    for name in ("shapes", "schedule", "fingerprint"):
        the(name, mute).run()


def test_weights_that_are_not_here_are_not_asked_for():
    known = changed(meta={"repository": "someone/something"})
    the("metadata", known).run()
    with pytest.raises(NotHere, match="someone/something"):
        the("fingerprint", known).run()

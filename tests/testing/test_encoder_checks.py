"""Each check of encoders passes a sound one and catches a planted fault."""

import pytest
import torch
from broken import caught, the

from mia_bench import Encoder, Offer
from mia_bench.errors import UnavailableError
from mia_bench.testing import StubEncoder, checks
from mia_bench.testing.suite import NotHere

META = StubEncoder.meta.model_copy(update={"fetch": "nothing to do"})


class Sound(StubEncoder):
    """The stub."""

    meta = META


def changed(offers=META.offers, meta=None, **body):
    made = META.model_copy(update={"offers": frozenset(offers), **(meta or {})})
    return type("Changed", (Sound,), {"__doc__": "Broken.", "__module__": __name__, "meta": made, **body})


@pytest.mark.parametrize("check", checks(Sound), ids=lambda check: check.name)
def test_a_sound_encoder_passes(check):
    check.run()


def test_loads():
    class Unfinished(Encoder):
        meta = META

    caught("loads", Unfinished, "does not implement load")


def test_metadata():
    caught("metadata", changed(meta={"summary": "a\nb"}), "in 2 lines")
    caught("metadata", changed(meta={"source": ""}), "meta.source is empty")
    caught("metadata", changed(meta={"fetch": ""}), "meta.fetch is empty")


def test_offers():
    caught("offers", changed(META.offers - {Offer.TEXT}), "`worded` is there and text is not offered")
    caught("offers", changed(captioned=Encoder.captioned), "caption is offered and `captioned` is not there")
    caught("offers", changed(META.offers - {Offer.DISTANCE}), "offers no distance")


def missing(self):
    raise UnavailableError("encoder stub", "gone", "")


def test_absence():
    caught("absence", changed(files=missing), "it says 'encoder stub: gone'", "self.missing")
    told = changed(files=lambda self: (_ for _ in ()).throw(self.missing("no file")))
    the("absence", told).run()
    with pytest.raises(NotHere, match="no file"):
        the("shapes", told).run()
    unsteady = changed(weights=lambda self: {"object": str(id(self))})
    kept = []  # or both would live at one address
    unsteady.__init__ = lambda self, argument="": kept.append(self) or Sound.__init__(self, argument)
    caught("absence", unsteady, "another fingerprint")

    def damaged(self, target):
        raise OSError("truncated")

    caught("absence", changed(load=damaged), "it cannot be loaded: OSError: truncated")


def test_shapes():
    caught("shapes", changed(embedded=lambda self, images: self.maps(images)), "embed gave shape (6, 16, 8, 8)")
    caught("shapes", changed(embedded=lambda self, images: images.flatten(1) / 0), "finite: False")
    caught("shapes", changed(attended=lambda self, images: images.sum((1, 2))), "attention gave shape (6, 32)")
    caught("shapes", changed(worded=lambda self, texts: torch.ones(len(texts), 3)), "text gave (2, 3)")
    caught("shapes", changed(captioned=lambda self, images: [None] * len(images)), "captions gave")


def test_row_independence():
    def normalised(self, images):
        return StubEncoder.embedded(self, images - images.mean())

    caught("row-independence", changed(embedded=normalised), "embed of an image changes with its companions")
    shifting = changed(attended=lambda self, images: StubEncoder.attended(self, images) * images.mean())
    caught("row-independence", shifting, "attention of an image")


def test_distances():
    likeness = changed(between=lambda self, images, others: 1 - Encoder.between(self, images, others))
    caught("distances", likeness, "from itself")
    caught("distances", changed(between=lambda self, images, others: images.sum((1, 2, 3)) * 0), "from its negative 0")

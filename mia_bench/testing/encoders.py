"""The checks of encoders."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from mia_bench.encoder import Encoder, Offer
from mia_bench.errors import UnavailableError
from mia_bench.images import to_pixels
from mia_bench.testing.common import Argument, Placed, check_summary, loads
from mia_bench.testing.suite import Case, Fault, NotHere
from mia_bench.testing.tiny import SIDE, TinyTarget, icons

if TYPE_CHECKING:
    import torch

METHODS = {Offer.EMBED: "embedded", Offer.TEXT: "worded", Offer.ATTENTION: "attended", Offer.CAPTION: "captioned"}
ROWS, COUNT = 4, 6  # a call, and images: one call is padded
TEXTS = ("a red apple", "two dogs on a beach")


class EncoderCase(Case):
    """One encoder.

    Args:
        plugin: Its class.
        argument: What follows its name, or a function that makes a small copy in a folder and returns the argument.
    """

    kind = "encoder"

    def __init__(self, plugin: type[Encoder], argument: Argument = "") -> None:
        self.plugin, self.placed = plugin, Placed(argument)

    def opened(self, rows: int = ROWS) -> Encoder:
        """A new instance, beside a tiny target.

        Raises:
            NotHere: Its weights are not on this machine.
        """
        encoder: Encoder = self.plugin(self.placed.argument)
        try:
            encoder.files()
        except UnavailableError as error:
            raise NotHere(f"{error}; {error.fix}") from error
        target = TinyTarget()
        target.open(rows=rows)
        encoder.open(target)
        if encoder.failure:
            raise encoder.failure
        return encoder

    @cached_property
    def encoder(self) -> Encoder:
        """The one that is asked most."""
        return self.opened()

    @cached_property
    def images(self) -> torch.Tensor:
        """float32 `(6, 3, 32, 32)` in [-1, 1]."""
        import torch

        pixels = [to_pixels(s.open(), SIDE) for s in icons(COUNT, 0)]
        return torch.from_numpy(np.stack(pixels))

    def answers(self, encoder: Encoder, images: torch.Tensor) -> dict[str, Any]:
        """What it makes of images, by what it offers."""
        offers = self.plugin.meta.offers
        found: dict[str, Any] = {}
        if Offer.EMBED in offers:
            found["embed"] = encoder.embed(images)
        if Offer.DISTANCE in offers:
            found["distance"] = encoder.distance(images, images.flip(-1))
        if Offer.ATTENTION in offers:
            found["attention"] = encoder.attention(images)
        if Offer.CAPTION in offers:
            found["captions"] = encoder.captions(images)
        return found


def metadata(case: EncoderCase) -> None:
    """A summary of one line, a source, and how to get weights that arrive with no package."""
    check_summary(case)
    meta = case.plugin.meta
    if not meta.source.strip():
        raise Fault("meta.source is empty", "say where the weights come from; `its formula` if there are none")
    if not meta.offline and not meta.fetch.strip():
        raise Fault(
            "meta.fetch is empty", "give the command that fetches the weights, or offline=True if they are here"
        )


def offers(case: EncoderCase) -> None:
    """It has a method for each thing it offers, and offers each thing it has a method for."""
    meta = case.plugin.meta
    for offer, method in METHODS.items():
        has = getattr(case.plugin, method) is not getattr(Encoder, method)
        if has != (offer in meta.offers):
            found = f"`{method}` is there and {offer} is not offered"
            if not has:
                found = f"{offer} is offered and `{method}` is not there"
            raise Fault(found, f"make meta.offers and the methods agree on {offer}")
    if Offer.EMBED in meta.offers and Offer.DISTANCE not in meta.offers:
        raise Fault("it embeds and offers no distance", "add Offer.DISTANCE: 1 - cosine comes of itself")


def absence(case: EncoderCase) -> None:
    """Where its weights are not here, the error says what, whence and how; where they are, it loads."""
    meta, encoder = case.plugin.meta, case.plugin(case.placed.argument)
    try:
        encoder.files()
    except UnavailableError as error:
        if meta.source not in error.why or not error.fix:
            raise Fault(f"it says {str(error)!r}, fix {error.fix!r}", "raise self.missing(...)") from error
        return
    if encoder.fingerprint != case.plugin(case.placed.argument).fingerprint:
        raise Fault("another instance has another fingerprint", "make `weights` of the files alone")
    _ = case.encoder


def shapes(case: EncoderCase) -> None:
    """A finite answer for each image: vectors `(B, D)`, distances `(B,)`, attention `(B, h, w)`, captions: texts."""
    axes = {"embed": 2, "distance": 1, "attention": 3}
    answers = case.answers(case.encoder, case.images)
    for name, values in answers.items():
        if name == "captions":
            if len(values) != COUNT or not all(isinstance(text, str) for text in values):
                raise Fault(f"captions gave {values!r}", "return one text for each image")
        elif values.ndim != axes[name] or len(values) != COUNT or not bool(values.isfinite().all()):
            found = (
                f"{name} gave shape {tuple(values.shape)} for {COUNT} images, finite: {bool(values.isfinite().all())}"
            )
            raise Fault(found, f"return {axes[name]} axes, the first one of the images, and finite numbers")
    if Offer.TEXT in case.plugin.meta.offers:
        text = case.encoder.text(TEXTS)
        if text.shape != (len(TEXTS), answers["embed"].shape[1]):
            found = f"text gave {tuple(text.shape)}, images {tuple(answers['embed'].shape)}"
            raise Fault(found, "texts and images share one space: vectors of one length")


def row_independence(case: EncoderCase) -> None:
    """An image's numbers do not depend on the others of its call: in another order and cut up, the same bits."""
    import torch

    whole = case.answers(case.encoder, case.images)
    backwards = case.answers(case.encoder, case.images.flip(0))
    few = case.answers(case.encoder, case.images[2:5])
    for name, values in whole.items():
        if name == "captions":
            same = backwards[name] == values[::-1] and few[name] == values[2:5]
        else:
            same = torch.equal(backwards[name].flip(0), values) and torch.equal(few[name], values[2:5])
        if not same:
            fix = "normalise and reduce each image by itself; no batch statistics: put the network into eval mode"
            raise Fault(f"{name} of an image changes with its companions", fix)


def distances(case: EncoderCase) -> None:
    """An image is at no distance from itself, at some from its negative, and never at less than none."""
    if Offer.DISTANCE not in case.plugin.meta.offers:
        raise NotHere("it offers no distance")
    own = case.encoder.distance(case.images, case.images)
    other = case.encoder.distance(case.images, -case.images)
    scale = float(other.abs().max())
    if float(own.abs().max()) > 1e-4 * scale or float(other.min()) < -1e-5 * scale or not float(other.max()) > 0:
        found = (
            f"of an image from itself up to {float(own.max()):.3g}, from its negative {float(other.min()):.3g} and more"
        )
        raise Fault(found, "a distance is 0 for equal images and larger for others")


CHECKS = (loads, metadata, offers, absence, shapes, row_independence, distances)

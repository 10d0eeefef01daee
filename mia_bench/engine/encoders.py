"""From the name of an encoder to the encoder, or to what to do about its absence."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

from mia_bench.encoder import Encoder, Offer
from mia_bench.engine.label import Label
from mia_bench.engine.select import make_params
from mia_bench.errors import UnavailableError, UsageError

if TYPE_CHECKING:
    from mia_bench.plugins import Registry


Resolve = Callable[[str, frozenset[Offer], str], Encoder]


def resolver(registry: Registry, kind: str) -> Resolve:
    """From a name, what is wanted of it and who wants it to an encoder; the same one every time.

    Who wants it is an attack's label, or an option or command that the message shall name.

    Args:
        registry: All plugins.
        kind: Of the target, `latent` or `pixel`: some defaults depend on it.

    The function raises:
        UsageError: Unknown name, an argument to an encoder that takes none, or it offers something else.
        UnavailableError: Its weights are not at hand; no other encoder is put in its place.
    """

    @cache
    def opened(spec: str) -> Encoder:
        name, colon, argument = spec.partition(":")
        cls = registry.encoder(name)
        if colon and not cls.meta.takes:
            raise UsageError(f"encoder {spec!r}", f"{name} takes no argument", f"write [{name}]")
        return cls(argument)

    def resolve(spec: str, offers: frozenset[Offer], label: str) -> Encoder:
        encoder, wanted = opened(spec), ", ".join(sorted(offers))
        asking = f"attack {label!r}" if Label.parse(label).name in registry.attacks else label
        if not offers <= encoder.meta.offers:
            lacking = ", ".join(sorted(offers - encoder.meta.offers))
            why = f"encoder {encoder.meta.name} offers no {lacking}"
            raise UsageError(asking, why, "`mia-bench list encoders` shows what each offers")
        try:
            _ = encoder.fingerprint  # kept for later
        except UnavailableError as error:
            others = [n for n, c in registry.encoders.items() if offers <= c.meta.offers and at_hand(c)]
            instead = ", ".join(sorted(others)) if others else "nothing"
            fix = f"{error.fix}; at hand for {wanted}: {instead}{_presets(registry, label, kind)}"
            raise UnavailableError(asking, str(error), fix) from error
        return encoder

    return resolve


def _presets(registry: Registry, label: str, kind: str) -> str:
    """Says which presets of an attack make do with the encoders at hand."""
    name = Label.parse(label).name
    if (cls := registry.attacks.get(name)) is None:
        return ""
    found = []
    for preset in cls.presets:
        own = cls(make_params(cls, f"{name}@{preset}", {}).resolved(kind)).encoders()
        if own and all(at_hand(registry.encoder(spec.partition(":")[0])) for spec in own):
            found.append(f"{name}@{preset}")
    return f"; runs without: {', '.join(found)}" if found else ""


def at_hand(cls: type[Encoder]) -> bool:
    """Whether its weights are on this machine, without a path."""
    try:
        cls().files()
    except UnavailableError:
        return False
    return True

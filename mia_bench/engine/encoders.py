"""From the name of an encoder to the encoder, or to what to do about its absence."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

from mia_bench.encoder import Encoder, Offer
from mia_bench.errors import UnavailableError, UsageError

if TYPE_CHECKING:
    from mia_bench.plugins import Registry


def resolver(registry: Registry) -> Callable[[str], Encoder]:
    """`name` or `name:PATH` to an encoder, not yet loaded; the same one every time.

    The function raises:
        UsageError: Unknown name, or an argument to an encoder that takes none.
        UnavailableError: Its weights are not at hand; no other encoder is put in its place.
    """

    @cache
    def encoder_of(spec: str) -> Encoder:
        name, colon, argument = spec.partition(":")
        cls = registry.encoder(name)
        if colon and not cls.meta.takes:
            raise UsageError(f"encoder {spec!r}", f"{name} takes no argument", f"write [{name}]")
        encoder = cls(argument)
        try:
            _ = encoder.fingerprint  # kept for later
        except UnavailableError as error:
            offline = sorted(n for n, c in registry.encoders.items() if c.meta.offline and at_hand(c))
            instead = f"; at hand: {', '.join(offline)}" if offline else ""
            raise UnavailableError(error.what, error.why, error.fix + instead) from error
        return encoder

    return encoder_of


def check_offers(encoder: Encoder, offers: frozenset[Offer], label: str) -> None:
    """Whether an encoder can do what an attack wants of it.

    Raises:
        UsageError: It cannot.
    """
    if lacking := offers - encoder.meta.offers:
        why = f"encoder {encoder.meta.name} offers no {', '.join(sorted(lacking))}"
        raise UsageError(f"attack {label!r}", why, "`mia-bench list encoders` shows what each offers")


def at_hand(cls: type[Encoder]) -> bool:
    """Whether its weights are on this machine, without a path."""
    try:
        cls().files()
    except UnavailableError:
        return False
    return True

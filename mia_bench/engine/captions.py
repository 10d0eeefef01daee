"""What attacks take for a sample's caption: its own, none, one for all, another sample's, one made from its image."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mia_bench.dataset import Sample
from mia_bench.encoder import Encoder
from mia_bench.engine.hashes import reading
from mia_bench.engine.line_cache import LineCache
from mia_bench.errors import SampleError, UsageError
from mia_bench.images import to_pixels

Choice = Literal["true", "null", "neutral", "shuffled", "generated"]
ARGUMENTS = {"neutral": "an image", "shuffled": "0", "generated": "blip"}
LARGEST = 512  # px of an image's short side that a captioner is given


def parse(text: str) -> tuple[Choice, str]:
    """`CHOICE[:ARGUMENT]` to both; the argument is a sentence, a seed, or an encoder.

    Raises:
        UsageError: It is none of these.
    """
    name, colon, argument = text.partition(":")
    choice = next((known for known in get_args(Choice) if known == name), None)
    if choice is None:
        raise UsageError(f"--captions {text!r}", f"unknown; it may be {', '.join(get_args(Choice))}")
    if colon and (choice not in ARGUMENTS or not argument.strip()):
        why = "nothing follows the colon" if choice in ARGUMENTS else f"{choice} takes no argument"
        raise UsageError(f"--captions {text!r}", why, f"write --captions {choice}")
    return choice, argument or ARGUMENTS.get(choice, "")


def recaptioned(
    samples: Sequence[Sample],
    everything: Sequence[Sample],
    wanted: str,
    captioner: Callable[[str], Encoder],
    device: str | None = None,
) -> list[Sample]:
    """The same samples with the captions that are wanted; membership is not looked at.

    Args:
        samples: Those of the run.
        everything: The whole dataset, among which captions are shuffled: then they do not depend on `--limit`.
        wanted: As `parse` reads it.
        captioner: From a name to an encoder that writes captions.
        device: Of that encoder; CUDA where there is one, if None.

    Raises:
        UsageError: `wanted` means nothing, or there is nothing to shuffle.
        UnavailableError: The captioner's weights are not at hand.
    """
    choice, argument = parse(wanted)
    if choice == "null":
        return [replace(s, caption=None, word_weights=None) for s in samples]
    if choice == "neutral":
        return [replace(s, caption=argument, word_weights=None) for s in samples]
    if choice == "shuffled":
        return _shuffled(samples, everything, argument)
    if choice == "generated":
        return _generated(samples, captioner(argument), device)
    return list(samples)


def _shuffled(samples: Sequence[Sample], everything: Sequence[Sample], seed: str) -> list[Sample]:
    """Each caption goes to the next sample of its split, in an order by hash: nobody keeps its own."""
    order: dict[str, list[Sample]] = defaultdict(list)
    for sample in sorted(everything, key=lambda s: hashlib.sha256(f"{seed} {s.id}".encode()).digest()):
        if sample.caption:
            order[sample.split].append(sample)
    taken_from: dict[str, Sample] = {}
    for split, ring in order.items():
        if len({sample.caption for sample in ring}) < 2:
            raise UsageError("--captions shuffled", f"the split {split} holds no two captions that differ")
        taken_from |= {taker.id: giver for giver, taker in zip(ring, ring[1:] + ring[:1], strict=True)}
    return [
        replace(s, caption=giver.caption, word_weights=giver.word_weights)
        if (giver := taken_from.get(s.id)) is not None
        else s
        for s in samples
    ]


def _generated(samples: Sequence[Sample], encoder: Encoder, device: str | None) -> list[Sample]:
    """Described once each: what is known of an image and an encoder is remembered between runs."""
    known = LineCache(f"captions-1-{encoder.meta.name}-{encoder.fingerprint}")
    texts = {s.id: known.known[s.content] for s in samples if s.content in known.known}
    if lacking := [s for s in samples if s.id not in texts]:
        import torch

        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        encoder.open_alone(device)
        for portion in reading(lacking, _pixels):
            read = [(sample, torch.from_numpy(pixels)[None]) for sample, pixels in portion if pixels is not None]
            found = [(sample, encoder.captions(pixels.to(device))[0]) for sample, pixels in read]
            known.add({sample.content: text for sample, text in found})
            texts |= {sample.id: text for sample, text in found}
    return [replace(s, caption=texts.get(s.id), word_weights=None) for s in samples]


def _pixels(sample: Sample) -> NDArray[np.float32] | None:
    try:
        image = sample.open()
    except SampleError:
        return None  # whoever needs the image itself says why
    return np.ascontiguousarray(to_pixels(image, min(LARGEST, *image.size)))

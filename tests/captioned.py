"""A target whose prediction is any function of input, timestep and caption, so that scores have closed forms."""

import numpy as np
import torch
from PIL import Image

from mia_bench import Capability, Target, TargetMeta
from mia_bench.attack import Measured
from mia_bench.batch import Batch
from mia_bench.diffusion.noise import KeyedNoise
from mia_bench.diffusion.schedule import Schedule

SIDE = 16


class Captioned(Target):
    """Pixels, 16 a side; `output(x, t, c)`, where c `(R, 1, 1, 1)` is the length of the caption.

    Attributes:
        seen: Timestep and inputs of every call, padding included.
    """

    meta = TargetMeta(
        name="captioned", summary="", kind="pixel", capabilities=frozenset({Capability.DENOISE, Capability.CAPTION})
    )
    image_size, sample_shape = SIDE, (3, SIDE, SIDE)

    def __init__(self, output=lambda x, t, c: torch.zeros_like(x), offset=1):
        super().__init__()
        self.output, self.offset, self.seen = output, offset, []

    def load(self):
        self.schedule = Schedule.from_betas(np.linspace(1e-4, 0.02, 1000), offset=self.offset)

    def weights(self):
        return {}

    def tokens(self, texts):
        return torch.tensor([[len(text)] for text in texts])

    def text_states(self, tokens):
        return tokens[:, :, None].float()

    def predict(self, x, t, encoder_hidden_states):
        self.seen.append((int(t[0]), x.clone()))
        return self.output(x, t, encoder_hidden_states.view(-1, 1, 1, 1))


def opened(target, reference=None):
    target.reference = reference
    target.open(rows=4)
    return target


def batch_of(target, captions=("a", "bb", "ccc"), seed=0, ids=None):
    """One sample for each caption, of smooth images well within [-1, 1]."""
    target.forget()
    ids = ids or [f"s{i}" for i in range(len(captions))]
    pixels = []
    for i in ids:
        rng = np.random.default_rng([seed, *i.encode()])
        coarse = torch.from_numpy(rng.uniform(-0.8, 0.8, (1, 3, 4, 4))).float()
        pixels.append(torch.nn.functional.interpolate(coarse, (SIDE, SIDE), mode="bilinear")[0])
    blank = [Image.new("RGB", (SIDE, SIDE))] * len(ids)
    return Batch(ids, captions, blank, torch.stack(pixels), target, KeyedNoise(seed))


def make(cls, **params):
    return cls(cls.Params(**params).resolved("pixel"))


def measured(attack, batch, target):
    """An attack's terms, as the store hands them to `score`."""
    terms = {name: values.double().numpy() for name, values in attack.measure(batch, target).items()}
    assert all(len(v) == len(batch) and np.isfinite(v).all() for v in terms.values())
    return Measured(terms, batch.ids, np.ones(len(batch), dtype=bool), batch.ids)


def scores(attack, batch, target):
    return attack.score(measured(attack, batch, target), None)


def asked(attack, batch, target):
    """Queries for each sample."""
    target.denoiser.asked.clear()
    attack.measure(batch, target)
    return target.denoiser.asked[""] / len(batch)

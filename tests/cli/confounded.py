"""A plugin with differences between the classes that are none of the model's, and attacks that live on them."""

import hashlib
import io
from dataclasses import replace

import numpy as np
import tiny
from PIL import Image

from mia_bench import Access, Attack, DatasetMeta, Meta, hookimpl


def saved(sample, quality):
    """The sample as if its image had been saved as JPEG."""

    def image():
        file = io.BytesIO()
        sample.open().save(file, "JPEG", quality=quality)
        return Image.open(file).convert("RGB")

    return replace(sample, image=image, content=f"{sample.content}-{quality}")


class LowerCase(tiny.Icons):
    """Captions of members are lower-case, those of others are not."""

    meta = DatasetMeta(name="lower-case", summary="captions differ", targets=("tiny",))

    def samples(self):
        return [replace(s, caption=s.caption.lower() if s.member else s.caption.title()) for s in super().samples()]


class Resaved(tiny.Icons):
    """Images of members were saved at another JPEG quality."""

    meta = DatasetMeta(name="resaved", summary="files differ", targets=("tiny",))

    def samples(self):
        return [saved(s, 75 if s.member else 90) for s in super().samples()]


class OneCaption(tiny.Icons):
    """All samples have the same."""

    meta = DatasetMeta(name="one-caption", summary="captions are equal", targets=("tiny",))

    def samples(self):
        return [replace(s, caption="an icon") for s in super().samples()]


class Shines(Attack):
    """Reads what differs, with a little noise, so that no score is perfect."""

    meta = Meta(name="shines", summary="shines", paper="none", access=Access.LOSS)

    def queries(self):
        return 0

    def measure(self, batch, target):
        noise = [int.from_bytes(hashlib.sha256(i.encode()).digest()[:4]) / 2**32 for i in batch.ids]
        return {"x": np.array([self.read(*one) for one in zip(batch.images, batch.captions, strict=True)]) + noise}

    def score(self, measured, calibration):
        return measured["x"]


class Case(Shines):
    meta = Meta(name="case", summary="case", paper="none", access=Access.LOSS, caption="required")

    def read(self, image, caption):
        return 1.5 * float(caption.islower())


class Quality(Shines):
    meta = Meta(name="quality", summary="quality", paper="none", access=Access.LOSS, caption="unused")

    def read(self, image, caption):
        file = io.BytesIO()
        image.save(file, "JPEG", quality=75)
        error = (np.asarray(Image.open(file), float) - np.asarray(image, float)) ** 2
        return -2 * float(np.log(error.mean() + 0.05))


class Knows(Shines):
    """Told the members: what an attack that reads the model would find."""

    meta = Meta(name="knows", summary="knows", paper="none", access=Access.LOSS, caption="optional")

    def measure(self, batch, target):
        members = {s.id for s in tiny.Icons().samples() if s.member}
        return {"x": np.array([1.5 * (i in members) for i in batch.ids]) + super().measure(batch, target)["x"]}

    def read(self, image, caption):
        return 0.0


@hookimpl
def mia_bench_datasets():
    return [LowerCase, Resaved, OneCaption]


@hookimpl
def mia_bench_attacks():
    return [Case, Quality, Knows]

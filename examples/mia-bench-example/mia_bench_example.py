"""An attack in one file: how much better does the model know the image than its mirror image?"""

from mia_bench import Access, Attack, Meta, by_kind, hookimpl
from mia_bench.diffusion.reduce import power_mean


class Flip(Attack):
    """The mirror image is as hard to predict but was not trained on, so it calibrates the loss."""

    meta = Meta(
        name="flip",
        summary="rise of the denoising error when the image is mirrored",
        paper="none: an example",
        access=Access.LOSS,
        orientation="higher is member",
    )

    class Params(Attack.Params):
        """t: Timestep; 200 in pixel space, 450 on latents."""

        t: int = by_kind(pixel=200, latent=450, ge=0, le=999)

    def queries(self):
        return 2

    def measure(self, batch, target):
        t, eps = self.params.t, batch.eps(self.params.t)
        views = {"image": batch.x0, "mirror": batch.encode(batch.pixels.flip(-1), "mirror")}
        noised = {view: target.schedule.noised(x0, eps, t) for view, x0 in views.items()}
        return {view: power_mean(target.denoiser(x, t, batch.condition) - eps) for view, x in noised.items()}

    def score(self, measured, calibration):
        return measured["mirror"] - measured["image"]  # higher = more likely a member


@hookimpl
def mia_bench_attacks():
    return [Flip]

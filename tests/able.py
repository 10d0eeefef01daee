"""A tiny target that can do everything an attack may need."""

import tiny
import torch

from mia_bench import Capability, TargetMeta


class Able(tiny.Tiny):
    """The tiny target with weights that can be differentiated, and pictures of latents."""

    meta = TargetMeta(
        name="able",
        summary="does everything",
        kind="latent",
        capabilities=frozenset(Capability) - {Capability.REFERENCE},
        argument="SEED",
    )

    def load(self):
        super().load()
        self.net = torch.nn.Conv2d(4, 4, 3, padding=1, bias=False).requires_grad_(False)
        self.net.weight.copy_(self.kernel)

    def network(self):
        return self.net

    def predict(self, x, t, encoder_hidden_states):
        bias = encoder_hidden_states.mean(1) + t[:, None] / 1000
        return torch.tanh(self.net(x) + bias[:, :, None, None])

    def picture(self, latents):
        return torch.nn.functional.interpolate(latents[:, :3], scale_factor=4)

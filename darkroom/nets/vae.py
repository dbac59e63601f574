"""The autoencoder: pictures to scaled latents and back. Knows nothing of noise or files."""

from collections.abc import Callable
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor

from darkroom.nets.norms import quicken_group_norms


def build_vae(sizes: dict[str, Any]) -> AutoencoderKL:
    """An autoencoder of these sizes (see `layout.vae_sizes`) without weights, on the meta device."""
    with torch.device("meta"):
        vae = AutoencoderKL(**sizes)
        quicken_group_norms(vae)
    return vae.requires_grad_(False).eval()


class Vae:
    """An autoencoder and its latent scale. Falls back to float32 for good once a half precision gave a NaN."""

    __slots__ = ("module", "scale")

    def __init__(self, module: AutoencoderKL, scale: float) -> None:
        self.module = module
        self.scale = scale

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures `[B, 3, H, W]` float32, about -1..1, of scaled latents `[B, C, H/8, W/8]`."""
        return self._each(lambda x: self.module.decode(x, return_dict=False)[0], latents / self.scale)

    def encode(self, images: Tensor) -> Tensor:
        """Scaled latents `[B, C, H/8, W/8]` float32 of pictures `[B, 3, H, W]` in -1..1: the posterior's mean."""
        return self._each(lambda x: self.module.encode(x).latent_dist.mean, images) * self.scale

    def _each(self, run: Callable[[Tensor], Tensor], batch: Tensor) -> Tensor:
        """Run one picture at a time: on a processor that is quickest, and no picture depends on its company."""
        return torch.cat([self._careful(run, row[None]) for row in batch])

    def _careful(self, run: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        answer = self._run(run, x)
        if self.module.dtype == torch.float32 or bool(answer.isfinite().all()):
            return answer
        self.module = self.module.float()
        return self._run(run, x)

    def _run(self, run: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        return run(x.to(self.module.device, self.module.dtype, memory_format=torch.channels_last)).float()

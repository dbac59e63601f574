"""The autoencoder: pictures to scaled latents and back. Knows nothing of noise or files."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor

from darkroom.errors import BadModelFile, NotANumberError
from darkroom.nets import layout
from darkroom.nets.config import ModelConfig
from darkroom.nets.conversion import Copies
from darkroom.nets.convolutions import steady_convolutions
from darkroom.nets.libraries import AutoencoderKL
from darkroom.nets.norms import quicken_group_norms, steady_group_norms
from darkroom.nets.opening import open_autoencoder
from darkroom.nets.packing import pack_layers
from darkroom.nets.residual import quicken_resnets
from darkroom.nets.variants import tiled

Fallback = Literal["float32", "bfloat16", "none"]
"""What an autoencoder computes in from then on once it gave something that is no number."""


_FORMATS: Mapping[Fallback, torch.dtype | None] = MappingProxyType(
    {"float32": torch.float32, "bfloat16": torch.bfloat16, "none": None}
)


def build_vae(sizes: dict[str, Any]) -> AutoencoderKL:
    """An autoencoder of these sizes (see `layout.vae_sizes`) without weights, on the meta device."""
    with torch.device("meta"):
        vae = AutoencoderKL(**sizes)
        steady_group_norms(vae.encoder)  # what inpainting checkpoints are shown is often of one colour
        quicken_group_norms(vae)
        steady_convolutions(vae)
        pack_layers(vae)
    quicken_resnets(vae)
    return vae.requires_grad_(False).eval()


@dataclass(frozen=True, slots=True, kw_only=True)
class VaeUse:
    """How an autoencoder is applied. With `check`, pixels that are no numbers are an error."""

    tiling: bool = False
    fallback: Fallback = "float32"
    check: bool = True


class Vae:
    """An autoencoder, its latent scale and shift. Falls back to another format for good once its own gave a NaN."""

    __slots__ = ("module", "scale", "shift")

    def __init__(self, module: AutoencoderKL, scale: float, shift: float = 0.0) -> None:
        self.module = module
        self.scale = scale
        self.shift = shift

    @property
    def nbytes(self) -> int:
        """Bytes of all weights as they are held now."""
        return sum(weight.nbytes for weight in self.module.parameters())

    def decode(self, latents: Tensor, use: VaeUse | None = None) -> Tensor:
        """Pictures `[B, 3, H, W]` float32, about -1..1, of scaled latents `[B, C, H/8, W/8]`. Raises
        NotANumberError.
        """
        unscaled = latents / self.scale + self.shift
        return self._each(lambda x: self.module.decode(x, return_dict=False)[0], unscaled, use or VaeUse())

    def encode(self, images: Tensor, use: VaeUse | None = None) -> Tensor:
        """Scaled latents `[B, C, H/8, W/8]` float32 of pictures `[B, 3, H, W]` in -1..1: the posterior's mean. Raises
        NotANumberError.
        """
        latents = self._each(lambda x: self.module.encode(x).latent_dist.mean, images, use or VaeUse())
        return (latents - self.shift) * self.scale

    def _each(self, run: Callable[[Tensor], Tensor], batch: Tensor, use: VaeUse) -> Tensor:
        """Run one picture at a time: on a processor that is quickest, and no picture depends on its company."""
        with tiled(self.module) if use.tiling else nullcontext():
            return torch.cat([self._careful(run, row[None], use) for row in batch])

    def _careful(self, run: Callable[[Tensor], Tensor], x: Tensor, use: VaeUse) -> Tensor:
        answer = self._run(run, x)
        if bool(answer.isfinite().all()):
            return answer
        other = _FORMATS[use.fallback]
        if other is not None and self.module.dtype not in (other, torch.float32):
            self.module = self.module.to(other)
            answer = self._run(run, x)
        if use.check and bool(answer.isnan().any()):
            raise NotANumberError("the autoencoder", self.module.dtype)
        return answer

    def _run(self, run: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        return run(x.to(self.module.device, self.module.dtype, memory_format=torch.channels_last)).float()


def load_vae(
    path: Path,
    scale: float,
    device: torch.device,
    dtype: torch.dtype,
    shift: float = 0.0,
    copies: Copies | None = None,
) -> Vae:
    """Load an autoencoder that has a file of its own. Raises BadModelFile. `copies` keep those of pickled ones."""
    with open_autoencoder(path, copies) as file:
        try:
            sizes = layout.vae_sizes(file.shapes, ModelConfig(scale=scale))
        except KeyError as error:
            raise BadModelFile(f"{path.name}: not an autoencoder: {error} is missing") from error
        module = build_vae(sizes)
        file.fill(module, layout.vae_source(len(sizes["block_out_channels"])), dtype, device)
    return Vae(module, scale, shift)

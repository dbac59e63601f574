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
from darkroom.nets.compiled import Compiled
from darkroom.nets.compiling import Compiler
from darkroom.nets.config import ModelConfig
from darkroom.nets.conversion import Copies
from darkroom.nets.convolutions import steady_convolutions
from darkroom.nets.kernels import Kernels
from darkroom.nets.libraries import AutoencoderKL
from darkroom.nets.norms import join_activation, normalise_by, quicken_group_norms, steady_group_norms
from darkroom.nets.opening import open_autoencoder
from darkroom.nets.packing import multiply_by, pack_layers
from darkroom.nets.residual import quicken_resnets
from darkroom.nets.upsampling import bytes_beside, quicken_upsamplers
from darkroom.nets.variants import tiled

MOST_ROWS = 8
"""More pictures at once are not quicker: each has far more numbers than a GPU has units."""

NUMBERS_PER_PIXEL = 1024
"""What is taken to be in memory at once per pixel of a picture: at full size the widest block of a decoder turns 256
channels into 128, each of them also normalised, and convolutions need room of their own."""

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
        join_activation(vae.encoder)
        join_activation(vae.decoder)
        steady_convolutions(vae)
        pack_layers(vae)
    quicken_resnets(vae)
    quicken_upsamplers(vae)
    return vae.requires_grad_(False).eval()


@dataclass(frozen=True, slots=True, kw_only=True)
class VaeUse:
    """How an autoencoder is applied. With `check`, pixels that are no numbers are an error."""

    tiling: bool = False
    fallback: Fallback = "float32"
    check: bool = True


class Vae:
    """An autoencoder, its latent scale and shift. Falls back to another format for good once its own gave a NaN."""

    __slots__ = ("_compiled", "_kernels", "_weighed", "module", "scale", "shift")

    def __init__(self, module: AutoencoderKL, scale: float, shift: float = 0.0) -> None:
        self.module = module
        self.scale = scale
        self.shift = shift
        self._compiled: Compiled | None = None
        self._kernels = Kernels()
        self._weighed: tuple[torch.dtype, int] | None = None

    def compile_with(self, compiler: Compiler) -> None:
        """From now on decode by compiled passes where those are ready."""
        self._compiled = Compiled(compiler, self.module, decode, "the autoencoder's decoder", recorded_rows=0)

    def compute_by(self, kernels: Kernels) -> None:
        """From now on compute by these kernels what is in bf16 on a processor."""
        if kernels is not self._kernels:
            self._kernels, self._weighed = kernels, None
            normalise_by(self.module, kernels.norm)
            multiply_by(self.module, kernels.product)

    @property
    def nbytes(self) -> int:
        """Bytes of all weights as they are held now. Asked at every evaluation: their format alone changes it."""
        dtype = self._weight.dtype
        if self._weighed is None or self._weighed[0] != dtype:
            weights = sum(weight.nbytes for weight in self.module.parameters())
            self._weighed = dtype, weights + bytes_beside(self.module)
        return self._weighed[1]

    @property
    def _weight(self) -> Tensor:
        """One of all weights; diffusers' own `device` and `dtype` walk through all modules."""
        weight: Tensor = next(self.module.parameters())
        return weight

    def decode(self, latents: Tensor, use: VaeUse | None = None) -> Tensor:
        """Pictures `[B, 3, H, W]` float32, about -1..1, of scaled latents `[B, C, H/8, W/8]`. Raises
        NotANumberError.
        """
        unscaled = latents / self.scale + self.shift
        use = use or VaeUse()
        compiled = None if use.tiling else self._compiled

        def run(x: Tensor) -> Tensor:
            answer = compiled.find_answer(x) if compiled else None
            return decode(self.module, x) if answer is None else answer

        return self._some(run, unscaled, use, 64 * latents.shape[-2] * latents.shape[-1])

    def encode(self, images: Tensor, use: VaeUse | None = None) -> Tensor:
        """Scaled latents `[B, C, H/8, W/8]` float32 of pictures `[B, 3, H, W]` in -1..1: the posterior's mean. Raises
        NotANumberError.
        """
        pixels = images.shape[-2] * images.shape[-1]
        latents = self._some(lambda x: self.module.encode(x).latent_dist.mean, images, use or VaeUse(), pixels)
        return (latents - self.shift) * self.scale

    def _some(self, run: Callable[[Tensor], Tensor], batch: Tensor, use: VaeUse, pixels: int) -> Tensor:
        """Run one picture at a time, which is quickest on a processor, or as many as a GPU has memory for."""
        device, dtype = self._weight.device, self._weight.dtype
        rows = 1 if device.type != "cuda" else rows_at_once(pixels, _free_bytes(device), dtype.itemsize)
        with tiled(self.module) if use.tiling else nullcontext():
            return torch.cat([self._careful(run, some, use) for some in torch.split(batch, rows)])

    def _careful(self, run: Callable[[Tensor], Tensor], x: Tensor, use: VaeUse) -> Tensor:
        answer = self._run(run, x)
        if bool(answer.isfinite().all()):
            return answer
        other = _FORMATS[use.fallback]
        if other is not None and self._weight.dtype not in (other, torch.float32):
            self.module = self.module.to(other)
            answer = self._run(run, x)
        if use.check and bool(answer.isnan().any()):
            raise NotANumberError("the autoencoder", self._weight.dtype)
        return answer

    def _run(self, run: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        return run(x.to(self._weight.device, self._weight.dtype, memory_format=torch.channels_last)).float()


def decode(module: AutoencoderKL, x: Tensor) -> Tensor:
    """Pictures `[B, 3, H, W]` of the autoencoder's own latents `[B, C, H/8, W/8]`, both in its format."""
    answer: Tensor = module.decode(x, return_dict=False)[0]
    return answer


def rows_at_once(pixels: int, free_bytes: int, number_bytes: int) -> int:
    """How many pictures of so many pixels are run together: a power of two that leaves half of the memory alone."""
    row_bytes = pixels * NUMBERS_PER_PIXEL * number_bytes
    fitting = max(1, min(MOST_ROWS, free_bytes // 2 // row_bytes))
    return 1 << fitting.bit_length() - 1


def _free_bytes(device: torch.device) -> int:
    """What a GPU has left, with what torch holds of it and does not use."""
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


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

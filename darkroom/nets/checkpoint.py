"""One open checkpoint: its tensors by their original names, what kind of model they are, and how they enter a module.

Knows the rule that every tensor has its place; the places themselves are in `layout`, and how files of all kinds are
opened is in `opening`.
"""

import re
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch import Tensor, nn

from darkroom.errors import BadModelFile
from darkroom.nets.eight_bits import EIGHT_BITS, held_in_eight_bits, widen_in_use
from darkroom.nets.layout import Part, Source
from darkroom.nets.tensors import SafeFile, Tensors

FLOATS = frozenset({"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"})

_AT_ONCE = (1 << 15) - 1
"""Numbers that are converted at a time. They fit into the processor's cache; from 2^15 on torch would share them out
among its threads, whose meetings cost more than they bring, and much more on a busy machine.
"""

UNET = "model.diffusion_model."
VAE = "first_stage_model."

# What training leaves in a file and no picture needs: schedules, averages, losses, optimiser state, unused heads. And a
# depth model's own estimator: depth is estimated by one that has a file of its own.
_IGNORABLE = re.compile(
    r"(betas|logvar|lvlb_weights|global_step|scale_factor|(sqrt_|log_|posterior_|alphas_)\w*"
    r"|(.*\.)?model_ema\..*|.*\.position_ids|first_stage_model\.loss\..*"
    r"|cond_stage_model\.(.*\.)?(logit_scale|text_projection(\.weight)?)"
    r"|depth_model\..*|conditioner\..*\.(logit_scale|text_projection)"
    r"|text_encoders\..*\.(logit_scale|spiece_model|encoder\.embed_tokens\.weight)|(.*\.)?(scaled_fp8|scale_input)"
    r"|text_encoders\.clip_l\.(transformer\.)?text_projection(\.weight)?"
    r"|(model\.)?model_sampling\.\w+"
    r"|(optimizer|optimizer_states|lr_schedulers|callbacks|loops|denoiser)\..*)"
)


def is_ignorable(name: str) -> bool:
    """Whether a tensor of this name is known to be of no use for pictures."""
    return _IGNORABLE.fullmatch(name) is not None


class Checkpoint:
    """An open file: `shapes` by name, tensors on demand (memory-mapped). A context manager.

    `vae_dtype` is the autoencoder's format if it has one of its own. With `eight_bits` the matrices and convolutions of
    all else are held in eight bits, see `eight_bits`.
    """

    __slots__ = ("_file", "_taken", "eight_bits", "path", "shapes", "vae_dtype")

    def __init__(self, path: Path, tensors: Tensors | None = None) -> None:
        """A safetensors file, or one of another kind whose `tensors` somebody has opened. Raises BadModelFile for
        anything but a whole file of floats.
        """
        self.path = path
        self.vae_dtype: torch.dtype | None = None
        self.eight_bits = False
        self._taken: set[str] = set()
        self._file = tensors or SafeFile(path)
        self.shapes = self._file.shapes
        odd = [
            f"{name} is {kind}"
            for name, kind in self._file.kinds.items()
            if kind not in FLOATS and not _IGNORABLE.fullmatch(name)
        ]
        if odd:
            raise BadModelFile(f"{path.name}: only {', '.join(sorted(FLOATS))} weights can be used, but {_few(odd)}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def below(self, prefix: str) -> dict[str, tuple[int, ...]]:
        """Names (without the prefix) and shapes of all tensors under a prefix."""
        return {name[len(prefix) :]: shape for name, shape in self.shapes.items() if name.startswith(prefix)}

    def fill(
        self,
        module: nn.Module,
        source: Source,
        dtype: torch.dtype,
        device: torch.device,
        *,
        is_autoencoder: bool = False,
    ) -> None:
        """Give a module that was built on the meta device its weights; `source` maps its names to the file's.

        Convolutions get channels-last order; one of 1x1 may enter a linear layer. Raises BadModelFile if a tensor is
        missing or has another shape.
        """
        wanted = {name: (_part(source(name)), tuple(value.shape)) for name, value in module.state_dict().items()}
        missing = [part.key for part, _ in wanted.values() if part.key not in self.shapes]
        if missing:
            raise BadModelFile(f"{self.path.name}: {len(missing)} tensors are missing: {_few(missing)}")
        misfits = [
            f"{key} is {list(self.shapes[key])}, not {list(shape)}"
            for key, shape in ((part.key, part.shape_in_file(shape)) for part, shape in wanted.values())
            if _without_ones(self.shapes[key]) != _without_ones(shape)
        ]
        if misfits:
            raise BadModelFile(f"{self.path.name}: {len(misfits)} tensors have another shape: {_few(misfits)}")
        small = set(held_in_eight_bits(module)) if self.eight_bits and not is_autoencoder else set()
        dtype = (self.vae_dtype if is_autoencoder else None) or dtype
        weights = {
            name: self._read(part, shape, dtype, device).to(EIGHT_BITS if name in small else dtype)
            for name, (part, shape) in wanted.items()
        }
        module.load_state_dict(weights, strict=True, assign=True)
        widen_in_use(module)
        self._taken.update(part.key for part, _ in wanted.values())

    def _read(self, part: Part, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
        if part.ranges:
            rows = self._file.get_slice(part.key)
            tensor = torch.cat([rows[start:stop].to(device, dtype) for start, stop in part.ranges]).reshape(shape)
        else:
            tensor = self._file.get_tensor(part.key).reshape(shape)
        # A copy even where nothing is converted: mapped pages would change, or vanish, with the file.
        if tensor.dtype == torch.float16 and dtype == torch.bfloat16 and device.type == "cpu" and tensor.dim():
            copied = _as_bfloat16(tensor)
        else:
            order = torch.channels_last if len(shape) == 4 else torch.preserve_format
            copied = tensor.to(device, dtype, copy=not part.ranges, memory_format=order)
        scale = part.key.removesuffix("weight") + "scale_weight"
        if part.key.endswith(".weight") and scale in self.shapes:
            # What is stored in eight bits may have a factor of its own that brought it into their range.
            self._taken.add(scale)
            copied *= self._file.get_tensor(scale).to(device, dtype)
        return copied

    def set_aside(self, prefix: str) -> None:
        """Count all tensors under a prefix as having a place: they are read later, if at all."""
        self._taken.update(name for name in self.shapes if name.startswith(prefix))

    def refuse_leftovers(self) -> None:
        """Raise BadModelFile if the file holds a tensor that went nowhere and is not known to be of no use."""
        left = [name for name in self.shapes if name not in self._taken and not _IGNORABLE.fullmatch(name)]
        if left:
            raise BadModelFile(
                f"{self.path.name}: {len(left)} tensors have no place in this architecture: {_few(left)}"
            )


def _as_bfloat16(tensor: Tensor) -> Tensor:
    """A half-precision tensor in bf16, convolutions channels-last: what `to` gives, three times as quickly.

    torch has quick kernels to float32 and on, but none that does both; rows that fit into the processor's cache are
    converted at a time.
    """
    order = torch.channels_last if tensor.dim() == 4 else torch.contiguous_format
    copied = torch.empty(tensor.shape, dtype=torch.bfloat16, memory_format=order)
    turned = tensor.dim() == 4 and tensor.shape[2:].numel() > 1
    rows = max(1, _AT_ONCE * len(tensor) // max(1, tensor.numel()))
    for source, target in zip(torch.split(tensor, rows), torch.split(copied, rows), strict=True):
        wide = source.float()
        target.copy_(wide.to(torch.bfloat16) if turned else wide)
    return copied


def _part(place: str | Part) -> Part:
    return Part(place) if isinstance(place, str) else place


def _few(texts: list[str]) -> str:
    return ", ".join(texts[:4]) + (", ..." if len(texts) > 4 else "")


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)

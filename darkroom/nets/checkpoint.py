"""One checkpoint file: its tensors by their original names, what kind of model they are, and how they enter a module.

Knows the safetensors container and the rule that every tensor has its place; the places themselves are in `layout`.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from darkroom.errors import BadModelFile

FLOATS = frozenset({"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"})

UNET = "model.diffusion_model."
VAE = "first_stage_model."

# What training leaves in a file and no picture needs: schedules, averages, losses, optimiser state, unused heads.
_IGNORABLE = re.compile(
    r"(betas|logvar|lvlb_weights|global_step|scale_factor|(sqrt_|log_|posterior_|alphas_)\w*"
    r"|(.*\.)?model_ema\..*|.*\.position_ids|first_stage_model\.loss\..*"
    r"|cond_stage_model\.(.*\.)?(logit_scale|text_projection(\.weight)?)"
    r"|text_encoders\..*\.logit_scale|(.*\.)?(scaled_fp8|scale_input)"
    r"|(optimizer|optimizer_states|lr_schedulers|callbacks|loops|denoiser)\..*)"
)


@dataclass(frozen=True, slots=True)
class Part:
    """Some rows of a file's tensor that has `total` of them: those of each range (from, up to), one after the other. No
    ranges mean the whole tensor.
    """

    key: str
    total: int = 0
    ranges: tuple[tuple[int, int], ...] = ()

    def shape_in_file(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the whole tensor, where the part is of this shape."""
        return (self.total, *shape[1:]) if self.ranges else shape


Source = Callable[[str], str | Part]
"""Where a module's weight, given by its name, lies in a file."""


class Checkpoint:
    """An open file: `shapes` by name, tensors on demand (memory-mapped). A context manager."""

    __slots__ = ("_file", "_taken", "path", "shapes")

    def __init__(self, path: Path) -> None:
        """Open and check the header. Raises BadModelFile for anything but a whole safetensors file of floats."""
        self.path = path
        self._taken: set[str] = set()
        try:
            file: Any = safe_open(path, framework="pt", device="cpu")
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            self.shapes: dict[str, tuple[int, ...]] = {name: tuple(part.get_shape()) for name, part in slices.items()}
            kinds = {name: str(part.get_dtype()) for name, part in slices.items()}
            self._file = file
        except (SafetensorError, OSError, ValueError) as error:
            raise BadModelFile(f"{path.name}: {_why_unreadable(path, error)}") from error
        odd = [
            f"{name} is {kind}" for name, kind in kinds.items() if kind not in FLOATS and not _IGNORABLE.fullmatch(name)
        ]
        if odd:
            raise BadModelFile(f"{path.name}: only {', '.join(sorted(FLOATS))} weights can be used, but {_few(odd)}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.__exit__(kind, error, trace)

    def below(self, prefix: str) -> dict[str, tuple[int, ...]]:
        """Names (without the prefix) and shapes of all tensors under a prefix."""
        return {name[len(prefix) :]: shape for name, shape in self.shapes.items() if name.startswith(prefix)}

    def fill(self, module: nn.Module, source: Source, dtype: torch.dtype, device: torch.device) -> None:
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
        weights = {name: self._read(part, shape, dtype, device) for name, (part, shape) in wanted.items()}
        module.load_state_dict(weights, strict=True, assign=True)
        self._taken.update(part.key for part, _ in wanted.values())

    def _read(self, part: Part, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
        # A copy even where nothing is converted: mapped pages would change, or vanish, with the file.
        order = torch.channels_last if len(shape) == 4 else torch.preserve_format
        if part.ranges:
            rows = self._file.get_slice(part.key)
            tensor = torch.cat([rows[start:stop].to(device, dtype) for start, stop in part.ranges]).reshape(shape)
        else:
            tensor = self._file.get_tensor(part.key).reshape(shape)
        copied: Tensor = tensor.to(device, dtype, copy=not part.ranges, memory_format=order)
        scale = part.key.removesuffix("weight") + "scale_weight"
        if part.key.endswith(".weight") and scale in self.shapes:
            # What is stored in eight bits may have a factor of its own that brought it into their range.
            self._taken.add(scale)
            copied *= self._file.get_tensor(scale).to(device, dtype)
        return copied

    def refuse_leftovers(self) -> None:
        """Raise BadModelFile if the file holds a tensor that went nowhere and is not known to be of no use."""
        left = [name for name in self.shapes if name not in self._taken and not _IGNORABLE.fullmatch(name)]
        if left:
            raise BadModelFile(
                f"{self.path.name}: {len(left)} tensors have no place in this architecture: {_few(left)}"
            )


def open_checkpoint(path: Path) -> Checkpoint:
    """Open a `.safetensors` file. Raises BadModelFile; a pickled checkpoint is refused unopened."""
    if path.suffix.lower() != ".safetensors":
        raise BadModelFile(f"{path.name}: only .safetensors files are opened; a pickled checkpoint could run code")
    return Checkpoint(path)


def _part(place: str | Part) -> Part:
    return Part(place) if isinstance(place, str) else place


def _few(texts: list[str]) -> str:
    return ", ".join(texts[:4]) + (", ..." if len(texts) > 4 else "")


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)


def _why_unreadable(path: Path, error: Exception) -> str:
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError:
        return f"cannot be read: {error}"
    if head.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")):
        return "is a pickled checkpoint under another name; those are not opened, they could run code"
    if head.startswith(b"version https://git-lfs"):
        return "is a git-lfs pointer; the model itself was not downloaded"
    return f"is not a whole safetensors file: {error}"

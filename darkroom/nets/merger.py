"""Checkpoints out of checkpoints: weight by weight, and of each weight piece by piece. Knows names and numbers of
weights; no folder, no hash, no configuration.

What is merged are the floating-point weights of A with "model" in their names that B has too. The sums are computed in
float32 and rounded once.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from darkroom.errors import BadRequest
from darkroom.nets.tensorfile import Form, Source

Method = Literal["Weighted sum", "Add difference", "No interpolation"]
Kind = Literal["none", "inpainting", "instruct-pix2pix"]

PIECE = 1 << 22
"""Numbers that are worked on at once; a few buffers of so many float32 are all the memory that a merge takes."""

_VAE = "first_stage_model."
_LATENT_CHANNELS = 4
_KINDS: dict[int, Kind] = {9: "inpainting", 8: "instruct-pix2pix"}
_BLOCK = re.compile(
    r"model\.diffusion_model\."
    r"(?:(?P<time>time_embed)|input_blocks\.(?P<input>\d+)|(?P<middle>middle_block)|output_blocks\.(?P<output>\d+)"
    r"|(?P<out>out))\."
)
_SCALES = ("scale_weight", "weight_scale", "scaled_fp8")
_VAE_LEFTOVERS = frozenset({"model_ema.decay", "model_ema.num_updates"})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Parents:
    """The open files. `vae` is an autoencoder's that takes the place of A's own."""

    a: Source
    b: Source | None = None
    c: Source | None = None
    vae: Source | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """How weights are mixed: (1 - m) A + m B, or A + m (B - C), by the multiplier m.

    `block_weights` are the multipliers of the UNet's blocks, in the order of `block_names`. Weights called `discarded`
    are left out. `dtype` None keeps the number format, the wider one where the parents' differ.
    """

    method: Method
    multiplier: float
    block_weights: tuple[float, ...] = ()
    dtype: torch.dtype | None = None
    discarded: AbstractSet[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """One weight of the result: its name and form, and its numbers, flat, piece by piece."""

    name: str
    form: Form
    pieces: Callable[[], Iterator[Tensor]]
    kind: Kind = "none"


def plan(parents: Parents, mix: Mix) -> list[Part]:
    """Every weight of the result, in the order of A's file. Reads no numbers. Raises BadRequest for parents that do not
    fit together and for block weights that are not as many as the UNet's blocks.
    """
    names = block_names(parents.a.forms)
    _check_scales(parents, mix)
    if mix.block_weights and len(mix.block_weights) != len(names):
        wanted = f"{len(names)} numbers for {names[0]} to {names[-1]}" if names else "none: A has no UNet of blocks"
        raise BadRequest("block_weights", f"{len(mix.block_weights)} numbers", wanted)
    baked = _autoencoder(parents.vae)
    parts = [
        _baked(parents, mix, name, baked[name]) if name in baked else _part(parents, mix, name, names)
        for name in parents.a.forms
        if name not in mix.discarded
    ]
    if not parts:
        raise BadRequest("discard", "this expression", "it is found in every weight's name: nothing would be left")
    return parts


def block_names(forms: Mapping[str, Form]) -> list[str]:
    """IN00 ..., M00, OUT00 ... of a UNet in the original layout; nothing of another network."""
    inputs, outputs = _highest(forms, "input"), _highest(forms, "output")
    if inputs < 0 or outputs < 0:
        return []
    ins, outs = ([f"{side}{n:02}" for n in range(last + 1)] for side, last in (("IN", inputs), ("OUT", outputs)))
    return [*ins, "M00", *outs]


def block_of(name: str, blocks: Sequence[str]) -> int | None:
    """The place among `blocks` of the one that a weight belongs to.

    As the extensions for it count: what comes before the first block goes with it, and so with the last.
    """
    match = _BLOCK.match(name)
    if match is None or not blocks:
        return None
    if match["time"]:
        return 0
    if match["out"]:
        return len(blocks) - 1
    if match["middle"]:
        return blocks.index("M00")
    return blocks.index(f"IN{int(match['input']):02}" if match["input"] else f"OUT{int(match['output']):02}")


def _highest(forms: Mapping[str, Form], side: str) -> int:
    found = (match[side] for name in forms if (match := _BLOCK.match(name)))
    return max((int(number) for number in found if number), default=-1)


def _check_scales(parents: Parents, mix: Mix) -> None:
    """Raise BadRequest where weights are to be multiplied by others before they mean anything, unless A is copied."""
    if mix.method == "No interpolation" and mix.dtype is None:
        return
    for field, file in (("a", parents.a), ("b", parents.b), ("c", parents.c)):
        if file and any(name.endswith(_SCALES) for name in file.forms):
            raise BadRequest(field, file.name, "a checkpoint whose weights need no scales")


def _autoencoder(file: Source | None) -> dict[str, str]:
    """Names of weights in a checkpoint, and what an autoencoder's file calls them."""
    names = file.forms if file else {}
    kept = (name for name in names if not name.startswith("loss") and name not in _VAE_LEFTOVERS)
    return {name if name.startswith(_VAE) else _VAE + name: name for name in kept}


def _baked(parents: Parents, mix: Mix, name: str, source: str) -> Part:
    vae = parents.vae
    assert vae is not None, "names of an autoencoder come from its file"
    form, wanted = vae.forms[source], parents.a.forms[name].shape
    if _without_ones(form.shape) != _without_ones(wanted):
        raise BadRequest(
            "vae", vae.name, f"one that fits A: its {source} is {list(form.shape)}, that of A {list(wanted)}"
        )
    return _copy(vae, source, name, mix.dtype, wanted)


def _part(parents: Parents, mix: Mix, name: str, blocks: Sequence[str]) -> Part:
    a, b = parents.a, parents.b
    form = a.forms[name]
    if not _is_weight(name, form, a.forms):
        return _copy(a, name, name, None)
    if mix.method == "No interpolation" or b is None or name not in b.forms or not _floats(b.forms[name]):
        return _copy(a, name, name, mix.dtype)
    kind = _kind(a, b, name)
    if mix.method == "Add difference":
        _check_difference(parents, name)
    place = block_of(name, blocks) if mix.block_weights else None
    share = mix.multiplier if place is None else mix.block_weights[place]
    result = Form(mix.dtype or _wider([file.forms[name].dtype for file in _having(parents, name)]), form.shape)
    merged = _Merged(parents=parents, name=name, share=share, form=result)
    return Part(name=name, form=result, pieces=merged.pieces if kind == "none" else merged.first_channels, kind=kind)


def _is_weight(name: str, form: Form, forms: Mapping[str, Form]) -> bool:
    """Whether a tensor may be merged or converted. A1111: those with "model" in their names, which leaves the noise
    schedule out; in a file where none has it, as of a bare transformer, all.
    """
    if not _floats(form) or name.endswith("position_ids"):
        return False
    return "model" in name or not any("model" in other for other in forms)


def _floats(form: Form) -> bool:
    return form.dtype.is_floating_point


def _having(parents: Parents, name: str) -> list[Source]:
    """The parents that take part in a weight."""
    return [file for file in (parents.a, parents.b, parents.c) if file and name in file.forms]


def _kind(a: Source, b: Source, name: str) -> Kind:
    """What the input of A's UNet sees beside the latent where B's sees the latent alone. Raises BadRequest for other
    differences of shape.
    """
    ours, theirs = a.forms[name].shape, b.forms[name].shape
    if _without_ones(ours) == _without_ones(theirs):
        return "none"
    if len(ours) > 1 and ours[:1] + ours[2:] == theirs[:1] + theirs[2:]:
        if theirs[1] == _LATENT_CHANNELS and ours[1] in _KINDS:
            return _KINDS[ours[1]]
        if ours[1] == _LATENT_CHANNELS and theirs[1] in _KINDS:
            raise BadRequest("b", b.name, f"an {_KINDS[theirs[1]]} checkpoint must be A")
    raise BadRequest("b", b.name, f"one that fits A: its {name} is {list(theirs)}, that of A {list(ours)}")


def _check_difference(parents: Parents, name: str) -> None:
    """Raise BadRequest where B and C have a weight in different shapes."""
    b, c = parents.b, parents.c
    if b and c and name in c.forms and _without_ones(c.forms[name].shape) != _without_ones(b.forms[name].shape):
        shapes = f"its {name} is {list(c.forms[name].shape)}, that of B {list(b.forms[name].shape)}"
        raise BadRequest("c", c.name, f"one that fits B: {shapes}")


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape but for its ones: a convolution of one pixel is a linear layer, and files have it either way."""
    return tuple(size for size in shape if size != 1)


def _wider(formats: Sequence[torch.dtype]) -> torch.dtype:
    """The format that holds the numbers of all; float32 where two formats of as many bits differ."""
    found = formats[0]
    for other in formats[1:]:
        if other == found:
            continue
        wide, narrow = sorted((found, other), key=lambda dtype: dtype.itemsize, reverse=True)
        found = wide if wide.itemsize > narrow.itemsize else torch.float32
    return found


def _copy(
    file: Source, source: str, name: str, dtype: torch.dtype | None, shape: tuple[int, ...] | None = None
) -> Part:
    form = file.forms[source]
    result = Form(dtype if dtype and _floats(form) else form.dtype, form.shape if shape is None else shape)

    def pieces() -> Iterator[Tensor]:
        for first, count in _ranges(form.count):
            yield file.read(source, first, count).to(result.dtype)

    return Part(name=name, form=result, pieces=pieces)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Merged:
    """A weight of A with a share of B in it, or of what parts B from C."""

    parents: Parents
    name: str
    share: float
    form: Form

    def pieces(self) -> Iterator[Tensor]:
        """All numbers of a weight that has one shape everywhere."""
        for first, count in _ranges(self.form.count):
            a = self.parents.a.read(self.name, first, count).float()
            yield self._mixed(a, first, count).to(self.form.dtype)

    def first_channels(self) -> Iterator[Tensor]:
        """All numbers of an input that sees more than a latent: what it does with the latent is merged."""
        a = self.parents.a.read(self.name).float().view(self.form.shape)
        latent = a[:, :_LATENT_CHANNELS]
        shape = latent.shape
        a[:, :_LATENT_CHANNELS] = self._mixed(latent.reshape(-1), 0, latent.numel()).view(shape)
        yield a.flatten().to(self.form.dtype)

    def _mixed(self, a: Tensor, first: int, count: int) -> Tensor:
        b, c = self.parents.b, self.parents.c
        assert b is not None, "nothing is merged without B"
        theirs = b.read(self.name, first, count).float()
        if c is None:
            return a.mul_(1 - self.share).add_(theirs, alpha=self.share)
        # A1111: where C lacks a weight there is no difference.
        if self.name not in c.forms:
            return a
        return a.add_(theirs.sub_(c.read(self.name, first, count)), alpha=self.share)


def _ranges(count: int) -> Iterator[tuple[int, int]]:
    """First place and length of every piece."""
    return ((first, min(PIECE, count - first)) for first in range(0, count, PIECE))

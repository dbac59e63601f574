"""Adapters in a network's weights: merged when they are wanted, and taken out by putting the untouched weights back.

The untouched weights are never computed back, so nothing that was drawn before changes by a single bit. Only those that
the present adapters touch are held twice.
"""

import logging
import re
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from darkroom.nets.adapters import AdapterFile, MisfitError, Product, change, find_product
from darkroom.nets.packing import plain

logger = logging.getLogger(__name__)

Layer = nn.Linear | nn.Conv2d | nn.GroupNorm | nn.LayerNorm
"""What an adapter may change: all have a weight, and a bias or None."""

Place = str | tuple[str, ...]
"""A submodule by its name, or several of whose weights a file has the rows in one layer, one after the other."""

_AT_ONCE = 1 << 17
"""Numbers of a weight that are changed at a time: they fit into the processor's cache in float32."""

UNET_PREFIXES = ("lora_unet_", "oft_unet_", "diffusion_model_", "unet_")
TEXT_PREFIXES = ("lora_te_", "lora_te1_", "text_encoder_")


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What one adapter has in a network: at which strength, and with how many of its directions (None: all).

    `blocks` are factors of the strength by block (see `unet_block_of`); with any, a block that is not named has 0.
    `key` tells it apart from every other adapter and from an earlier state of the same file.
    """

    key: Hashable
    file: AdapterFile
    strength: float
    rank: int | None = None
    blocks: tuple[tuple[str, float], ...] = ()

    @property
    def identity(self) -> Hashable:
        """Equal for shares that change the weights alike."""
        return self.key, self.strength, self.rank, self.blocks

    def strength_in(self, block: str) -> float:
        """How strongly it acts in a block; "" is what lies in none."""
        return self.strength * dict(self.blocks).get(block, 0.0) if block and self.blocks else self.strength


class Merging:
    """A module and the adapters in it. `places` says which submodule or submodules each layer name of a file means, and
    `block_of` in which block a submodule lies.
    """

    __slots__ = ("_block_of", "_carried", "_module", "_places", "_stacks", "_untouched")

    def __init__(
        self, module: nn.Module, places: Mapping[str, Place], block_of: Callable[[str], str] = lambda _: ""
    ) -> None:
        self._module = module
        self._places = places
        self._block_of = block_of
        self._stacks = {one: place for place in places.values() if isinstance(place, tuple) for one in place}
        self._carried: tuple[Hashable, ...] = ()
        self._untouched: dict[tuple[str, str], nn.Parameter | None] = {}

    @property
    def nbytes(self) -> int:
        """Bytes of the weights that are held beside those in use."""
        return sum(weight.nbytes for weight in self._untouched.values() if weight is not None)

    @property
    def carried(self) -> tuple[Hashable, ...]:
        """What is in the weights now."""
        return self._carried

    def carry(self, shares: Sequence[Share]) -> None:
        """Have exactly these adapters in the weights, added in this order; does nothing if they are already."""
        effective = [share for share in shares if share.strength]
        wanted = tuple(share.identity for share in effective)
        if wanted == self._carried:
            return
        self._restore()
        try:
            for stack, layers in self._touched(effective).items():
                if not self._add_products(stack, layers):
                    self._merge(stack, layers)
        except BaseException:
            self._restore()
            raise
        self._carried = wanted

    def _touched(self, shares: Sequence[Share]) -> dict[tuple[str, ...], list[tuple[Share, str]]]:
        """Which layers of which adapters go to the same submodules, in order."""
        found: dict[tuple[str, ...], list[tuple[Share, str]]] = {}
        for share in shares:
            for layer in share.file.layers:
                place = self._places.get(layer)
                if place is not None:
                    stack = place if isinstance(place, tuple) else self._stacks.get(place, (place,))
                    found.setdefault(stack, []).append((share, layer))
        return found

    def _add_products(self, stack: Sequence[str], layers: Sequence[tuple[Share, str]]) -> bool:
        """Merge what is plain LoRAs of one submodule, which most are. False if it is anything else, and nothing was
        done.
        """
        if len(stack) > 1:
            return False
        weight = plain(self._layer(stack[0]).weight)
        products: list[Product] = []
        for share, layer in layers:
            strength = share.strength_in(self._block_of(stack[0]))
            found = find_product(share.file.layers[layer], weight, strength, share.rank) if strength else None
            if found is not None:
                products.append(found)
            elif strength:
                return False
        if products:
            self._put(stack[0], "weight", with_products(weight, products))
        return True

    def _merge(self, stack: Sequence[str], layers: Sequence[tuple[Share, str]]) -> None:
        """Changes are computed in float32 and one upon the other: some kinds depend on the weight as it stands."""
        weights = {place: plain(self._layer(place).weight).float() for place in stack}
        old = dict(weights)
        biases: dict[str, Tensor] = {}
        for share, layer in layers:
            places = self._places[layer]
            places = places if isinstance(places, tuple) else (places,)
            strength = share.strength_in(self._block_of(places[0]))
            if not strength:
                continue
            try:
                found = _change(share, layer, strength, [weights[place] for place in places])
            except MisfitError as misfit:
                # A1111: what does not fit is skipped
                logger.debug("%s of %s is left out: %s", layer, share.key, misfit)
                continue
            for place, rows, bias in zip(places, *found, strict=True):
                weights[place] = weights[place] + rows
                if bias is not None:
                    biases[place] = biases[place] + bias if place in biases else bias
        for place, extra in biases.items():
            bias = self._layer(place).bias
            self._replace(place, "bias", extra if bias is None else bias.float() + extra)
        for place, weight in weights.items():
            if weight is not old[place]:
                self._replace(place, "weight", weight)

    def _replace(self, place: str, name: str, value: Tensor) -> None:
        order = torch.channels_last if value.dim() == 4 else torch.contiguous_format
        self._put(place, name, value.to(self._layer(place).weight.dtype, memory_format=order))

    def _put(self, place: str, name: str, value: Tensor) -> None:
        layer = self._layer(place)
        self._untouched[place, name] = getattr(layer, name)
        setattr(layer, name, nn.Parameter(value, requires_grad=False))

    def _layer(self, place: str) -> Layer:
        layer = self._module.get_submodule(place)
        assert isinstance(layer, Layer)
        return layer

    def _restore(self) -> None:
        for (place, name), weight in self._untouched.items():
            layer = self._module.get_submodule(place)
            changed = getattr(layer, name)
            if weight is not None and changed is not None:
                weight.data = weight.data.to(changed.device)  # the layer may have gone elsewhere meanwhile
            setattr(layer, name, weight)
        self._untouched.clear()
        self._carried = ()


def with_products(weight: Tensor, products: Sequence[Product]) -> Tensor:
    """A copy of a weight with these changes, computed in float32; convolutions channels-last, as they lie in memory."""
    order = torch.channels_last if weight.dim() == 4 else torch.contiguous_format
    changed = torch.empty(weight.shape, dtype=weight.dtype, device=weight.device, memory_format=order)
    old, new = _as_matrix(weight), _as_matrix(changed)
    factors = [(product.up, _as_matrix(product.down)) for product in products]
    count = len(old) if weight.is_cuda else max(1, _AT_ONCE * len(old) // old.numel())
    for start in range(0, len(old), count):
        rows = slice(start, start + count)
        wide = old[rows].float() if old.dtype != torch.float32 else old[rows].clone()
        for up, down in factors:
            wide.addmm_(up[rows], down)
        new[rows] = wide
    return changed


def _as_matrix(weight: Tensor) -> Tensor:
    """`[n, ...]` as `[n, m]`; a view of what is channels-last, in that order."""
    return (weight.permute(0, 2, 3, 1) if weight.dim() == 4 else weight).reshape(len(weight), -1)


def _change(
    share: Share, layer: str, strength: float, weights: Sequence[Tensor]
) -> tuple[Sequence[Tensor], Sequence[Tensor | None]]:
    """What a layer of an adapter adds to each of some weights, and to their biases. Raises MisfitError."""
    whole = weights[0] if len(weights) == 1 else torch.cat([*weights])
    found = change(share.file.layers[layer], whole, strength, share.rank)
    rows = [len(weight) for weight in weights]
    if found.bias is None:
        return torch.split(found.weight, rows), [None] * len(rows)
    if found.bias.numel() != len(whole):
        raise MisfitError(f"a change of {found.bias.numel()} numbers for a bias of {len(whole)}")
    return torch.split(found.weight, rows), torch.split(found.bias.reshape(-1), rows)


def unet_places(unet: nn.Module, source: Callable[[str], str]) -> dict[str, Place]:
    """Layer names of files for a UNet: after the original's modules (which `source` names) and after diffusers'."""
    places: dict[str, Place] = {}
    for name in _weighted(unet):
        original = source(f"{name}.weight").removesuffix(".weight")
        # diffusers calls what is told beside the text add_embedding where it puts XL together itself.
        for known in (original, name, name.replace("class_embedding", "add_embedding")):
            places.update(dict.fromkeys((prefix + known.replace(".", "_") for prefix in UNET_PREFIXES), name))
    return places


TEXT_BLOCK = "BASE"
"""The block that all text encoders are."""

_BLOCKS = re.compile(r"(input|middle|output)_blocks?\.(\d+)\.")
_SIDES = {"input": "IN", "output": "OUT"}


def unet_block_of(source: Callable[[str], str]) -> Callable[[str], str]:
    """In which block a submodule of a UNet lies, in the original's order: IN00 to IN11, MID, OUT00 to OUT11 or fewer.
    The time embedding and the last layers are in none.
    """

    def block_of(place: str) -> str:
        found = _BLOCKS.match(source(f"{place}.weight"))
        if found is None:
            return ""
        return f"{_SIDES[found[1]]}{int(found[2]):02}" if found[1] in _SIDES else "MID"

    return block_of


def text_places(encoder: nn.Module, prefixes: Sequence[str] = TEXT_PREFIXES, within: str = "") -> dict[str, Place]:
    """Layer names of files for a CLIP text encoder, after transformers' modules. `within` is what comes before their
    names in the module that carries the adapters.
    """
    return {
        f"{prefix}text_model_{name.replace('.', '_')}": within + name
        for name in _weighted(encoder)
        for prefix in prefixes
    }


def open_clip_places(encoder: nn.Module, prefixes: Sequence[str], within: str = "") -> dict[str, Place]:
    """Layer names of files for an OpenCLIP text encoder, as `text_places` has them, and those of layers that hold the
    rows of queries, keys and values at once.
    """
    places = text_places(encoder, prefixes, within)
    for name, _ in encoder.named_modules():
        if name.endswith("self_attn"):
            stack = tuple(f"{within}{name}.{part}_proj" for part in "qkv")
            places.update({f"{prefix}text_model_{name.replace('.', '_')}_in_proj": stack for prefix in prefixes})
    return places


def _weighted(module: nn.Module) -> Iterator[str]:
    for name, child in module.named_modules():
        if isinstance(child, Layer):
            yield name

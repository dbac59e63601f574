"""Adapters in a network's weights: merged when they are wanted, and taken out by putting the untouched weights back.

The untouched weights are never computed back, so nothing that was drawn before changes by a single bit. Only those that
the present adapters touch are held twice.
"""

import logging
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from darkroom.nets.adapters import AdapterFile, MisfitError, change

logger = logging.getLogger(__name__)

Layer = nn.Linear | nn.Conv2d | nn.GroupNorm | nn.LayerNorm
"""What an adapter may change: all have a weight, and a bias or None."""

UNET_PREFIXES = ("lora_unet_", "oft_unet_", "diffusion_model_")
TEXT_PREFIXES = ("lora_te_", "lora_te1_")


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What one adapter has in a network: at which strength, and with how many of its directions (None: all).

    `key` tells it apart from every other adapter and from an earlier state of the same file.
    """

    key: Hashable
    file: AdapterFile
    strength: float
    rank: int | None = None

    @property
    def identity(self) -> Hashable:
        """Equal for shares that change the weights alike."""
        return self.key, self.strength, self.rank


class Merging:
    """A module and the adapters in it. `places` says which submodule each layer name of a file means."""

    __slots__ = ("_carried", "_module", "_places", "_untouched")

    def __init__(self, module: nn.Module, places: Mapping[str, str]) -> None:
        self._module = module
        self._places = places
        self._carried: tuple[Hashable, ...] = ()
        self._untouched: dict[tuple[str, str], nn.Parameter | None] = {}

    @property
    def nbytes(self) -> int:
        """Bytes of the weights that are held beside those in use."""
        return sum(weight.nbytes for weight in self._untouched.values() if weight is not None)

    def carry(self, shares: Sequence[Share]) -> None:
        """Have exactly these adapters in the weights, added in this order; does nothing if they are already."""
        effective = [share for share in shares if share.strength]
        wanted = tuple(share.identity for share in effective)
        if wanted == self._carried:
            return
        self._restore()
        try:
            for place, layers in self._touched(effective).items():
                self._merge(place, layers)
        except BaseException:
            self._restore()
            raise
        self._carried = wanted

    def _touched(self, shares: Sequence[Share]) -> dict[str, list[tuple[Share, str]]]:
        """Which layers of which adapters go to each place, in order."""
        found: dict[str, list[tuple[Share, str]]] = {}
        for share in shares:
            for layer in share.file.layers:
                place = self._places.get(layer)
                if place is not None:
                    found.setdefault(place, []).append((share, layer))
        return found

    def _merge(self, place: str, layers: Sequence[tuple[Share, str]]) -> None:
        """Changes are computed in float32 and one upon the other: some kinds depend on the weight as it stands."""
        target = self._layer(place)
        old = weight = target.weight.float()
        extra_bias: Tensor | None = None
        for share, layer in layers:
            try:
                found = change(share.file.layers[layer], weight, share.strength, share.rank)
            except MisfitError as misfit:
                logger.debug(
                    "%s of %s is left out: %s", layer, share.key, misfit
                )  # A1111: what does not fit is skipped
                continue
            weight = weight + found.weight
            if found.bias is not None:
                extra_bias = found.bias if extra_bias is None else extra_bias + found.bias
        if extra_bias is not None:
            self._replace(place, "bias", extra_bias if target.bias is None else target.bias.float() + extra_bias)
        if weight is not old:
            self._replace(place, "weight", weight)

    def _replace(self, place: str, name: str, value: Tensor) -> None:
        layer = self._layer(place)
        order = torch.channels_last if value.dim() == 4 else torch.contiguous_format
        new = nn.Parameter(value.to(layer.weight.dtype, memory_format=order), requires_grad=False)
        self._untouched[place, name] = getattr(layer, name)
        setattr(layer, name, new)

    def _layer(self, place: str) -> Layer:
        layer = self._module.get_submodule(place)
        assert isinstance(layer, Layer)
        return layer

    def _restore(self) -> None:
        for (place, name), weight in self._untouched.items():
            setattr(self._module.get_submodule(place), name, weight)
        self._untouched.clear()
        self._carried = ()


def unet_places(unet: nn.Module, source: Callable[[str], str]) -> dict[str, str]:
    """Layer names of files for a UNet: after the original's modules (which `source` names) and after diffusers'."""
    places = {}
    for name in _weighted(unet):
        original = source(f"{name}.weight").removesuffix(".weight")
        for known in (original, name):
            places.update(dict.fromkeys((prefix + known.replace(".", "_") for prefix in UNET_PREFIXES), name))
    return places


def text_places(encoder: nn.Module, prefixes: Sequence[str] = TEXT_PREFIXES) -> dict[str, str]:
    """Layer names of files for a CLIP text encoder, after transformers' modules."""
    return {f"{prefix}text_model_{name.replace('.', '_')}": name for name in _weighted(encoder) for prefix in prefixes}


def _weighted(module: nn.Module) -> Iterator[str]:
    for name, child in module.named_modules():
        if isinstance(child, Layer):
            yield name

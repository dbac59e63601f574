"""What adapter files call the layers of Stable Diffusion 3's and FLUX.1's networks: after diffusers' modules, or after
the original's, of which some hold the rows of several of diffusers' layers.
"""

from torch import nn

from darkroom.nets.layout import Part, Source
from darkroom.nets.merging import Layer, Place

_AFTER_DIFFUSERS = ("transformer_", "lora_transformer_", "lora_unet_", "unet_")
_AFTER_ORIGINAL = ("lora_unet_", "diffusion_model_")
_T5 = ("lora_te3_", "text_encoder_2_")


def denoiser_places(denoiser: nn.Module, source: Source) -> dict[str, Place]:
    """Layer names of files for a denoiser whose weights lie in a single file where `source` says."""
    places: dict[str, Place] = {}
    fused: dict[str, list[tuple[int, str]]] = {}
    for name, layer in denoiser.named_modules():
        if not isinstance(layer, Layer) or layer.weight is None:
            continue
        places.update(dict.fromkeys((prefix + name.replace(".", "_") for prefix in _AFTER_DIFFUSERS), name))
        original = source(f"{name}.weight")
        if isinstance(original, str):
            places.update(dict.fromkeys(_spelt(original), name))
        elif len(original.ranges) == 1:
            fused.setdefault(original.key, []).append((_first(original), name))
    for key, parts in fused.items():
        places.update(dict.fromkeys(_spelt(key), tuple(name for _, name in sorted(parts))))
    return places


def t5_places(encoder: nn.Module, within: str) -> dict[str, Place]:
    """Layer names of files for T5's encoder. `within` is what comes before them in the module that carries adapters."""
    return {
        prefix + name.replace(".", "_"): within + name
        for name, layer in encoder.named_modules()
        if isinstance(layer, Layer)
        for prefix in _T5
    }


def _first(part: Part) -> int:
    return part.ranges[0][0]


def _spelt(key: str) -> list[str]:
    """The names of the layer that a weight of a single file belongs to."""
    return [prefix + key.rpartition(".")[0].replace(".", "_") for prefix in _AFTER_ORIGINAL]

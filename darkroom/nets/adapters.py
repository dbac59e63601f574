"""The LoRA family: small files that say how a checkpoint's weights change. Computes the changes and merges nothing.

Every kind's raw change U of a weight W is written as its paper has it; what is common to all kinds (scale, strength,
DoRA) is in `change`. Shapes are checked before anything is multiplied, so that no file can ask for much memory.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from darkroom.errors import BadModelFile
from darkroom.nets import adapter_names, adapter_notes
from darkroom.nets.embeddings import Embedding, make_embedding
from darkroom.nets.pickles import read_tensors

MAX_BYTES = 8 << 30
MAX_LAYERS = 20_000

Parts = Mapping[str, Tensor]
"""The tensors of one layer by the end of their names."""

_EMBEDDING = "bundle_emb"


class MisfitError(ValueError):
    """A layer's tensors do not fit the weight that they are meant for."""


@dataclass(frozen=True, slots=True, eq=False)
class AdapterFile:
    """A file as read: tensors by layer name, and the embeddings that come with it by their names."""

    layers: Mapping[str, Parts]
    embeddings: Mapping[str, Embedding]

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for parts in self.layers.values() for tensor in parts.values())


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """What is added to a layer's weight, and to its bias if anything is."""

    weight: Tensor
    bias: Tensor | None = None


def read_adapter(path: Path) -> AdapterFile:
    """Read one file. Raises BadModelFile, also if a layer is of no known kind."""
    layers: dict[str, dict[str, Tensor]] = {}
    bundled: dict[str, dict[str, Any]] = {}
    for key, tensor in read_tensors(path, MAX_BYTES).items():
        if not isinstance(tensor, Tensor):
            continue
        name, part = adapter_names.split(key)
        if name == _EMBEDDING:
            _bundle(bundled, part, tensor)
        elif part == adapter_names.MAGNITUDE:
            layers.setdefault(name, {})["dora_scale"] = tensor.reshape(-1, 1)
        elif part:
            layers.setdefault(name, {})[part] = tensor
    if not layers and not bundled:
        raise BadModelFile(f"{path.name}: holds no adapter")
    if len(layers) > MAX_LAYERS:
        raise BadModelFile(f"{path.name}: {len(layers)} layers, at most {MAX_LAYERS} are read")
    unknown = [name for name, parts in layers.items() if _find_kind(parts) is None]
    if unknown:
        raise BadModelFile(f"{path.name}: {len(unknown)} layers are of no known kind, such as {unknown[0]}")
    _scale_by_notes(layers, adapter_notes.read_notes(path))
    try:
        return AdapterFile(layers, {name: make_embedding(content) for name, content in bundled.items()})
    except (ValueError, TypeError, KeyError) as error:
        raise BadModelFile(f"{path.name}: an embedding in it cannot be read: {error}") from error


def _scale_by_notes(layers: Mapping[str, dict[str, Tensor]], notes: Mapping[str, Any]) -> None:
    """Give the layers their scales that have none of their own but in the file's notes."""
    for name, parts in layers.items() if notes else ():
        if "lora_A.weight" in parts and not {"alpha", "scale"} & parts.keys():
            scale = adapter_notes.scale_of(notes, name, len(parts["lora_A.weight"]))
            if scale is not None:
                parts["scale"] = torch.tensor(scale)


def _bundle(bundled: dict[str, dict[str, Any]], key: str, tensor: Tensor) -> None:
    """Note a tensor of an embedding that comes with an adapter: `name.part`, or `name.string_to_param.part`."""
    name, _, part = key.partition(".")
    content = bundled.setdefault(name, {})
    if part.startswith("string_to_param."):
        content.setdefault("string_to_param", {})[part.split(".", 1)[1]] = tensor
    else:
        content[part] = tensor


def change(parts: Parts, weight: Tensor, strength: float, rank: int | None = None) -> Change:
    """The change that one layer makes to `weight` (float32, any shape) at a strength. Raises MisfitError.

    `rank` cuts a LoRA to its first so many directions; its scale stays that of all of them.
    """
    kind = _find_kind(parts)
    if kind is None:
        raise MisfitError("the layer is of no known kind")
    try:
        raw = kind.raw({name: part.to(weight.device, weight.dtype) for name, part in parts.items()}, weight, rank)
        if raw.numel() != weight.numel() and not _is_narrow_input(raw, weight):
            raise MisfitError(f"a change of shape {list(raw.shape)} for a weight of {list(weight.shape)}")
        return _finished(kind, parts, raw, weight, strength)
    except (RuntimeError, IndexError) as error:
        raise MisfitError(str(error)) from error


@dataclass(frozen=True, slots=True, eq=False)
class Product:
    """A change that is the product of two matrices: `up` `[n, r]`, the strength in it, and `down` `[r, ...]`, whose
    other sides are those of the weight. Both are float32.
    """

    up: Tensor
    down: Tensor


_PLAIN = frozenset({"lora_up.weight", "lora_down.weight", "lora_A.weight", "lora_B.weight", "alpha", "scale"})


def find_product(parts: Parts, weight: Tensor, strength: float, rank: int | None = None) -> Product | None:
    """What `change` would give of a plain LoRA, not multiplied out; None of any other layer, and where it misfits."""
    kind = _find_kind(parts)
    if kind is None or kind.raw is not _lora or not parts.keys() <= _PLAIN:
        return None
    up, down = (part.to(weight.device, torch.float32) for part in _up_and_down(parts))
    outputs, inputs = len(weight), weight.shape[1:]
    if up.dim() < 2 or up.numel() != outputs * len(down) or down.numel() != len(down) * inputs.numel():
        return None
    if weight.dim() == 4 and inputs[1:].numel() > 1 and down.shape[1:] != inputs:
        return None
    factor = _scale(kind, parts) * strength
    return Product(up.reshape(outputs, len(down))[:, :rank] * factor, down.reshape(len(down), *inputs)[:rank])


def _finished(kind: "Kind", parts: Parts, raw: Tensor, weight: Tensor, strength: float) -> Change:
    if "bias" in parts:
        raw = raw + parts["bias"].to(raw).reshape(raw.shape)
    if raw.numel() == weight.numel():
        raw = raw.reshape(weight.shape)
    raw = raw * _scale(kind, parts)
    if "dora_scale" in parts:
        raw = _decomposed(raw, weight, parts["dora_scale"].to(raw))
    if raw.shape != weight.shape:
        raw = _widened(raw, weight)
    bias = next((parts[name] for name in ("diff_b", "b_norm") if name in parts), None)
    return Change(raw * strength, None if bias is None else bias.to(raw) * strength)


def _scale(kind: "Kind", parts: Parts) -> float:
    if "scale" in parts:
        return float(parts["scale"])
    rank = kind.rank(parts)
    return float(parts["alpha"]) / rank if rank and "alpha" in parts else 1.0


def _decomposed(raw: Tensor, weight: Tensor, magnitude: Tensor) -> Tensor:
    """Weight-decomposed adaptation: Liu et al. 2024, arXiv:2402.09353, equation 5, with norms per input channel, or per
    output where the file has a column of them.
    """
    whole = weight + raw
    ones = [1] * (whole.dim() - 2)
    if magnitude.dim() > 1 and len(magnitude) == magnitude.numel() > 1:
        norm = _matrix(whole).norm(dim=1).reshape(-1, 1, *ones)
        magnitude = magnitude.reshape(norm.shape)
    else:
        norm = whole.transpose(0, 1).reshape(whole.shape[1], -1).norm(dim=1).reshape(1, -1, *ones)
    decomposed: Tensor = whole * (magnitude / norm) - weight
    return decomposed


def _is_narrow_input(raw: Tensor, weight: Tensor) -> bool:
    """Whether the change is for a convolution of four channels and the weight that of an inpainting model's nine."""
    return weight.dim() == 4 and weight.shape[1] == 9 and raw.shape == (weight.shape[0], 4, *weight.shape[2:])


def _widened(raw: Tensor, weight: Tensor) -> Tensor:
    wide = torch.zeros_like(weight)
    wide[:, : raw.shape[1]] = raw
    return wide


# The kinds. Each has the names by which it is known, its rank for the scale, and its raw change.


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of adapter: `known_by` are sets of names, one of which a layer of this kind has as a whole."""

    known_by: Sequence[frozenset[str]]
    raw: Callable[[Parts, Tensor, int | None], Tensor]
    rank: Callable[[Parts], int | None] = lambda _: None


def _find_kind(parts: Parts) -> Kind | None:
    return next((kind for kind in _KINDS if any(names <= parts.keys() for names in kind.known_by)), None)


def _matrix(tensor: Tensor) -> Tensor:
    return tensor.reshape(tensor.shape[0], -1)


def _product(left: Tensor, right: Tensor, weight: Tensor) -> Tensor:
    """The product of two matrices, in the shape that a weight of `right`'s kernel size has."""
    _expect(left.shape[0] * right[0].numel(), weight)
    return (_matrix(left) @ _matrix(right)).reshape(left.shape[0], *right.shape[1:])


def _expect(numel: int, weight: Tensor) -> None:
    """Raise MisfitError unless a change of so many numbers fits, before it is computed."""
    narrow = weight.numel() * 4 // 9 if weight.dim() == 4 and weight.shape[1] == 9 else weight.numel()
    if numel not in (weight.numel(), narrow):
        raise MisfitError(f"a change of {numel} numbers for a weight of {weight.numel()}")


def _through_core(core: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Tucker's form of a convolution: core `[i, j, k, l]`, left `[i, p]`, right `[j, r]` to `[p, r, k, l]`."""
    return torch.einsum("ijkl,jr,ip->prkl", core, right, left)


def _lora(parts: Parts, weight: Tensor, rank: int | None) -> Tensor:
    """Low rank: Hu et al. 2021, arXiv:2106.09685, equation 3; with a core between the two convolutions as in LyCORIS,
    Yeh et al. 2023, arXiv:2309.14859.
    """
    up, down = _up_and_down(parts)
    if "lora_mid.weight" in parts:
        core, up, down = parts["lora_mid.weight"], _matrix(up), _matrix(down)
        _expect(up.shape[0] * down.shape[1] * math.prod(core.shape[2:]), weight)
        return torch.einsum("nmkl,in,mj->ijkl", core, up, down)
    if rank is not None:
        up, down = _matrix(up)[:, :rank], down[:rank]
    return _product(up, down, weight)


def _up_and_down(parts: Parts) -> tuple[Tensor, Tensor]:
    if "lora_up.weight" in parts:
        return parts["lora_up.weight"], parts["lora_down.weight"]
    return parts["lora_B.weight"], parts["lora_A.weight"]


def _lora_rank(parts: Parts) -> int:
    return _up_and_down(parts)[1].shape[0]


def _loha(parts: Parts, weight: Tensor, _: int | None) -> Tensor:
    """Hadamard product of two low ranks: Hyeon-Woo, Ye-Bin and Oh 2021, arXiv:2108.06098, proposition 1."""
    factors = []
    for number in ("1", "2"):
        left, right = parts[f"hada_w{number}_a"], parts[f"hada_w{number}_b"]
        core = parts.get(f"hada_t{number}")
        if core is None:
            factors.append(_product(left, right, weight))
        else:
            _expect(left.shape[1] * right.shape[1] * math.prod(core.shape[2:]), weight)
            factors.append(_through_core(core, left, right))
    return factors[0] * factors[1]


def _lokr(parts: Parts, weight: Tensor, _: int | None) -> Tensor:
    """Kronecker product: Edalati et al. 2022, arXiv:2212.10650, in the form of LyCORIS, arXiv:2309.14859."""
    left = _factor(parts, "1", weight)
    right = _factor(parts, "2", weight)
    _expect(left.numel() * right.numel(), weight)
    if right.dim() == 4:
        left = left[:, :, None, None]
    return torch.kron(left, right.contiguous())


def _factor(parts: Parts, number: str, weight: Tensor) -> Tensor:
    whole = parts.get(f"lokr_w{number}")
    if whole is not None:
        return whole
    left, right, core = parts[f"lokr_w{number}_a"], parts[f"lokr_w{number}_b"], parts.get(f"lokr_t{number}")
    size = left.shape[0] * right[0].numel() if core is None else left.shape[1] * right.shape[1]
    if size > weight.numel():
        raise MisfitError(f"a factor of {size} numbers for a weight of {weight.numel()}")
    return _matrix(left) @ _matrix(right) if core is None else _through_core(core, left, right)


def _lokr_rank(parts: Parts) -> int | None:
    inner = parts.get("lokr_w2_b", parts.get("lokr_w1_b"))
    return None if inner is None else inner.shape[0]


def _ia3(parts: Parts, weight: Tensor, _: int | None) -> Tensor:
    """Rescaled activations: Liu et al. 2022, arXiv:2205.05638, section 3.3, merged into the weight."""
    factor = parts["weight"].reshape(-1)
    ones = [1] * (weight.dim() - 2)
    return weight * (factor.reshape(1, -1, *ones) if bool(parts["on_input"]) else factor.reshape(-1, 1, *ones))


def _glora(parts: Parts, weight: Tensor, _: int | None) -> Tensor:
    """Generalised low rank: Chavan et al. 2023, arXiv:2306.07967, equation 10, with A and B alone."""
    a1, a2, b1, b2 = (_matrix(parts[f"{name}.weight"]) for name in ("a1", "a2", "b1", "b2"))
    _expect(b2.shape[0] * b1.shape[1], weight)
    _expect(weight.shape[0] * a1.shape[1], weight)
    return b2 @ b1 + (_matrix(weight) @ a2) @ a1


def _oft(parts: Parts, weight: Tensor, _: int | None) -> Tensor:
    """Rotated blocks of output channels: Qiu et al. 2023, arXiv:2306.07280, equation 4; in stages between which the
    rows are shuffled: Liu et al. 2023, arXiv:2311.06243, equation 5.
    """
    rows = _matrix(weight)
    if "oft_diag" in parts:
        turned = _turn(rows, parts["oft_diag"])
    else:
        turns = _rotations(parts["oft_blocks"], float(parts["alpha"]) if "alpha" in parts else 0.0, rows.shape[0])
        turned = _turn(rows, turns) if turns.dim() == 3 else _butterfly(rows, turns)
    if "rescale" in parts:
        turned = turned * parts["rescale"].reshape(-1, 1)
    return turned - rows


def _rotations(blocks: Tensor, alpha: float, outputs: int) -> Tensor:
    """Cayley's transform (I + Q)(I - Q)^-1 of skew-symmetric blocks, which `alpha` keeps near the identity."""
    if blocks.shape[-1] * blocks.shape[-3] != outputs or blocks.shape[-1] != blocks.shape[-2]:
        raise MisfitError(f"blocks of shape {list(blocks.shape)} for {outputs} outputs")
    skew = blocks - blocks.transpose(-1, -2)
    if alpha:
        norm = skew.norm()
        skew = skew * ((norm.clamp(max=alpha * outputs) + 1e-8) / (norm + 1e-8))
    identity = torch.eye(blocks.shape[-1], device=blocks.device, dtype=blocks.dtype)
    turns: Tensor = (identity + skew) @ torch.linalg.inv(identity - skew)
    return turns


def _turn(rows: Tensor, turns: Tensor) -> Tensor:
    """Turn `rows` `[k * n, width]` by `turns` `[k, n, n]`, transposed."""
    blocks = rows.reshape(turns.shape[0], turns.shape[1], -1)
    return torch.einsum("knm,knw->kmw", turns, blocks).reshape(rows.shape)


def _butterfly(rows: Tensor, stages: Tensor) -> Tensor:
    """Turn `rows` by `stages` `[m, k, b, b]`; stage i mixes rows that lie 2^i * b / 2 apart."""
    _, _, size, _ = stages.shape
    for number, turns in enumerate(stages):
        stride = 2**number * size // 2
        shuffled = rows.reshape(-1, 2, stride, rows.shape[1]).transpose(1, 2).reshape(-1, size, rows.shape[1])
        mixed = torch.einsum("kij,kjw->kiw", turns, shuffled)
        rows = mixed.reshape(-1, stride, 2, rows.shape[1]).transpose(1, 2).reshape(rows.shape)
    return rows


def _names(*names: str) -> Sequence[frozenset[str]]:
    return (frozenset(names),)


# A1111: tried in this order.
_KINDS: Sequence[Kind] = (
    Kind(
        (*_names("lora_up.weight", "lora_down.weight"), *_names("lora_A.weight", "lora_B.weight")), _lora, _lora_rank
    ),
    Kind(
        _names("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"), _loha, lambda parts: parts["hada_w1_b"].shape[0]
    ),
    Kind(_names("weight", "on_input"), _ia3),
    Kind(
        tuple(frozenset({*left, *right}) for left in ({"lokr_w1"}, {"lokr_w1_a", "lokr_w1_b"})
              for right in ({"lokr_w2"}, {"lokr_w2_a", "lokr_w2_b"})),
        _lokr,
        _lokr_rank,
    ),
    Kind(_names("diff"), lambda parts, _, __: parts["diff"]),
    Kind(_names("w_norm", "b_norm"), lambda parts, _, __: parts["w_norm"]),
    Kind(_names("a1.weight", "a2.weight", "b1.weight", "b2.weight"), _glora),
    Kind((*_names("oft_blocks"), *_names("oft_diag")), _oft),
)  # fmt: skip

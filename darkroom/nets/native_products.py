"""Convolutions and linear layers by a kernel of our own, for processors with AMX: `native/products.c`.

Where there is no compiler, another processor or another system, there is no kernel, and torch's own does the work.

Weights lie as the kernel reads them: pieces of 32 inputs by 32 outputs, each two tiles of 16 outputs, and in a tile
pairs of inputs side by side. How they were ordered is told by their number of dimensions.
"""

import ctypes
from itertools import product
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from darkroom.nets.native_attention import FLAGS, has_tiles
from darkroom.nets.native_library import find, load

SIDE = 32
"""The kernel takes multiples of so many inputs and outputs, and so many positions at least."""

_LINEAR, _GATED = 6, 7
"""Dimensions of packed weights; those of convolutions have more."""

_HALVES = (((0,), (1, 2)), ((0, 1), (2,)))
"""Which of the three rows that a convolution looks at are the same one before a picture is made twice as high:
the upper half of a pixel looks at the one above it and twice at itself, the lower half twice at itself and at the one
below.
"""

_PLAIN_WAY, _ADDED_WAY, _GATED_WAY = range(3)


def pack_linear(weight: Tensor) -> Tensor:
    """A linear layer's weight `[N, C]`, ordered `[N / 32, C / 32, 2, 16, 16, 2]`."""
    return _split(_tiles(weight), weight.dtype)


def pack_gated(weight: Tensor) -> Tensor:
    """The weight `[2 N, C]` of two linear layers, values and then gates, ordered `[1, N / 16, C / 32, 2, 16, 16, 2]`:
    beside each tile of values lies one of gates.
    """
    tiles = _pairs(weight).view(2, len(weight) // 32, 16, -1, 16).permute(1, 3, 0, 4, 2)
    return _split(tiles, weight.dtype)[None]


def pack_pointwise(weight: Tensor) -> Tensor:
    """The weight `[N, C, 1, 1]` of a convolution of single pixels as a linear layer's, behind three ones."""
    return pack_linear(weight.flatten(1))[None, None, None]


def pack_convolution(weight: Tensor) -> Tensor:
    """A convolution's weight `[N, C, 3, 3]`, ordered `[N / 32, 3, C / 32, 3, 2, 16, 16, 2]`."""
    outputs, inputs = weight.shape[:2]
    tiles = weight.reshape(outputs // 32, 2, 16, inputs // 32, 16, 2, 3, 3)
    return tiles.permute(0, 6, 3, 7, 1, 4, 2, 5).contiguous()


def pack_doubled(weight: Tensor) -> Tensor:
    """A convolution's weight `[N, C, 3, 3]` for pictures that are made twice as large first, each pixel four times: for
    every corner of a pixel the sums of those that see the same one, `[N / 32, 4, 2, C / 32, 2, 2, 16, 16, 2]`.
    """
    outputs, inputs = weight.shape[:2]
    tiles = torch.empty(outputs // 32, 4, 2, inputs // 32, 2, 2, 16, 16, dtype=torch.int32)
    taps = weight.permute(2, 3, 0, 1).float()
    for corner, (row, column) in enumerate(product(_HALVES, _HALVES)):
        for (y, rows), (x, columns) in product(enumerate(row), enumerate(column)):
            found = sum((taps[i, j] for i, j in product(rows, columns)), torch.zeros(())).to(weight.dtype)
            tiles[:, corner, y, :, x] = _tiles(found)
    return tiles.view(weight.dtype).view(*tiles.shape, 2)


def unpack(weight: Tensor) -> Tensor:
    """A weight in plain order again; one that was never packed as it is."""
    match weight.dim():
        case 6:  # linear
            return _of_pairs(weight.permute(0, 2, 4, 1, 3, 5))
        case 7:  # gated
            return _of_pairs(weight[0].permute(2, 0, 4, 1, 3, 5))
        case 8:  # a convolution
            tiles = weight.permute(0, 4, 6, 2, 5, 7, 1, 3)
            return tiles.reshape(len(weight) * 32, weight.shape[2] * 32, 3, 3)
        case 9:  # pointwise
            return unpack(weight[0, 0, 0])[..., None, None]
    return weight


def is_packed(weight: Tensor) -> bool:
    """Whether it lies as the kernel reads it."""
    return weight.dim() >= _LINEAR


def is_gated(weight: Tensor) -> bool:
    """Whether it is packed, with values and gates side by side."""
    return weight.dim() == _GATED


def _tiles(weight: Tensor) -> Tensor:
    """A weight `[N, C]` as pairs of inputs, ordered `[N / 32, C / 32, 2, 16, 16]`."""
    return _pairs(weight).view(len(weight) // 32, 2, 16, -1, 16).permute(0, 3, 1, 4, 2)


def _pairs(weight: Tensor) -> Tensor:
    """Pairs of inputs as one number, which is quicker to put elsewhere."""
    return weight.contiguous().view(torch.int32)


def _split(tiles: Tensor, dtype: torch.dtype) -> Tensor:
    """Pairs of inputs as two numbers again."""
    return tiles.contiguous().view(dtype).view(*tiles.shape, 2)


def _of_pairs(tiles: Tensor) -> Tensor:
    """Tiles `[..., outputs, C / 32, 16, 2]`, three dimensions of outputs before, as `[N, C]`."""
    return tiles.reshape(tiles.shape[0] * tiles.shape[1] * tiles.shape[2], -1)


class ProductKernel:
    """Products of pictures or rows with packed weights, in bf16. Sums are float32, and are rounded once, at the end.

    An answer depends neither on other rows nor on the number of threads.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        number, pointer = ctypes.c_long, ctypes.c_void_p
        library.linear_scratch_bytes.restype = library.conv_scratch_bytes.restype = number
        library.linear_scratch_bytes.argtypes, library.conv_scratch_bytes.argtypes = [number] * 4, [number] * 7
        library.linear.restype = library.convolve.restype = library.convolve_doubled.restype = None
        library.linear.argtypes = [*[pointer] * 6, *[number] * 5]
        library.convolve.argtypes = [*[pointer] * 6, *[number] * 7]
        library.convolve_doubled.argtypes = [*[pointer] * 5, *[number] * 6]
        self._library = library

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None, other: Tensor | None = None) -> Tensor:
        """`[..., N]` of `x` `[..., C]`; `other`, which has the answer's shape, is added."""
        way = _PLAIN_WAY if other is None else _ADDED_WAY
        return self._multiply(x, weight, bias, other, weight.shape[-6] * SIDE, way)

    def gated(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """`[..., N]` of `x` `[..., C]`: values times the GELU of their gates. The bias `[2 N]` is not packed."""
        return self._multiply(x, weight, bias, None, weight.shape[-6] * SIDE, _GATED_WAY)

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None, other: Tensor | None = None) -> Tensor:
        """A channels-last `[B, N, H, W]` of `[B, C, H, W]`, with a margin of zeros; `other` is added."""
        x = x.contiguous(memory_format=torch.channels_last)
        batch, inputs, height, width = x.shape
        shape = batch, len(weight) * SIDE, height, width
        _check(x, weight, bias, other, inputs == weight.shape[2] * SIDE, shape[1])
        found = torch.empty(shape, dtype=x.dtype, memory_format=torch.channels_last)
        if found.numel() == 0:
            return found
        if other is not None:
            other = other.expand_as(found).contiguous(memory_format=torch.channels_last)
        sizes = batch, height, width, inputs, shape[1]
        threads = torch.get_num_threads()
        scratch = torch.empty(self._library.conv_scratch_bytes(*sizes, 1, threads), dtype=torch.uint8)
        way = _PLAIN_WAY if other is None else _ADDED_WAY
        self._library.convolve(*_addresses(x, weight, bias, other, found, scratch), *sizes, way, threads)
        return found

    def convolve_doubled(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """A channels-last `[B, N, 2 H, 2 W]` of `[B, C, H, W]` that is made twice as large first, each pixel four
        times, with a margin of zeros. The weight is one of `pack_doubled`.
        """
        x = x.contiguous(memory_format=torch.channels_last)
        batch, inputs, height, width = x.shape
        shape = batch, len(weight) * SIDE, 2 * height, 2 * width
        _check(x, weight, bias, None, inputs == weight.shape[3] * SIDE, shape[1])
        found = torch.empty(shape, dtype=x.dtype, memory_format=torch.channels_last)
        if found.numel() == 0:
            return found
        sizes, threads = (batch, height, width, inputs, shape[1]), torch.get_num_threads()
        scratch = torch.empty(self._library.conv_scratch_bytes(*sizes, len(_HALVES) ** 2, threads), dtype=torch.uint8)
        self._library.convolve_doubled(*_addresses(x, weight, bias, found, scratch), *sizes, threads)
        return found

    def _multiply(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, other: Tensor | None, outputs: int, way: int
    ) -> Tensor:
        inputs, width = x.shape[-1], outputs // 2 if way == _GATED_WAY else outputs
        _check(x, weight, bias, other, inputs == weight.shape[-5] * SIDE, outputs)
        rows, added = x.reshape(-1, inputs), None if other is None else other.expand(*x.shape[:-1], width)
        added = None if added is None else added.reshape(-1, width)
        count, missing = len(rows), max(0, SIDE - len(rows))
        if missing:
            rows = functional.pad(rows, (0, 0, 0, missing))
            added = None if added is None else functional.pad(added, (0, 0, 0, missing))
        rows, added = rows.contiguous(), None if added is None else added.contiguous()
        found = rows.new_empty(len(rows), width)
        sizes, threads = (len(rows), inputs, outputs), torch.get_num_threads()
        scratch = torch.empty(self._library.linear_scratch_bytes(*sizes, threads), dtype=torch.uint8)
        self._library.linear(*_addresses(rows, weight, bias, added, found, scratch), *sizes, way, threads)
        return found[:count].view(*x.shape[:-1], width)


def _check(x: Tensor, weight: Tensor, bias: Tensor | None, other: Tensor | None, fits: bool, outputs: int) -> None:
    """The kernel reads what it is given as bf16 of the sizes that it was told."""
    if not fits or (bias is not None and bias.numel() != outputs):
        raise ValueError(f"no product of {tuple(x.shape)} and packed {tuple(weight.shape)}")
    if any(one is not None and one.dtype != torch.bfloat16 for one in (x, weight, bias, other)):
        raise TypeError("products of bfloat16 alone")


def _addresses(*tensors: Tensor | None) -> list[int | None]:
    return [None if one is None else one.data_ptr() for one in tensors]


def find_product_kernel(folder: Path) -> ProductKernel | None:
    """The kernel, compiled into a folder unless it lies there; None, and a line in the log, where that cannot be."""
    return find("products are computed", lambda: _make(folder)) if has_tiles() else None


def _make(folder: Path) -> ProductKernel:
    library = load("products", FLAGS, folder)
    library.ask_for_tiles.restype = ctypes.c_long
    kernel = ProductKernel(library) if library.ask_for_tiles() == 0 else None
    if kernel is None or not _is_right(kernel):
        raise ArithmeticError("the kernel does not find what torch finds")
    return kernel


def _is_right(kernel: ProductKernel) -> bool:
    """Whether the kernel finds what torch finds, on small examples."""
    numbers = torch.Generator().manual_seed(0)

    def some(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=numbers).bfloat16()

    x, weight, bias, other = some(1, 64, 5, 7), some(64, 64, 3, 3) / 24, some(64), some(1, 64, 5, 7)
    convolved = functional.conv2d(x.float(), weight.float(), bias.float(), padding=1) + other.float()
    found = kernel.convolve(x, pack_convolution(weight), bias, other)
    large = functional.interpolate(x.float(), scale_factor=2.0)
    doubled = functional.conv2d(large, weight.float(), bias.float(), padding=1)
    found_doubled = kernel.convolve_doubled(x, pack_doubled(weight), bias)
    rows, matrix = some(37, 64), some(64, 64) / 8
    values, gates = functional.linear(rows.float(), matrix.float(), bias.float()).chunk(2, dim=-1)
    gated = kernel.gated(rows, pack_gated(matrix), bias)
    pairs = (found, convolved), (gated, values * functional.gelu(gates))
    is_right = all(torch.allclose(one.float(), exact, atol=1e-3, rtol=0.01) for one, exact in pairs)
    # The sums of weights are rounded as well.
    return is_right and torch.allclose(found_doubled.float(), doubled, atol=0.02, rtol=0.02)

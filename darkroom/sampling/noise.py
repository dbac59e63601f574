"""The random numbers of one image: its first noise, later draws, and the Brownian path of the SDE samplers.

Knows nothing of other images, so that an image's noise never depends on the batch. Everything follows from the seed
and the source: "CPU" is torch's Mersenne twister, "GPU" the generator of the compute device, "NV" CUDA's, emulated.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Source = Literal["GPU", "CPU", "NV"]
Shape = tuple[int, ...]
"""Channels, height and width of a latent; before them how many there are, where they are drawn together."""

Stream = Callable[[Shape], Tensor]
"""Gives the next standard normal tensor, float32."""


def open_stream(source: Source, seed: int, device: torch.device) -> Stream:
    """A fresh stream of normals for a seed in 0..2^64-1; its tensors lie on `device`."""
    if source == "NV":
        philox = Philox(seed)
        return lambda shape: _sent(torch.from_numpy(philox.normal(shape)), device)
    drawing = device if source == "GPU" and device.type == "cuda" else torch.device("cpu")
    generator = torch.Generator(drawing).manual_seed(seed)
    return lambda shape: _sent(torch.randn(shape, generator=generator, device=drawing), device)


def _sent(noise: Tensor, device: torch.device) -> Tensor:
    """Noise on its device. A copy to a GPU from page-locked memory waits for nothing that the GPU still has to do."""
    if device.type != "cuda" or noise.device.type == "cuda":
        return noise.to(device)
    return noise.pin_memory().to(device, non_blocking=True)


class Philox:
    """Philox 4x32-10 (Salmon et al. 2011, doi:10.1145/2063384.2063405) as CUDA's generator uses it for normals."""

    def __init__(self, seed: int) -> None:
        self._key = (seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF)
        self._offset = 0

    def normal(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Standard normals by the sine branch of Box and Muller (1958).

        A1111: the offset grows by one per call, however many numbers are drawn.
        """
        n = math.prod(shape)
        counter = np.zeros((4, n), dtype=np.uint64)
        counter[0] = self._offset
        counter[2] = np.arange(n)
        self._offset += 1
        first, second = _philox_words(counter, self._key)
        u = first * 2.0**-32 + 2.0**-33
        v = second * _ANGLE + _ANGLE / 2
        normals: NDArray[np.float32] = (np.sqrt(-2 * np.log(u)) * np.sin(v)).astype(np.float32)
        return normals.reshape(shape)


_ANGLE = float(np.float32(2 * math.pi / 2**32))
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


def _philox_words(c: NDArray[np.uint64], key: tuple[int, int]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """The first two of the four 32-bit words that ten rounds make of every counter column `[4, n]`."""
    k0, k1 = key
    for _ in range(10):
        p, q = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        c = np.stack([q >> _HALF ^ c[1] ^ np.uint64(k0), q & _LOW, p >> _HALF ^ c[3] ^ np.uint64(k1), p & _LOW])
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c[0], c[1]


def slerp(weight: float, a: Tensor, b: Tensor) -> Tensor:
    """Spherical interpolation from a (weight 0) to b (weight 1), both `[C, H, W]`.

    A1111: the vectors are the columns along the height axis; nearly parallel tensors are mixed linearly, and the wrong
    way round.
    """
    dot = (a / a.norm(dim=1, keepdim=True) * (b / b.norm(dim=1, keepdim=True))).sum(dim=1, keepdim=True)
    if float(dot.mean()) > 0.9995:
        return a * weight + b * (1 - weight)
    omega = torch.acos(dot)
    return (torch.sin((1 - weight) * omega) * a + torch.sin(weight * omega) * b) / torch.sin(omega)


def paste_centred(small: Tensor, large: Tensor) -> Tensor:
    """`large` with `small` (both `[C, H, W]`) laid over its middle; what sticks out is cut off."""
    target, source = zip(*(_overlap(s, t) for s, t in zip(small.shape[1:], large.shape[1:], strict=True)), strict=True)
    pasted = large.clone()
    pasted[:, target[0], target[1]] = small[:, source[0], source[1]]
    return pasted


def _overlap(small: int, large: int) -> tuple[slice, slice]:
    """Where a length lies centred on another: the part of the large one, the part of the small one."""
    margin = (large - small) // 2
    length = small if margin >= 0 else small + 2 * margin
    start, skip = max(margin, 0), max(-margin, 0)
    return slice(start, start + length), slice(skip, skip + length)


class BrownianPath:
    """A Brownian path W over [low, high], halved again and again: the same queries give the same values in any order.

    The virtual Brownian tree of Li et al. 2020, arXiv:2001.01328, seeded like torchsde 0.2.6's `BrownianTree`.
    """

    def __init__(self, seed: int, shape: Shape, low: float, high: float, open_seeded: Callable[[int], Stream]) -> None:
        self._seed = seed
        self._shape, self._open_seeded = shape, open_seeded
        self._start, self._end = _tick(low), _tick(high)
        words = np.random.SeedSequence(entropy=seed, pool_size=24).generate_state(3)
        self._whole = self._normal(int(words[0])) * math.sqrt(high - low)
        self._halves: dict[tuple[int, int], Tensor] = {}  # of the last query: the next one mostly takes the same way
        self._visited: dict[tuple[int, int], Tensor] = {}

    def _normal(self, word: int) -> Tensor:
        return self._open_seeded(word)(self._shape)

    def increment(self, low: float, high: float) -> Tensor:
        """W(high) - W(low) for low <= high; both are clamped to the path and rounded to 6 decimals."""
        low, high = (_tick(min(max(t, self._start), self._end)) for t in (low, high))
        self._visited = {}
        total = self._sum(low, high, self._start, self._end, self._whole, 0, 0)
        self._halves = self._visited
        return total if total is not None else torch.zeros_like(self._whole)

    def _sum(
        self, low: float, high: float, start: float, end: float, whole: Tensor, key: int, depth: int
    ) -> Tensor | None:
        """The part of W(high) - W(low) within the node [start, end] of increment `whole`; None for no overlap."""
        low, high = max(low, start), min(high, end)
        if low >= high:
            return None
        if (low, high) == (start, end):
            return whole
        middle = _tick(0.5 * (start + end))
        left = self._left_half(start, middle, end, whole, key, depth)
        below = self._sum(low, high, start, middle, left, 2 * key, depth + 1)
        above = self._sum(low, high, middle, end, whole - left, 2 * key + 1, depth + 1)
        if below is None or above is None:
            return above if below is None else below
        return below + above

    def _left_half(self, start: float, middle: float, end: float, whole: Tensor, key: int, depth: int) -> Tensor:
        """The increment of [start, middle] given that of [start, end]: a Brownian bridge."""
        half = self._halves.get((key, depth))
        if half is None:
            share = (middle - start) / (end - start)
            words = np.random.SeedSequence(self._seed, spawn_key=(key, depth), pool_size=24).generate_state(4)
            half = share * whole + math.sqrt(share * (end - middle)) * self._normal(int(words[0]))
        self._visited[key, depth] = half
        return half


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedPath:
    """A Brownian path over a whole batch of `size` images, in which this image has its `position`.

    Its seed is drawn from `seed`, that of the batch's last image.
    """

    seed: int
    size: int
    position: int


def _tick(t: float) -> float:
    return round(t, 6)


class ImageNoise:
    """All randomness of one image, a `Draws`; `initial` is its first noise `[C, H/8, W/8]`.

    `seed` and `subseed` lie in 0..2^64-1. `subseed_strength` in 0..1 turns the first noise towards the subseed's.
    `seed_resize_from` (height, width in pixels) keeps the composition of a picture of that size. `seed_delta` restarts
    the stream after the first noise with another seed. `sigma_range` are the ends of the Brownian path; only `brownian`
    needs it. With `shared_path` the path is not the image's own.
    """

    def __init__(  # noqa: PLR0913  a seed has that many companions in a request
        self,
        seed: int,
        shape: Shape,
        *,
        subseed: int = 0,
        subseed_strength: float = 0.0,
        seed_resize_from: tuple[int, int] | None = None,
        seed_delta: int = 0,
        source: Source = "GPU",
        device: torch.device | str = "cpu",
        sigma_range: tuple[float, float] | None = None,
        shared_path: SharedPath | None = None,
    ) -> None:
        self._seed, self._shape, self._source, self._device = seed, shape, source, torch.device(device)
        self._sigma_range, self._shared = sigma_range, shared_path
        self._path: BrownianPath | None = None
        stream = self._open(seed)
        first = stream(shape)
        self._stream = self._open(seed + seed_delta) if seed_delta else stream
        self.initial = self._composed(first, subseed, subseed_strength, seed_resize_from)

    def normal(self) -> Tensor:
        """The next standard normal tensor `[C, H/8, W/8]` of the image's stream."""
        return self._stream(self._shape)

    def brownian(self, sigma: float, sigma_next: float) -> Tensor:
        """The path's increment from one level to another over its standard deviation; does not touch the stream."""
        if self._path is None:
            self._path = self._open_path()
        low, high = sorted((sigma, sigma_next))
        sign = 1.0 if sigma_next > sigma else -1.0
        increment = self._path.increment(low, high) * (sign / math.sqrt(high - low))
        return increment if self._shared is None else increment[self._shared.position]

    def _open_path(self) -> BrownianPath:
        if self._sigma_range is None:
            raise ValueError("brownian noise needs the sigma_range of the schedule")
        seed, shape = self._seed, self._shape
        if self._shared is not None:
            # A1111: from torch's global generator, which the first noise of the batch's last image has seeded.
            generator = torch.Generator().manual_seed(self._shared.seed)
            seed = int(torch.randint(0, 2**63 - 1, [], generator=generator))
            shape = (self._shared.size, *shape)
        return BrownianPath(seed, shape, *self._sigma_range, open_seeded=self._open)

    def _open(self, seed: int) -> Stream:
        return open_stream(self._source, seed, self._device)

    def _composed(self, first: Tensor, subseed: int, strength: float, resize_from: tuple[int, int] | None) -> Tensor:
        shape = self._shape
        if resize_from is not None and min(resize_from) > 0:
            shape = (shape[0], resize_from[0] // 8, resize_from[1] // 8)
        noise = first if shape == self._shape else self._open(self._seed)(shape)
        if strength != 0:
            noise = slerp(strength, noise, self._open(subseed)(shape))
        return noise if shape == self._shape else paste_centred(noise, first)

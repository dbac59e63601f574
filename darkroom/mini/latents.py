"""The cache of views: scenes encoded once, with several captions each, already as tokens.

Knows scenes, the autoencoder and the tokenizer. A view is one placement of a scene at one size; diffusion then trains
on the cache and never renders again.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from darkroom.mini import loop, tokenizer
from darkroom.mini.dataset import (
    BACKGROUNDS,
    KINDS,
    TINTS,
    Glyph,
    Kind,
    Scene,
    caption_of,
    make_scene,
    render,
)
from darkroom.mini.vae_stage import to_tensor
from darkroom.nets.libraries import AutoencoderKL

CAPTIONS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Views:
    """Encoded views of one frame size.

    latents fp16 [N, 4, S, S]; tokens int32 [N, 6, 77]; labels int16 [N, 5]: glyph, tint (-1: none), background (-1:
    white), second glyph (-1: none), kind.
    """

    latents: Tensor
    tokens: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.latents)


def label_of(scene: Scene, kind: Kind) -> tuple[int, int, int, int, int]:
    """What the auxiliary heads of the text stage must tell apart, and the kind, by which views are drawn."""
    first = scene.items[0]
    tint = list(TINTS).index(first.tint) if first.tint is not None else -1
    background = list(BACKGROUNDS).index(scene.background_name) if scene.background_name is not None else -1
    other = scene.items[1].glyph if len(scene.items) > 1 else -1
    return first.glyph, tint, background, other, KINDS.index(kind)


def plan_scenes(
    glyphs: Sequence[Glyph], indices: Sequence[int], kinds: Sequence[Kind], seed: int
) -> list[tuple[Scene, Kind]]:
    """A scene of each of the kinds for each of the glyphs."""
    scenes = []
    for view, kind in enumerate(kinds):
        for index in indices:
            rng = loop.step_rng(seed, index, 1000 + view)
            scenes.append((make_scene(rng, glyphs, index, kind), kind))
    return scenes


def tokens_of(glyphs: Sequence[Glyph], scenes: Sequence[Scene], seed: int) -> Tensor:
    """Several captions of each scene as tokens, int32 [N, 6, 77]."""
    rng = np.random.default_rng([seed, 77])
    captions = [caption_of(rng, glyphs, scene) for scene in scenes for _ in range(CAPTIONS)]
    distinct = {caption: number for number, caption in enumerate(dict.fromkeys(captions))}
    encoded = np.asarray(tokenizer.encode(list(distinct)), dtype=np.int32)
    rows: NDArray[np.int32] = encoded[[distinct[caption] for caption in captions]]
    return torch.from_numpy(rows.reshape(len(scenes), CAPTIONS, tokenizer.LENGTH))


def batches(count: int, size: int) -> Iterator[slice]:
    """Slices of at most `size` that cover `count` rows."""
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


@torch.no_grad()
def encode_scenes(
    vae: AutoencoderKL, glyphs: Sequence[Glyph], scenes: Sequence[Scene], pixels: int, say: Callable[[str], None]
) -> Tensor:
    """The posterior means of the scenes' pictures, fp16 [N, 4, pixels/8, pixels/8]."""
    device = next(vae.parameters()).device
    size = max(1, 24 * 128 * 128 // pixels**2)
    parts = list(batches(len(scenes), size))
    done: list[Tensor] = []

    def pictures(number: int) -> Tensor:
        part = parts[number] if number < len(parts) else slice(0, 1)
        return to_tensor([render(scene, glyphs, pixels) for scene in scenes[part]])

    stream = loop.prefetch(pictures, 0)
    for number in range(len(parts)):
        with loop.autocast(device):
            mean = vae.encode(next(stream).to(device)).latent_dist.mode()
        done.append(mean.to(torch.float16).cpu())
        if number % 100 == 0:
            say(f"cache {pixels}px {number}/{len(parts)}")
    stream.close()
    return torch.cat(done)


def build_views(
    vae: AutoencoderKL,
    glyphs: Sequence[Glyph],
    planned: Sequence[tuple[Scene, Kind]],
    pixels: int,
    seed: int,
    say: Callable[[str], None],
) -> Views:
    """Renders, encodes and captions the scenes."""
    scenes = [scene for scene, _ in planned]
    labels = torch.tensor([label_of(*each) for each in planned], dtype=torch.int16)
    tokens = tokens_of(glyphs, scenes, seed)
    return Views(latents=encode_scenes(vae, glyphs, scenes, pixels, say), tokens=tokens, labels=labels)


def save_views(views: Views, path: Path) -> None:
    """Writes the views."""
    content = {"latents": views.latents, "tokens": views.tokens, "labels": views.labels}
    loop.write_atomically(path, lambda part: torch.save(content, part))


def load_views(paths: Sequence[Path]) -> Views:
    """The views of several files as one."""
    parts = [torch.load(path, weights_only=True) for path in paths]
    return Views(**{name: torch.cat([part[name] for part in parts]) for name in ("latents", "tokens", "labels")})


# -- the latent space ----------------------------------------------------------------------------------------------


def whitening(latents: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [4] and the symmetric matrix [4, 4] that gives the channels unit covariance."""
    flat = latents.float().permute(1, 0, 2, 3).flatten(1)
    mean = flat.mean(1)
    values, vectors = torch.linalg.eigh(torch.cov(flat))
    return mean, vectors @ torch.diag(values.clamp_min(1e-6).rsqrt()) @ vectors.T


@torch.no_grad()
def fold_whitening(vae: AutoencoderKL, mean: Tensor, matrix: Tensor) -> None:
    """Builds z -> matrix (z - mean) into the 1x1 convolutions on both sides of the latent space.

    The scale factor of the file is then 1 and white noise meets latents of zero mean and unit covariance. The
    posterior's variance is carried over as if the matrix were diagonal, which only the sampled encoding of img2img
    sees.
    """
    into, out = vae.quant_conv, vae.post_quant_conv
    weight, bias = into.weight[:, :, 0, 0], into.bias
    inverse = torch.linalg.inv(matrix)
    new_weight = torch.cat([matrix @ weight[:4], weight[4:]])
    new_bias = torch.cat([matrix @ (bias[:4] - mean), bias[4:] + 2 * torch.log(matrix.square().sum(1).sqrt())])
    out_weight = out.weight[:, :, 0, 0]
    out.bias.copy_(out.bias + out_weight @ mean)
    out.weight.copy_((out_weight @ inverse)[:, :, None, None])
    into.weight.copy_(new_weight[:, :, None, None])
    into.bias.copy_(new_bias)

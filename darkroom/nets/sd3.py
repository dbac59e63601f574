"""Stable Diffusion 3 and 3.5 (Esser et al. 2024, arXiv:2403.03206): how the networks are put together from a file, and
from those beside it, at any size; what they make of texts; and how the denoiser is run.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from darkroom.errors import BadModelFile, BadRequest
from darkroom.nets import t5
from darkroom.nets.assembly import (
    CLIP_G,
    CLIP_L,
    T5,
    PooledClip,
    autoencoder,
    find_place,
    get_place,
    read_clip,
    read_t5_later,
    read_vae,
)
from darkroom.nets.checkpoint import UNET, Checkpoint
from darkroom.nets.config import ModelConfig
from darkroom.nets.libraries import SD3Transformer2DModel, T5EncoderModel
from darkroom.nets.merging import Merging, Place, text_places
from darkroom.nets.network import Network
from darkroom.nets.open_clip import hidden_states, padded
from darkroom.nets.precision import text_dtype, wide_dtype
from darkroom.nets.sd3_layout import sd3_sizes, sd3_source, under
from darkroom.nets.text import Asked, Batch, Encoded, Text, batches, emphasise
from darkroom.nets.tokenizer import EOS, ClipTokenizer
from darkroom.nets.transformer_places import denoiser_places

VAE = autoencoder("sd3_vae", "sd3.5_vae", "sd35_vae")

LoadT5 = Callable[[torch.device], T5EncoderModel]


def build(
    checkpoint: Checkpoint, config: ModelConfig, device: torch.device, dtype: torch.dtype, folders: Sequence[Path]
) -> Network:
    """Load all networks but T5, which is read when a text first asks for it. Raises BadModelFile."""
    dtype = wide_dtype(dtype)
    try:
        denoiser = read_denoiser(checkpoint, device, dtype)
        text = Encoders(
            read_clip(checkpoint, get_place(CLIP_L, checkpoint, folders), device, text_dtype(dtype, device)),
            read_clip(
                checkpoint, get_place(CLIP_G, checkpoint, folders), device, text_dtype(dtype, device), large=True
            ),
        )
        vae = read_vae(checkpoint, get_place(VAE, checkpoint, folders), config, device, dtype)
    except (KeyError, IndexError, ValueError) as error:
        raise BadModelFile(f"{checkpoint.path.name}: not laid out like Stable Diffusion 3: {error}") from error
    place = find_place(T5, checkpoint, folders)
    if place is not None and place.path == checkpoint.path:
        checkpoint.set_aside(place.prefix)
    checkpoint.refuse_leftovers()
    return Network(
        config=config,
        tokenizer=ClipTokenizer(),
        text_encoder=Sd3Text(
            text,
            width=int(denoiser.config.joint_attention_dim),
            load_t5=None if place is None else partial(read_t5_later, place, dtype, eight_bits=checkpoint.eight_bits),
        ),
        unet_model=denoiser,
        run=denoise,
        vae_model=vae,
        text_adapters=Merging(text, _text_places(text)),
        unet_adapters=Merging(denoiser, denoiser_places(denoiser, sd3_source(denoiser.config))),
    )


def _text_places(text: "Encoders") -> dict[str, Place]:
    small = text_places(text.small.text, ("lora_te1_", "text_encoder_"), "small.text.")
    return small | text_places(text.large.text, ("lora_te2_", "text_encoder_2_"), "large.text.")


def read_denoiser(checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> SD3Transformer2DModel:
    """The denoiser. Raises BadModelFile, and KeyError or ValueError for another layout."""
    prefix = UNET if UNET + "x_embedder.proj.weight" in checkpoint.shapes else ""
    sizes = sd3_sizes(checkpoint.below(prefix))
    with torch.device("meta"):
        model = SD3Transformer2DModel(**sizes)
    checkpoint.fill(model, under(prefix, sd3_source(sizes)), dtype, device)
    return model.requires_grad_(False).eval()


def denoise(
    model: SD3Transformer2DModel, x: Tensor, timesteps: Tensor, context: Tensor, vector: Tensor | None
) -> Tensor:
    """The velocity `[B, C, h, w]` float32, from the picture to the noise, for latents `[B, C, h, w]`.

    `timesteps` `[B]` are a thousandfold of the noise levels. Raises BadRequest for pictures larger than it has places.
    """
    assert vector is not None, "Stable Diffusion 3 is told of the text as a whole too"
    like, patch = model.proj_out.bias, int(model.config.patch_size)
    height, width = x.shape[-2:]
    whole = fitting(x, patch)
    largest = int(model.config.pos_embed_max_size) * patch
    if max(whole.shape[-2:]) > largest:
        side = "height" if whole.shape[-2] > largest else "width"
        raise BadRequest(side, 8 * max(whole.shape[-2:]), f"at most {8 * largest} for this model")
    output: Tensor = model(
        hidden_states=whole.to(like.device, like.dtype),
        timestep=timesteps.to(like.device, torch.float32),
        encoder_hidden_states=context.to(like.device, like.dtype),
        pooled_projections=vector.to(like.device, like.dtype),
        return_dict=False,
    )[0]
    return output[..., :height, :width].float()


def fitting(x: Tensor, patch: int) -> Tensor:
    """A latent `[B, C, h, w]` with its last rows and columns repeated up to whole patches."""
    height, width = x.shape[-2:]
    return pad(x, (0, -width % patch, 0, -height % patch), mode="replicate")


class Encoders(nn.Module):
    """Both of CLIP's encoders, and T5's once it was read."""

    def __init__(self, small: PooledClip, large: PooledClip) -> None:
        super().__init__()
        self.small = small
        self.large = large
        self.t5: T5EncoderModel | None = None


class Sd3Text:
    """The conditioning of Stable Diffusion 3: both of CLIP's side by side, and behind them, token by token, T5's.

    `width` is that of a token vector. Without T5 there are zeros in its place.
    """

    __slots__ = ("_encoders", "_load_t5", "_tokenizer", "width")

    def __init__(self, encoders: Encoders, *, width: int, load_t5: LoadT5 | None) -> None:
        self._encoders = encoders
        self._load_t5 = load_t5
        self._tokenizer = t5.T5Tokenizer()
        self.width = width

    @property
    def module(self) -> Encoders:
        """Holds the weights."""
        return self._encoders

    def encode(self, texts: Sequence[Text], asked: Asked) -> Encoded:
        """Context `[T, 154 * n, width]` and vector `[T, V]`, float32. Only the first chunk makes the vector.

        A1111: CLIP skip does not count, and T5 gets as many tokens as CLIP, its weights ignored.
        """
        device = self._encoders.small.text.device
        parts, pooled = zip(*(self._part(batch, asked) for batch in batches(texts, device)), strict=True)
        clip = torch.cat(parts, dim=1)
        return Encoded(torch.cat([clip, self._t5(texts, clip, asked)], dim=1), pooled[0])

    def _part(self, batch: Batch, asked: Asked) -> tuple[Tensor, Tensor]:
        """Context `[T, 77, width]` and vectors of one chunk of each text."""
        small, large = self._encoders.small, self._encoders.large
        ids = padded(batch.ids)
        first, second = hidden_states(small.text, batch.ids, ()), hidden_states(large.text, ids, ())
        context = torch.cat([first[-2].float(), second[-2].float()], dim=2)
        context = pad(emphasise(context, batch.weights, asked.emphasis), (0, self.width - context.shape[2]))
        vector = torch.cat([pooled(small, first[-1], batch.ids), pooled(large, second[-1], ids)], dim=1)
        return context, vector

    def _t5(self, texts: Sequence[Text], clip: Tensor, asked: Asked) -> Tensor:
        if self._load_t5 is None or not asked.t5:
            return torch.zeros_like(clip)
        if self._encoders.t5 is None:
            self._encoders.t5 = self._load_t5(clip.device)
        ids = [t5.framed([token for token, _ in self._tokenizer.weigh(text.pieces)], clip.shape[1]) for text in texts]
        return t5.encode(self._encoders.t5, ids).to(clip.device)


def pooled(clip: PooledClip, last: Tensor, ids: Tensor) -> Tensor:
    """One vector `[T, V]` of each text: the normalised last layer `[T, 77, width]` at the first end token."""
    first_end = (ids == EOS).int().argmax(dim=1)
    vector: Tensor = clip.text.final_layer_norm(last)[torch.arange(len(ids)), first_end]
    return (vector if clip.text_projection is None else clip.text_projection(vector)).float()

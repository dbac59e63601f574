"""FLUX.1 (Black Forest Labs 2024): how the networks are put together from a file, and from those beside it, at any
size; what they make of texts; and how the denoiser is run.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from darkroom.errors import BadModelFile
from darkroom.nets import t5
from darkroom.nets.assembly import CLIP_L, T5, PooledClip, autoencoder, get_place, read_clip, read_t5, read_vae
from darkroom.nets.checkpoint import UNET, Checkpoint
from darkroom.nets.config import ModelConfig
from darkroom.nets.flux_layout import flux_sizes, flux_source
from darkroom.nets.libraries import FluxTransformer2DModel, T5EncoderModel
from darkroom.nets.merging import Merging, text_places
from darkroom.nets.network import Network
from darkroom.nets.open_clip import hidden_states
from darkroom.nets.precision import text_dtype, wide_dtype
from darkroom.nets.sd3 import fitting, pooled
from darkroom.nets.sd3_layout import under
from darkroom.nets.text import Asked, Encoded, Text, batches, emphasise
from darkroom.nets.tokenizer import ClipTokenizer
from darkroom.nets.transformer_places import denoiser_places, t5_places

VAE = autoencoder("ae", "flux_vae", "flux-vae")

GUIDANCE = 3.5
"""What the guided one is told where nobody says how much of the prompt it should show."""

TOKENS = 512
TOKENS_OF_FAST = 256
"""T5's tokens of a text: the guided model was trained with more of them than the one that draws in four steps."""

PATCH = 2


def build(
    checkpoint: Checkpoint, config: ModelConfig, device: torch.device, dtype: torch.dtype, folders: Sequence[Path]
) -> Network:
    """Load all networks; every tensor of the file must have its place. Raises BadModelFile."""
    dtype = wide_dtype(dtype)
    # Before anything is read: people forget one of them.
    places = [get_place(kind, checkpoint, folders) for kind in (CLIP_L, T5, VAE)]
    try:
        denoiser = read_denoiser(checkpoint, device, dtype)
        clip = read_clip(checkpoint, places[0], device, text_dtype(dtype, device))
        vae = read_vae(checkpoint, places[2], config, device, dtype)
    except (KeyError, IndexError, ValueError) as error:
        raise BadModelFile(f"{checkpoint.path.name}: not laid out like FLUX.1: {error}") from error
    text = Encoders(clip, read_t5(checkpoint, places[1], device, dtype))
    checkpoint.refuse_leftovers()
    return Network(
        config=config,
        tokenizer=ClipTokenizer(),
        text_encoder=FluxText(text, length=TOKENS if denoiser.config.guidance_embeds else TOKENS_OF_FAST),
        unet_model=denoiser,
        run=denoise,
        vae_model=vae,
        text_adapters=Merging(text, text_places(clip.text, within="clip.text.") | t5_places(text.t5, "t5.")),
        unet_adapters=Merging(denoiser, denoiser_places(denoiser, flux_source(denoiser.config))),
    )


def read_denoiser(checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> FluxTransformer2DModel:
    """The denoiser. Raises BadModelFile, and KeyError or ValueError for another layout."""
    prefix = UNET if UNET + "img_in.weight" in checkpoint.shapes else ""
    sizes = flux_sizes(checkpoint.below(prefix))
    if sizes["in_channels"] != sizes["out_channels"]:
        # The variants for filling, depth and edges see something beside the latent.
        raise ValueError(f"it takes {sizes['in_channels']} channels and gives {sizes['out_channels']}")
    with torch.device("meta"):
        model = FluxTransformer2DModel(**sizes)
    checkpoint.fill(model, under(prefix, flux_source(sizes)), dtype, device)
    return model.requires_grad_(False).eval()


def denoise(
    model: FluxTransformer2DModel, x: Tensor, timesteps: Tensor, context: Tensor, vector: Tensor | None
) -> Tensor:
    """The velocity `[B, C, h, w]` float32, from the picture to the noise, for latents `[B, C, h, w]`.

    `timesteps` `[B]` are a thousandfold of the noise levels. `vector` is `[B, V + 1]`: behind the text as a whole there
    is how strongly it guides.
    """
    assert vector is not None, "FLUX.1 is told of the text as a whole too"
    like = model.proj_out.bias  # weights may be held in eight bits
    height, width = x.shape[-2:]
    whole = fitting(x, PATCH)
    size = whole.shape[-2] // PATCH, whole.shape[-1] // PATCH
    output: Tensor = model(
        hidden_states=packed(whole).to(like.device, like.dtype),
        timestep=timesteps.to(like.device, torch.float32) / 1000,
        guidance=vector[:, -1].to(like.device, torch.float32) if model.config.guidance_embeds else None,
        encoder_hidden_states=context.to(like.device, like.dtype),
        pooled_projections=vector[:, :-1].to(like.device, like.dtype),
        txt_ids=torch.zeros(context.shape[1], 3, device=like.device),
        img_ids=places_of(*size).to(like.device),
        return_dict=False,
    )[0]
    return unpacked(output, *size)[..., :height, :width].float()


def packed(x: Tensor) -> Tensor:
    """Latents `[B, C, 2h, 2w]` as tokens `[B, h * w, 4C]` of 2 x 2 places each."""
    batch, channels, height, width = x.shape
    patches = x.reshape(batch, channels, height // PATCH, PATCH, width // PATCH, PATCH)
    return patches.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, channels * PATCH**2)


def unpacked(tokens: Tensor, height: int, width: int) -> Tensor:
    """Undoes `packed` for `[B, height * width, 4C]`."""
    patches = tokens.reshape(len(tokens), height, width, -1, PATCH, PATCH)
    return patches.permute(0, 3, 1, 4, 2, 5).reshape(len(tokens), -1, height * PATCH, width * PATCH)


def places_of(height: int, width: int) -> Tensor:
    """Row and column of every token `[height * width, 3]`, behind a zero."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([torch.zeros_like(rows), rows, columns], dim=-1).reshape(-1, 3).float()


class Encoders(nn.Module):
    """CLIP's encoder and T5's."""

    def __init__(self, clip: PooledClip, large: T5EncoderModel) -> None:
        super().__init__()
        self.clip = clip
        self.t5 = large


class FluxText:
    """The conditioning of FLUX.1: T5's token vectors, and CLIP's vector of the whole text."""

    __slots__ = ("_encoders", "_length", "_tokenizer")

    def __init__(self, encoders: Encoders, *, length: int) -> None:
        """`length` is how many of T5's tokens there are of every text."""
        self._encoders = encoders
        self._length = length
        self._tokenizer = t5.T5Tokenizer()

    @property
    def module(self) -> Encoders:
        """Holds the weights."""
        return self._encoders

    @property
    def width(self) -> int:
        """Width of a token vector."""
        return int(self._encoders.t5.config.d_model)

    def encode(self, texts: Sequence[Text], asked: Asked) -> Encoded:
        """Context `[T, length, width]` and vector `[T, V + 1]`, float32; the last number is the strength of guidance.

        Longer texts are cut; CLIP reads their first chunk.
        """
        clip = self._encoders.clip
        first = next(batches(texts, clip.text.device))
        whole = pooled(clip, hidden_states(clip.text, first.ids, ())[-1], first.ids)
        strength = whole.new_tensor(asked.numbers or (GUIDANCE,)).expand(len(texts), -1)
        weighed = [list(self._tokenizer.weigh(text.pieces)) for text in texts]
        context = t5.encode(
            self._encoders.t5, [t5.framed([token for token, _ in one], self._length) for one in weighed]
        )
        weights = torch.ones(context.shape[:2], device=context.device)
        for row, one in zip(weights, weighed, strict=True):
            kept = [weight for _, weight in one[: self._length - 1]]
            row[: len(kept)] = row.new_tensor(kept)
        return Encoded(emphasise(context, weights, asked.emphasis), torch.cat([whole, strength], dim=1))

"""One loaded model as the engine sees it: text, latents and pictures in and out. Knows no file and no tensor's name."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from darkroom.errors import NotANumberError
from darkroom.nets import unet
from darkroom.nets.attention import attend_by
from darkroom.nets.compiled import Compiled
from darkroom.nets.compiling import Compiler
from darkroom.nets.config import ModelConfig, Prediction
from darkroom.nets.deep_cache import denoise_outside, inner_features
from darkroom.nets.hypernetworks import Hypernetwork, hypernetworks
from darkroom.nets.kernels import Kernels
from darkroom.nets.libraries import (
    AutoencoderKL,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    UNet2DConditionModel,
)
from darkroom.nets.merging import Merging, Share
from darkroom.nets.norms import normalise_by
from darkroom.nets.packing import multiply_by
from darkroom.nets.placement import Tier, Turns, let_blocks_take_turns, send_buffers
from darkroom.nets.rows import part_rows
from darkroom.nets.text import Asked, Encoded, Text, TextEncoder
from darkroom.nets.tokenizer import ClipTokenizer
from darkroom.nets.upsampling import bytes_beside
from darkroom.nets.vae import Vae, VaeUse
from darkroom.nets.variants import merged_tokens, tiled

Run = Callable[[Any, Tensor, Tensor, Tensor, Tensor | None], Tensor]
"""Applies a denoiser to x, timesteps, context and vector, see `Network.denoise`."""


Part = Literal["text", "denoiser"]
"""What adapters are merged into."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Variant:
    """How a checkpoint's networks are applied: with which adapters, which hypernetworks at which strength, and which
    autoencoder (None: its own); on pictures that tile or not. `token_merging` is the share 0..1 of tokens that are
    merged. With `check`, an answer that is not a number is an error.
    """

    unet: tuple[Share, ...] = ()
    text: tuple[Share, ...] = ()
    hypernetworks: tuple[tuple[Hypernetwork, float], ...] = ()
    vae: Vae | None = None
    vae_use: VaeUse = field(default_factory=VaeUse)
    tiling: bool = False
    token_merging: float = 0.0
    check: bool = True


class Network:
    """Text encoder, denoiser and autoencoder of one checkpoint. All methods run without gradients, batched, on
    `device`, and as the `variant` says that was set last.
    """

    __slots__ = (
        "__weakref__",
        "_compiled",
        "_has_rows_apart",
        "_kernels",
        "_run",
        "_text",
        "_text_adapters",
        "_tier",
        "_tokenizer",
        "_turns",
        "_unet",
        "_unet_adapters",
        "_unet_weighed",
        "_vae",
        "config",
        "dtype",
        "family",
        "variant",
    )  # fmt: skip

    def __init__(
        self,
        *,
        config: ModelConfig,
        tokenizer: ClipTokenizer,
        text_encoder: TextEncoder,
        unet_model: UNet2DConditionModel | SD3Transformer2DModel | FluxTransformer2DModel,
        run: Run = unet.denoise,
        vae_model: AutoencoderKL,
        text_adapters: Merging | None = None,
        unet_adapters: Merging | None = None,
    ) -> None:
        self.config = config
        self.dtype: torch.dtype = unet_model.dtype
        self._tokenizer = tokenizer
        self._text = text_encoder
        self._unet = unet_model
        self._run = run
        self._vae = Vae(vae_model, config.scale, config.shift)
        self._text_adapters = text_adapters or Merging(text_encoder.module, {})
        self._unet_adapters = unet_adapters or Merging(unet_model, {})
        self._unet_weighed: tuple[object, int] | None = None
        self._compiled: Compiled | None = None
        self._kernels = Kernels()
        self._has_rows_apart = False
        self._turns: Turns | None = None
        self._tier: Tier = "whole"
        self.family = ""
        self.variant = Variant()

    def place(self, turns: Turns, tier: Tier, text_dtype: torch.dtype) -> None:
        """From now on the networks, which are in main memory, take turns on a device as the tier says."""
        self._turns, self._tier = turns, tier
        if self.prediction != "flow":  # those have encoders that outgrow fp16
            self._text.module.to(text_dtype)
        for module in (self._text.module, self._unet, self._vae.module):
            if tier == "whole":
                module.to(turns.device)
            else:
                send_buffers(module, turns.device)
        if tier == "blocks":
            let_blocks_take_turns(self._unet, turns)

    def compute_by(self, kernels: Kernels) -> None:
        """From now on UNet and autoencoders compute by these kernels what is in bf16 on a processor."""
        self._kernels, self._has_rows_apart, self._unet_weighed = kernels, False, None
        attend_by(self._unet, kernels.attention)
        normalise_by(self._unet, kernels.norm)
        multiply_by(self._unet, kernels.product)

    def part_rows(self) -> None:
        """From now on the UNet answers every row apart, if it can: see `has_rows_apart`. For after `compute_by`."""
        is_on_processor = self.device.type == "cpu" and self.dtype == torch.bfloat16
        self._has_rows_apart = is_on_processor and part_rows(self._unet)

    @property
    def has_rows_apart(self) -> bool:
        """Whether the bytes of a row that `denoise` answers are the same in any company. Not true of variants with
        hypernetworks or merged tokens.
        """
        return self._has_rows_apart

    def compile_with(self, compiler: Compiler) -> None:
        """From now on a UNet and the checkpoint's own autoencoder answer by compiled passes where those are ready.

        Not for networks that take turns, or whose weights are held in eight bits.
        """
        if isinstance(self._unet, UNet2DConditionModel):
            self._compiled = Compiled(compiler, self._unet, unet.apply, "the UNet")
        self._vae.compile_with(compiler)

    def _use(self, module: nn.Module) -> None:
        """Have a network where it is to compute."""
        if self._turns is None or self._tier == "whole" or (self._tier == "blocks" and module is self._unet):
            return
        self._turns.take(module)

    @property
    def device(self) -> torch.device:
        """Where the networks compute."""
        # Asked at every evaluation: diffusers' own `device` walks through all modules.
        return self._turns.device if self._turns else next(self._unet.parameters()).device

    @property
    def scale(self) -> float:
        """Factor between the autoencoder's latent and the sampler's."""
        return self.config.scale

    @property
    def shift(self) -> float:
        """What is taken off the autoencoder's latent before it is scaled."""
        return self.config.shift

    @property
    def prediction(self) -> Prediction:
        """What `denoise` answers."""
        return self.config.prediction

    @property
    def linear_start(self) -> float:
        """First beta of the training schedule (linear in its square root)."""
        return self.config.linear_start

    @property
    def linear_end(self) -> float:
        """Last beta of the training schedule."""
        return self.config.linear_end

    @property
    def timesteps(self) -> int:
        """Length of the training schedule."""
        return self.config.timesteps

    @property
    def native_size(self) -> int:
        """Side in pixels that the model draws best."""
        return self.config.native_size

    @property
    def latent_channels(self) -> int:
        """Channels of a latent."""
        return int(self._vae.module.config.latent_channels)

    @property
    def image_channels(self) -> int:
        """Channels that a UNet sees beside the latent; 0 for most models."""
        if not isinstance(self._unet, UNet2DConditionModel):
            return 0
        return int(self._unet.config.in_channels) - self.latent_channels

    @property
    def vae(self) -> Vae:
        """The autoencoder in use."""
        return self.variant.vae or self._vae

    @property
    def nbytes(self) -> int:
        """Bytes of all weights as they are held now."""
        adapters = self._text_adapters.nbytes + self._unet_adapters.nbytes
        text = sum(weight.nbytes for weight in self._text.module.parameters())
        return text + self._unet_nbytes() + self._vae.nbytes + adapters

    def _unet_nbytes(self) -> int:
        """Asked at every evaluation, and a walk through all weights: adapters alone change it."""
        carried = self._unet_adapters.carried
        if self._unet_weighed is None or self._unet_weighed[0] != carried:
            weights = sum(weight.nbytes for weight in self._unet.parameters())
            self._unet_weighed = carried, weights + bytes_beside(self._unet)
        return self._unet_weighed[1]

    @property
    def text_width(self) -> int:
        """Width of the token vectors, all text encoders together."""
        return self._text.width

    @property
    def spellings(self) -> dict[str, int]:
        """The text encoder's tokens by how they are spelt."""
        return self._tokenizer.spellings

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a text without the special ones, and without truncation."""
        return self._tokenizer.tokenize(text)

    @torch.inference_mode()
    def merge(self, part: Part) -> None:
        """Have the variant's adapters in a part's weights now, instead of when it is used next."""
        if part == "text":
            self._use(self._text.module)
            self._text_adapters.carry(self.variant.text)
        else:
            self._use(self._unet)
            self._unet_adapters.carry(self.variant.unet)

    @torch.inference_mode()
    def encode_text(self, texts: Sequence[Text], asked: Asked | None = None) -> Encoded:
        """Conditioning `[T, 77 * n, width]` float32 of T texts of up to n chunks of 77 tokens, encoded together."""
        self.merge("text")
        return self._text.encode(texts, asked or Asked())

    @torch.inference_mode()
    def denoise(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor,
        vector: Tensor | None = None,
        *,
        features: Tensor | None = None,
    ) -> Tensor:
        """Raw network output `[B, C, h, w]` float32 for x `[B, C + C', h, w]`, timesteps `[B]`, context
        `[B, L, width]` and vector `[B, V]`, if it wants one.

        The last C' = `image_channels` of x are what an inpainting, depth or editing model sees beside the latent. With
        `features`, which `denoise_and_keep` gave, the inner layers are taken to have found those.
        """
        self.merge("denoiser")
        if features is None:
            answer = self._compiled_answer(x, timesteps, context, vector)
            if answer is not None:
                return answer
        with self._variations(x):
            if features is not None:
                return denoise_outside(self._unet, features, x, timesteps, context, vector)
            return self._run(self._unet, x, timesteps, context, vector)

    def _compiled_answer(self, x: Tensor, timesteps: Tensor, context: Tensor, vector: Tensor | None) -> Tensor | None:
        """A compiled pass's answer; None if there is none, or if the variant is more than other weights."""
        variant = self.variant
        if self._compiled is None or variant.tiling or variant.hypernetworks or variant.token_merging:
            return None
        given = unet.inputs(self._unet, x, timesteps, context, vector)
        answer = self._compiled.find_answer(*(one for one in given if one is not None))
        return None if answer is None else answer.float()

    @torch.inference_mode()
    def denoise_and_keep(
        self, x: Tensor, timesteps: Tensor, context: Tensor, vector: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """The same, and what the inner layers found: `[B, C'', h, w]` in the network's format; None for networks that
        have no inner layers that could be skipped.
        """
        if not isinstance(self._unet, UNet2DConditionModel) or self._tier == "blocks":
            return self.denoise(x, timesteps, context, vector), None
        self.merge("denoiser")
        with inner_features(self._unet) as found, self._variations(x):
            answer = self._run(self._unet, x, timesteps, context, vector)
        return answer, found[0]

    @contextmanager
    def _variations(self, x: Tensor) -> Iterator[None]:
        """A UNet runs as the variant says that was set last."""
        with ExitStack() as ways:
            if isinstance(self._unet, UNet2DConditionModel):
                if self.variant.tiling:
                    ways.enter_context(tiled(self._unet))
                if self.variant.hypernetworks:
                    ways.enter_context(hypernetworks(self._unet, self.variant.hypernetworks))
                if self.variant.token_merging:
                    size = x.shape[-2], x.shape[-1]
                    ways.enter_context(merged_tokens(self._unet, self.variant.token_merging, size))
            yield

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> Tensor:
        """Pictures `[B, 3, H, W]` float32, about -1..1, of scaled latents `[B, C, H/8, W/8]`. Raises
        NotANumberError.
        """
        if self.variant.check and bool(latents.isnan().any()):
            raise NotANumberError("the UNet", self.dtype)
        return self._ready_vae().decode(latents, self.variant.vae_use)

    @torch.inference_mode()
    def encode_image(self, images: Tensor) -> Tensor:
        """Scaled latents `[B, C, H/8, W/8]` float32 of pictures `[B, 3, H, W]` in -1..1 (the posterior's mean)."""
        return self._ready_vae().encode(images, self.variant.vae_use)

    def _ready_vae(self) -> Vae:
        """The autoencoder in use, where it is to compute and by the kernels that it is to compute by."""
        self._use(self.vae.module)
        self.vae.compute_by(self._kernels)
        return self.vae

"""One loaded model as the engine sees it: text, latents and pictures in and out. Knows no file and no tensor's name."""

from collections.abc import Sequence

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel

from darkroom.nets import text, unet
from darkroom.nets.config import ModelConfig, Prediction
from darkroom.nets.vae import Vae

# RGB per channel of a scaled latent ("approx cheap"); measured on the autoencoder that has this scale.
_SD1_SCALE = 0.18215
_SD1_RGB = (
    (0.298, 0.207, 0.208),
    (0.187, 0.286, 0.173),
    (-0.158, 0.189, 0.264),
    (-0.184, -0.271, -0.473),
)


class Network:
    """Text encoder, UNet and autoencoder of one checkpoint. All methods run without gradients, batched, on `device`."""

    __slots__ = ("__weakref__", "_text", "_tokenizer", "_unet", "_vae", "config", "dtype")

    def __init__(
        self,
        *,
        config: ModelConfig,
        tokenizer: text.ClipTokenizer,
        text_model: CLIPTextModel,
        unet_model: UNet2DConditionModel,
        vae_model: AutoencoderKL,
    ) -> None:
        self.config = config
        self.dtype: torch.dtype = unet_model.dtype
        self._tokenizer = tokenizer
        self._text = text_model
        self._unet = unet_model
        self._vae = Vae(vae_model, config.scale)

    @property
    def device(self) -> torch.device:
        """Where the networks live."""
        device: torch.device = self._unet.device
        return device

    @property
    def scale(self) -> float:
        """Factor between the autoencoder's latent and the sampler's."""
        return self.config.scale

    @property
    def prediction(self) -> Prediction:
        """What `denoise` answers: the noise, or v."""
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
    def latent_rgb(self) -> Tensor | None:
        """Rough colours `[4, 3]` of a latent (channels last, times this: -1..1); None where they do not fit."""
        if self.scale != _SD1_SCALE or self.latent_channels != len(_SD1_RGB):
            return None
        return torch.tensor(_SD1_RGB, device=self.device)

    @property
    def nbytes(self) -> int:
        """Bytes of all weights as they are held now."""
        modules: tuple[nn.Module, ...] = (self._text, self._unet, self._vae.module)
        return sum(weight.nbytes for module in modules for weight in module.parameters())

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a text without the special ones, and without truncation."""
        return self._tokenizer.tokenize(text)

    @torch.inference_mode()
    def encode_text(
        self,
        tokens: Sequence[text.Chunks],
        weights: Sequence[text.Weights],
        *,
        clip_skip: int = 1,
        emphasis: text.Emphasis = "Original",
    ) -> Tensor:
        """Conditioning `[T, 77 * n, width]` float32 of T texts of up to n chunks of 77 tokens; see `text.encode`."""
        return text.encode(self._text, tokens, weights, clip_skip=clip_skip, emphasis=emphasis)

    @torch.inference_mode()
    def denoise(self, x: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
        """Raw network output `[B, C, h, w]` float32 for x `[B, C, h, w]`, timesteps `[B]`, context `[B, L, width]`."""
        return unet.denoise(self._unet, x, timesteps, context)

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> Tensor:
        """Pictures `[B, 3, H, W]` float32, about -1..1, of scaled latents `[B, C, H/8, W/8]`."""
        return self._vae.decode(latents)

    @torch.inference_mode()
    def encode_image(self, images: Tensor) -> Tensor:
        """Scaled latents `[B, C, H/8, W/8]` float32 of pictures `[B, 3, H, W]` in -1..1 (the posterior's mean)."""
        return self._vae.encode(images)

"""A minimal way from captions to pictures, for the sample sheets of a training: encode, Euler steps, decode.

Knows the three networks as diffusers and transformers have them, half trained, outside any file. Everything else is
drawn by the server's engine, with far more care.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from darkroom.mini import loop, tokenizer
from darkroom.mini.export import TEXT_PREFIX
from darkroom.mini.networks import NATIVE_SIZE, alphas_cumprod, build_text, build_unet, build_vae
from darkroom.mini.norms import quicken_group_norms
from darkroom.mini.vae_stage import to_pictures
from darkroom.nets.libraries import AutoencoderKL, CLIPTextModel


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawRequest:
    """One picture that is asked for."""

    prompt: str
    negative: str = ""
    seed: int = 0
    pixels: int = NATIVE_SIZE
    steps: int = 20
    cfg: float = 5.0


Draw = Callable[[Sequence[DrawRequest]], list[Image.Image]]
"""One picture for each request."""

Repaint = Callable[[Image.Image, Image.Image, DrawRequest], Image.Image]
"""From a picture, a mask and a request: the picture drawn anew where the mask is white."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Networks:
    """The trained networks, ready to draw."""

    text: CLIPTextModel
    unet: torch.nn.Module
    vae: AutoencoderKL
    device: torch.device


def sigmas_for(steps: int) -> Tensor:
    """Uniform timesteps as k-diffusion's `get_sigmas` has them (Karras et al. 2022, arXiv:2206.00364), then 0."""
    alphas = alphas_cumprod().double()
    table = ((1 - alphas) / alphas).sqrt()
    times = torch.linspace(len(table) - 1, 0, steps, dtype=torch.float64)
    low = times.floor().long()
    high = (low + 1).clamp_max(len(table) - 1)
    logs = table.log()
    sigmas = (logs[low] + (times - low) * (logs[high] - logs[low])).exp()
    return torch.cat([sigmas, sigmas.new_zeros(1)]).float()


def time_of(sigma: float) -> float:
    """The timestep of a noise level, interpolated in log sigma."""
    alphas = alphas_cumprod().double()
    logs = ((1 - alphas) / alphas).sqrt().log().numpy()
    return float(np.interp(np.log(sigma), logs, np.arange(len(logs))))


def predict_noise(networks: Networks, x: Tensor, sigma: float, states: Tensor, cfg: Tensor) -> Tensor:
    """Classifier-free guidance (Ho and Salimans 2022, arXiv:2207.12598); `states` holds negatives, then prompts."""
    scaled = (x / (sigma**2 + 1) ** 0.5).repeat(2, 1, 1, 1).contiguous(memory_format=torch.channels_last)
    times = torch.full((len(scaled),), time_of(sigma), device=x.device)
    with loop.autocast(x.device):
        both = networks.unet(scaled, times, encoder_hidden_states=states, return_dict=False)[0].float()
    without, with_prompt = both.chunk(2)
    guided: Tensor = without + cfg * (with_prompt - without)
    return guided


@torch.inference_mode()
def draw_batch(networks: Networks, requests: Sequence[DrawRequest]) -> list[Image.Image]:
    """Draws requests that share size and steps."""
    device, first = networks.device, requests[0]
    captions = [r.negative for r in requests] + [r.prompt for r in requests]
    tokens = torch.tensor(tokenizer.encode(captions), device=device)
    with loop.autocast(device):
        states = networks.text(input_ids=tokens).last_hidden_state
    side = first.pixels // 8
    noise = torch.stack([torch.randn(4, side, side, generator=torch.Generator().manual_seed(r.seed)) for r in requests])
    noise = noise.to(device)
    cfg = torch.tensor([r.cfg for r in requests], device=device).view(-1, 1, 1, 1)
    sigmas = sigmas_for(first.steps).tolist()
    x = noise * sigmas[0]
    for sigma, following in pairwise(sigmas):
        eps = predict_noise(networks, x, sigma, states, cfg)
        x = x + eps * (following - sigma)
    with loop.autocast(device):
        drawn = networks.vae.decode(x.contiguous(memory_format=torch.channels_last)).sample
    return [Image.fromarray(picture) for picture in to_pictures(drawn)]


def drawer(networks: Networks, batch: int = 25) -> Draw:
    """A `Draw` on these networks; requests that follow each other with the same size and steps share a batch."""

    def draw(requests: Sequence[DrawRequest]) -> list[Image.Image]:
        pictures: list[Image.Image] = []
        group: list[DrawRequest] = []
        for request in requests:
            same = group and (request.pixels, request.steps) == (group[0].pixels, group[0].steps)
            if group and (not same or len(group) >= max(1, batch * NATIVE_SIZE**2 // request.pixels**2)):
                pictures += draw_batch(networks, group)
                group = []
            group.append(request)
        return pictures + (draw_batch(networks, group) if group else [])

    return draw


def load_networks(path: Path, device: torch.device) -> Networks:
    """Reads the shipped weights file back through diffusers' converters."""
    tensors = {name: tensor.float() for name, tensor in load_file(path).items()}
    text, unet, vae = build_text(), build_unet(), build_vae()
    # Late: it may be imported only after darkroom.nets.libraries.
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint

    unet.load_state_dict(convert_ldm_unet_checkpoint(dict(tensors), dict(unet.config)))
    vae.load_state_dict(convert_ldm_vae_checkpoint(dict(tensors), dict(vae.config)))
    text.load_state_dict({n.removeprefix(TEXT_PREFIX): t for n, t in tensors.items() if n.startswith(TEXT_PREFIX)})
    moved = [network.to(device).eval().requires_grad_(False) for network in (text, unet, vae)]
    for network in moved[1:]:
        network.to(memory_format=torch.channels_last)
        quicken_group_norms(network)
    return Networks(text=text, unet=unet, vae=vae, device=device)


def grid(pictures: Sequence[Image.Image], columns: int, cell: int | None = None) -> Image.Image:
    """The pictures in rows."""
    side = cell or pictures[0].width
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * side, rows * side), "white")
    for number, picture in enumerate(pictures):
        scaled = picture if picture.width == side else picture.resize((side, side), Image.Resampling.LANCZOS)
        sheet.paste(scaled, (number % columns * side, number // columns * side))
    return sheet

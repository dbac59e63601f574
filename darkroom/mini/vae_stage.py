"""Trains the autoencoder: emoji pictures to latents [B, 4, H/8, W/8] and back.

Knows pictures and the autoencoder; nothing of captions or diffusion. It learns mostly on 64x64 crops, a quarter of the
cost of a frame, and partly on whole frames, because group normalisation sees the whole picture at once.
"""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from darkroom.mini import loop
from darkroom.mini.dataset import Glyph, Picture, make_scene, random_crop, render
from darkroom.mini.networks import VAE_CHANNELS, build_vae
from darkroom.mini.norms import quicken_group_norms
from darkroom.nets.libraries import AutoencoderKL

KL_WEIGHT = 1e-5
EDGE_WEIGHT = 0.5
COLOUR_WEIGHT = 1.0
DECODER_NOISE = 0.2
# The posterior begins narrow: with a wide one most latent channels are drowned in noise and are slow to be used.
LOG_VARIANCE = -5.0


def build(channels: Sequence[int] = VAE_CHANNELS) -> AutoencoderKL:
    """The autoencoder, ready to learn."""
    vae = build_vae(channels)
    with torch.no_grad():
        vae.quant_conv.bias[4:] = LOG_VARIANCE
        vae.quant_conv.weight[4:] *= 0.1
    quicken_group_norms(vae)
    return vae


def to_tensor(pictures: Sequence[Picture]) -> Tensor:
    """uint8 [H, W, 3] pictures as [B, 3, H, W] in -1..1, channels last in memory."""
    stacked = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
    return stacked.float().div(127.5).sub(1).contiguous(memory_format=torch.channels_last)


def to_pictures(images: Tensor) -> list[Picture]:
    """The way back."""
    scaled = images.detach().float().cpu().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)
    return list(scaled.permute(0, 2, 3, 1).contiguous().numpy())


def make_batch(glyphs: Sequence[Glyph], seed: int, step: int, worker: int = 0, size: int = 8) -> Tensor:
    """Crops of 64 mostly; whole frames of 128 in three steps of eight; sometimes one of 256."""
    rng = loop.step_rng(seed, step, worker)
    if step % 32 == 31:
        shapes = [(256, 256)] * max(1, size // 16)
    elif step % 8 >= 5:
        shapes = [(128, 128)] * max(1, size // 4)
    else:
        frames = rng.choice((128, 192, 256, 448), p=(0.6, 0.15, 0.15, 0.1), size=size)
        shapes = [(int(frame), 64) for frame in frames]
    pictures = []
    for frame, crop in shapes:
        scene = make_scene(rng, glyphs, int(rng.integers(len(glyphs))))
        pictures.append(random_crop(rng, render(scene, glyphs, frame), crop))
    return to_tensor(pictures)


def edges(images: Tensor) -> tuple[Tensor, Tensor]:
    """Differences between neighbours, across and down."""
    return images[..., 1:] - images[..., :-1], images[..., 1:, :] - images[..., :-1, :]


def opponent(images: Tensor) -> Tensor:
    """Brightness and the two colour differences, red - green and blue - yellow, weighted to be of one size in emoji."""
    red, green, blue = images.unbind(1)
    return torch.stack([0.5 * (red + green + blue), 2 * (red - green), 1.5 * (blue - (red + green) / 2)], dim=1)


def colour_distance(drawn: Tensor, wanted: Tensor, scale: int) -> Tensor:
    """The mean distance of pooled colours."""
    return functional.avg_pool2d(opponent(drawn - wanted), scale).abs().mean()


def reconstruction_loss(drawn: Tensor, wanted: Tensor) -> Tensor:
    """Absolute and squared error, that of the edges at two scales (outlines) and of pooled colour."""
    loss = (drawn - wanted).abs().mean() + (drawn - wanted).square().mean()
    for scale in (1, 2):
        small = (functional.avg_pool2d(t, scale) if scale > 1 else t for t in (drawn, wanted))
        pairs = zip(*(edges(t) for t in small), strict=True)
        loss = loss + EDGE_WEIGHT / scale * torch.stack([(a - b).abs().mean() for a, b in pairs]).sum()
    return loss + COLOUR_WEIGHT * (colour_distance(drawn, wanted, 2) + colour_distance(drawn, wanted, 8))


def colour_loss(latents: Tensor, images: Tensor) -> Tensor:
    """How badly the mean colour of each 8x8 block follows linearly from its latent.

    The best linear map of the batch is found on the spot. Without this the network spends its first thousands of steps
    with one colour axis, for group normalisation hides flat colour from it.
    """
    rows = latents.permute(0, 2, 3, 1).reshape(-1, latents.shape[1])
    rows = torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1)
    wanted = functional.avg_pool2d(opponent(images), 8).permute(0, 2, 3, 1).reshape(-1, 3)
    with torch.no_grad():
        gram = rows.T @ rows / len(rows) + 1e-4 * torch.eye(rows.shape[1], device=rows.device)
        mapping = torch.linalg.solve(gram, rows.T @ wanted / len(rows))
    distance: Tensor = (rows @ mapping - wanted).abs().mean()
    return distance


def vae_loss(vae: AutoencoderKL, images: Tensor, noise: torch.Generator, progress: float = 1.0) -> Tensor:
    """Reconstruction plus a small pull of the posterior towards the unit normal; early on, colour first."""
    with loop.autocast(images.device):
        moments = vae.quant_conv(vae.encoder(images)).float()
        mean, log_var = moments.chunk(2, dim=1)
        log_var = log_var.clamp(-30, 20)
        sample = torch.randn(mean.shape, generator=noise).to(mean.device)
        drawn = vae.decode(mean + torch.exp(0.5 * log_var) * sample).sample
    kl = 0.5 * (mean.square() + log_var.exp() - 1 - log_var).mean()
    loss: Tensor = reconstruction_loss(drawn.float(), images) + KL_WEIGHT * kl
    early = max(0.0, 1 - progress / 0.7)
    return loss + 2 * early * colour_loss(mean, images) if early > 0 else loss


@torch.no_grad()
def sheet(vae: AutoencoderKL, glyphs: Sequence[Glyph], path: str, device: torch.device) -> None:
    """Originals above their reconstructions."""
    rng = np.random.default_rng(7)
    rows = []
    for _ in range(3):
        chosen = rng.integers(len(glyphs), size=10)
        images = to_tensor([render(make_scene(rng, glyphs, int(i)), glyphs, 128) for i in chosen]).to(device)
        with loop.autocast(device):
            drawn = vae.decode(vae.encode(images).latent_dist.mode()).sample
        rows += [np.concatenate(to_pictures(images), axis=1), np.concatenate(to_pictures(drawn), axis=1)]
    Image.fromarray(np.concatenate(rows)).save(path)


def train(glyphs: Sequence[Glyph], plan: loop.Plan, device: torch.device, resume: bool) -> AutoencoderKL:
    """Runs the stage and answers the averaged autoencoder."""
    torch.manual_seed(plan.seed)
    vae = build().to(device, memory_format=torch.channels_last)
    state = loop.new_state(vae, plan)
    if resume:
        loop.restore(state, plan)

    def loss_of(step: int, images: Tensor, progress: float) -> tuple[Tensor, int]:
        noise = loop.torch_rng(plan.seed, step, 1000 + loop.rank())
        return vae_loss(vae, images.to(device), noise, progress), len(images)

    def draw_sheet(state: loop.State) -> None:
        sheet(state.average, glyphs, str(plan.out / f"vae-{state.step:06d}.png"), device)

    mine = loop.rank()
    loop.run(state, plan, lambda step: make_batch(glyphs, plan.seed, step, mine), loss_of, draw_sheet)
    if mine == 0:
        draw_sheet(state)
    return state.average


def sampler_errors(shape: tuple[int, ...], rng: torch.Generator) -> Tensor:
    """Noise such as a sampler leaves in latents [B, 4, S, S]: up to `DECODER_NOISE`, another level for each picture."""
    level = DECODER_NOISE * torch.rand((shape[0], 1, 1, 1), generator=rng)
    return level * torch.randn(shape, generator=rng)


def frame_batch(glyphs: Sequence[Glyph], seed: int, step: int, worker: int) -> Tensor:
    """Whole frames, of 128 mostly: what the finished decoder will be asked for."""
    rng = loop.step_rng(seed, step, 50 + worker)
    count, pixels = (1, 256) if step % 4 == 3 else (3, 128)
    scenes = [make_scene(rng, glyphs, int(rng.integers(len(glyphs)))) for _ in range(count)]
    return to_tensor([render(scene, glyphs, pixels) for scene in scenes])


def decoder_loss(vae: AutoencoderKL, images: Tensor, noise: Tensor) -> Tensor:
    """Reconstruction from latents that are a little off, as a sampler's are."""
    with loop.autocast(images.device):
        with torch.no_grad():
            latents = vae.encode(images).latent_dist.mode().float()
        drawn = vae.decode(latents + noise.to(latents.device)).sample
    return reconstruction_loss(drawn.float(), images)


def train_decoder(
    vae: AutoencoderKL, glyphs: Sequence[Glyph], plan: loop.Plan, device: torch.device, resume: bool
) -> AutoencoderKL:
    """Sharpens the decoder while the latent space stays, so it can follow the diffusion training."""
    vae.requires_grad_(True)
    for fixed in (vae.encoder, vae.quant_conv):
        fixed.requires_grad_(False)
    quicken_group_norms(vae)
    state = loop.new_state(vae, plan)
    if resume:
        loop.restore(state, plan)
    mine = loop.rank()

    def loss_of(step: int, images: Tensor, _progress: float) -> tuple[Tensor, int]:
        side = images.shape[-1] // 8
        noise = sampler_errors((len(images), 4, side, side), loop.torch_rng(plan.seed, step, 60 + mine))
        return decoder_loss(vae, images.to(device), noise), len(images)

    loop.run(state, plan, lambda step: frame_batch(glyphs, plan.seed, step, mine), loss_of)
    if mine == 0:
        sheet(state.average, glyphs, str(plan.out / f"decoder-{state.step:06d}.png"), device)
    return state.average

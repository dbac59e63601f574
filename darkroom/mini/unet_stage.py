"""Trains the UNet and the text transformer together: predict the noise in a cached latent from its caption.

Knows latents, tokens and the noise schedule. Knows nothing of pictures, except that `draw` can make some.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor
from transformers import CLIPTextModel

from darkroom.mini import loop
from darkroom.mini.latents import Views
from darkroom.mini.networks import TIMESTEPS, TextAndUnet, alphas_cumprod, build_unet
from darkroom.mini.norms import quicken_group_norms

DROP_CAPTION = 0.1
SNR_GAMMA = 5.0
# Gives errors of the picture a weight at high noise too. There the caption alone decides, and noise prediction counts
# an error of the picture by its SNR, next to nothing: right colours then come long before right shapes.
SNR_FLOOR = 0.2
# So many rows are swapped for plain ones, single objects on white, which the views hold at about 70 %.
PLAIN_SHARE = 0.35
# Where a sampler starts, from noise with no trace of a picture.
PURE_NOISE_FROM = 960
PURE_NOISE_SHARE = 0.4

Batch = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]  # latents, tokens, timesteps, noise, pure


def draw_timesteps(size: int, rng: torch.Generator) -> Tensor:
    """Half uniform, half above 350: what a picture shows is decided at mid and high noise."""
    low = torch.where(torch.rand(size, generator=rng) < 0.5, 0, 350)
    return low + (torch.rand(size, generator=rng) * (TIMESTEPS - low)).long()


def plain_rows(views: Views, rows: Tensor) -> Tensor:
    """For each row one of a single, untinted object on white: itself, or the next such row."""
    plain = (views.labels[:, 1:] == -1).all(dim=1).nonzero().flatten()
    return plain[torch.searchsorted(plain, rows).clamp_max(len(plain) - 1)]


def make_batch(views: Views, empty: Tensor, seed: int, step: int, size: int, worker: int) -> Batch:
    """Random views, a caption each or none, timesteps and noise."""
    rng = loop.torch_rng(seed, step, 700 + worker)
    rows = torch.randint(len(views), (size,), generator=rng)
    rows = torch.where(torch.rand(size, generator=rng) < PLAIN_SHARE, plain_rows(views, rows), rows)
    which = torch.randint(views.tokens.shape[1], (size,), generator=rng)
    dropped = torch.rand(size, generator=rng) < DROP_CAPTION
    tokens = torch.where(dropped[:, None], empty, views.tokens[rows, which]).long()
    latents = views.latents[rows].float()
    times = draw_timesteps(size, rng)
    noise = torch.randn(latents.shape, generator=rng)
    pure = (times >= PURE_NOISE_FROM) & (torch.rand(size, generator=rng) < PURE_NOISE_SHARE)
    return latents, tokens, times, noise, pure


def noisy(latents: Tensor, noise: Tensor, times: Tensor, pure: Tensor, alphas: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The noisy latent, what must be predicted and the weight of the row.

    A few rows at the noisy end get noise alone: sampling starts there, whereas this schedule's last latent still holds
    7 % of the picture (Lin et al. 2023, arXiv:2305.08891). Their target is the noise that would give the picture from
    it. Weights are min-SNR (Hang et al. 2023, arXiv:2303.09556, for noise prediction), plus a floor.
    """
    signal = alphas[times].sqrt()[:, None, None, None]
    sigma = (1 - alphas[times]).sqrt()[:, None, None, None]
    blank = pure[:, None, None, None]
    mixed = torch.where(blank, noise, signal * latents + sigma * noise)
    target = (mixed - signal * latents) / sigma
    snr = (signal / sigma).square().flatten()
    return mixed, target, (snr.clamp_max(SNR_GAMMA) + SNR_FLOOR) / snr


def noise_loss(model: TextAndUnet, batch: Batch, alphas: Tensor) -> Tensor:
    """The weighted error of the predicted noise."""
    latents, tokens, times, noise, pure = batch
    mixed, target, weight = noisy(latents, noise, times, pure, alphas)
    mixed = mixed.contiguous(memory_format=torch.channels_last)
    with loop.autocast(mixed.device):
        states = model.text(input_ids=tokens).last_hidden_state
        predicted = model.unet(mixed, times, encoder_hidden_states=states, return_dict=False)[0]
    errors = (predicted.float() - target).square().mean(dim=(1, 2, 3))
    loss: Tensor = (errors * weight).mean()
    return loss


def build(text: CLIPTextModel) -> TextAndUnet:
    """The networks of this stage, the UNet untrained."""
    unet = build_unet()
    quicken_group_norms(unet)
    # On CPU the fused kernel's backward pass costs more than plain matrix products at these sizes.
    unet.set_attn_processor(AttnProcessor())
    return TextAndUnet(text, unet)


def choose_views(views: Sequence[Views], shares: Sequence[float], seed: int, step: int, progress: float) -> int:
    """Which frame size a step trains on: the native one until `LATE`, then by the shares."""
    if len(views) == 1 or progress < LATE:
        return 0
    wanted = np.asarray(shares) / sum(shares)
    return int(loop.step_rng(seed, step, 9).choice(len(views), p=wanted))


LATE = 0.8
# Captions are short; three steps of four leave out most of the padding, which costs a tenth of the time.
SHORT = 32
SIZE_SHARES = (0.6, 0.22, 0.18)  # of the late steps, at 128, 256 and 512


def train(
    model: TextAndUnet,
    views: Sequence[Views],
    empty: Tensor,
    plan: loop.Plan,
    device: torch.device,
    resume: bool,
    size: int,
    draw_sheet: Callable[[loop.State], None] | None = None,
) -> TextAndUnet:
    """Runs the stage on views of rising frame size (the native one first) and answers the averaged networks."""
    torch.manual_seed(plan.seed)
    model = model.to(device)
    model.unet.to(memory_format=torch.channels_last)
    state = loop.new_state(model, plan)
    if resume:
        loop.restore(state, plan)
    alphas = alphas_cumprod().to(device)
    native = views[0].latents.shape[-1]

    def batch_of(step: int) -> Batch:
        # The batch is prepared ahead of its step, so the size is chosen by the progress of now.
        progress = plan.budget.progress(step, state.elapsed_s)
        chosen = views[choose_views(views, SIZE_SHARES[: len(views)], plan.seed, step, progress)]
        rows = max(1, size * native**2 // chosen.latents.shape[-1] ** 2)
        return make_batch(chosen, empty, plan.seed, step, rows, loop.rank())

    def loss_of(step: int, batch: Batch, progress: float) -> tuple[Tensor, int]:
        latents, tokens, times, noise, pure = (part.to(device) for part in batch)
        seen = tokens if step % 4 == 0 or progress >= LATE else tokens[:, :SHORT].contiguous()
        return noise_loss(model, (latents, seen, times, noise, pure), alphas), len(tokens)

    loop.run(state, plan, batch_of, loss_of, draw_sheet)
    average = state.average
    assert isinstance(average, TextAndUnet)
    return average

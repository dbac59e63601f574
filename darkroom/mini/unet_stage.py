"""Trains the UNet and the text transformer together: predict the noise in a cached latent from its caption.

Knows latents, tokens and the noise schedule. Knows nothing of pictures, except that `draw` can make some.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from darkroom.mini import loop
from darkroom.mini.dataset import KIND_SHARES
from darkroom.mini.latents import Views
from darkroom.mini.networks import LATENT_SIZE, TIMESTEPS, TextAndUnet, alphas_cumprod, build_unet
from darkroom.mini.norms import quicken_group_norms
from darkroom.nets.libraries import AttnProcessor, CLIPTextModel

DROP_CAPTION = 0.1
SNR_GAMMA = 5.0
# Gives errors of the picture a weight at high noise too. There the caption alone decides, and noise prediction counts
# an error of the picture by its SNR, next to nothing: right colours then come long before right shapes.
SNR_FLOOR = 0.2
# Where a sampler starts, from noise with no trace of a picture.
PURE_NOISE_FROM = 960
PURE_NOISE_SHARE = 0.6
# Large frames are trained below this timestep alone.
REFINED_BELOW = 500

Batch = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]  # latents, tokens, timesteps, noise, pure


def draw_timesteps(size: int, side: int, rng: torch.Generator) -> Tensor:
    """Half uniform, half from 350 up: what a picture shows is decided at mid and high noise.

    Frames of more latents on a side than the native ones are trained at low noise alone, where a second pass refines
    an enlarged picture. Laying out large frames is beyond a network of two levels: trying cost the native size much and
    gave no clean object.
    """
    if side > LATENT_SIZE:
        return (torch.rand(size, generator=rng) * REFINED_BELOW).long()
    low = torch.where(torch.rand(size, generator=rng) < 0.5, 0, 350)
    return low + (torch.rand(size, generator=rng) * (TIMESTEPS - low)).long()


def draw_rows(views: Views, size: int, rng: torch.Generator) -> Tensor:
    """Rows of the views, the kinds by their shares."""
    kinds = views.labels[:, -1].long()
    shares = torch.tensor(tuple(KIND_SHARES.values()))
    counts = torch.bincount(kinds, minlength=len(shares))
    chosen = torch.multinomial(torch.where(counts > 0, shares, 0.0), size, replacement=True, generator=rng)
    starts = counts.cumsum(0) - counts
    within = (torch.rand(size, generator=rng, dtype=torch.float64) * counts[chosen]).long()
    return kinds.argsort(stable=True)[starts[chosen] + within]


def make_batch(views: Views, empty: Tensor, seed: int, step: int, size: int, worker: int) -> Batch:
    """Random views, a caption each or none, timesteps and noise."""
    rng = loop.torch_rng(seed, step, 700 + worker)
    rows = draw_rows(views, size, rng)
    which = torch.randint(views.tokens.shape[1], (size,), generator=rng)
    dropped = torch.rand(size, generator=rng) < DROP_CAPTION
    tokens = torch.where(dropped[:, None], empty, views.tokens[rows, which]).long()
    latents = views.latents[rows].float()
    times = draw_timesteps(size, latents.shape[-1], rng)
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
    """Which frame size a process trains on in a step: the native one until `LATE`, then by the shares.

    The processes choose for themselves, so that most steps hold many native rows beside the few large ones.
    """
    if len(views) == 1 or progress < LATE:
        return 0
    wanted = np.asarray(shares) / sum(shares)
    return int(loop.step_rng(seed, step, 9 + loop.rank()).choice(len(views), p=wanted))


LATE = 0.5
SIZE_SHARES = (0.93, 0.03, 0.04)  # of the late steps, at 128, 256 and 512
# Captions are short; until the end, three steps of four leave out most of the padding, a tenth of the time.
SHORT = 32
SHORT_UNTIL = 0.85


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
        seen = tokens if step % 4 == 0 or progress >= SHORT_UNTIL else tokens[:, :SHORT].contiguous()
        return noise_loss(model, (latents, seen, times, noise, pure), alphas), len(tokens)

    loop.run(state, plan, batch_of, loss_of, draw_sheet)
    average = state.average
    assert isinstance(average, TextAndUnet)
    return average

"""Gives the text transformer a start: from its last state it must tell what the picture will be.

The heads (object, colour, background, a coarse latent) are thrown away afterwards. Knows tokens and cached views;
nothing of diffusion. Costs minutes and saves the cross attention most of its first hour.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from darkroom.mini import loop
from darkroom.mini.dataset import BACKGROUNDS, TINTS
from darkroom.mini.latents import Views
from darkroom.mini.networks import TEXT_WIDTH, build_text
from darkroom.nets.libraries import CLIPTextModel

# Attention is causal, so the state at the end token does not depend on the padding behind it.
SHORT = 32
EMBEDDING = "embeddings.token_embedding.weight"


class TextWithHeads(nn.Module):
    """The transformer and its throw-away heads."""

    def __init__(self, text: CLIPTextModel, glyphs: int, latent: int) -> None:
        super().__init__()
        self.text = text
        self.glyph = nn.Linear(TEXT_WIDTH, glyphs)
        self.tint = nn.Linear(TEXT_WIDTH, len(TINTS) + 1)
        self.background = nn.Linear(TEXT_WIDTH, len(BACKGROUNDS) + 1)
        self.picture = nn.Sequential(nn.Linear(TEXT_WIDTH, 512), nn.SiLU(), nn.Linear(512, latent))


def used_tokens(tokens: Tensor, empty: Tensor) -> Tensor:
    """The token ids that captions use, ascending; the end token, the highest of all, is the last."""
    every = torch.cat([tokens.flatten(), empty.flatten().to(tokens.dtype)])
    used: Tensor = torch.unique(every).long()
    return used


def compact(text: CLIPTextModel, used: Tensor) -> CLIPTextModel:
    """The transformer with the embeddings of the used tokens alone: the other 19 in 20 would only be carried along."""
    small = build_text(text.config.num_hidden_layers, len(used))
    state = text.state_dict()
    small.load_state_dict(state | {EMBEDDING: state[EMBEDDING][used]})
    return small


def expand(small: CLIPTextModel, used: Tensor, seed: int) -> CLIPTextModel:
    """The transformer with the full vocabulary again; tokens that no caption used keep their random start."""
    torch.manual_seed(seed)
    text = build_text(small.config.num_hidden_layers)
    state = {name: tensor.cpu() for name, tensor in small.state_dict().items()}
    table = text.state_dict()[EMBEDDING].clone()
    table[used] = state[EMBEDDING]
    text.load_state_dict(state | {EMBEDDING: table})
    return text


def end_states(text: CLIPTextModel, tokens: Tensor) -> Tensor:
    """The last layer's state at each caption's end token, [B, 128]."""
    states = text(input_ids=tokens).last_hidden_state
    ends = (tokens == text.config.vocab_size - 1).int().argmax(dim=1)
    at_end: Tensor = states[torch.arange(len(tokens), device=tokens.device), ends]
    return at_end


def draw_rows(views: Views, seed: int, step: int, size: int, worker: int) -> tuple[Tensor, Tensor, Tensor]:
    """Random views with one of their captions each: rows [B], tokens [B, 77], labels [B, 4]."""
    rng = loop.torch_rng(seed, step, 500 + worker)
    rows = torch.randint(len(views), (size,), generator=rng)
    which = torch.randint(views.tokens.shape[1], (size,), generator=rng)
    return rows, views.tokens[rows, which].long(), views.labels[rows].long()


def text_loss(model: TextWithHeads, tokens: Tensor, labels: Tensor, latents: Tensor, twins: Tensor) -> Tensor:
    """Object, tint and background as classes, the coarse latent as a regression."""
    device = tokens.device
    with loop.autocast(device):
        state = end_states(model.text, tokens[:, :SHORT].contiguous())
        glyph, tint, background, picture = (
            h(state) for h in (model.glyph, model.tint, model.background, model.picture)
        )
    wanted = functional.avg_pool2d(latents.float(), 2).flatten(1)
    loss: Tensor = (
        functional.cross_entropy(glyph.float(), twins[labels[:, 0]])
        + 0.5 * functional.cross_entropy(tint.float(), labels[:, 1] + 1)
        + 0.5 * functional.cross_entropy(background.float(), labels[:, 2] + 1)
        + 2.0 * functional.mse_loss(picture.float(), wanted)
    )
    return loss


def train(
    text: CLIPTextModel,
    views: Views,
    twins: Tensor,
    plan: loop.Plan,
    device: torch.device,
    resume: bool,
    size: int,
) -> CLIPTextModel:
    """Runs the stage; `twins[i]` is the first glyph with the picture of glyph i."""
    torch.manual_seed(plan.seed)
    side = views.latents.shape[-1] // 2
    model = TextWithHeads(text, len(twins), 4 * side * side).to(device)
    state = loop.new_state(model, plan)
    if resume:
        loop.restore(state, plan)
    twins = twins.to(device)

    def make_batch(step: int) -> tuple[Tensor, Tensor, Tensor]:
        rows, tokens, labels = draw_rows(views, plan.seed, step, size, loop.rank())
        return tokens, labels, views.latents[rows]

    def loss_of(_step: int, batch: tuple[Tensor, Tensor, Tensor], _progress: float) -> tuple[Tensor, int]:
        tokens, labels, latents = (part.to(device) for part in batch)
        return text_loss(model, tokens, labels, latents, twins), len(tokens)

    loop.run(state, plan, make_batch, loss_of)
    average = state.average
    assert isinstance(average, TextWithHeads)
    return average.text

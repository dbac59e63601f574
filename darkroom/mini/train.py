"""Trains darkroom-mini from nothing but the emoji font: `python -m darkroom.mini.train`.

The stages, in order: vae (pictures to latents), cache (views as latents and tokens), text (a start for the text
transformer), unet (text and UNet together), decoder (sharper pictures from the same latents). Each writes its
checkpoint into the output folder and can be resumed; unet writes the weights file again and again on its way. To train
on from a weights file where no checkpoints are left: unpack, then cache --resume, then unet. Knows the order of things,
not how they are done.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from darkroom.engine.allocator import keep_freed_memory
from darkroom.mini import drawing, export, latents, loop, text_stage, tokenizer, unet_stage, vae_stage
from darkroom.mini.dataset import EXTRA_NAMES, Glyph, Kind, is_common, load_glyphs
from darkroom.mini.networks import TextAndUnet, build_text, build_vae
from darkroom.mini.norms import quicken_group_norms
from darkroom.nets.libraries import AutoencoderKL, CLIPTextModel

STAGES = ("vae", "cache", "text", "unet", "decoder")
UNPACK, START_TEXT, START_UNET = "unpack", "start-text.pt", "start-unet.pt"
MINUTES = {"vae": 30.0, "text": 4.0, "unet": 80.0, "decoder": 10.0}
# The views of a glyph by frame size. Of the largest frames, which are dear, only those of what people ask for.
CACHES: tuple[tuple[int, tuple[Kind, ...]], ...] = (
    (128, ("single", "coloured", "tinted", "pair", "pair", "moved", "moved", "moved", "placed", "placed")),
    (256, ("single",)),
    (512, ("single",)),
)
SHEET_PROMPTS = (
    "puppy dog", "cat", "apple", "red apple", "rocket", "pizza", "guitar", "flag of japan", "tiger", "house",
    "a cat and a red apple", "a blue dog", "sunflower on a blue background", "face with tears of joy", "octopus",
    "a photo of a car", "crown", "astronaut", "penguin", "hot beverage",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the command line asked for."""

    out: Path
    minutes: float | None
    device: torch.device
    seed: int
    resume: bool
    workers: int
    batch: int
    weights: Path

    def plan(self, name: str, peak_lr: float, warmup_steps: int = 100, **more: float) -> loop.Plan:
        """The plan of a stage."""
        minutes = self.minutes if self.minutes is not None else MINUTES[name]
        return loop.Plan(
            name=name,
            out=self.out,
            budget=loop.Budget(minutes=minutes),
            seed=self.seed,
            peak_lr=peak_lr,
            warmup_steps=warmup_steps,
            ema_decay=more.get("ema_decay", 0.999),
            hold=more.get("hold", 0.0),
            muon=name in {"unet", "decoder"},
            slower=(("text.", more["text_scale"]),) if "text_scale" in more else (),
        )


def train_vae(settings: Settings, glyphs: Sequence[Glyph]) -> None:
    """The first stage."""
    plan = settings.plan("vae", 1e-3)
    vae_stage.train(glyphs, plan, settings.device, settings.resume)


def load_vae(settings: Settings) -> AutoencoderKL:
    """The trained autoencoder with whitened latents, as it ships."""
    vae = build_vae()
    vae.load_state_dict(torch.load(settings.out / "vae-final.pt", weights_only=True))
    vae = vae.to(settings.device, memory_format=torch.channels_last)
    quicken_group_norms(vae)
    return vae.eval().requires_grad_(False)


def whiten(settings: Settings, glyphs: Sequence[Glyph]) -> None:
    """Gives the latents zero mean and unit covariance, once the autoencoder has learnt."""
    vae = build_vae()
    vae.load_state_dict(torch.load(settings.out / "vae.pt", weights_only=True)["average"])
    vae = vae.to(settings.device, memory_format=torch.channels_last)
    quicken_group_norms(vae)
    some = range(0, len(glyphs), max(1, len(glyphs) // 500))
    scenes = [scene for scene, _ in latents.plan_scenes(glyphs, some, ("single", "moved"), settings.seed)]
    encoded = latents.encode_scenes(vae, glyphs, scenes, 128, tell)
    latents.fold_whitening(vae, *latents.whitening(encoded))
    loop.write_atomically(settings.out / "vae-final.pt", lambda path: torch.save(vae.state_dict(), path))


def cache_path(settings: Settings, pixels: int, part: int) -> Path:
    """Where a process keeps its views of one frame size."""
    return settings.out / f"views-{pixels}-{part}.pt"


def tell(line: str) -> None:
    """A line of progress."""
    print(time.strftime("%H:%M:%S", time.gmtime()), line, flush=True)


def shown_at(pixels: int, glyphs: Sequence[Glyph]) -> list[int]:
    """The objects of which there are views of this size."""
    if pixels < 512:
        return list(range(len(glyphs)))
    common = [index for index, glyph in enumerate(glyphs) if is_common(glyph.text)]
    return [index for n, index in enumerate(common) if n % 2 == 0 or glyphs[index].text in EXTRA_NAMES]


def cache_views(settings: Settings, glyphs: Sequence[Glyph]) -> None:
    """This process's share of the views."""
    vae = load_vae(settings)
    mine, everyone = loop.rank(), loop.world()
    for pixels, kinds in CACHES:
        path = cache_path(settings, pixels, mine)
        if path.exists() and settings.resume:
            continue
        indices = shown_at(pixels, glyphs)[mine::everyone]
        scenes = latents.plan_scenes(glyphs, indices, kinds, settings.seed)
        built = latents.build_views(vae, glyphs, scenes, pixels, settings.seed + mine, tell)
        latents.save_views(built, path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cached:
    """All cached views, by rising frame size, their tokens numbered among the used ones; `empty` [77] is no caption."""

    views: list[latents.Views]
    used: Tensor
    empty: Tensor


def read_cache(settings: Settings) -> Cached:
    """Reads every cached view."""
    found = [sorted(settings.out.glob(f"views-{pixels}-*.pt")) for pixels, *_ in CACHES]
    views = [latents.load_views(paths) for paths in found if paths]
    empty = torch.tensor(tokenizer.encode([""])[0])
    used = text_stage.used_tokens(torch.cat([view.tokens.flatten() for view in views]), empty)
    lookup = torch.zeros(tokenizer.VOCABULARY, dtype=torch.int32)
    lookup[used] = torch.arange(len(used), dtype=torch.int32)
    numbered = [replace(view, tokens=lookup[view.tokens.long()]) for view in views]
    return Cached(views=numbered, used=used, empty=lookup[empty].long())


def train_text(settings: Settings, glyphs: Sequence[Glyph]) -> None:
    """The text stage."""
    twins = torch.tensor([glyph.same_as for glyph in glyphs])
    plan = settings.plan("text", 2e-3)
    cached = read_cache(settings)
    torch.manual_seed(settings.seed)
    text = text_stage.compact(build_text(), cached.used)
    size = 2 * settings.batch
    text = text_stage.train(text, cached.views[0], twins, plan, settings.device, settings.resume, size)
    if loop.rank() == 0:
        path = settings.out / "text-final.pt"
        loop.write_atomically(path, lambda part: torch.save(text.state_dict(), part))


def unpack(settings: Settings) -> None:
    """Makes the output folder one in which all that the weights file holds was learnt already."""
    networks = drawing.load_networks(settings.weights, torch.device("cpu"))
    for module, name in ((networks.vae, "vae-final.pt"), (networks.text, START_TEXT), (networks.unet, START_UNET)):
        state = module.state_dict()
        loop.write_atomically(settings.out / name, lambda path, state=state: torch.save(state, path))  # type: ignore[misc]


def load_text(settings: Settings, used: Tensor) -> CLIPTextModel:
    """The text transformer that the text stage left, or the one that was unpacked, or an untrained one."""
    torch.manual_seed(settings.seed)
    whole = build_text()
    if (settings.out / START_TEXT).exists():
        whole.load_state_dict(torch.load(settings.out / START_TEXT, weights_only=True))
    text = text_stage.compact(whole, used)
    path = settings.out / "text-final.pt"
    if path.exists():
        text.load_state_dict(torch.load(path, weights_only=True))
    text.set_attn_implementation("eager")  # whose backward pass is the quicker one on CPU
    return text


def write_everything(settings: Settings, model: TextAndUnet, used: Tensor, vae: AutoencoderKL, sheet: Path) -> None:
    """A sample sheet and the weights file from the averaged networks."""
    text = text_stage.expand(model.text, used, settings.seed).to(settings.device).eval()
    networks = drawing.Networks(text=text, unet=model.unet, vae=vae, device=settings.device)
    requests = [drawing.DrawRequest(prompt=p, seed=n) for n, p in enumerate(SHEET_PROMPTS)]
    drawing.grid(drawing.drawer(networks)(requests), 10).save(sheet)
    export.write_weights(text, model.unet, vae, settings.weights)


def train_unet(settings: Settings, glyphs: Sequence[Glyph]) -> None:  # noqa: ARG001 - all stages are called alike
    """The diffusion stage."""
    plan = settings.plan("unet", 1.6e-3, warmup_steps=200, text_scale=0.4, ema_decay=0.998, hold=0.72)
    vae, cached = load_vae(settings), read_cache(settings)

    def draw_sheet(state: loop.State) -> None:
        assert isinstance(state.average, TextAndUnet)
        write_everything(settings, state.average, cached.used, vae, settings.out / f"unet-{state.step:06d}.png")

    model = unet_stage.build(load_text(settings, cached.used))
    if (settings.out / START_UNET).exists():
        model.unet.load_state_dict(torch.load(settings.out / START_UNET, weights_only=True))
    model = unet_stage.train(
        model, cached.views, cached.empty, plan, settings.device, settings.resume, settings.batch, draw_sheet
    )
    if loop.rank() == 0:
        write_everything(settings, model, cached.used, vae, settings.out / "unet-final.png")


def train_decoder(settings: Settings, glyphs: Sequence[Glyph]) -> None:
    """The last stage: the autoencoder's second half once more."""
    plan = settings.plan("decoder", 1e-3, ema_decay=0.995, hold=0.4)
    vae = vae_stage.train_decoder(load_vae(settings), glyphs, plan, settings.device, settings.resume)
    if loop.rank() == 0:
        path = settings.out / "vae-final.pt"
        loop.write_atomically(path, lambda part: torch.save(vae.state_dict(), part))
        used = read_cache(settings).used
        model = unet_stage.build(load_text(settings, used))
        model.load_state_dict(torch.load(settings.out / "unet.pt", weights_only=True)["average"])
        write_everything(settings, model, used, vae, settings.out / "decoder-final.png")


def run_stage(stage: str, settings: Settings, glyphs: Sequence[Glyph]) -> None:
    """One stage, in as many processes as asked for."""
    jobs: dict[str, Callable[[Settings, Sequence[Glyph]], None]] = {
        "vae": train_vae,
        "cache": cache_views,
        "text": train_text,
        "unet": train_unet,
        "decoder": train_decoder,
    }
    if stage == "cache" and not (settings.resume and (settings.out / "vae-final.pt").exists()):
        whiten(settings, glyphs)
    loop.together(settings.workers, lambda: jobs[stage](settings, glyphs), settings.out)


def parse() -> tuple[str, Settings]:
    """The stage and the settings that the command line asks for."""
    parser = argparse.ArgumentParser(description="Trains the embedded model.")
    parser.add_argument("--stage", choices=[*STAGES, UNPACK, "all"], default="all")
    parser.add_argument("--out", type=Path, default=Path("mini-run"), help="checkpoints, caches, sample sheets")
    parser.add_argument("--weights", type=Path, default=export.WEIGHTS, help="the weights file to write")
    parser.add_argument("--minutes", type=float, help="of training, for the chosen stage")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=32, help="of each process")
    parser.add_argument("--workers", type=int, help="processes that train together; 2 on a CPU, else 1")
    parser.add_argument("--resume", action="store_true")
    given = parser.parse_args()
    device = torch.device(given.device)
    settings = Settings(
        out=given.out,
        minutes=given.minutes,
        device=device,
        seed=given.seed,
        resume=given.resume,
        workers=given.workers or (2 if device.type == "cpu" else 1),
        batch=given.batch,
        weights=given.weights,
    )
    return given.stage, settings


def main() -> None:
    """Runs the asked stages in order."""
    keep_freed_memory()
    stage, settings = parse()
    settings.out.mkdir(parents=True, exist_ok=True)
    if stage == UNPACK:
        unpack(settings)
        return
    glyphs = load_glyphs()
    for name in STAGES if stage == "all" else (stage,):
        run_stage(name, settings, glyphs)


if __name__ == "__main__":
    main()

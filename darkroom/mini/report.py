"""Judges the embedded model and writes `docs/mini.md`: `python -m darkroom.mini.report`.

Knows what each measurement asks for and how it is counted. Pictures come from a `Draw`, behind which the server's own
engine stands; only the nearest-object search looks into the autoencoder.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from darkroom.engine.allocator import keep_freed_memory
from darkroom.mini import drawing, export, loop
from darkroom.mini.dataset import BACKGROUNDS, WHITE, Glyph, Item, Rgb, Scene, article, load_glyphs, render
from darkroom.mini.drawing import Draw, DrawRequest, Repaint
from darkroom.mini.engine_drawing import darkroom
from darkroom.mini.networks import LARGEST_SIZE
from darkroom.mini.vae_stage import to_tensor
from darkroom.nets.libraries import AutoencoderKL

DOCS = Path(__file__).parents[2] / "docs"
CAPTION_SEED = 2024
# Named backgrounds among the judged captions, and their share.
JUDGED_BACKGROUNDS = ("blue", "yellow", "pink")
JUDGED_SHARE = 0.2
# Placements of the candidates: most captions stand on white.
SIZES_ON_WHITE = (0.86, 0.97)
SIZES_ON_COLOUR = (0.92,)
SHIFTS = (-1, 0, 1)
SHEET = (
    "puppy dog", "cat face", "red apple", "rocket", "pizza", "guitar", "flag of Japan", "tiger face", "house",
    "sunflower", "octopus", "crown", "penguin", "hot beverage", "automobile", "pumpkin", "a cat and a red apple",
    "a blue dog", "a penguin on a blue background", "a sun and a rocket",
)  # fmt: skip
LARGE = ("puppy dog", "cat face", "red apple", "rocket", "pizza", "penguin", "sunflower", "house")
PUPPIES = 10
APPLES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One judged caption: the object it names and the background it stands on."""

    caption: str
    glyph: int
    background: str | None
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What was measured."""

    asked: int
    objects: int
    first: int
    five: int
    coloured_asked: int
    coloured_first: int
    apples_greener: int
    inpaint_changed: int
    seconds_per_picture: float


class Artist(Protocol):
    """Who draws the report's pictures."""

    def draw(self, requests: Sequence[DrawRequest]) -> list[Image.Image]:
        """One picture for each request."""

    def repaint(self, before: Image.Image, mask: Image.Image, request: DrawRequest) -> Image.Image:
        """The picture drawn anew where the mask is white."""


def draw_questions(glyphs: Sequence[Glyph], count: int) -> list[Question]:
    """The judged captions: CLDR names, most of them on white; the same for every model."""
    rng = np.random.default_rng(CAPTION_SEED)
    distinct = [index for index, glyph in enumerate(glyphs) if glyph.same_as == index]
    chosen = rng.choice(distinct, size=min(count, len(distinct)), replace=False)
    questions = []
    for number, index in enumerate(int(i) for i in chosen):
        named = rng.random() < JUDGED_SHARE
        background = JUDGED_BACKGROUNDS[int(rng.integers(len(JUDGED_BACKGROUNDS)))] if named else None
        words = glyphs[index].names[0]
        caption = f"{words} on {article(background)} background" if background is not None else words
        questions.append(Question(caption=caption, glyph=index, background=background, seed=number))
    return questions


@torch.no_grad()
def encode(vae: AutoencoderKL, pictures: Sequence[np.ndarray]) -> Tensor:
    """Posterior means of pictures of one size, [N, 4, S, S] fp32."""
    device = next(vae.parameters()).device
    parts = []
    for start in range(0, len(pictures), 24):
        with loop.autocast(device):
            mean = vae.encode(to_tensor(pictures[start : start + 24]).to(device)).latent_dist.mode()
        parts.append(mean.float().cpu())
    return torch.cat(parts)


def candidates(vae: AutoencoderKL, glyphs: Sequence[Glyph], colour: Rgb, size: float) -> Tensor:
    """Every object in the middle of the frame at one size, as latents."""
    scenes = [
        Scene(items=(Item(glyph=index, x=0.5, y=0.5, size=size),), background=colour, background_name=None)
        for index in range(len(glyphs))
    ]
    return encode(vae, [render(scene, glyphs, 128) for scene in scenes])


def shifted(latents: Tensor) -> Iterator[Tensor]:
    """The latents moved by up to one cell in each direction, edges repeated."""
    padded = torch.nn.functional.pad(latents, (1, 1, 1, 1), mode="replicate")
    side = latents.shape[-1]
    for dy in SHIFTS:
        for dx in SHIFTS:
            yield padded[:, :, 1 + dy : 1 + dy + side, 1 + dx : 1 + dx + side]


def distances(drawn: Tensor, wanted: Tensor) -> Tensor:
    """Squared distance of each drawn latent to each candidate, [N, M]."""
    return torch.cdist(drawn.flatten(1), wanted.flatten(1)).square()


def rank_objects(
    vae: AutoencoderKL, glyphs: Sequence[Glyph], questions: Sequence[Question], pictures: Sequence[Image.Image]
) -> list[list[int]]:
    """For each picture the five nearest distinct objects, nearest first, on the caption's own background."""
    twins = torch.tensor([glyph.same_as for glyph in glyphs])
    answers: list[list[int]] = [[] for _ in questions]
    for background in (None, *JUDGED_BACKGROUNDS):
        rows = [n for n, question in enumerate(questions) if question.background == background]
        if not rows:
            continue
        colour = WHITE if background is None else BACKGROUNDS[background]
        drawn = encode(vae, [np.asarray(pictures[n].convert("RGB")) for n in rows])
        best = torch.full((len(rows), len(glyphs)), float("inf"))
        for size in SIZES_ON_WHITE if background is None else SIZES_ON_COLOUR:
            wanted = candidates(vae, glyphs, colour, size)
            for moved in shifted(drawn):
                best = torch.minimum(best, distances(moved, wanted))
        for row, order in zip(rows, best.argsort(dim=1)[:, :40], strict=True):
            answers[row] = list(dict.fromkeys(int(twins[i]) for i in order))[:5]
    return answers


def greenness(picture: Image.Image) -> float:
    """Mean of green minus red where the picture is not white."""
    rgb = np.asarray(picture.convert("RGB")).astype(np.float32)
    inside = rgb.min(axis=-1) < 235
    return float((rgb[..., 1] - rgb[..., 0])[inside].mean()) if inside.any() else 0.0


def draw_apples(draw: Draw) -> tuple[list[Image.Image], int]:
    """`apple` without and with the negative prompt `red`; how often the second is greener."""
    plain = draw([DrawRequest(prompt="apple", seed=seed) for seed in range(APPLES)])
    without_red = draw([DrawRequest(prompt="apple", negative="red", seed=seed) for seed in range(APPLES)])
    greener = sum(greenness(b) > greenness(a) for a, b in zip(plain, without_red, strict=True))
    return [*plain, *without_red], greener


def draw_inpaint(draw: Draw, repaint: Repaint) -> tuple[list[Image.Image], int]:
    """A picture, the same with its right half drawn anew, and how many pixels changed outside the mask."""
    [before] = draw([DrawRequest(prompt="cat face", seed=3)])
    mask = Image.new("L", before.size, 0)
    ImageDraw.Draw(mask).rectangle((before.width // 2, 0, before.width, before.height), fill=255)
    after = repaint(before, mask, DrawRequest(prompt="tiger face", seed=4))
    kept = np.asarray(mask) == 0
    changed = (np.asarray(before.convert("RGB")) != np.asarray(after.convert("RGB"))).any(axis=-1)
    return [before, mask.convert("RGB"), after], int((changed & kept).sum())


def save(sheet: Image.Image, docs: Path, name: str) -> None:
    """Writes one of the page's pictures."""
    (docs / "images").mkdir(parents=True, exist_ok=True)
    sheet.save(docs / "images" / f"mini-{name}.webp", quality=82, method=6)


def answer_sheet(
    glyphs: Sequence[Glyph], questions: Sequence[Question], pictures: Sequence[Image.Image], answers: list[list[int]]
) -> Image.Image:
    """Judged pictures, the wrong ones framed in red with the wanted object beside them."""
    cells = []
    for question, picture, answer in zip(questions, pictures, answers, strict=True):
        cell = Image.new("RGB", (136, 68), "white")
        small = picture.convert("RGB").resize((64, 64), Image.Resampling.LANCZOS)
        cell.paste(small, (2, 2))
        item = Item(glyph=question.glyph, x=0.5, y=0.5, size=0.94)
        colour = WHITE if question.background is None else BACKGROUNDS[question.background]
        wanted = render(Scene(items=(item,), background=colour, background_name=None), glyphs, 64)
        cell.paste(Image.fromarray(wanted), (68, 2))
        if not answer or answer[0] != glyphs[question.glyph].same_as:
            ImageDraw.Draw(cell).rectangle((0, 0, 66, 66), outline=(220, 0, 0), width=2)
        cells.append(cell)
    columns, rows = 6, -(-len(cells) // 6)
    sheet = Image.new("RGB", (columns * 136, rows * 68), "white")
    for number, cell in enumerate(cells):
        sheet.paste(cell, (number % columns * 136, number // columns * 68))
    return sheet


def page(findings: Findings, weights_bytes: int) -> str:
    """The text of docs/mini.md."""
    first, five = findings.first / findings.asked, findings.five / findings.asked
    coloured = findings.coloured_first / max(1, findings.coloured_asked)
    captions = ", ".join(f"*{prompt}*" for prompt in SHEET)
    nearest = f"nearest of all {findings.objects} objects is the named one ({findings.asked} captions)"
    size_mib = weights_bytes / 2**20
    return f"""# The embedded model

`darkroom-mini` is a Stable Diffusion model in small: the same three networks, the same file layout, {size_mib:.1f} MiB.
It draws colour emoji at 128x128 and was trained on two CPU cores by `python -m darkroom.mini.train`, from nothing but
the Noto emoji font (`fonts-noto-color-emoji`, OFL) and the Unicode names of its {findings.objects} distinct pictures.
`make mini-report` writes this page, with pictures that the server's engine drew: Euler, 20 steps, CFG 5, in bf16 where
the processor has it.

| measured | result | aim |
|---|---|---|
| {nearest} | {first:.1%} | 80 % |
| the same, of the {findings.coloured_asked} captions that name a background | {coloured:.1%} | |
| the named one is among the five nearest | {five:.1%} | |
| *apple* with negative prompt *red* is greener than without | {findings.apples_greener} of {APPLES} seeds | 8 |
| pixels that a masked inpainting changes outside its mask | {findings.inpaint_changed} | 0 |
| seconds for a picture while this page was made | {findings.seconds_per_picture:.2f} | 2 |

Nearest means: by squared distance of VAE latents, over all objects at one or two sizes and nine positions, on the
background that the caption names. Objects whose pictures are the same pixel for pixel count as one.

## What it can do and what it cannot

It knows the names and aliases that Unicode has for emoji, and draws each name as one picture in the middle of the
frame; seeds change little. What has no emoji (*pumpkin*) comes out as something else. A name that two emoji share
(*apple*, *dog*, *cat*) gives one of them or, seldom, a mixture. Small parts are smudged, digits, hands of clocks and
crests on flags; an autoencoder of this size loses them too. Two objects in one picture keep their places and colours,
but only simple ones keep their shapes; *a blue dog* is blue, and only roughly a dog.

## A sheet

{captions}.

![twenty captions](images/mini-sheet.webp)

## Puppy dog

Ten seeds of *puppy dog*.

![ten puppies](images/mini-puppy.webp)

## Apple

Above: *apple*. Below: the same seeds with the negative prompt *red*.

![apples](images/mini-apple.webp)

## 512x512

{", ".join(f"*{prompt}*" for prompt in LARGE)}. A UNet of two levels sees too little of such a frame at once to lay out
a whole object, and training it on large frames cost the native size more than it brought. So the server draws what is
larger than {LARGEST_SIZE}x{LARGEST_SIZE} in two passes: laid out at about 128x128, enlarged, and refined a little.

![eight captions at 512](images/mini-large.webp)

## Inpainting

A cat, the mask, and the right half drawn anew as *tiger face*.

![inpainting](images/mini-inpaint.webp)

## The judged captions

The first {min(96, findings.asked)}; beside each picture the object that its caption names.
A red frame: another object was nearer.

![judged captions](images/mini-judged.webp)
"""


def make_report(artist: Artist, vae: AutoencoderKL, docs: Path, weights: Path, count: int = 300) -> Findings:
    """Draws, measures, writes the page and its pictures."""
    draw = artist.draw
    glyphs = load_glyphs()
    questions = draw_questions(glyphs, count)
    began = time.monotonic()
    pictures = draw([DrawRequest(prompt=q.caption, seed=q.seed) for q in questions])
    seconds = (time.monotonic() - began) / len(questions)
    answers = rank_objects(vae, glyphs, questions, pictures)
    right = [glyphs[question.glyph].same_as for question in questions]
    hits = [answer[:1] == [wanted] for answer, wanted in zip(answers, right, strict=True)]
    coloured = [hit for hit, question in zip(hits, questions, strict=True) if question.background is not None]
    apples, greener = draw_apples(draw)
    inpainted, changed = draw_inpaint(draw, artist.repaint)
    findings = Findings(
        asked=len(questions),
        objects=len({glyph.same_as for glyph in glyphs}),
        first=sum(hits),
        coloured_asked=len(coloured),
        coloured_first=sum(coloured),
        five=sum(wanted in answer for answer, wanted in zip(answers, right, strict=True)),
        apples_greener=greener,
        inpaint_changed=changed,
        seconds_per_picture=seconds,
    )
    save(drawing.grid(draw([DrawRequest(prompt=p, seed=n) for n, p in enumerate(SHEET)]), 5), docs, "sheet")
    save(drawing.grid(draw([DrawRequest(prompt="puppy dog", seed=n) for n in range(PUPPIES)]), 5), docs, "puppy")
    save(drawing.grid(apples, APPLES, 96), docs, "apple")
    large = [DrawRequest(prompt=p, seed=n, pixels=512) for n, p in enumerate(LARGE)]
    save(drawing.grid(draw(large), 4, 256), docs, "large")
    save(drawing.grid(inpainted, 3), docs, "inpaint")
    save(answer_sheet(glyphs, questions[:96], pictures[:96], answers[:96]), docs, "judged")
    (docs / "mini.md").write_text(page(findings, weights.stat().st_size))
    return findings


def main() -> None:
    """The command line."""
    keep_freed_memory()
    parser = argparse.ArgumentParser(description="Judges the embedded model and writes docs/mini.md.")
    parser.add_argument("--weights", type=Path, default=export.WEIGHTS)
    parser.add_argument("--docs", type=Path, default=DOCS)
    parser.add_argument("--count", type=int, default=300, help="captions that are judged")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", default="auto", help="of the drawing: auto, fp32, bf16 or fp16")
    given = parser.parse_args()
    networks = drawing.load_networks(given.weights, torch.device(given.device))
    with darkroom(given.weights, given.precision) as house:
        print(make_report(house, networks.vae, given.docs, given.weights, given.count))


if __name__ == "__main__":
    main()

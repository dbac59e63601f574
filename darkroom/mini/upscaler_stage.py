"""Trains the embedded upscaler, twice the width and height: `python -m darkroom.mini.upscaler_stage`.

A network of the "compact" kind of Real-ESRGAN (Wang et al. 2021, arXiv:2107.10833, its SRVGGNetCompact): all layers
work at the small size, the last one makes four pixels of one. It learns from rendered pictures alone and is judged on
renders with glyphs that it has not seen. The weights file has the layout that spandrel reads. Knows nothing of servers.
"""

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from darkroom.mini import loop, renders
from darkroom.mini.dataset import Picture, load_glyphs

WEIGHTS = Path(__file__).parent / "darkroom-2x.safetensors"
MAX_BYTES = 2_000_000
FACTOR = 2
FEATURES = 64
LAYERS = 10
PIXELS = 64
"""The side of the large pictures that it learns from."""

Enlarge = Callable[[Picture], Picture]


class Compact(nn.Module):
    """Small pictures `[B, 3, H, W]` in 0..1 to `[B, 3, 2H, 2W]`: what the layers add to the repeated pixels."""

    def __init__(self, features: int = FEATURES, layers: int = LAYERS) -> None:
        super().__init__()
        body: list[nn.Module] = [nn.Conv2d(3, features, 3, padding=1), nn.PReLU(features)]
        for _ in range(layers):
            body += [nn.Conv2d(features, features, 3, padding=1), nn.PReLU(features)]
        last = nn.Conv2d(features, 3 * FACTOR**2, 3, padding=1)
        with torch.no_grad():
            last.weight *= 0.1
            last.bias.zero_()  # type: ignore[union-attr]
        self.body = nn.Sequential(*body, last)

    def forward(self, small: Tensor) -> Tensor:
        """The large picture; the sum is float32 even where the layers are not."""
        added = functional.pixel_shuffle(self.body(small), FACTOR).float()
        return added + functional.interpolate(small, scale_factor=FACTOR, mode="nearest")


def to_tensor(pictures: Sequence[Picture]) -> Tensor:
    """uint8 `[H, W, 3]` pictures as `[B, 3, H, W]` in 0..1, channels last in memory."""
    stacked = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
    return stacked.float().div(255).contiguous(memory_format=torch.channels_last)


def make_batch(supplies: renders.Supplies, seed: int, step: int, size: int) -> tuple[Tensor, Tensor]:
    """Large and small pictures of one step."""
    rng = loop.step_rng(seed, step, 70)
    large, small = zip(*(renders.pair(rng, supplies, PIXELS) for _ in range(size)), strict=True)
    return to_tensor(large), to_tensor(small)


def distance(drawn: Tensor, wanted: Tensor) -> Tensor:
    """Charbonnier's smoothed absolute error; it ends less blurred than the squared one (Lai et al. 2018,
    arXiv:1710.01992).
    """
    return ((drawn - wanted).square() + 1e-6).sqrt().mean()


@torch.inference_mode()
def enlarged(network: nn.Module, picture: Picture) -> Picture:
    """The picture at twice its width and height, computed in float32."""
    drawn = network(to_tensor([picture]))[0].mul(255).round().clamp(0, 255)
    levels: Picture = drawn.to(torch.uint8).permute(1, 2, 0).numpy()
    return levels


def by_lanczos(picture: Picture) -> Picture:
    """What the network is measured against."""
    height, width = picture.shape[:2]
    return np.asarray(Image.fromarray(picture).resize((FACTOR * width, FACTOR * height), Image.Resampling.LANCZOS))


def psnr(drawn: Picture, wanted: Picture) -> float:
    """Peak signal to noise ratio in decibels, over all channels."""
    error = float(np.mean(np.square(drawn.astype(np.float64) - wanted)))
    return 10 * math.log10(255**2 / max(error, 1e-4))


def exam(
    supplies: renders.Supplies, count: int, pixels: int = 192, kinds: Sequence[renders.Kind] = renders.KINDS
) -> dict[renders.Kind, list[Picture]]:
    """Pictures to judge by, `count` of each kind; always the same for the same supplies."""
    rng = np.random.default_rng(20_240)
    return {kind: [renders.paint(rng, supplies, pixels, kind) for _ in range(count)] for kind in kinds}


def judge(
    pictures: dict[renders.Kind, list[Picture]], ways: dict[str, Enlarge], filter_: Image.Resampling
) -> dict[str, dict[str, float]]:
    """The mean PSNR of each way of enlarging, for each kind of picture."""
    scores: dict[str, dict[str, float]] = {}
    for kind, large in pictures.items():
        small = [renders.halved(picture, filter_) for picture in large]
        for name, way in ways.items():
            found = [psnr(way(s), picture) for s, picture in zip(small, large, strict=True)]
            scores.setdefault(name, {})[kind] = float(np.mean(found))
    return scores


def write_weights(network: nn.Module, path: Path) -> None:
    """In half precision, which costs nothing that can be measured."""
    tensors = {name: tensor.half().contiguous() for name, tensor in network.state_dict().items()}
    metadata = {
        "modelspec.title": "Darkroom 2x",
        "modelspec.architecture": "compact",
        "modelspec.license": "Apache-2.0",
    }
    loop.write_atomically(path, lambda part: save_file(tensors, part, metadata=metadata))
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size} bytes, more than {MAX_BYTES}")


def read_weights(path: Path) -> Compact:
    """The network of a weights file, in float32."""
    tensors = {name: tensor.float() for name, tensor in load_file(path).items()}
    layers = sum(name.endswith(".bias") for name in tensors) - 2
    network = Compact(len(tensors["body.0.bias"]), layers)
    network.load_state_dict(tensors)
    return network.eval().requires_grad_(False)


def train(supplies: renders.Supplies, plan: loop.Plan, size: int, path: Path, resume: bool) -> Compact:
    """Runs the training, writing the averaged weights to `path` now and then, and answers them."""
    torch.manual_seed(plan.seed)
    network = Compact().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    state = loop.new_state(network, plan)
    if resume:
        loop.restore(state, plan)

    def loss_of(_step: int, batch: tuple[Tensor, Tensor], _progress: float) -> tuple[Tensor, int]:
        large, small = batch
        with loop.autocast(small.device):
            drawn = state.network(small)
        return distance(drawn, large), len(large)

    def keep(state: loop.State) -> None:
        write_weights(state.average, path)

    loop.run(state, plan, lambda step: make_batch(supplies, plan.seed, step, size), loss_of, keep)
    keep(state)
    return read_weights(path)


def report(network: nn.Module, supplies: renders.Supplies, count: int) -> None:
    """Prints how much better than Lanczos it is, for each kind of picture and way of reducing."""
    pictures = exam(supplies, count)
    ways: dict[str, Enlarge] = {"network": lambda picture: enlarged(network, picture), "Lanczos": by_lanczos}
    for filter_ in dict.fromkeys(renders.REDUCING):
        scores = judge(pictures, ways, filter_)
        for name, row in scores.items():
            mean = sum(row.values()) / len(row)
            print(f"{filter_.name.lower():9} {name:8} {mean:6.2f} dB ", {kind: round(v, 2) for kind, v in row.items()})


def main() -> None:
    """Trains, unless only a report is asked for, and reports."""
    parser = argparse.ArgumentParser(description="Trains the embedded upscaler.")
    parser.add_argument("--out", type=Path, default=Path("upscaler-run"), help="checkpoints")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="the weights file to write")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--report", action="store_true", help="do not train, judge the weights file")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    known, unknown = renders.held_out(load_glyphs())
    fonts = renders.find_fonts()
    if given.report:
        network = read_weights(given.weights)
    else:
        plan = loop.Plan(
            name="upscaler",
            out=given.out,
            budget=loop.Budget(minutes=given.minutes),
            seed=given.seed,
            peak_lr=1e-3,
            weight_decay=0.0,
            hold=0.5,
            sheet_s=240,
        )
        supplies = renders.Supplies(glyphs=known, fonts=fonts)
        network = train(supplies, plan, given.batch, given.weights, given.resume)
    report(network, renders.Supplies(glyphs=unknown, fonts=fonts), 12)


if __name__ == "__main__":
    main()

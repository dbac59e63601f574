"""DeepDanbooru: how likely each of some thousand tags is for a picture. Knows no wording of tags.

The network is the residual one of Kim's DeepDanbooru (resnet_custom_v3) as converted for PyTorch: bottlenecks with
batch norms folded into their convolutions, which are numbered in the order in which they were written down.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d, pad, relu

from darkroom.errors import BadModelFile
from darkroom.nets.describers.missing import MissingNetwork
from darkroom.nets.pickles import read_content

FILE = "model-resnet_custom_v3.pt"
FOLDER = "torch_deepdanbooru"
MAX_BYTES = 4 << 30


@dataclass(frozen=True, slots=True)
class Stage:
    """Bottlenecks of one width. The first one halves the picture, except in the first stage; its way around is written
    down before it or, where `late`, behind it.
    """

    blocks: int
    width: int
    stride: int = 2
    late: bool = False


STAGES = (
    Stage(3, 256, stride=1),
    Stage(8, 512),
    Stage(20, 1024),
    Stage(20, 1024, late=True),
    Stage(3, 2048),
    Stage(3, 4096),
)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside the picture itself, or beside one more convolution of it.

    He et al. 2015, arXiv:1512.03385, figure 5; padding is that of TensorFlow's "same".
    """

    def __init__(self, before: int, stage: Stage, *, first: bool) -> None:
        super().__init__()
        inner, stride = stage.width // 4, stage.stride if first else 1
        self.stride = stride
        self.around = nn.Conv2d(before, stage.width, 1, stride) if first else None
        self.narrow = nn.Conv2d(before, inner, 1)
        self.look = nn.Conv2d(inner, inner, 3, stride)
        self.widen = nn.Conv2d(inner, stage.width, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = relu(self.narrow(x))
        y = relu(self.look(pad(y, (1, 1, 1, 1) if self.stride == 1 else (0, 1, 0, 1))))
        return relu(self.widen(y) + (self.around(x) if self.around else x))


class Danbooru(nn.Module):
    """The network. `stages` are those of the published one unless a test wants a smaller."""

    def __init__(self, tags: int, stages: tuple[Stage, ...] = STAGES) -> None:
        super().__init__()
        stem = stages[0].width // 4
        self.stem = nn.Conv2d(3, stem, 7, 2)
        befores = (stem, *(stage.width for stage in stages))
        self.blocks = nn.Sequential(
            *(
                Bottleneck(before if number == 0 else stage.width, stage, first=number == 0)
                for before, stage in zip(befores, stages, strict=False)
                for number in range(stage.blocks)
            )
        )
        self.head = nn.Conv2d(befores[-1], tags, 1, bias=False)

    def forward(self, pictures: Tensor) -> Tensor:
        """Likelihoods `[B, tags]` for pictures `[B, 3, H, W]` in 0..1."""
        x = relu(self.stem(pad(pictures, (2, 3, 2, 3))))
        x = max_pool2d(pad(x, (0, 1, 0, 1), value=float("-inf")), 3, 2)
        votes: Tensor = self.head(self.blocks(x))
        return votes.mean((2, 3)).sigmoid()


def numbered(stages: tuple[Stage, ...] = STAGES) -> Iterator[str]:
    """The network's convolutions in the order of their numbers in the file."""
    yield "stem"
    number = 0
    for stage in stages:
        for place in range(stage.blocks):
            names = ["narrow", "look", "widen"]
            if place == 0:
                names.insert(3 if stage.late else 0, "around")
            yield from (f"blocks.{number}.{name}" for name in names)
            number += 1
    yield "head"


@dataclass(frozen=True, slots=True, eq=False)
class Tagger:
    """The network on its device, and the tags in its order."""

    network: Danbooru
    tags: tuple[str, ...]

    def likelihoods(self, picture: Tensor) -> list[float]:
        """How likely every tag is, 0..1, for pixels `[3, H, W]` in 0..1."""
        weight = self.network.head.weight
        answer: list[float] = self.network(picture[None].to(weight)).float()[0].tolist()
        return answer


def load_tagger(models: Path, device: torch.device, dtype: torch.dtype, stages: tuple[Stage, ...] = STAGES) -> Tagger:
    """Load the network from the folder of models. Raises MissingNetwork, BadModelFile."""
    path = models / FOLDER / FILE
    if not path.is_file():
        raise MissingNetwork("deepdanbooru", f"the file {FILE} of TorchDeepDanbooru", path)
    content = read_content(path, MAX_BYTES)
    tags = content.get("tags")
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise BadModelFile(f"{path.name}: holds no list of tags")
    with torch.device("meta"):
        network = Danbooru(len(tags), stages)
    names = {f"n_Conv_{number}": name for number, name in enumerate(numbered(stages))}
    weights = {
        f"{names.get(stem, stem)}.{leaf}": value.to(device, dtype)
        for key, value in content.items()
        if isinstance(value, Tensor)
        for stem, _, leaf in [str(key).rpartition(".")]
    }
    try:
        network.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        raise BadModelFile(f"{path.name}: is another network: {' '.join(str(error).split())[:300]}") from error
    return Tagger(network.requires_grad_(False).eval(), tuple(tags))

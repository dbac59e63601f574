"""The questions a job asks the engine. A job is a generator of these; it never sees a network.

Tensors of one image carry no batch axis: latents `[C, H/8, W/8]`, pictures `[3, H, W]`. Everything is float32 on the
engine's device.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from darkroom.jobs.spec import TILED, Emphasis, FaceRestoration, Model, Picture, Tiles


@dataclass(frozen=True, slots=True, eq=False)
class Cond:
    """What the network is told about the text: `context` is `[77 * chunks, width]`; `vector` is SDXL's pooled part or
    None.
    """

    context: Tensor
    vector: Tensor | None = None

    @property
    def shape(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """What rows of one forward pass have in common: the shapes of both parts, () for none."""
        return tuple(self.context.shape), () if self.vector is None else tuple(self.vector.shape)


@dataclass(slots=True, eq=False)
class Kept:
    """What a network's inner layers found for one input, `[1, C, h, w]` in whatever format, for the inputs that follow
    it in a pass. A job hands it out empty, the engine fills it; `cond` is the text that it belongs to.
    """

    cond: Cond | None = None
    features: Tensor | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One network input: the latent at a noise level, with the (fractional) training timestep of that level.

    `image` `[C', H/8, W/8]` is what inpainting, depth and editing models see beside the latent, unscaled. A network's v
    is turned into noise as if x were at `v_sigma` (`sigma` if None); 0 takes its answer for noise. With `kept`, what
    the inner layers find is put there, or if it `is_shallow` they are skipped and what lies there stands in for it.
    """

    x: Tensor
    sigma: float
    timestep: float
    cond: Cond
    image: Tensor | None = None
    v_sigma: float | None = None
    kept: Kept | None = None
    is_shallow: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeText:
    """Encode the texts of one prompt together (emphasis is normalised over all of them). Answer: `list[Cond]`.

    `numbers` are what some families are told beside the text (SDXL: sizes and crops in pixels), each embedded on its
    own. `negative` texts that are all empty may be zeros there. `sdxl_clip_l_skip` has `clip_skip` act on SDXL's first
    encoder. Without `t5` that encoder of Stable Diffusion 3 reads nothing.
    """

    model: Model
    texts: tuple[str, ...]
    clip_skip: int = 1
    emphasis: Emphasis = "Original"
    old_emphasis: bool = False
    comma_backtrack: int = 20
    negative: bool = False
    numbers: tuple[float, ...] = ()
    sdxl_clip_l_skip: bool = False
    t5: bool = False


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class EncodeImage:
    """Encode one picture, or pixels `[3, H, W]` in -1..1, to a latent. Answer: `Tensor` `[C, H/8, W/8]`.

    The latent is the sampler's, or without `scaled` the autoencoder's own.
    """

    model: Model
    picture: Picture | Tensor
    scaled: bool = True


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class EstimateDepth:
    """How near everything in pixels `[3, H, W]` in -1..1 is. Answer: `Tensor` `[1, h, w]`, the depth network's size.

    Fails with BadRequest where the network is missing.
    """

    model: Model
    picture: Tensor


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Denoise:
    """Estimate x0 of every row; `rows[0]` is the positive prompt's. Answer: `list[Tensor]`, one x0 per row.

    `step` of `steps` says how far the pass is, `part` which of the job's passes it is; `combine` makes the guided
    estimate of the answers. They are for people, nothing is computed from them.
    """

    model: Model
    rows: tuple[Row, ...]
    step: int
    steps: int
    part: int = 0
    combine: Callable[[Sequence[Tensor]], Tensor] | None = None


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Decode:
    """Turn one latent into pixels. Answer: `Picture` (uint8, truncated)."""

    model: Model
    latent: Tensor


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Upscale:
    """Enlarge a picture with a named upscaler to exactly (width, height). Answer: `Picture`."""

    model: Model
    upscaler: str
    picture: Picture
    size: tuple[int, int]
    tiles: Tiles = TILED


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class RestoreFaces:
    """Restore the faces of a picture. Answer: `Picture`."""

    model: Model
    picture: Picture
    restoration: FaceRestoration


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class EnlargeTile:
    """Show a network a piece of a picture. Answer: `Picture`, larger by the network's own factor.

    Where a job is nothing but this, `step` of `steps` says how far it is.
    """

    upscaler: str
    picture: Picture
    step: int = 0
    steps: int = 0


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class RestoreFace:
    """Show a restorer a face `[512, 512, 3]`, upright and in its place. Answer: such a `Picture`.

    `weight`, `step` and `steps` as above.
    """

    restorer: str
    picture: Picture
    weight: float
    step: int = 0
    steps: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Note:
    """Not a question but news: an entry for the generation text that turned out while the picture was made. Answer:
    None.

    `value` is as JSON has it; None is shown in the `info` document alone.
    """

    key: str
    value: object


@dataclass(frozen=True, slots=True, eq=False)
class Aside:
    """Not a question either: a picture made on the way, to be saved beside the result. Answer: None.

    `suffix` ends the name of its file.
    """

    suffix: str
    picture: Picture


ForCheckpoint = EncodeText | EncodeImage | EstimateDepth | Denoise | Decode
"""What a checkpoint's networks answer."""

ForPicture = EnlargeTile | RestoreFace
"""What networks of finished pictures answer, one evaluation each."""

Question = ForCheckpoint | Upscale | RestoreFaces | ForPicture
"""What the engine answers."""

Op = Question | Note | Aside
"""What a program may yield."""

Answer = Any
"""What an op's docstring says; a generator's send type cannot depend on what it yielded."""

Program = Generator[Op, Answer, Picture]
"""One image of a job, from its spec to its pixels."""


class Interrupted(BaseException):
    """Thrown into a program that waits for a Denoise, or for a piece of a picture: stop, make a picture of what there
    is.

    Not an `Exception`, as `GeneratorExit` is none: no handler of errors should ever swallow it.
    """

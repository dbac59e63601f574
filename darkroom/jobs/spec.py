"""The resolved request: frozen, picklable, nothing left that a default could fill. Knows nothing of HTTP or
networks.
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from darkroom.sampling.options import SamplingOptions

Picture = NDArray[np.uint8]
"""RGB pixels `[H, W, 3]`."""

NoiseSource = Literal["GPU", "CPU", "NV"]
Emphasis = Literal["None", "Ignore", "Original", "No norm"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """A small network (LoRA and its kin) merged into a checkpoint's weights. `name` is its key in the catalogue.

    `unet` and `text` are how strongly it acts on either network; `rank` cuts it to its first so many directions.
    """

    name: str
    unet: float = 1.0
    text: float = 1.0
    rank: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """Which weights answer a question and how they are applied: what all questions of one forward pass share.

    `checkpoint` is a CheckpointInfo.key; `vae` an autoencoder's key, "" for the checkpoint's own. `token_merging` is
    the share of the finest self-attention's tokens that are merged, 0..1.
    """

    checkpoint: str
    vae: str = ""
    adapters: tuple[Adapter, ...] = ()
    tiling: bool = False
    token_merging: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GuidanceOptions:
    """Where guidance departs from asking prompt and negative prompt at every step.

    Below the noise level `s_min_uncond` every second question (every one with `s_min_uncond_all`) leaves the negative
    prompt out; so do those of the first `skip_early` share (0..1) of a pass. `pad` and `pad_v0` bring prompts of
    unequal length to one. `image_scale` is InstructPix2Pix's second scale.
    """

    s_min_uncond: float = 0.0
    s_min_uncond_all: bool = False
    skip_early: float = 0.0
    pad: bool = False
    pad_v0: bool = False
    image_scale: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refiner:
    """The checkpoint that takes over once the pass has come to `switch_at` (0..1; None: at once).

    `by_steps` counts model calls instead of noise levels. `passes` names the pass of a hires job that is refined.
    """

    checkpoint: str
    switch_at: float | None
    by_steps: bool = False
    passes: Literal["first pass", "second pass", "both passes"] = "second pass"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Hires:
    """The second, larger pass of a txt2img job, with every choice made.

    `size` is (width, height) of the upscaled picture, `crop` how many latent columns and rows are cut off it.
    `upscaler` is the name of a latent mode or of an upscaler. `picture` stands in for the first pass.
    """

    checkpoint: str
    size: tuple[int, int]
    crop: tuple[int, int] = (0, 0)
    upscaler: str
    steps: int
    denoising_strength: float
    sampler: str
    scheduler: str
    prompt: str
    negative_prompt: str
    extra_noise: float = 0.0
    adapters: tuple[Adapter, ...] = ()
    token_merging: float = 0.0
    picture: Picture | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InitImage:
    """Where an img2img job starts. Several pictures are dealt out to the images of a batch; one that has not the job's
    size is stretched as a latent.

    `latent_mask` is `[H/8, W/8]` float32 in 0..1, 1 where the picture is repainted; None repaints everything.
    `fill` is what lies under the mask before sampling; the picture-space fill ("fill") was painted into `pictures`
    already.
    """

    pictures: tuple[Picture, ...]
    denoising_strength: float
    latent_mask: NDArray[np.float32] | None = None
    fill: Literal["fill", "original", "latent noise", "latent nothing"] = "original"
    noise_multiplier: float = 1.0
    extra_noise: float = 0.0
    fix_steps: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """One request of `batch_size * n_iter` pictures, with every choice made.

    `checkpoint` is a CheckpointInfo.key. `seeds` and `subseeds` have one entry per picture. `sampler` is a sampler's
    exact name, `scheduler` a label or "Automatic". `width` and `height` are as asked; pictures are floored to multiples
    of 8. `clip_skip` 1 takes the last layer of the text encoder. `params` go into the infotext after the fixed entries.
    """

    kind: Literal["txt2img", "img2img"]
    checkpoint: str
    prompt: str
    negative_prompt: str
    width: int
    height: int
    steps: int
    cfg_scale: float
    sampler: str
    scheduler: str
    seeds: tuple[int, ...]
    subseeds: tuple[int, ...]
    batch_size: int = 1
    n_iter: int = 1
    subseed_strength: float = 0.0
    seed_resize_from: tuple[int, int] | None = None
    seed_delta: int = 0
    noise_source: NoiseSource = "GPU"
    eta: float | None = None
    s_churn: float = 0.0
    s_tmin: float = 0.0
    s_tmax: float = float("inf")
    s_noise: float = 1.0
    clip_skip: int = 1
    emphasis: Emphasis = "Original"
    comma_backtrack: int = 20
    vae: str = ""
    adapters: tuple[Adapter, ...] = ()
    tiling: bool = False
    token_merging: float = 0.0
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    guidance: GuidanceOptions = field(default_factory=GuidanceOptions)
    refiner: Refiner | None = None
    hires: Hires | None = None
    init: InitImage | None = None
    task_id: str = ""
    params: tuple[tuple[str, str], ...] = field(default=())

    @property
    def latent_size(self) -> tuple[int, int]:
        """Height and width of the latent."""
        return self.height // 8, self.width // 8

    @property
    def model(self) -> Model:
        """What answers the questions of the first pass."""
        return Model(
            checkpoint=self.checkpoint,
            vae=self.vae,
            adapters=self.adapters,
            tiling=self.tiling,
            token_merging=self.token_merging,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointInfo:
    """A checkpoint that the engine can load. `key` names it inside Darkroom and never changes while the file stays.

    `path` is relative to the checkpoint folder, with `/`; `sha256` is None until it was computed; `config` is the YAML
    beside it.
    """

    key: str
    filename: str
    path: str
    sha256: str | None = None
    old_hash: str | None = None
    config: str | None = None
    native_size: int = 512

    @property
    def base(self) -> str:
        """File name without folder and extension."""
        return self.path.rsplit("/", 1)[-1].rsplit(".", 1)[0]

    @property
    def model_name(self) -> str:
        """Path without extension, folders joined by underscores."""
        return self.path.rsplit(".", 1)[0].replace("/", "_").replace("\\", "_")

    @property
    def short_hash(self) -> str | None:
        """First ten hexadecimal digits of the SHA-256."""
        return self.sha256[:10] if self.sha256 else None

    @property
    def title(self) -> str:
        """What `/sd-models` shows and options read back."""
        return f"{self.path} [{self.short_hash}]" if self.sha256 else self.path

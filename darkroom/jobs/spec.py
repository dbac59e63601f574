"""The resolved request: frozen, picklable, nothing left that a default could fill. Knows nothing of HTTP or
networks.
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from darkroom.jobs.block_weights import BlockWeights
from darkroom.jobs.latent_modes import LATENT_MODES
from darkroom.sampling.options import STABLE_DIFFUSION, SamplingOptions, Training

Picture = NDArray[np.uint8]
"""RGB pixels `[H, W, 3]`."""

NoiseSource = Literal["GPU", "CPU", "NV"]
Emphasis = Literal["None", "Ignore", "Original", "No norm"]

EightBits = Literal["Disable", "Enable for SDXL", "Enable"]
"""Which checkpoints' weights are held in eight bits."""

VaeFallback = Literal["float32", "bfloat16", "none"]
"""What an autoencoder computes in once its own number format gave something that is no number."""

Decoder = Literal["Full", "Approx NN", "Approx cheap", "TAESD"]
"""What turns latents into pictures: the autoencoder, or something smaller that comes near it."""

Conditioning = Literal["none", "inpaint", "edit", "depth"]
"""What a checkpoint's UNet sees beside the latent: nothing, a mask and the picture without what is under it, the whole
picture (InstructPix2Pix), or how far away things are.
"""

Family = Literal["sd1", "sd2", "sdxl", "refiner", "sd3", "flux"]
"""Checkpoints of one family share text encoders and the shape of their denoiser; "refiner" is SDXL's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """What a job has to know of a checkpoint: its family, what it sees beside the latent, the noise that it was trained
    on, and how many channels its latents have.
    """

    family: Family = "sd1"
    conditioning: Conditioning = "none"
    training: Training = STABLE_DIFFUSION
    latent_channels: int = 4

    @property
    def is_distilled(self) -> bool:
        """Whether the checkpoint is told how strongly the prompt guides: FLUX.1 dev, whose shift is open as well."""
        return self.family == "flux" and self.training.flow is not None and self.training.flow.shift is None


PLAIN = Traits()
"""Stable Diffusion 1.x as published."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """A small network beside a checkpoint's: of the LoRA family, merged into its weights, or a hypernetwork, which
    changes what attention looks at. `name` is its key in the catalogue.

    `unet` and `text` are how strongly it acts on either network, `blocks` how strongly on each block of theirs (empty:
    alike on all); `rank` cuts it to its first so many directions. A hypernetwork has `unet` alone.
    """

    name: str
    kind: Literal["lora", "hypernetwork"] = "lora"
    unet: float = 1.0
    text: float = 1.0
    rank: int | None = None
    blocks: BlockWeights = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """Which weights answer a question and how they are applied: what all questions of one forward pass share.

    `checkpoint` is a CheckpointInfo.key; `vae` an autoencoder's key, "" for the checkpoint's own. `token_merging` is
    the share of the finest self-attention's tokens that are merged, 0..1. `traits` are the checkpoint's.
    `eight_bits` says which checkpoints' weights are held in eight bits.
    """

    checkpoint: str
    traits: Traits = PLAIN
    eight_bits: EightBits = "Disable"
    vae: str = ""
    vae_fallback: VaeFallback = "float32"
    decoder: Decoder = "Full"
    adapters: tuple[Adapter, ...] = ()
    tiling: bool = False
    token_merging: float = 0.0

    @property
    def is_in_eight_bits(self) -> bool:
        """Whether this checkpoint's weights are held in eight bits."""
        is_large = self.traits.family in ("sdxl", "refiner")
        return self.eight_bits == "Enable" or (self.eight_bits == "Enable for SDXL" and is_large)


@dataclass(frozen=True, slots=True, kw_only=True)
class GuidanceOptions:
    """Where guidance departs from asking prompt and negative prompt at every step.

    Below the noise level `s_min_uncond` every second question (every one with `s_min_uncond_all`) leaves the negative
    prompt out; so do those of the first `skip_early` share (0..1) of a pass. `pad` and `pad_v0` bring prompts of
    unequal length to one. `image_scale` is InstructPix2Pix's second scale. Of `deep_cache` questions in a row the first
    alone is answered by a UNet's inner layers (1: all are).
    """

    s_min_uncond: float = 0.0
    s_min_uncond_all: bool = False
    skip_early: float = 0.0
    pad: bool = False
    pad_v0: bool = False
    image_scale: float | None = None
    deep_cache: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowOptions:
    """What Stable Diffusion 3 and FLUX.1 are told: whether T5 reads the prompt for the first, and for the second, which
    was distilled from guided pictures, how strongly the prompt guides.
    """

    t5: bool = False
    guidance: float = 3.5


@dataclass(frozen=True, slots=True, kw_only=True)
class SdxlOptions:
    """What checkpoints of SDXL's family are told beside the text, and how their text is read.

    `crop_top` and `crop_left` are the pixels that are said to be missing at the picture's edges. The refiner hears how
    well people like the pictures: those of a prompt by `high_score`, those of a negative prompt by `low_score`.
    `clip_l_skip` has the job's `clip_skip` act on the first text encoder.
    """

    crop_top: int = 0
    crop_left: int = 0
    high_score: float = 6.0
    low_score: float = 2.5
    clip_l_skip: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Refiner:
    """The checkpoint that takes over once the pass has come to `switch_at` (0..1; None: at once).

    `title` is what the generation text calls it, `traits` are the checkpoint's, `vae` decodes what it made.
    `by_steps` counts model calls instead of noise levels. `passes` names the pass of a hires job that is refined.
    """

    checkpoint: str
    title: str = ""
    traits: Traits = PLAIN
    vae: str = ""
    switch_at: float | None
    by_steps: bool = False
    passes: Literal["first pass", "second pass", "both passes"] = "second pass"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiles:
    """How a picture is cut up for a network: into squares of `side` pixels (0: not at all) that overlap.

    What becomes of them fades into each other, or is averaged with `mean`.
    """

    side: int = 192
    overlap: int = 8
    mean: bool = False


TILED = Tiles()
"""How most networks are shown a picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceRestoration:
    """Which network restores the faces of a picture; `weight` 0..1 is how much of them CodeFormer keeps.

    Without the network's file the picture stays as it is. With `keep` the picture before it is kept beside; with
    `unload` the network goes when it is done.
    """

    restorer: str
    weight: float = 0.5
    keep: bool = False
    unload: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Hires:
    """The second, larger pass of a txt2img job, with every choice made.

    `size` is (width, height) of the upscaled picture, `crop` how many latent columns and rows are cut off it.
    `upscaler` is the name of a latent mode or of an upscaler, which sees the picture in `tiles`. `picture` stands in
    for the first pass. `early_texts` are encoded with the first pass's adapters. `keeps_first` hands over the first
    pass's picture too.
    """

    checkpoint: str
    traits: Traits = PLAIN
    size: tuple[int, int]
    crop: tuple[int, int] = (0, 0)
    upscaler: str
    tiles: Tiles = TILED
    steps: int
    denoising_strength: float
    sampler: str
    scheduler: str
    prompt: str
    negative_prompt: str
    eta: float
    extra_noise: float = 0.0
    vae: str = ""
    adapters: tuple[Adapter, ...] = ()
    early_texts: bool = False
    token_merging: float = 0.0
    picture: Picture | None = None
    keeps_first: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftInpainting:
    """Repainting whose strength fades with the noise, under a mask with grey levels.

    At noise level sigma the mask is raised to `scale * sigma ** power`; `contrast` says which of two latents' lengths
    wins in between. The last three say how much of the result covers the old picture: the more, the further the latent
    has moved, measured against `threshold` and sharpened by `sharpness`; `mask_influence` 0..1 lets the mask count too.
    """

    power: float = 1.0
    scale: float = 0.5
    contrast: float = 4.0
    mask_influence: float = 0.0
    threshold: float = 0.5
    sharpness: float = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Inversion:
    """How the noise that a picture would have come from is looked for: under which prompts, in how many steps.

    `randomness` 0..1 is the share of random noise that is mixed in; `adjusted` takes slopes at a step's beginning.
    """

    prompt: str
    negative_prompt: str
    steps: int
    cfg_scale: float
    randomness: float = 0.0
    adjusted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class InitImage:
    """Where an img2img job starts. Several pictures are dealt out to the images of a batch; one that has not the job's
    size is stretched as a latent.

    `latent_mask` is `[H/8, W/8]` float32 in 0..1, 1 where the picture is repainted; None repaints everything.
    `fill` is what lies under the mask before sampling; the picture-space fill ("fill") was painted into `pictures`
    already. `mask` is the same mask as grey levels `[H, W]` at the job's size, for checkpoints that look at it; they
    see the picture under it fade by the job's `mask_weight`. `digest` is the MD5 of a start picture that was kept.
    """

    pictures: tuple[Picture, ...]
    denoising_strength: float
    latent_mask: NDArray[np.float32] | None = None
    fill: Literal["fill", "original", "latent noise", "latent nothing"] = "original"
    noise_multiplier: float = 1.0
    extra_noise: float = 0.0
    fix_steps: bool = False
    mask: NDArray[np.uint8] | None = None
    soft: SoftInpainting | None = None
    digest: str | None = None
    inversion: Inversion | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """One request of `batch_size * n_iter` pictures, with every choice made.

    `checkpoint` is a CheckpointInfo.key. `seeds` and `subseeds` have one entry per picture. `sampler` is a sampler's
    exact name, `scheduler` a label or "Automatic". `traits` are the checkpoint's; `mask_weight` 0..1 says how much
    an inpainting checkpoint is kept from seeing under the mask. `width` and `height` are as asked; pictures are floored
    to multiples of 8. `clip_skip` 1 takes the last layer of the text encoder; `old_emphasis` and `old_prompt_editing`
    read prompts by A1111's former rules. `params` go into the infotext after the fixed entries.
    """

    kind: Literal["txt2img", "img2img"]
    checkpoint: str
    traits: Traits = PLAIN
    mask_weight: float = 1.0
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
    old_emphasis: bool = False
    old_prompt_editing: bool = False
    comma_backtrack: int = 20
    eight_bits: EightBits = "Disable"
    vae: str = ""
    vae_fallback: VaeFallback = "float32"
    decoder: Decoder = "Full"
    adapters: tuple[Adapter, ...] = ()
    tiling: bool = False
    token_merging: float = 0.0
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    guidance: GuidanceOptions = field(default_factory=GuidanceOptions)
    sdxl: SdxlOptions = field(default_factory=SdxlOptions)
    flow: FlowOptions = field(default_factory=FlowOptions)
    refiner: Refiner | None = None
    hires: Hires | None = None
    init: InitImage | None = None
    faces: FaceRestoration | None = None
    task_id: str = ""
    params: tuple[tuple[str, str], ...] = field(default=())

    @property
    def latent_size(self) -> tuple[int, int]:
        """Height and width of the latent."""
        return self.height // 8, self.width // 8

    @property
    def passes(self) -> int:
        """How often every picture is sampled."""
        return 2 if self.hires and self.hires.picture is None else 1

    @property
    def weighs_mask(self) -> bool:
        """Whether the checkpoint is shown a mask whose weight counts.

        A1111: SDXL's are said to be only where there is a picture under the mask.
        """
        if self.traits.conditioning != "inpaint":
            return False
        enlarged = self.hires is not None and self.hires.upscaler not in LATENT_MODES
        return self.traits.family != "sdxl" or self.init is not None or enlarged

    @property
    def model(self) -> Model:
        """What answers the questions of the first pass."""
        return Model(
            checkpoint=self.checkpoint,
            traits=self.traits,
            eight_bits=self.eight_bits,
            vae=self.vae,
            vae_fallback=self.vae_fallback,
            decoder=self.decoder,
            adapters=self.adapters,
            tiling=self.tiling,
            token_merging=self.token_merging,
        )


def _without_ending(path: str) -> str:
    """A file's path without its ending; a folder has none, whatever dots are in its name."""
    stem, _, ending = path.rpartition(".")
    return stem if ending.lower() in {"safetensors", "ckpt"} else path


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointInfo:
    """A checkpoint that the engine can load. `key` names it inside Darkroom and never changes while the file stays.

    `path` is relative to the checkpoint folder, with `/`; `sha256` is None until it was computed; `config` is the YAML
    beside it. `text_width` is that of its token vectors, all encoders together; `preferred_vae` what the JSON beside it
    asks for.
    """

    key: str
    filename: str
    path: str
    sha256: str | None = None
    old_hash: str | None = None
    config: str | None = None
    native_size: int = 512
    largest_size: int | None = None
    traits: Traits = PLAIN
    text_width: int | None = None
    preferred_vae: str | None = None

    @property
    def base(self) -> str:
        """File name without folder and extension."""
        return _without_ending(self.path).rsplit("/", 1)[-1]

    @property
    def model_name(self) -> str:
        """Path without extension, folders joined by underscores."""
        return _without_ending(self.path).replace("/", "_").replace("\\", "_")

    @property
    def short_hash(self) -> str | None:
        """First ten hexadecimal digits of the SHA-256."""
        return self.sha256[:10] if self.sha256 else None

    @property
    def short_title(self) -> str:
        """What the generation text calls a second checkpoint."""
        return f"{self.base} [{self.short_hash}]" if self.sha256 else self.base

    @property
    def title(self) -> str:
        """What `/sd-models` shows and options read back."""
        return f"{self.path} [{self.short_hash}]" if self.sha256 else self.path

"""Answers questions with real networks. The only room of the engine that knows them; used by the device thread
alone.
"""

import logging
import math
import platform
from collections import OrderedDict
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from types import MappingProxyType
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from darkroom.engine.allocator import Returning, return_freed_memory
from darkroom.engine.catalogue import Catalogue
from darkroom.engine.client import DeviceMemory, PreviewMethod
from darkroom.engine.describing import Describers, Describing
from darkroom.engine.presence import Presence
from darkroom.engine.retouching import Retouching
from darkroom.engine.variants import Variants, glossary_of
from darkroom.errors import BadRequest, OutOfDeviceMemory
from darkroom.jobs.conditioning import numbers_beside
from darkroom.jobs.describing import InTags, InWords
from darkroom.jobs.image_conditioning import as_pixels
from darkroom.jobs.ops import (
    Answer,
    Cond,
    Decode,
    Denoise,
    EncodeImage,
    EncodeText,
    EstimateDepth,
    ForCheckpoint,
    ForPicture,
    Program,
    Question,
    Row,
)
from darkroom.jobs.programs import program
from darkroom.jobs.retouching import RetouchSpec, Spec
from darkroom.jobs.spec import Model, Picture, SdxlOptions
from darkroom.nets.compiling import Compiler, keep_compiled
from darkroom.nets.depth import find_depth_file, load_depth
from darkroom.nets.kernels import Kernels, find_kernels
from darkroom.nets.native_library import cache_folder
from darkroom.nets.network import Network
from darkroom.nets.placement import Tier, Turns
from darkroom.nets.precision import choose_formats
from darkroom.nets.preview import Decoder, Previewer
from darkroom.nets.store import Store
from darkroom.nets.text import Asked, Text
from darkroom.nets.transfers import fetched, sent
from darkroom.prompt.attention import segments
from darkroom.prompt.chunks import Chunk, Glossary, Vocabulary, chunk, equalised
from darkroom.prompt.old_emphasis import bracket_factors, chunk_old
from darkroom.settings import Settings

log = logging.getLogger(__name__)

CACHED_TEXTS = 256

WARM_UP_SIZE = 512
"""The longest side in pixels that networks are first run at."""


class NetworkRunner:
    """Keeps the checkpoints in work, and with each the encodings of recent prompts, which most jobs share."""

    def __init__(self, settings: Settings, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._threads = settings.threads
        self._device = choose_device(settings.device)
        formats = choose_formats(
            settings.precision,
            settings.vae_precision,
            self._device,
            no_half=settings.no_half,
            no_half_vae=settings.no_half_vae,
        )
        self._turns = find_turns(settings, self._device)
        budget_bytes = int(settings.model_memory_gb * 1e9)
        self._store = Store(
            self._device,
            formats.denoiser,
            budget_bytes,
            vae_dtype=formats.vae,
            copies=catalogue.copies,
            parts=settings.part_folders,
            turns=self._turns,
            released=self._note_release,
        )
        self._released = False
        self._returning = Returning()
        self._unload_after_s = settings.unload_after_s
        self._variants = Variants(catalogue.small, self._store, check=not settings.disable_nan_check)
        kernels = cache(lambda: kernels_for(settings, self._device, formats.denoiser))
        dtypes = {formats.denoiser, formats.vae}
        self._compiler = find_compiler(settings, self._device, dtypes, turns=self._turns is not None)
        self._presence = Presence(catalogue, self._store, self._variants, kernels, self._compiler, apart=settings.exact)
        self._prepared: Network | None = None
        self._texts: WeakKeyDictionary[Network, OrderedDict[Hashable, list[Cond]]] = WeakKeyDictionary()
        self._previewer = Previewer(settings.models_dir, self._device)
        self._depth_folder = settings.models_dir / "midas"
        self._describers = Describers(settings.models_dir, self._device, half=settings.precision != "fp32")
        limit = settings.max_image_pixels
        self._retouching = Retouching(
            catalogue.small.pictures, self._store, self._device, formats.denoiser, max_picture_pixels=limit
        )

    @property
    def machine(self) -> str:
        """Whose costs were measured: device, threads, number format and version of torch."""
        name = torch.cuda.get_device_name(self._device) if self._device.type == "cuda" else platform.processor()
        threads = self._threads or torch.get_num_threads()
        compiled = ", compiled" if self._compiler else ""
        return (
            f"{name or platform.machine()}, {threads} threads, {self._store.dtype}, torch {torch.__version__}{compiled}"
        )

    @property
    def is_compiling(self) -> bool:
        """Whether a network is being compiled. From any thread."""
        return self._compiler is not None and self._compiler.is_busy

    @contextmanager
    def session(self) -> Iterator[None]:
        """Inference mode for the device thread's whole life; no context spans a question."""
        if self._threads:
            torch.set_num_threads(self._threads)
        with torch.inference_mode():
            yield

    def program(self, spec: Spec, index: int) -> Program:
        """The program that makes picture `index` of the job."""
        if isinstance(spec, RetouchSpec):
            return self._retouching.program(spec)
        return self._retouching.expanded(program(spec, index, self._device))

    def change_s(self, op: Question) -> float:
        """About how many seconds `prepare` would take now; 0 if everything is in place."""
        return self._presence.change_s(op)

    def is_apart(self, op: Question) -> bool:
        """Whether the question's answer is known to be the same bytes in any company."""
        return self._presence.is_apart(op)

    def prepare(self, op: Question) -> None:
        """Have the weights in place that the question needs. Raises what `answer` raises."""
        if isinstance(op, ForCheckpoint):
            with self._to_its_end("the models that it needs"):
                self._prepared = self._presence.bring(op)

    def answer(self, ops: Sequence[Question]) -> list[Answer]:
        """One answer per question; all are of one batch key. Raises OutOfDeviceMemory."""
        self._returning.work()
        with self._to_its_end(f"{len(ops)} images at once"):
            return self._answer(ops)

    @contextmanager
    def _to_its_end(self, what: str) -> Iterator[None]:
        """Whoever times this work must see its end, and an error must surface in it. Raises OutOfDeviceMemory."""
        try:
            yield
            if self._device.type == "cuda":
                # Not the whole device: a compilation may try its kernels beside this.
                torch.cuda.current_stream(self._device).synchronize()
        except torch.OutOfMemoryError as error:
            raise OutOfDeviceMemory(f"the device has too little memory for {what}") from error

    def _answer(self, ops: Sequence[Question]) -> list[Answer]:
        first = ops[0]
        if not isinstance(first, ForCheckpoint):
            return list(self._retouching.answer([op for op in ops if isinstance(op, ForPicture)]))
        network, self._prepared = self._prepared or self._presence.bring(first), None
        match first:
            case Denoise():
                return self._denoise(network, [op for op in ops if isinstance(op, Denoise)])
            case Decode():
                decode = self._decoder(network, first.model)
                return list(to_pictures(decode(torch.stack([op.latent for op in ops if isinstance(op, Decode)]))))
            case EncodeImage():
                return _encode_images(network, [op for op in ops if isinstance(op, EncodeImage)])
            case EstimateDepth():
                return [self._estimate_depth(op) for op in ops if isinstance(op, EstimateDepth)]
            case EncodeText():
                return [self._encode_text(network, op) for op in ops if isinstance(op, EncodeText)]

    def _denoise(self, network: Network, ops: Sequence[Denoise]) -> list[list[Tensor]]:
        rows = [row for op in ops for row in op.rows]
        answers = iter(estimate_x0(network, rows))
        return [[next(answers) for _ in op.rows] for op in ops]

    def _decoder(self, network: Network, model: Model) -> Decoder:
        if model.decoder == "Full":
            return network.decode
        return self._previewer.get_decoder(model.decoder, network.latent_channels, network.scale)

    def _estimate_depth(self, op: EstimateDepth) -> Tensor:
        path = find_depth_file(self._depth_folder)
        if path is None:
            wanted = f"it sees by depth: put the weights of Intel/dpt-hybrid-midas into {self._depth_folder}"
            raise BadRequest("sd_model_checkpoint", op.model.checkpoint, wanted)
        network = self._store.keep(("depth", str(path)), str(path), lambda: load_depth(path, self._device))
        return network.estimate(op.picture)

    def _encode_text(self, network: Network, op: EncodeText) -> list[Cond]:
        texts = self._texts.setdefault(network, OrderedDict())
        vectors = self._variants.vectors(network)
        # What the encoder never sees must not part texts that are encoded alike; files may change under their names.
        question = replace(op, model=Model(checkpoint=op.model.checkpoint))
        adapters = tuple(share.identity for share in network.variant.text)
        key = question, adapters, tuple((name, id(one)) for name, one in vectors.items())
        if key not in texts:
            texts[key] = encode_text(network, op, vectors)
            if len(texts) > CACHED_TEXTS:
                texts.popitem(last=False)
        texts.move_to_end(key)
        return texts[key]

    def tidy(self) -> float | None:
        """Drop what nobody has used for too long. In how many seconds there may be more of it; None if never."""
        due = [self._returning.tidy()]
        if self._unload_after_s:
            self._released = False
            due.append(self._store.drop_unused(self._unload_after_s))
            if self._released:
                self._return_memory()
        return min((seconds for seconds in due if seconds is not None), default=None)

    def preview(self, model: Model, latent: Tensor, method: PreviewMethod) -> Picture | None:
        """A latent `[C, H/8, W/8]` as it stands, by the method or the next best for which there are weights.

        None while the model is not loaded: nothing is loaded to show what others wait for.
        """
        network = self._presence.find_for_preview(model)
        if network is None:
            return None
        if self._turns and method == "Full":
            method = "Approx NN"  # the autoencoder's turn would cost the denoiser its own
        decode = self._previewer.find_decoder(method, len(latent), network.scale) or network.decode
        return to_pictures(decode(latent[None]))[0]

    def load(self, checkpoint: str) -> None:
        """Load a checkpoint unless it is there. Raises UnknownName, BadModelFile."""
        self._presence.network(Model(checkpoint=checkpoint))

    def unload(self) -> None:
        """Drop every network and give its memory back to the device."""
        self._describers.clear()
        self._store.clear()
        self._return_memory()

    def _note_release(self) -> None:
        """Memory of a device is given back at once, in whole blocks; main memory soon serves what comes instead."""
        self._released = True
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _return_memory(self) -> None:
        """Give back what was freed to whom it came from."""
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        else:
            return_freed_memory()

    def describe(self, picture: Picture, question: InWords | InTags) -> Describing:
        """Say what is in a picture, part by part. Raises MissingNetwork, BadModelFile, OutOfDeviceMemory."""
        try:
            return (yield from self._describers.describe(picture, question))
        except torch.OutOfMemoryError as error:
            raise OutOfDeviceMemory("the device has too little memory to describe a picture") from error

    def resident_bytes(self) -> int:
        """What the loaded models hold. For the device thread."""
        return self._store.nbytes

    def memory(self) -> DeviceMemory | None:
        """The device's memory; None for a CPU."""
        if self._device.type != "cuda":
            return None
        free, total = torch.cuda.mem_get_info(self._device)
        stats = torch.cuda.memory_stats(self._device)

        def pair(name: str) -> tuple[int, int]:
            return stats.get(f"{name}.all.current", 0), stats.get(f"{name}.all.peak", 0)

        return DeviceMemory(
            free=free,
            total=total,
            active=pair("active_bytes"),
            allocated=pair("allocated_bytes"),
            reserved=pair("reserved_bytes"),
            inactive=pair("inactive_split_bytes"),
            retries=stats.get("num_alloc_retries", 0),
            out_of_memory=stats.get("num_ooms", 0),
        )

    def warm_up(self, checkpoint: str) -> None:
        """Load a checkpoint and run each of its networks once, on a picture that is not too much for a processor."""
        model = Model(checkpoint=checkpoint, traits=self._catalogue.get(checkpoint).traits)
        network = self._presence.network(model)
        side = min(network.native_size, WARM_UP_SIZE)
        numbers = numbers_beside(model.traits.family, (side, side), SdxlOptions())
        [cond] = self._encode_text(network, EncodeText(model=model, texts=("",), numbers=numbers))
        latent = torch.zeros(network.latent_channels, side // 8, side // 8, device=network.device)
        image = torch.zeros(network.image_channels, side // 8, side // 8, device=network.device)
        estimate_x0(network, [Row(latent, 1.0, 350.0, cond, image if len(image) else None)] * 2)
        network.decode(latent[None])


def encode_text(network: Network, op: EncodeText, vectors: Mapping[str, Tensor] = MappingProxyType({})) -> list[Cond]:
    """Encode the texts of one prompt together; `vectors` stand in for the names that they are listed under."""
    names = glossary_of(network, vectors)
    chunked = equalised([_chunks(network, text, op, names) for text in op.texts], Vocabulary())
    texts = [
        Text(
            chunks=[part.tokens for part in chunks],
            weights=[part.weights for part in chunks],
            insertions=[[(one.place, vectors[one.name]) for one in part.insertions] for part in chunks],
            pieces=[(piece.text, piece.weight) for piece in segments(text, op.emphasis) if piece.text],
        )
        for text, chunks in zip(op.texts, chunked, strict=True)
    ]
    asked = Asked(
        clip_skip=op.clip_skip,
        emphasis=op.emphasis,
        all_empty=op.negative and not any(op.texts),
        numbers=op.numbers,
        sdxl_clip_l_skip=op.sdxl_clip_l_skip,
        t5=op.t5,
    )
    encoded = network.encode_text(texts, asked)
    beside = [None] * len(texts) if encoded.vector is None else encoded.vector
    return [Cond(context, vector) for context, vector in zip(encoded.context, beside, strict=True)]


def _chunks(network: Network, text: str, op: EncodeText, names: Glossary) -> list[Chunk]:
    if op.old_emphasis:
        factors = {} if op.emphasis == "None" else bracket_factors(network.spellings)
        return [chunk_old(text, network.tokenize, factors, Vocabulary(), names)]
    return chunk(segments(text, op.emphasis), network.tokenize, Vocabulary(), op.comma_backtrack, names)


def _encode_images(network: Network, ops: Sequence[EncodeImage]) -> list[Tensor]:
    """One latent per picture; a picture that several lanes share is encoded once."""
    distinct = {id(op.picture): _pixels(op.picture, network.device) for op in ops}
    latents = network.encode_image(torch.stack(list(distinct.values())))
    found = dict(zip(distinct, latents if ops[0].scaled else latents / network.scale, strict=True))
    return [found[id(op.picture)] for op in ops]


def _pixels(picture: Picture | Tensor, device: torch.device) -> Tensor:
    """`[3, H, W]` in -1..1."""
    return picture if isinstance(picture, Tensor) else as_pixels(picture, device)


def estimate_x0(network: Network, rows: Sequence[Row]) -> list[Tensor]:
    """x0 `[C, H/8, W/8]` float32 of every row. Rows whose texts differ in shape cannot be stacked and run apart, and so
    do those that skip the inner layers.
    """
    _check_latents(network, rows)
    kinds = [(row.cond.shape, row.is_shallow) for row in rows]
    found: dict[int, Tensor] = {}
    for kind in dict.fromkeys(kinds):
        places = [place for place, other in enumerate(kinds) if other == kind]
        found.update(zip(places, _estimate_x0(network, [rows[place] for place in places]), strict=True))
    return [found[place] for place in range(len(rows))]


def _check_latents(network: Network, rows: Sequence[Row]) -> None:
    """Raise BadRequest for latents of another kind of checkpoint, and for a pass that does not show this one what it
    looks at beside them.
    """
    wanted = network.image_channels
    for row in rows:
        if len(row.x) != network.latent_channels:
            allowed = f"its latents have {network.latent_channels} channels, and those of this pass {len(row.x)}"
            raise BadRequest("checkpoint", "of this pass", allowed)
        shown = 0 if row.image is None else len(row.image)
        if shown != wanted:
            allowed = f"its UNet takes {wanted} channels beside the latent, and this pass has {shown} for it"
            raise BadRequest("checkpoint", "of this pass", allowed)


def _estimate_x0(network: Network, rows: Sequence[Row]) -> Tensor:
    """With c_in = 1 / sqrt(sigma^2 + 1), the network sees x * c_in; Karras et al. 2022, arXiv:2206.00364, table 1
    (VP). With flow matching it sees x as it is; Esser et al. 2024, arXiv:2403.03206, section 2.
    """
    x = torch.stack([row.x for row in rows])
    context = torch.stack([row.cond.context for row in rows])
    vectors = [row.cond.vector for row in rows if row.cond.vector is not None]
    timestep = sent([row.timestep for row in rows], network.device)
    sigma = sent([row.sigma for row in rows], network.device).view(-1, 1, 1, 1)
    c_in = torch.ones_like(sigma) if network.prediction == "flow" else (sigma * sigma + 1).rsqrt()
    images = [row.image for row in rows if row.image is not None]
    seen = torch.cat([x * c_in, torch.stack(images)], dim=1) if images else x * c_in
    output = _output(network, rows, seen, timestep, context, torch.stack(vectors) if vectors else None)
    if network.prediction == "v":
        return _x0_of_v(output, x * c_in, rows)
    return x - output * sigma


def _output(
    network: Network, rows: Sequence[Row], x: Tensor, timesteps: Tensor, context: Tensor, vectors: Tensor | None
) -> Tensor:
    """The network's answer, with what its inner layers found put where rows keep it, or taken from there."""
    kept = [row.kept for row in rows if row.kept is not None]
    if not kept:
        return network.denoise(x, timesteps, context, vectors)
    if rows[0].is_shallow:
        features = torch.cat([one.features for one in kept if one.features is not None])
        return network.denoise(x, timesteps, context, vectors, features=features)
    output, found = network.denoise_and_keep(x, timesteps, context, vectors)
    for place, row in enumerate(rows):
        if row.kept is not None and found is not None:
            row.kept.features = found[place : place + 1].contiguous(memory_format=torch.channels_last)
    return output


def _x0_of_v(v: Tensor, x: Tensor, rows: Sequence[Row]) -> Tensor:
    """The x0 that a v means for x at unit variance: the noise in x is (v + s x) / sqrt(1 + s^2) for a row's v_sigma s.

    Salimans and Ho 2022, arXiv:2202.00512, appendix D.
    """
    # By Python and not by torch, whose answer depends on the place among all rows: see `nets/rows.py`.
    pairs = [(row.sigma, row.sigma if row.v_sigma is None else row.v_sigma) for row in rows]
    weights = [sigma / math.hypot(1.0, s) for sigma, s in pairs]
    kept = [math.hypot(1.0, sigma) - weight * s for (sigma, s), weight in zip(pairs, weights, strict=True)]
    return x * sent(kept, x.device).view(-1, 1, 1, 1) - v * sent(weights, x.device).view(-1, 1, 1, 1)


def to_pictures(pixels: Tensor) -> list[Picture]:
    """`[B, 3, H, W]` in -1..1 to uint8 pictures, by truncation."""
    # A1111: no rounding
    levels = ((pixels.float() + 1) / 2).clamp(0, 1).mul(255).to(torch.uint8)
    return list(fetched(levels.movedim(1, -1).contiguous()).numpy())


def choose_device(name: str) -> torch.device:
    """The device that a setting means: "auto" is CUDA where there is one. Raises BadRequest where CUDA is missing."""
    if name == "cuda" and not torch.cuda.is_available():
        raise BadRequest("device", name, "auto or cpu: torch sees no CUDA device here")
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)


def kernels_for(settings: Settings, device: torch.device, dtype: torch.dtype) -> Kernels:
    """The kernels of our own that networks compute by, where settings and machine allow."""
    if not settings.native_kernels or device.type != "cpu" or dtype != torch.bfloat16:
        return Kernels()
    try:
        folder = cache_folder()
    except RuntimeError as error:  # a user without a name, as containers have them, and no HOME
        log.info("torch's own kernels do all the work: there is no folder for others: %s", error)
        return Kernels()
    return find_kernels(folder)


def find_compiler(
    settings: Settings, device: torch.device, dtypes: Collection[torch.dtype], *, turns: bool
) -> Compiler | None:
    """What compiles networks; None if nothing is to, or nothing can, which is logged."""
    if not settings.compile:
        return None
    reason = ""
    if settings.exact:
        reason = "exact asks for the same bytes at any time, and compiled answers differ from eager ones in low bits"
    elif turns:
        reason = "networks that take turns in a GPU's memory have no fixed place there"
    elif device.type == "cpu" and torch.bfloat16 in dtypes:
        reason = "in bf16 a processor has layers of its own here, which are quicker"
    if reason:
        log.warning("networks are not compiled: %s", reason)
        return None
    keep_compiled(settings.compiled_dir)
    return Compiler(threads=settings.threads)


def find_turns(settings: Settings, device: torch.device) -> Turns | None:
    """How networks share a device that is too small for them; None if they need not."""
    tier: Tier = "blocks" if settings.lowvram else "parts" if settings.medvram else "whole"
    large: Tier = "parts" if settings.medvram_sdxl and tier == "whole" else tier
    if large == "whole":
        return None
    if device.type == "cpu":
        log.info("medvram and lowvram change nothing here: networks compute in main memory, where they lie")
        return None
    return Turns(device, lambda family: large if family in ("sdxl", "refiner") else tier)

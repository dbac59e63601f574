"""Which small networks a request takes in: tags of its prompt, embeddings in its texts, the autoencoder, how tokens and
edges are treated; and what the generation text says of them. Their lists, and the routes that look for new files.

Knows names and hashes; opens no file and loads nothing.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from fastapi import APIRouter

from darkroom.api.checkpoints import choose_checkpoint
from darkroom.api.context import Shared
from darkroom.api.models import Generation, Img2Img
from darkroom.errors import BadRequest
from darkroom.jobs.block_weights import BlockWeights, read_block_weights
from darkroom.jobs.networks import (
    AdapterInfo,
    EmbeddingInfo,
    FaceRestorerInfo,
    HypernetworkInfo,
    UpscalerInfo,
    VaeInfo,
)
from darkroom.jobs.spec import Adapter, CheckpointInfo, Emphasis, VaeFallback
from darkroom.options.values import OptionValues
from darkroom.prompt import composition
from darkroom.prompt.grammar import NetworkTag, cut_networks
from darkroom.prompt.schedule import Timeline, schedule

router = APIRouter(prefix="/sdapi/v1", tags=["networks"])

ADAPTER_WORDS = frozenset({"lora", "lyco"})
KNOWN_WORDS = ADAPTER_WORDS | {"hypernet"}

_NONE = "None"
_AUTOMATIC = frozenset({"Automatic", "auto"})


class Shelf(Protocol):
    """What of an engine is asked here; see `Engine`."""

    def find_adapter(self, name: str) -> AdapterInfo | None: ...
    def adapter_hash(self, name: str) -> str | None: ...
    def autoencoders(self) -> Sequence[VaeInfo]: ...
    def vae_hash(self, name: str) -> str | None: ...
    def hypernetworks(self) -> Sequence[HypernetworkInfo]: ...
    def embeddings(self) -> Sequence[EmbeddingInfo]: ...
    def upscalers(self) -> Sequence[UpscalerInfo]: ...
    def find_upscaler(self, name: str) -> UpscalerInfo | None: ...
    def face_restorers(self) -> Sequence[FaceRestorerInfo]: ...
    def find_embeddings(
        self, width: int | None, texts: Sequence[str], emphasis: Emphasis, comma_backtrack: int
    ) -> Sequence[EmbeddingInfo]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenAdapters:
    """The adapters of one pass, their hashes by the names that the prompt uses, and what could not be done."""

    adapters: tuple[Adapter, ...] = ()
    hashes: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


class _Strengths(NamedTuple):
    text: float
    unet: float
    rank: int | None
    blocks: BlockWeights = ()
    warning: str = ""


def with_default_networks(prompt: str, values: OptionValues, shelf: Shelf) -> str:
    """The prompt with tags for the adapter and the hypernetwork that options add to all prompts, unless it has them."""
    tags = cut_networks(prompt)[1]
    mentioned = {("lora" if tag.word in ADAPTER_WORDS else tag.word, tag.items[0]) for tag in tags}
    strength = values.extra_networks_default_multiplier
    hypernetworks = {info.name for info in shelf.hypernetworks()}
    if ("hypernet", values.sd_hypernetwork) not in mentioned and values.sd_hypernetwork in hypernetworks:
        prompt += f"<hypernet:{values.sd_hypernetwork}:{strength}>"
    name = values.sd_lora
    if name == _NONE or ("lora", name) in mentioned or shelf.find_adapter(name) is None:
        return prompt
    return f"{prompt}<lora:{name}:{strength}>"


def hypernetworks_of(prompt: str, shelf: Shelf, *, disabled: bool = False) -> ChosenAdapters:
    """The hypernetworks that the tags of a prompt ask for, in order; see `adapters_of`."""
    tags = [tag for tag in cut_networks(prompt)[1] if tag.word == "hypernet" and not disabled]
    try:
        asked = [(tag.items[0], _number(tag.items[1]) if len(tag.items) > 1 else 1.0) for tag in tags]
    except ValueError:
        return ChosenAdapters(warnings=("a <hypernet:...> tag cannot be read; no hypernetwork was used",))
    known = {info.name for info in shelf.hypernetworks()}
    return ChosenAdapters(
        adapters=tuple(
            Adapter(name=name, kind="hypernetwork", unet=strength, text=0.0)
            for name, strength in asked
            if name in known
        ),
        warnings=tuple(f"Hypernetwork not found: {name[:80]}" for name, _ in asked if name not in known),
    )


def adapters_of(prompt: str, values: OptionValues, shelf: Shelf, *, disabled: bool = False) -> ChosenAdapters:
    """The adapters that the tags of a prompt ask for, in order.

    A1111: a tag that cannot be read keeps all of them out; of several tags with the same name the last one's strengths
    hold for each; a name that is not known is passed over.
    """
    tags = [] if disabled else _by_word(cut_networks(prompt)[1])
    try:
        asked = [(_name(tag), _strengths(tag)) for tag in tags]
    except (ValueError, IndexError, OverflowError):
        return ChosenAdapters(warnings=("a <lora:...> tag cannot be read; no adapter was used",))
    last = dict(asked)
    found = {name: shelf.find_adapter(name) for name in last}
    known = [(name, info) for name, _ in asked if (info := found[name]) is not None]
    hashes = ((name.replace(":", "").replace(",", ""), shelf.adapter_hash(info.name)) for name, info in known)
    return ChosenAdapters(
        adapters=tuple(
            Adapter(
                name=info.name,
                unet=last[name].unet,
                text=last[name].text,
                rank=last[name].rank,
                blocks=last[name].blocks,
            )
            for name, info in known
        ),
        hashes={name: digits for name, digits in hashes if name and digits}
        if values.lora_add_hashes_to_infotext
        else {},
        warnings=(
            *(f"Lora not found: {name[:80]}" for name, info in found.items() if info is None),
            *(one.warning for one in last.values() if one.warning),
        ),
    )


def _by_word(tags: Iterable[NetworkTag]) -> list[NetworkTag]:
    """The adapters' tags. A1111: those with the word that comes first stand before those with the other."""
    words: dict[str, list[NetworkTag]] = {}
    for tag in tags:
        if tag.word in ADAPTER_WORDS:
            words.setdefault(tag.word, []).append(tag)
    return [tag for same in words.values() for tag in same]


def _name(tag: NetworkTag) -> str:
    return tag.positional[0]


def _strengths(tag: NetworkTag) -> _Strengths:
    """Text encoder's and UNet's strength and the rank of `<lora:name:te:unet:dyn>`, and the blocks of a further `lbw=`;
    names beat places. Raises ValueError.
    """
    places, named = dict(enumerate(tag.positional)), tag.named
    text = _number(named.get("te", places.get(1, "1")))
    unet = _number(named.get("unet", places.get(2, text)))
    rank = named.get("dyn", places.get(3))
    return _Strengths(text, unet, None if rank is None else int(rank), *_blocks(named.get("lbw", "")))


def _blocks(text: str) -> tuple[BlockWeights, str]:
    """The strengths by blocks of `lbw=...`, and a warning where they cannot be read: then all blocks count alike."""
    if not text:
        return (), ""
    try:
        return read_block_weights(text), ""
    except BadRequest as error:
        return (), f"{error}; the adapter was used in all blocks alike"


def _number(text: str | float) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def adapter_notes(*passes: ChosenAdapters) -> dict[str, object]:
    """The generation text's entry for the adapters of all passes."""
    hashes = {name: digits for one in passes for name, digits in one.hashes.items()}
    return {"Lora hashes": ", ".join(f"{name}: {digits}" for name, digits in hashes.items())} if hashes else {}


def embedding_notes(
    prompt: str, negative: str, timeline: Timeline, checkpoint: CheckpointInfo, values: OptionValues, shelf: Shelf
) -> dict[str, object]:
    """The generation text's entry for the embeddings in both prompts of the first pass.

    A1111: each text that is encoded puts its embeddings before those found so far, the negative prompt being first; so
    one that stands in several texts is told several times, and by each of SDXL's two text encoders. The old emphasis
    tells of none.
    """
    silent = values.use_old_emphasis_implementation or not values.textual_inversion_add_hashes_to_infotext
    if silent or not shelf.embeddings():
        return {}
    parts = [part.text for part in composition.split(cut_networks(prompt)[0])]
    encoders = 2 if checkpoint.traits.family == "sdxl" else 1
    told: list[str] = []
    for text in (negative, *dict.fromkeys(parts)):
        texts = tuple(dict.fromkeys(entry.text for entry in schedule(text, timeline)))
        used = shelf.find_embeddings(checkpoint.text_width, texts, values.emphasis, values.comma_padding_backtrack)
        named = [f"{_plain(info.name)}: {info.short_hash}" for info in used]
        told = named * encoders + told
    return {"TI hashes": ", ".join(told)} if told else {}


def _plain(name: str) -> str:
    return name.replace(":", "").replace(",", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Networks:
    """All that a request takes in beside its checkpoint; `hires` is the second pass's.

    `before` and `after` are entries of the generation text, between which prompt editing has its own.
    """

    first: ChosenAdapters
    hires: ChosenAdapters
    vae: "ChosenVae"
    before: dict[str, object]
    after: dict[str, object]
    warnings: tuple[str, ...]


def choose_networks(
    wire: Generation,
    prompts: Sequence[tuple[str, str]],
    timeline: Timeline,
    checkpoint: CheckpointInfo,
    values: OptionValues,
    shelf: Shelf,
) -> Networks:
    """The networks of a request whose passes have these prompts, each with its negative one."""
    disabled = bool(wire.disable_extra_networks)
    first, *later = (
        _all_of(with_default_networks(positive, values, shelf), values, shelf, disabled=disabled)
        for positive, _ in prompts
    )
    hires = later[0] if later else ChosenAdapters()
    vae = choose_vae(checkpoint, values, shelf)
    return Networks(
        first=first,
        hires=hires,
        vae=vae,
        before=adapter_notes(first, hires),
        after=embedding_notes(*prompts[0], timeline, checkpoint, values, shelf),
        warnings=tuple(dict.fromkeys((*first.warnings, *hires.warnings, *vae.warnings))),
    )


def _all_of(prompt: str, values: OptionValues, shelf: Shelf, *, disabled: bool) -> ChosenAdapters:
    """The adapters and the hypernetworks of a prompt."""
    adapters = adapters_of(prompt, values, shelf, disabled=disabled)
    others = hypernetworks_of(prompt, shelf, disabled=disabled)
    return ChosenAdapters(
        adapters=(*adapters.adapters, *others.adapters),
        hashes=adapters.hashes,
        warnings=(*adapters.warnings, *others.warnings),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenVae:
    """An autoencoder; "" is the checkpoint's own. `entries` are what the generation text says of another one."""

    name: str = ""
    short_hash: str | None = None
    entries: tuple[tuple[str, str], ...] = ()
    warnings: tuple[str, ...] = ()


def choose_vae(checkpoint: CheckpointInfo, values: OptionValues, shelf: Shelf) -> ChosenVae:
    """The autoencoder that a flag, the option, the checkpoint's own wish or a file name beside it asks for."""
    known = {info.name: info for info in shelf.autoencoders()}
    always = next((info.name for info in known.values() if info.always), None)
    name, warnings = (always, ()) if always else _vae_name(checkpoint, values, list(known))
    if not name:
        return ChosenVae(warnings=warnings)
    digits = shelf.vae_hash(name)
    entries = []
    if values.add_vae_hash_to_info and digits:
        entries.append(("VAE hash", digits))
    if values.add_vae_name_to_info:
        entries.append(("VAE", name))
    return ChosenVae(name=name, short_hash=digits, entries=tuple(entries), warnings=warnings)


def _vae_name(checkpoint: CheckpointInfo, values: OptionValues, known: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    automatic = values.sd_vae in _AUTOMATIC
    if values.sd_vae_overrides_per_model_preferences and not automatic:
        return _configured(values.sd_vae, known)
    if checkpoint.preferred_vae == _NONE:
        return "", ()
    if checkpoint.preferred_vae in known:
        return str(checkpoint.preferred_vae), ()
    beside = next((name for name in known if name.startswith(checkpoint.base)), "")
    return (beside, ()) if beside or automatic else _configured(values.sd_vae, known)


def _configured(name: str, known: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """A1111: an unknown name means the checkpoint's own."""
    if name in known:
        return name, ()
    return "", (() if name == _NONE else (f"sd_vae {name[:80]!r} is unknown; the checkpoint's own was used",))


def vae_fallback(values: OptionValues) -> VaeFallback:
    """What an autoencoder computes in once its own number format failed."""
    return "bfloat16" if values.auto_vae_precision_bfloat16 else "float32" if values.auto_vae_precision else "none"


def token_merging(wire: Generation, values: OptionValues) -> tuple[float, float]:
    """The share of tokens that is merged in the first pass, and in the second one.

    A1111: for img2img an override of the general option beats img2img's own.
    """
    ratio = values.token_merging_ratio
    if isinstance(wire, Img2Img) and not ("token_merging_ratio" in (wire.override_settings or {}) and ratio):
        ratio = values.token_merging_ratio_img2img or ratio
    return ratio, values.token_merging_ratio_hr or ratio


def tiles(wire: Generation, values: OptionValues) -> bool:
    """Whether the picture's edges are to fit each other."""
    return values.tiling if wire.tiling is None else wire.tiling


@router.get("/loras", operation_id="get_loras_sdapi_v1_loras_get")
def get_loras(context: Shared) -> list[dict[str, Any]]:
    """The adapters. Those with a JSON beside them that says so have `activation_text`, the words that they were trained
    to answer to, and `preferred_weight`.
    """
    return [
        {"name": info.name, "alias": info.alias, "path": info.filename, "metadata": dict(info.metadata)}
        | ({"activation_text": info.activation_text} if info.activation_text else {})
        | ({"preferred_weight": info.preferred_weight} if info.preferred_weight else {})
        for info in context.engine.adapters()
    ]


@router.get("/sd-vae", operation_id="get_sd_vaes_sdapi_v1_sd_vae_get")
def get_sd_vaes(context: Shared) -> list[dict[str, str]]:
    """The autoencoders that have files of their own."""
    return [{"model_name": info.name, "filename": info.filename} for info in context.engine.autoencoders()]


@router.get("/hypernetworks", operation_id="get_hypernetworks_sdapi_v1_hypernetworks_get")
def get_hypernetworks(context: Shared) -> list[dict[str, str]]:
    """The hypernetworks."""
    return [{"name": info.name, "path": info.filename} for info in context.engine.hypernetworks()]


@router.get("/embeddings", operation_id="get_embeddings_sdapi_v1_embeddings_get")
def get_embeddings(context: Shared) -> dict[str, dict[str, Any]]:
    """The embeddings by name: those that fit the selected checkpoint, and those that do not."""
    checkpoints = context.engine.checkpoints()
    width = None
    if checkpoints:
        width = choose_checkpoint(checkpoints, context.options.snapshot().sd_model_checkpoint).text_width
    shown: dict[str, dict[str, Any]] = {"loaded": {}, "skipped": {}}
    for info in context.engine.embeddings():
        shown["loaded" if width in (None, info.width) else "skipped"][info.name] = {
            "step": info.step,
            "sd_checkpoint": info.sd_checkpoint,
            "sd_checkpoint_name": info.sd_checkpoint_name,
            "shape": info.width,
            "vectors": info.vectors,
        }
    return shown


@router.post("/refresh-loras", operation_id="refresh_loras_sdapi_v1_refresh_loras_post")
@router.post("/refresh-vae", operation_id="refresh_vae_sdapi_v1_refresh_vae_post")
@router.post("/refresh-embeddings", operation_id="refresh_embeddings_sdapi_v1_refresh_embeddings_post")
def refresh(context: Shared) -> None:
    """Look at the models folder again."""
    context.engine.refresh(hidden=context.options.snapshot().list_hidden_files)

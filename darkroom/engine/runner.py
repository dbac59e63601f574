"""Answers questions with real networks. The only room of the engine that knows them; used by the device thread
alone.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from darkroom.engine.catalogue import Catalogue
from darkroom.errors import BadRequest, OutOfDeviceMemory
from darkroom.jobs.ops import Answer, Cond, Decode, Denoise, EncodeImage, EncodeText, Op, Program, Row, Upscale
from darkroom.jobs.programs import program
from darkroom.jobs.spec import JobSpec, Model, Picture
from darkroom.nets.network import Network
from darkroom.nets.precision import choose_dtype
from darkroom.nets.store import Store
from darkroom.prompt.attention import Weighted, parse
from darkroom.prompt.chunks import Vocabulary, chunk, equalised
from darkroom.settings import Settings

CACHED_TEXTS = 256


class NetworkRunner:
    """Keeps the checkpoints in work, and with each the encodings of recent prompts, which most jobs share."""

    def __init__(self, settings: Settings, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._threads = settings.threads
        self._device = choose_device(settings.device)
        dtype = choose_dtype(settings.precision, self._device)
        self._store = Store(self._device, dtype, int(settings.model_memory_gb * 1e9))
        self._texts: WeakKeyDictionary[Network, OrderedDict[EncodeText, list[Cond]]] = WeakKeyDictionary()

    @contextmanager
    def session(self) -> Iterator[None]:
        """Inference mode for the device thread's whole life; no context spans a question."""
        if self._threads:
            torch.set_num_threads(self._threads)
        with torch.inference_mode():
            yield

    def program(self, spec: JobSpec, index: int) -> Program:
        """The program that makes picture `index` of the job."""
        return program(spec, index, self._device)

    def answer(self, ops: Sequence[Op]) -> list[Answer]:
        """One answer per question; all are of one batch key. Raises OutOfDeviceMemory."""
        try:
            answers = self._answer(ops)
        except torch.OutOfMemoryError as error:
            raise OutOfDeviceMemory(f"the device has too little memory for {len(ops)} images at once") from error
        if self._device.type == "cuda":
            # Whoever times a batch must see its end, and an error must surface in the batch that made it.
            torch.cuda.synchronize(self._device)
        return answers

    def _answer(self, ops: Sequence[Op]) -> list[Answer]:
        network = self._network(ops[0].model)
        match ops[0]:
            case Denoise():
                return self._denoise(network, [op for op in ops if isinstance(op, Denoise)])
            case Decode():
                pixels = network.decode(torch.stack([op.latent for op in ops if isinstance(op, Decode)]))
                return list(to_pictures(pixels))
            case EncodeImage():
                return _encode_images(network, [op.picture for op in ops if isinstance(op, EncodeImage)])
            case EncodeText():
                return [self._encode_text(network, op) for op in ops if isinstance(op, EncodeText)]
            case Upscale():
                raise NotImplementedError

    def _denoise(self, network: Network, ops: Sequence[Denoise]) -> list[list[Tensor]]:
        rows = [row for op in ops for row in op.rows]
        answers = iter(estimate_x0(network, rows))
        return [[next(answers) for _ in op.rows] for op in ops]

    def _encode_text(self, network: Network, op: EncodeText) -> list[Cond]:
        texts = self._texts.setdefault(network, OrderedDict())
        if op not in texts:
            texts[op] = encode_text(network, op)
            if len(texts) > CACHED_TEXTS:
                texts.popitem(last=False)
        texts.move_to_end(op)
        return texts[op]

    def preview(self, model: Model, latent: Tensor) -> Picture:
        """A latent as it stands: by a linear map at 1/8 of the size where the latent space has a known one, else
        decoded.
        """
        network = self._network(model)
        if network.latent_rgb is None:
            pixels = network.decode(latent[None])
        else:
            pixels = torch.einsum("chw,cr->rhw", latent, network.latent_rgb.to(latent.device))[None]
        return to_pictures(pixels)[0]

    def warm_up(self, checkpoint: str) -> None:
        """Load a checkpoint and run each of its networks once."""
        model = Model(checkpoint=checkpoint)
        network = self._network(model)
        [cond] = self._encode_text(network, EncodeText(model=model, texts=("",)))
        side = network.native_size // 8
        latent = torch.zeros(network.latent_channels, side, side, device=network.device)
        estimate_x0(network, [Row(latent, 1.0, 350.0, cond)] * 2)
        network.decode(latent[None])

    def _network(self, model: Model) -> Network:
        info = self._catalogue.get(model.checkpoint)
        return self._store.get(info.filename, info.config)


def encode_text(network: Network, op: EncodeText) -> list[Cond]:
    """Encode the texts of one prompt together."""
    parts = [[Weighted(text, 1.0)] if op.emphasis == "None" else parse(text) for text in op.texts]
    clip = Vocabulary()
    chunked = equalised([chunk(part, network.tokenize, clip, op.comma_backtrack) for part in parts], clip)
    contexts = network.encode_text(
        [[part.tokens for part in chunks] for chunks in chunked],
        [[part.weights for part in chunks] for chunks in chunked],
        clip_skip=op.clip_skip,
        emphasis=op.emphasis,
    )
    return [Cond(context) for context in contexts]


def _encode_images(network: Network, pictures: Sequence[Picture]) -> list[Tensor]:
    """One latent per picture; a picture that several lanes share is encoded once."""
    distinct = {id(picture): picture for picture in pictures}
    images = torch.stack([torch.from_numpy(picture) for picture in distinct.values()]).to(network.device)
    latents = network.encode_image(images.movedim(-1, 1).float() / 255 * 2 - 1)
    found = dict(zip(distinct, latents, strict=True))
    return [found[id(picture)] for picture in pictures]


def estimate_x0(network: Network, rows: Sequence[Row]) -> list[Tensor]:
    """x0 `[C, H/8, W/8]` float32 of every row. Rows whose texts differ in length cannot be stacked and run apart."""
    lengths = [len(row.cond.context) for row in rows]
    found: dict[int, Tensor] = {}
    for length in dict.fromkeys(lengths):
        places = [place for place, other in enumerate(lengths) if other == length]
        found.update(zip(places, _estimate_x0(network, [rows[place] for place in places]), strict=True))
    return [found[place] for place in range(len(rows))]


def _estimate_x0(network: Network, rows: Sequence[Row]) -> Tensor:
    """With c_in = 1 / sqrt(sigma^2 + 1), the network sees x * c_in; Karras et al. 2022, arXiv:2206.00364, table 1
    (VP).
    """
    x = torch.stack([row.x for row in rows])
    context = torch.stack([row.cond.context for row in rows])
    timestep = torch.tensor([row.timestep for row in rows], device=network.device)
    sigma = torch.tensor([row.sigma for row in rows], device=network.device).view(-1, 1, 1, 1)
    c_in = (sigma * sigma + 1).rsqrt()
    output = network.denoise(x * c_in, timestep, context)
    if network.prediction == "v":
        return x * c_in * c_in - output * sigma * c_in
    return x - output * sigma


def to_pictures(pixels: Tensor) -> list[Picture]:
    """`[B, 3, H, W]` in -1..1 to uint8 pictures, by truncation."""
    # A1111: no rounding
    levels = ((pixels.float() + 1) / 2).clamp(0, 1).mul(255).to(torch.uint8)
    return list(levels.movedim(1, -1).contiguous().cpu().numpy())


def choose_device(name: str) -> torch.device:
    """The device that a setting means: "auto" is CUDA where there is one. Raises BadRequest where CUDA is missing."""
    if name == "cuda" and not torch.cuda.is_available():
        raise BadRequest("device", name, "auto or cpu: torch sees no CUDA device here")
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)

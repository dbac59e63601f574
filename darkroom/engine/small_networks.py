"""Which adapters, autoencoders, embeddings and hypernetworks there are. Reads folders through `nets`; no tensors here
but those of embeddings, which are read to learn their size.
"""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from threading import RLock

from darkroom.engine.picture_networks import PictureNetworks
from darkroom.errors import BadModelFile
from darkroom.jobs.networks import (
    AdapterInfo,
    EmbeddingInfo,
    FaceRestorerInfo,
    HypernetworkInfo,
    UpscalerInfo,
    VaeInfo,
)
from darkroom.jobs.spec import Emphasis
from darkroom.nets import shelves
from darkroom.nets.catalog import Hashes
from darkroom.nets.conversion import Copies
from darkroom.nets.hashing import Hasher
from darkroom.nets.shelves import SmallFile
from darkroom.nets.tokenizer import ClipTokenizer
from darkroom.prompt.attention import segments
from darkroom.prompt.chunks import Chunk, Concept, Vocabulary, chunk, count_places, glossary, used_concepts
from darkroom.settings import Settings

log = logging.getLogger(__name__)

READ_AT_ONCE = 4


class SmallNetworks:
    """What the settings' folders hold, as of the last look. Thread-safe; embeddings are read when first asked for."""

    def __init__(self, settings: Settings, copies: Copies | None = None) -> None:
        """`copies` keep what pickled embeddings are turned into."""
        self._settings = settings
        self._copies = copies
        self._hashes = Hashes(settings.data_dir / "small-hashes.json")
        self._hasher = Hasher(lambda path, offset: self._hashes.get(path, offset=offset))
        self._lock = RLock()
        self._hidden = True
        self._adapters: list[SmallFile] = []
        self._vaes: list[SmallFile] = []
        self._only_vae: list[SmallFile] = []
        self._hypernetworks: list[SmallFile] = []
        self._embeddings: dict[str, EmbeddingInfo | None] = {}
        self._embeddings_seen: object = None
        self.pictures = PictureNetworks(settings)
        self.refresh()

    def refresh(self, *, hidden: bool = True) -> None:
        """Look at all folders again; unless `hidden`, not in those whose names begin with a dot."""
        settings = self._settings
        with self._lock:
            self._hidden = hidden
            self._adapters = shelves.adapters(settings.adapter_folders, hidden=hidden)
            self._vaes = shelves.autoencoders(settings.checkpoint_folders, settings.vae_folders, hidden=hidden)
            self._only_vae = shelves.autoencoder(settings.vae_path) if settings.vae_path else []
            self._hypernetworks = shelves.hypernetworks(settings.hypernetwork_folders, hidden=hidden)
            self._embeddings_seen = None
        self.pictures.refresh()

    def adapters(self) -> list[AdapterInfo]:
        """The adapters in natural order."""
        return [_adapter(file) for file in self._adapters]

    def find_adapter(self, name: str) -> AdapterInfo | None:
        """The adapter of a name or alias; looks at the folders again for one that no file has, or one that is gone."""
        known = shelves.bearing(self._adapters, name)
        if not known or not all(Path(file.filename).is_file() for file in known):
            with self._lock:
                self._adapters = shelves.adapters(self._settings.adapter_folders, hidden=self._hidden)
        file = shelves.find_adapter(self._adapters, name)
        return _adapter(file) if file else None

    def adapter_hash(self, name: str) -> str | None:
        """Twelve digits for an adapter's key; None while they are being computed, and if the file cannot be read."""
        file = next((file for file in self._adapters if file.name == name), None)
        if self._settings.no_hashing:
            return None
        try:
            return shelves.adapter_hash(file, self._hasher) if file else None
        except OSError as error:
            log.warning("%s: no hash: %s", name, error)
            return None

    def autoencoders(self) -> list[VaeInfo]:
        """The autoencoders: that of the flag, then those among the checkpoints."""
        only = [VaeInfo(name=file.name, filename=file.filename, always=True) for file in self._only_vae]
        names = {info.name for info in only}
        others = [VaeInfo(name=file.name, filename=file.filename) for file in self._vaes if file.name not in names]
        return only + others

    def vae_hash(self, name: str) -> str | None:
        """Ten digits of an autoencoder's SHA-256; None while it is being computed, and if the file cannot be read."""
        file = next((file for file in (*self._only_vae, *self._vaes) if file.name == name), None)
        if self._settings.no_hashing:
            return None
        try:
            digits = self._hasher.find(Path(file.filename)) if file else None
            return digits[:10] if digits else None
        except OSError as error:
            log.warning("%s: no hash: %s", name, error)
            return None

    def hypernetworks(self) -> list[HypernetworkInfo]:
        """The hypernetworks in natural order."""
        return [HypernetworkInfo(name=file.name, filename=file.filename) for file in self._hypernetworks]

    def upscalers(self) -> Sequence[UpscalerInfo]:
        """The upscalers that need a network, by name."""
        return self.pictures.upscalers()

    def find_upscaler(self, name: str) -> UpscalerInfo | None:
        """An upscaler by name, also if its file is new."""
        return self.pictures.find_upscaler(name)

    def face_restorers(self) -> Sequence[FaceRestorerInfo]:
        """The face restorers by name."""
        return self.pictures.face_restorers()

    def embeddings(self) -> list[EmbeddingInfo]:
        """The embeddings that can be read, by lower-case name. Their folders are looked at again when they change."""
        with self._lock:
            seen = tuple(_modified(folder) for folder in self._settings.embedding_folders)
            if seen != self._embeddings_seen:
                self._read_embeddings()
                self._embeddings_seen = seen
            found = {info.name: info for info in self._embeddings.values() if info}
        return sorted(found.values(), key=lambda info: info.name.lower())

    def find_embeddings(
        self, width: int | None, texts: Sequence[str], emphasis: Emphasis, comma_backtrack: int
    ) -> list[EmbeddingInfo]:
        """The embeddings of a width (None: of any) that stand in texts encoded together, in order, each once."""
        known = {info.name: info for info in self.embeddings() if width in (None, info.width)}
        if not known:
            return []
        chunked = [self._chunked(text, list(known.values()), emphasis, comma_backtrack) for text in texts]
        return [known[name] for name in used_concepts(chunked)]

    def count_tokens(self, width: int | None, text: str, emphasis: Emphasis, comma_backtrack: int) -> int:
        """How many places a text takes with embeddings of a width (None: of any); full chunks count as 75."""
        known = [info for info in self.embeddings() if width in (None, info.width)]
        return count_places(self._chunked(text, known, emphasis, comma_backtrack), Vocabulary())

    def _chunked(
        self, text: str, known: Sequence[EmbeddingInfo], emphasis: Emphasis, comma_backtrack: int
    ) -> list[Chunk]:
        tokenize = self._tokenizer.tokenize
        concepts = glossary(
            Concept(name=info.name, tokens=tuple(tokenize(info.name)), vectors=info.vectors) for info in known
        )
        return chunk(segments(text, emphasis), tokenize, Vocabulary(), comma_backtrack, concepts)

    @cached_property
    def _tokenizer(self) -> ClipTokenizer:
        return ClipTokenizer()

    def _read_embeddings(self) -> None:
        """Read the files that are new or have changed."""
        found = shelves.embeddings(self._settings.embedding_folders, hidden=self._hidden)
        new = [file for file in found if file.state not in self._embeddings]
        # Several at once, as pickled ones are read by processes of their own.
        with ThreadPoolExecutor(READ_AT_ONCE, thread_name_prefix="embeddings") as pool:
            read = dict(zip((file.state for file in new), pool.map(self._describe, new), strict=True))
        known = self._embeddings | read
        self._embeddings = {file.state: known[file.state] for file in found}

    def _describe(self, file: SmallFile) -> EmbeddingInfo | None:
        # torch comes in with it: by the time that somebody asks for embeddings the device thread has loaded it anyway.
        from darkroom.nets.embeddings import read_embedding

        path = Path(file.filename)
        try:
            embedding = read_embedding(path, self._copies)
            digits = self._hashes.get(path)
        except (BadModelFile, OSError) as error:
            log.warning("%s: left out: %s", path, error)
            return None
        if embedding is None:
            return None
        return EmbeddingInfo(
            name=embedding.name if path.suffix.lower() in shelves.PICTURES and embedding.name else file.name,
            filename=file.filename,
            short_hash=digits[:12],
            vectors=embedding.vectors,
            width=embedding.width,
            step=embedding.step,
            sd_checkpoint=embedding.sd_checkpoint,
            sd_checkpoint_name=embedding.sd_checkpoint_name,
        )


def _adapter(file: SmallFile) -> AdapterInfo:
    text, weight = file.wishes.get("activation text"), file.wishes.get("preferred weight")
    return AdapterInfo(
        name=file.name,
        alias=file.alias,
        filename=file.filename,
        metadata=file.metadata,
        activation_text=text if isinstance(text, str) else "",
        preferred_weight=float(weight) if isinstance(weight, int | float) else 0.0,
    )


def _modified(folder: Path) -> int:
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return 0

"""From what a question asks of a checkpoint to how its networks are applied: adapters, autoencoder and embeddings found
by name, and read when they are first needed. Used by the device thread alone.
"""

from collections import OrderedDict
from collections.abc import Hashable, Mapping
from pathlib import Path

from torch import Tensor

from darkroom.engine.small_networks import SmallNetworks
from darkroom.errors import BadRequest, UnknownName
from darkroom.jobs.networks import EmbeddingInfo
from darkroom.jobs.spec import Adapter, Model
from darkroom.nets.adapters import AdapterFile
from darkroom.nets.embeddings import Embedding, read_embedding
from darkroom.nets.hypernetworks import Hypernetwork
from darkroom.nets.merging import Share
from darkroom.nets.network import Network, Variant
from darkroom.nets.store import Store
from darkroom.nets.vae import Vae, VaeUse
from darkroom.prompt.chunks import Concept, Glossary, glossary

KEPT_EMBEDDINGS = 256


class Variants:
    """Finds what belongs to a model. With `check`, answers that are no numbers are errors."""

    def __init__(self, small: SmallNetworks, store: Store, *, check: bool) -> None:
        self._small = small
        self._store = store
        self._check = check
        self._embeddings: OrderedDict[tuple[str, str], Embedding | None] = OrderedDict()

    def of(self, network: Network, model: Model, *, afresh: bool = True) -> Variant:
        """How a network is applied for a model; with `afresh` by its files as they are now. Raises UnknownName,
        BadModelFile.
        """
        loras = [one for one in model.adapters if one.kind == "lora"]
        adapters = [(one, *self._adapter(one.name, afresh)) for one in loras]
        chain = [
            (self._hypernetwork(one.name, afresh), one.unet) for one in model.adapters if one.kind == "hypernetwork"
        ]
        return Variant(
            unet=tuple(_share(adapter, state, file, adapter.unet) for adapter, state, file in adapters),
            text=tuple(_share(adapter, state, file, adapter.text) for adapter, state, file in adapters),
            hypernetworks=tuple(chain),
            vae=self._vae(model.vae, network, afresh) if model.vae else None,
            vae_use=VaeUse(tiling=model.tiling, fallback=model.vae_fallback, check=self._check),
            tiling=model.tiling,
            token_merging=model.token_merging,
            check=self._check,
        )

    def vectors(self, network: Network) -> Mapping[str, Tensor]:
        """The embeddings that fit a network, by name: those that come with its adapters, and those of the folder, which
        count where names are the same.
        """
        found: dict[str, Tensor] = {}
        for share in network.variant.text:
            found.update({name: one.table for name, one in share.file.embeddings.items()})
        for info in self._small.embeddings():
            embedding = self._embedding(info) if info.width == network.text_width else None
            if embedding:
                found[info.name] = embedding.table
        return {name: one for name, one in found.items() if one.shape[1] == network.text_width}

    def _adapter(self, name: str, afresh: bool) -> tuple[Hashable, AdapterFile]:
        known = {info.name: info.filename for info in self._small.adapters()}
        if name not in known:
            raise UnknownName("adapter", name, list(known))
        return self._store.get_adapter(known[name], afresh=afresh)

    def _hypernetwork(self, name: str, afresh: bool) -> Hypernetwork:
        known = {info.name: info.filename for info in self._small.hypernetworks()}
        if name not in known:
            raise UnknownName("hypernetwork", name, list(known))
        return self._store.get_hypernetwork(known[name], afresh=afresh)

    def _vae(self, name: str, network: Network, afresh: bool) -> Vae:
        known = {info.name: info.filename for info in self._small.autoencoders()}
        if name not in known:
            raise UnknownName("sd_vae", name, list(known))
        vae = self._store.get_vae(known[name], network.scale, network.shift, afresh=afresh)
        channels = int(vae.module.config.latent_channels)
        if channels != network.latent_channels:
            allowed = f"an autoencoder of {network.latent_channels} channels; this one has {channels}"
            raise BadRequest("sd_vae", name, allowed)
        return vae

    def _embedding(self, info: EmbeddingInfo) -> Embedding | None:
        key = info.filename, info.short_hash
        if key not in self._embeddings:
            self._embeddings[key] = read_embedding(Path(info.filename))
            if len(self._embeddings) > KEPT_EMBEDDINGS:
                self._embeddings.popitem(last=False)
        self._embeddings.move_to_end(key)
        return self._embeddings[key]


def glossary_of(network: Network, vectors: Mapping[str, Tensor]) -> Glossary:
    """The names of embeddings as the network's tokenizer has them."""
    return glossary(
        Concept(name=name, tokens=tuple(network.tokenize(name)), vectors=len(one)) for name, one in vectors.items()
    )


def _share(adapter: Adapter, state: Hashable, file: AdapterFile, strength: float) -> Share:
    return Share(key=(adapter.name, state), file=file, strength=strength, rank=adapter.rank, blocks=adapter.blocks)

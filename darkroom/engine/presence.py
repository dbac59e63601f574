"""Which weights are in place, how long it takes to have others there, and putting them there. Used by the device thread
alone.
"""

import time
from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import get_args
from weakref import WeakSet

from darkroom.engine.catalogue import Catalogue
from darkroom.engine.merges import Merges
from darkroom.engine.variants import Variants
from darkroom.errors import UnknownName
from darkroom.jobs.ops import Denoise, EncodeText, ForCheckpoint, Question
from darkroom.jobs.spec import Model
from darkroom.nets.compiling import Compiler
from darkroom.nets.kernels import Kernels
from darkroom.nets.network import Network, Part
from darkroom.nets.store import Store


class Presence:
    """The networks of a store as questions need them. `kernels` gives what they compute by on a processor, and
    `compiler` compiles them. With `apart` they answer rows apart from each other, where they can.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        store: Store,
        variants: Variants,
        kernels: Callable[[], Kernels] = Kernels,
        compiler: Compiler | None = None,
        *,
        apart: bool = False,
    ) -> None:
        self._catalogue = catalogue
        self._store = store
        self._variants = variants
        self._kernels = kernels
        self._compiler = compiler
        self._apart = apart
        self._merges = Merges()
        self._filenames: dict[str, str] = {}
        self._known: WeakSet[Network] = WeakSet()

    def change_s(self, op: Question) -> float:
        """About how many seconds `bring` would take now; 0 if everything is in place, or if it would fail at once."""
        if not isinstance(op, ForCheckpoint):
            return 0.0
        filename = self._find_filename(op.model.checkpoint)
        if filename is None:
            return 0.0
        part, eight_bits = _merged_part(op), op.model.is_in_eight_bits
        merge_s = self._merges.merge_s((filename, eight_bits, part), _merged(op.model)) if part else 0.0
        return self._store.load_s(filename, eight_bits=eight_bits) + merge_s

    def is_apart(self, op: Question) -> bool:
        """Whether a question's answer is known to be the same bytes in any company."""
        if not isinstance(op, Denoise) or op.model.token_merging:
            return False
        network = self.find(op.model)
        is_plain = all(one.kind == "lora" for one in op.model.adapters)
        return is_plain and network is not None and network.has_rows_apart

    def bring(self, op: ForCheckpoint) -> Network:
        """The network of a question's checkpoint, loaded if need be, with the question's adapters in it.

        A picture that has begun goes on with the weights it began with, whatever becomes of their files. Raises
        UnknownName, BadModelFile.
        """
        network = self.network(op.model, afresh=isinstance(op, EncodeText))
        part = _merged_part(op)
        if part:
            began = time.perf_counter()
            network.merge(part)
            place = self._filenames[op.model.checkpoint], op.model.is_in_eight_bits, part
            self._merges.note(place, _merged(op.model), time.perf_counter() - began)
        self._store.settle()
        return network

    def network(self, model: Model, *, afresh: bool = True) -> Network:
        """A checkpoint's network, to be applied as the model says. With `afresh` it is that of its file as it is now.

        Raises UnknownName, BadModelFile.
        """
        network = None if afresh else self.find(model)
        if network is None:
            info = self._catalogue.get(model.checkpoint)
            self._filenames[model.checkpoint] = info.filename
            network = self._store.get(info.filename, info.config, eight_bits=model.is_in_eight_bits)
        if network not in self._known:
            self._known.add(network)
            network.compute_by(self._kernels())
            if self._apart:
                network.part_rows()
            if self._compiler and not model.is_in_eight_bits:
                network.compile_with(self._compiler)
            for part in get_args(Part):
                self._merges.forget((self._filenames[model.checkpoint], model.is_in_eight_bits, part))
        network.variant = self._variants.of(network, model, afresh=afresh)
        return network

    def find(self, model: Model) -> Network | None:
        """The network of a model if it is loaded, as it was applied last."""
        filename = self._find_filename(model.checkpoint)
        return self._store.find(filename, eight_bits=model.is_in_eight_bits) if filename else None

    def find_for_preview(self, model: Model) -> Network | None:
        """The network of a model if it is loaded, to be applied as the model says; without its adapters, which a
        decoder has no use for.
        """
        network = self.find(model)
        if network is not None:
            network.variant = self._variants.of(network, replace(model, adapters=()), afresh=False)
        return network

    def _find_filename(self, checkpoint: str) -> str | None:
        if checkpoint not in self._filenames:
            try:
                self._filenames[checkpoint] = self._catalogue.get(checkpoint).filename
            except UnknownName:
                return None
        return self._filenames[checkpoint]


def _merged_part(op: Question) -> Part | None:
    """The part of a network whose adapters matter to a question."""
    return "denoiser" if isinstance(op, Denoise) else "text" if isinstance(op, EncodeText) else None


def _merged(model: Model) -> tuple[Hashable, ...]:
    """What is merged into the weights for a model."""
    return tuple(one for one in model.adapters if one.kind == "lora")

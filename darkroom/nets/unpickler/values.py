"""What a pickled file of weights describes: storages, tensors that are views of them, and inert objects."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

MAX_VALUES = 5_000_000

TREE = "darkroom.tree"
"""Key of a header's metadata under which everything stands that is no tensor with a name of its own."""

ITEM_BYTES: Mapping[str, int] = MappingProxyType(
    {
        "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "BOOL": 1,
        "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1,
    }
)  # fmt: skip


class RefusedError(Exception):
    """What the file holds cannot be used, or must not be."""


@dataclass(frozen=True, slots=True, eq=False)
class Storage:
    """Numbers that tensors are views of; `dtype` is None where the tensors say what they are."""

    dtype: str | None
    key: str
    count: int

    @property
    def nbytes(self) -> int:
        """Bytes of all its numbers."""
        return self.count * (ITEM_BYTES[self.dtype] if self.dtype else 1)


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """A view of a storage, in elements."""

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def numel(self) -> int:
        """How many numbers it shows."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the numbers it shows."""
        return self.numel * ITEM_BYTES[self.dtype]


@dataclass(frozen=True, slots=True, eq=False)
class Foreign:
    """An object of a library that is not here: nothing is known of it but that it was there."""

    contents: dict[Any, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """A name that a pickle may speak of; `call` is what stands for calling it."""

    name: str
    call: Callable[..., Any] | None = None

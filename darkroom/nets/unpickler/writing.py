"""What is written of a file's content: a safetensors header, and the bytes of its tensors in rows."""

import itertools
import json
import math
import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from darkroom.nets.unpickler.values import ITEM_BYTES, MAX_VALUES, TREE, Foreign, RefusedError, Tensor

MAX_TENSORS = 200_000
MAX_DEPTH = 32
COPY_BYTES = 4 << 20


class Plan:
    """The tensors that are written, by name, and a tree of everything: plain values, and tensors by their names."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._nodes = 0

    def tree(self, value: Any, path: tuple[str, ...] = ()) -> Any:
        """`{"d": pairs}`, `{"l": values}`, `{"t": name}`, or a plain value; None for what is of no use."""
        self._nodes += 1
        if self._nodes > MAX_VALUES or len(path) > MAX_DEPTH:
            raise RefusedError("its values are nested too deeply or too often")
        match value:
            case Tensor():
                return {"t": self._named(value, path)}
            case Foreign():
                return self.tree(value.contents.get("_parameters"), path)  # of a ParameterDict
            case dict():
                pairs = [(key, item) for key, item in value.items() if isinstance(key, str | int)]
                return {"d": [[key, self.tree(item, (*path, str(key)))] for key, item in pairs]}
            case list() | tuple():
                return {"l": [self.tree(item, (*path, str(place))) for place, item in enumerate(value)]}
            case str() | bool() | int() | float() | None:
                return value
        return None

    def _named(self, tensor: Tensor, path: tuple[str, ...]) -> str:
        plain = ".".join(path) or "tensor"
        free = (plain if number == 0 else f"{plain}~{number}" for number in itertools.count())
        name = next(name for name in free if name not in self.tensors and name != "__metadata__")
        self.tensors[name] = tensor
        if len(self.tensors) > MAX_TENSORS:
            raise RefusedError(f"it holds more than {MAX_TENSORS} tensors")
        return name


def unwrapped(value: Any) -> Any:
    """The weights of a checkpoint of training: what is under "state_dict", and under that once more."""
    for _ in range(2):
        inner = value.get("state_dict") if isinstance(value, dict) else None
        if isinstance(inner, dict):
            value = inner
    return value


def is_flat(value: object) -> bool:
    """Whether tensors with names are all there is."""
    return isinstance(value, dict) and all(
        isinstance(key, str) and key != "__metadata__" and isinstance(item, Tensor) for key, item in value.items()
    )


def layout(value: Any) -> tuple[bytes, list[Tensor]]:
    """A safetensors header, its length in front, and the tensors in the order in which their bytes follow."""
    plan = Plan()
    value = unwrapped(value)
    tree = plan.tree(value)
    header: dict[str, Any] = {} if is_flat(value) else {"__metadata__": {TREE: json.dumps(tree)}}
    ordered = sorted(plan.tensors.items(), key=lambda item: (-ITEM_BYTES[item[1].dtype], item[0]))
    reached = 0
    for name, tensor in ordered:
        begin, reached = reached, reached + tensor.nbytes
        header[name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [begin, reached]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text, [tensor for _, tensor in ordered]


def numbers(descriptor: int, tensor: Tensor, begin: int) -> Iterator[bytes]:
    """A tensor's bytes in rows, of a storage that begins at `begin`."""
    item = ITEM_BYTES[tensor.dtype]
    first = begin + tensor.offset * item
    if not tensor.numel:
        return
    if is_dense(tensor.shape, tensor.strides):
        for place in range(0, tensor.nbytes, COPY_BYTES):
            yield _pread(descriptor, min(COPY_BYTES, tensor.nbytes - place), first + place)
        return
    span = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides, strict=True))
    yield gathered(_pread(descriptor, span * item, first), item, tensor.shape, tensor.strides)


def is_dense(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether elements lie in rows, one behind the other."""
    expected = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True


def gathered(data: bytes, item: int, shape: Sequence[int], strides: Sequence[int]) -> bytes:
    """Elements of `item` bytes put into rows; slice by slice along the longest axis that has a stride."""
    source = _elements(memoryview(data), item)
    target = _elements(memoryview(bytearray(math.prod(shape) * item)), item)
    rows = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    axes = range(len(shape))
    along = max((axis for axis in axes if strides[axis]), key=lambda axis: shape[axis], default=None)
    others = [axis for axis in axes if axis != along]
    size, stride, row = (shape[along], strides[along], rows[along]) if along is not None else (1, 1, 1)
    for place in itertools.product(*(range(shape[axis]) for axis in others)):
        here = sum(step * strides[axis] for step, axis in zip(place, others, strict=True))
        there = sum(step * rows[axis] for step, axis in zip(place, others, strict=True))
        target[there : there + (size - 1) * row + 1 : row] = source[here : here + (size - 1) * stride + 1 : stride]
    return target.tobytes()


def _elements(data: memoryview, item: int) -> "memoryview[int]":
    match item:
        case 1:
            return data.cast("B")
        case 2:
            return data.cast("H")
        case 4:
            return data.cast("I")
    return data.cast("Q")


def _pread(descriptor: int, count: int, place: int) -> bytes:
    data = os.pread(descriptor, count, place)
    while len(data) < count:
        more = os.pread(descriptor, count - len(data), place + len(data))
        if not more:
            raise RefusedError("it ends too early")
        data += more
    return data


def write(descriptor: int, parts: Iterable[bytes]) -> None:
    """All parts into a descriptor."""
    for part in parts:
        view = memoryview(part)
        while view:
            view = view[os.write(descriptor, view) :]

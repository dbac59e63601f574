"""Runs a pickle's instructions over inert values (Python's `pickletools.py` describes them; protocols 2 to 5)."""

import struct
from collections.abc import Callable, Mapping
from io import BufferedIOBase
from types import MappingProxyType
from typing import Any

from darkroom.nets.unpickler.names import STORAGES, NumpyKind, called, known, sequence, whole
from darkroom.nets.unpickler.values import MAX_VALUES, Foreign, Known, RefusedError, Storage, Tensor

MAX_INTEGER_BYTES = 255


class Machine:
    """Runs one pickle's instructions over a stack of inert values."""

    def __init__(self, file: BufferedIOBase, left: int) -> None:
        """`left` bytes may be read from `file`."""
        self._file = file
        self.left = left
        self._values = 0
        self._stack: list[Any] = []
        self._marked: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}

    def run(self) -> Any:
        """The value that the pickle describes; the file stands behind it then. Raises RefusedError."""
        while (code := self.read(1)) != b".":
            instruction = INSTRUCTIONS.get(code)
            if instruction is None:
                raise RefusedError(f"it has pickle's instruction {code!r}, which no file of weights needs")
            instruction(self)
        value = self.pop()
        if self._stack or self._marked:
            raise RefusedError("its pickle leaves something behind")
        return value

    def read(self, count: int) -> bytes:
        """So many bytes."""
        if count > self.left:
            raise RefusedError("it ends too early")
        self.left -= count
        data = self._file.read(count)
        if len(data) != count:
            raise RefusedError("it ends too early")
        return data

    def number(self, form: str) -> Any:
        """One number as `struct` writes it."""
        return struct.unpack(form, self.read(struct.calcsize(form)))[0]

    def line(self) -> str:
        """A line of text."""
        text = self._file.readline(1024)
        self.left -= len(text)
        if not text.endswith(b"\n"):
            raise RefusedError("a name in it has no end")
        return text[:-1].decode("utf-8")

    def push(self, value: Any) -> None:
        """Put a value on the stack."""
        self._values += 1
        if self._values > MAX_VALUES:
            raise RefusedError(f"it describes more than {MAX_VALUES} values")
        self._stack.append(value)

    def pop(self) -> Any:
        """Take the last value."""
        if not self._stack:
            raise RefusedError("its pickle takes from an empty stack")
        return self._stack.pop()

    def top(self, kind: type) -> Any:
        """The last value, which must be of a kind and stays."""
        if not self._stack or type(self._stack[-1]) is not kind:
            raise RefusedError(f"its pickle adds to something that is no {kind.__name__}")
        return self._stack[-1]

    def mark(self) -> None:
        """Begin a group."""
        if len(self._marked) > MAX_VALUES:
            raise RefusedError(f"it describes more than {MAX_VALUES} values")
        self._marked.append(self._stack)
        self._stack = []

    def group(self) -> list[Any]:
        """End a group: its values."""
        if not self._marked:
            raise RefusedError("its pickle ends a group that never began")
        values, self._stack = self._stack, self._marked.pop()
        return values

    def remember(self, place: int | None = None) -> None:
        """Keep the last value under a number."""
        if not self._stack:
            raise RefusedError("its pickle remembers nothing")
        self._memo[len(self._memo) if place is None else place] = self._stack[-1]

    def recall(self, place: int) -> None:
        """Put a kept value on the stack."""
        if place not in self._memo:
            raise RefusedError("its pickle recalls what it never kept")
        self.push(self._memo[place])

    def persistent(self) -> None:
        """A storage: ("storage", kind, key, device, count), in older files with a view behind, which must be none."""
        wanted = self.pop()
        if not isinstance(wanted, tuple) or len(wanted) not in {5, 6} or wanted[0] != "storage" or any(wanted[5:]):
            raise RefusedError("it speaks of an object outside of it that is no storage")
        _, kind, key, _, count = wanted[:5]
        if not isinstance(kind, Known) or kind.name not in STORAGES or not isinstance(key, str):
            raise RefusedError("it speaks of a storage of an unknown kind")
        storage = Storage(STORAGES[kind.name], key, whole(count))
        before = self.storages.setdefault(key, storage)
        if (before.dtype, before.count) != (storage.dtype, storage.count):
            raise RefusedError("it speaks of one storage in two ways")
        self.push(before)

    def build(self) -> None:
        """Attributes of an object: kept for an inert one, passed over for others."""
        state = self.pop()
        target = self._stack[-1] if self._stack else None
        if isinstance(target, Foreign) and isinstance(state, dict):
            target.contents.update(state)
        elif not isinstance(target, Foreign | dict | NumpyKind | Tensor):
            raise RefusedError("it sets the state of something that has none")

    def insert(self, pairs: list[Any]) -> None:
        """Keys and values, in turn, into the dictionary on top."""
        if len(pairs) % 2:
            raise RefusedError("a key without a value")
        self.top(dict).update(zip(pairs[::2], pairs[1::2], strict=True))


def _counted(form: str, decode: Callable[[bytes], Any]) -> Callable[[Machine], None]:
    return lambda machine: machine.push(decode(machine.read(machine.number(form))))


def _fixed(form: str) -> Callable[[Machine], None]:
    return lambda machine: machine.push(machine.number(form))


def _constant(make: Callable[[], Any]) -> Callable[[Machine], None]:
    return lambda machine: machine.push(make())


def _tuple(size: int) -> Callable[[Machine], None]:
    def make(machine: Machine) -> None:
        values = [machine.pop() for _ in range(size)]
        machine.push(tuple(reversed(values)))

    return make


def _text(data: bytes) -> str:
    return data.decode("utf-8")


def _bytes_as_text(data: bytes) -> str:
    return data.decode("latin-1")


def _integer(data: bytes) -> int:
    if len(data) > MAX_INTEGER_BYTES:
        raise RefusedError("a whole number in it is far too long")
    return int.from_bytes(data, "little", signed=True)


def _protocol(machine: Machine) -> None:
    version = machine.number("<B")
    if not 2 <= version <= 5:
        raise RefusedError(f"pickle's protocol {version} is not read")


def _global(machine: Machine) -> None:
    module = machine.line()
    machine.push(known(module, machine.line()))


def _stack_global(machine: Machine) -> None:
    name, module = machine.pop(), machine.pop()
    if not isinstance(name, str) or not isinstance(module, str):
        raise RefusedError("it asks for a name that is no text")
    machine.push(known(module, name))


def _reduce(machine: Machine) -> None:
    arguments = machine.pop()
    machine.push(called(machine.pop(), arguments))


def _frozen(machine: Machine) -> None:
    machine.push(sequence(machine.group()))


def _append(machine: Machine) -> None:
    value = machine.pop()
    machine.top(list).append(value)


def _extend(machine: Machine) -> None:
    values = machine.group()
    machine.top(list).extend(values)


def _set_item(machine: Machine) -> None:
    value, key = machine.pop(), machine.pop()
    machine.insert([key, value])


def _new_dictionary(machine: Machine) -> None:
    pairs = machine.group()
    machine.push({})
    machine.insert(pairs)


INSTRUCTIONS: Mapping[bytes, Callable[[Machine], object]] = MappingProxyType(
    {
        b"\x80": _protocol,
        b"\x95": lambda machine: machine.number("<Q"),  # the length of a frame, which is of no use here
        b"(": Machine.mark,
        b"0": lambda machine: machine.pop(),
        b"1": lambda machine: machine.group(),
        b"N": _constant(lambda: None),
        b"\x88": _constant(lambda: True),
        b"\x89": _constant(lambda: False),
        b"J": _fixed("<i"),
        b"K": _fixed("<B"),
        b"M": _fixed("<H"),
        b"\x8a": _counted("<B", _integer),
        b"\x8b": _counted("<I", _integer),
        b"G": _fixed(">d"),
        b"X": _counted("<I", _text),
        b"\x8c": _counted("<B", _text),
        b"\x8d": _counted("<Q", _text),
        b"T": _counted("<I", _bytes_as_text),
        b"U": _counted("<B", _bytes_as_text),
        b"B": _counted("<I", bytes),
        b"C": _counted("<B", bytes),
        b"\x8e": _counted("<Q", bytes),
        b")": _constant(tuple),
        b"t": lambda machine: machine.push(tuple(machine.group())),
        b"\x85": _tuple(1),
        b"\x86": _tuple(2),
        b"\x87": _tuple(3),
        b"]": _constant(list),
        b"l": lambda machine: machine.push(machine.group()),
        b"a": _append,
        b"e": _extend,
        b"\x8f": _constant(list),  # a set
        b"\x90": _extend,
        b"\x91": _frozen,
        b"}": _constant(dict),
        b"d": _new_dictionary,
        b"s": _set_item,
        b"u": lambda machine: machine.insert(machine.group()),
        b"h": lambda machine: machine.recall(machine.number("<B")),
        b"j": lambda machine: machine.recall(machine.number("<I")),
        b"q": lambda machine: machine.remember(machine.number("<B")),
        b"r": lambda machine: machine.remember(machine.number("<I")),
        b"\x94": lambda machine: machine.remember(),
        b"c": _global,
        b"\x93": _stack_global,
        b"R": _reduce,
        b"\x81": _reduce,  # a new object: the same, of a class
        b"b": Machine.build,
        b"Q": Machine.persistent,
    }
)

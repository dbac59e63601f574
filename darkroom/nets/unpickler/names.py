"""The names that a file of weights may speak of, and what stands for calling each. All others are refused."""

import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from darkroom.nets.unpickler.values import ITEM_BYTES, Foreign, Known, RefusedError, Storage, Tensor


def whole(value: object) -> int:
    """A size or an offset. Raises RefusedError."""
    if type(value) is not int or not 0 <= value < 1 << 48:
        raise RefusedError("a size or an offset is no whole number")
    return value


def _wholes(values: object) -> tuple[int, ...]:
    if not isinstance(values, tuple | list) or len(values) > 16:
        raise RefusedError("a shape is no list of whole numbers")
    return tuple(map(whole, values))


def _tensor(dtype: str, storage: object, offset: object, shape: object, strides: object) -> Tensor:
    if not isinstance(storage, Storage):
        raise RefusedError("a tensor without a storage")
    made = Tensor(storage, dtype, whole(offset), _wholes(shape), _wholes(strides))
    if len(made.shape) != len(made.strides):
        raise RefusedError("a tensor's shape and strides differ in length")
    last = made.offset + sum((size - 1) * stride for size, stride in zip(made.shape, made.strides, strict=True))
    if made.numel and (last + 1) * ITEM_BYTES[dtype] > storage.nbytes:
        raise RefusedError("a tensor reaches beyond its storage")
    return made


def rebuild_tensor(storage: object, offset: object, shape: object, strides: object, *rest: object) -> Tensor:
    """torch._utils._rebuild_tensor and _rebuild_tensor_v2; `rest` is of gradients, hooks and metadata."""
    _refuse_flags(rest[2] if len(rest) > 2 else None)
    if not isinstance(storage, Storage) or storage.dtype is None:
        raise RefusedError("a tensor whose numbers are of no known kind")
    return _tensor(storage.dtype, storage, offset, shape, strides)


def rebuild_tensor_v3(
    storage: object,
    offset: object,
    shape: object,
    strides: object,
    _gradients: object,
    _hooks: object,
    dtype: object,
    metadata: object = None,
) -> Tensor:
    """torch._utils._rebuild_tensor_v3: the storage is of bytes."""
    _refuse_flags(metadata)
    kind = DTYPES.get(dtype.name) if isinstance(dtype, Known) else None
    if kind is None:
        raise RefusedError("a tensor whose numbers are of no known kind")
    return _tensor(kind, storage, offset, shape, strides)


def _refuse_flags(metadata: object) -> None:
    """Conjugated and negated views show other numbers than their storage has."""
    if isinstance(metadata, dict) and any(metadata.values()):
        raise RefusedError("a tensor is stored as a conjugate or a negative")


def rebuild_parameter(data: object, *_: object) -> object:
    """torch._utils._rebuild_parameter: the tensor alone."""
    return data


def rebuild_from_type(make: object, _kind: object, arguments: object, _state: object = None) -> object:
    """torch._tensor._rebuild_from_type_v2: the tensor alone."""
    return called(make, arguments)


def sequence(values: object = ()) -> list[object]:
    """A set or a size, as a list."""
    if not isinstance(values, list | tuple):
        raise RefusedError("a set is made of something else than a list")
    return list(values)


def dictionary(values: object = ()) -> dict[Any, Any]:
    """collections.OrderedDict of pairs."""
    if not isinstance(values, list | tuple):
        raise RefusedError("a dictionary is made of something else than pairs")
    return dict(values)


def default_dictionary(_default: object = None, values: object = ()) -> dict[Any, Any]:
    """collections.defaultdict, whose default is never asked for."""
    return dictionary(values)


def encode(text: object, encoding: object) -> bytes:
    """_codecs.encode, as it stands for bytes in pickles of the second protocol."""
    if not isinstance(text, str) or encoding not in {"latin1", "latin-1"}:
        raise RefusedError("bytes are written in an unusual way")
    return text.encode("latin-1")


def foreign(*_: object) -> Foreign:
    """Anything that is only known to be there."""
    return Foreign()


def reconstruct(kind: object, *_: object) -> object:
    """copyreg._reconstructor of an inert kind of object."""
    return called(kind, ())


@dataclass(frozen=True, slots=True, eq=False)
class NumpyKind:
    """numpy.dtype of a scalar: the letter of `struct` for it."""

    code: str


def numpy_dtype(kind: object, *_: object) -> NumpyKind:
    """numpy.dtype of a number."""
    code = {"f8": "d", "f4": "f", "f2": "e", "i8": "q", "i4": "i", "i2": "h", "i1": "b", "u1": "B", "b1": "?"}
    if not isinstance(kind, str) or kind not in code:
        raise RefusedError("a number of numpy's of an unknown kind")
    return NumpyKind(code[kind])


def numpy_scalar(kind: object, data: object) -> object:
    """numpy.core.multiarray.scalar of a number."""
    if not isinstance(kind, NumpyKind) or not isinstance(data, bytes):
        raise RefusedError("a number of numpy's that is none")
    return struct.unpack(f"<{kind.code}", data)[0]


DTYPES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "bool": "BOOL",
        "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
        "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8",
        "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8",
    }
)  # fmt: skip
STORAGES: Final[Mapping[str, str | None]] = MappingProxyType(
    {
        "DoubleStorage": "F64", "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16",
        "LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8", "ByteStorage": "U8",
        "BoolStorage": "BOOL", "UntypedStorage": None,
    }
)  # fmt: skip

_BUILTINS = ("builtins", "__builtin__")
_CALLS: Mapping[tuple[str, str], Callable[..., Any]] = MappingProxyType(
    {
        ("torch._utils", "_rebuild_tensor"): rebuild_tensor,
        ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
        ("torch._utils", "_rebuild_tensor_v3"): rebuild_tensor_v3,
        ("torch._utils", "_rebuild_parameter"): rebuild_parameter,
        ("torch._utils", "_rebuild_parameter_with_state"): rebuild_parameter,
        ("torch._tensor", "_rebuild_from_type_v2"): rebuild_from_type,
        ("torch", "Size"): sequence,
        ("torch", "device"): foreign,
        ("torch.nn.modules.container", "ParameterDict"): foreign,
        ("collections", "OrderedDict"): dictionary,
        ("collections", "defaultdict"): default_dictionary,
        ("numpy", "dtype"): numpy_dtype,
        ("numpy.core.multiarray", "scalar"): numpy_scalar,
        ("numpy._core.multiarray", "scalar"): numpy_scalar,
        ("numpy.core.multiarray", "_reconstruct"): foreign,
        ("numpy._core.multiarray", "_reconstruct"): foreign,
        ("_codecs", "encode"): encode,
        ("copyreg", "_reconstructor"): reconstruct,
        ("copy_reg", "_reconstructor"): reconstruct,
        ("argparse", "Namespace"): foreign,
        ("pathlib", "PosixPath"): foreign,
        ("pathlib", "WindowsPath"): foreign,
        **{(module, kind): sequence for module in _BUILTINS for kind in ("set", "frozenset")},
    }
)
_MENTIONED = frozenset(
    {("torch.nn.parameter", "Parameter"), ("torch", "Tensor"), ("numpy", "ndarray")}
    | {(module, kind) for module in _BUILTINS for kind in ("object", "dict", "list", "int", "float", "str", "bool")}
)
"""Names that may stand in a file but may not be called."""

_LEFTOVERS = re.compile(r"(pytorch_lightning|lightning|lightning_fabric|lightning_utilities|omegaconf)(\.\w+)*")
"""Libraries of training, whose notes lie in many checkpoints and are of no use here."""

_ODD = re.compile(r"[^\w./-]")


def known(module: str, name: str) -> Known:
    """What a name stands for. Raises RefusedError for all that are not on the list."""
    if (module, name) in _CALLS:
        return Known(name, _CALLS[module, name])
    if (module == "torch" and name in DTYPES) or (module, name) in _MENTIONED:
        return Known(name)
    if module in {"torch", "torch.cuda", "torch.storage"} and name in STORAGES:
        return Known(name)
    if _LEFTOVERS.fullmatch(module) and name.isidentifier():
        return Known(name, foreign)
    raise RefusedError(f"it asks for {shown(module)}.{shown(name)}, which no file of weights needs")


def shown(text: str) -> str:
    """A name out of a file, as it may stand in a message."""
    return _ODD.sub("?", text)[:60]


def called(target: object, arguments: object) -> object:
    """What stands for calling a name of the list. Raises RefusedError."""
    if not isinstance(target, Known) or target.call is None or not isinstance(arguments, tuple):
        raise RefusedError("it calls something that cannot be called")
    return target.call(*arguments)

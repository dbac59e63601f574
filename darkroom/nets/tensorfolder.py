"""A model in diffusers' layout, read by the piece like one file.

Its files are mapped: pages of them that were read count as memory until something else needs it.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self

from torch import Tensor

from darkroom.errors import BadModelFile
from darkroom.nets.tensorfile import FORMATS, Form
from darkroom.nets.tensors import FolderFiles


class TensorFolder:
    """An open folder: `forms` by the names that a single-file checkpoint gives its weights; it has no `notes`.

    A context manager. May be read from one thread at a time; of the weight that was read last a copy is kept.
    """

    __slots__ = ("_files", "_last", "forms", "name", "notes")

    def __init__(self, path: Path) -> None:
        """Open every file. Raises BadModelFile."""
        self.name = path.name
        self._files = FolderFiles(path)
        self._last: tuple[str, Tensor] | None = None
        unknown = sorted({kind for kind in self._files.kinds.values() if kind not in FORMATS})
        if unknown:
            self._files.close()
            raise BadModelFile(f"{path.name}: number format {unknown[0]} is unknown")
        self.forms: dict[str, Form] = {
            name: Form(FORMATS[self._files.kinds[name]], shape) for name, shape in self._files.shapes.items()
        }
        self.notes: Mapping[str, str] = MappingProxyType({})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.close()

    def read(self, name: str, first: int = 0, count: int | None = None) -> Tensor:
        """`count` numbers of a weight from the `first` on, flat; all of them by default."""
        if self._last is None or self._last[0] != name:
            self._last = name, self._files.get_tensor(name).reshape(-1)
        flat = self._last[1]
        return flat[first : None if count is None else first + count].clone()

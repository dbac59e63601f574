"""Which networks for finished pictures there are: upscalers and face restorers. Reads folders, opens no file.

No torch here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from threading import Lock

from darkroom.errors import UnknownName
from darkroom.jobs.networks import FaceRestorerInfo, UpscalerInfo
from darkroom.nets.faces.shelf import restorers
from darkroom.nets.upscalers.shelf import DAT, REALESRGAN, upscalers
from darkroom.settings import Settings


class PictureNetworks:
    """What the settings' folders hold, as of the last look; a name that is not known is looked for anew.

    Thread-safe.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = Lock()
        self._upscalers: Mapping[str, UpscalerInfo] = {}
        self._restorers: Mapping[str, FaceRestorerInfo] = {}
        self.refresh()

    def refresh(self) -> None:
        """Look at all folders again."""
        settings = self._settings
        with self._lock:
            found = upscalers(
                settings.upscaler_folders,
                realesrgan=[one.name for one in REALESRGAN],
                dat=[one.name for one in DAT],
            )
            self._upscalers = {file.name: UpscalerInfo(**asdict(file)) for file in found}
            self._restorers = {
                file.name: FaceRestorerInfo(**asdict(file)) for file in restorers(settings.restorer_folders)
            }

    def upscalers(self) -> Sequence[UpscalerInfo]:
        """All upscalers that need a network, by name."""
        return tuple(self._upscalers.values())

    def find_upscaler(self, name: str) -> UpscalerInfo | None:
        """An upscaler by name. The folders are looked at again for a file that is new or gone."""
        info = self._upscalers.get(name)
        if info is None or info.filename is None:
            self.refresh()
        return self._upscalers.get(name)

    def face_restorers(self) -> Sequence[FaceRestorerInfo]:
        """The face restorers by name, those without a file too. The folders are looked at again for a missing file."""
        if any(info.filename is None for info in self._restorers.values()):
            self.refresh()
        return tuple(self._restorers.values())

    def face_restorer(self, name: str) -> FaceRestorerInfo:
        """A face restorer. Raises UnknownName."""
        if name not in self._restorers:
            raise UnknownName("face restorer", name, list(self._restorers))
        if self._restorers[name].filename is None:
            self.refresh()
        return self._restorers[name]

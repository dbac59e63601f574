"""Which upscalers there are: the files of the users' folders, and the published networks that people ask for by name.

Knows folders, names and addresses. Opens no file and knows no tensors; no torch.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal

from darkroom.nets.catalog import walk

Family = Literal["Darkroom", "ESRGAN", "RealESRGAN", "DAT", "HAT", "SwinIR", "ScuNET", "LDSR"]
"""Where a network lies and how its pictures are cut up; what it is, its weights tell."""

SUFFIXES = (".pt", ".pth", ".safetensors")
EMBEDDED_NAME = "Darkroom 2x"

_REAL = "https://github.com/xinntao/Real-ESRGAN/releases/download/"
_KAIR = "https://github.com/cszn/KAIR/releases/download/v1.0/"
_SWIN = "https://github.com/JingyunLiang/SwinIR/releases/download/v0.0/"
_DAT = "https://huggingface.co/w-e-w/DAT/resolve/main/experiments/pretrained_models/DAT/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A network that everybody knows by a name of its own: its file, where that is published, and its factor."""

    name: str
    address: str
    scale: float = 4.0

    @property
    def file(self) -> str:
        """The file's name."""
        return self.address.rsplit("/", 1)[-1]


REALESRGAN = (
    Published(name="R-ESRGAN General 4xV3", address=_REAL + "v0.2.5.0/realesr-general-x4v3.pth"),
    Published(name="R-ESRGAN General WDN 4xV3", address=_REAL + "v0.2.5.0/realesr-general-wdn-x4v3.pth"),
    Published(name="R-ESRGAN AnimeVideo", address=_REAL + "v0.2.5.0/realesr-animevideov3.pth"),
    Published(name="R-ESRGAN 4x+", address=_REAL + "v0.1.0/RealESRGAN_x4plus.pth"),
    Published(name="R-ESRGAN 4x+ Anime6B", address=_REAL + "v0.2.2.4/RealESRGAN_x4plus_anime_6B.pth"),
    Published(name="R-ESRGAN 2x+", address=_REAL + "v0.2.1/RealESRGAN_x2plus.pth", scale=2.0),
)
DAT = (
    Published(name="DAT x2", address=_DAT + "DAT_x2.pth", scale=2.0),
    Published(name="DAT x3", address=_DAT + "DAT_x3.pth", scale=3.0),
    Published(name="DAT x4", address=_DAT + "DAT_x4.pth"),
)
ESRGAN = Published(name="ESRGAN_4x", address=_KAIR + "ESRGAN.pth")
SWINIR = Published(name="SwinIR 4x", address=_SWIN + "003_realSR_BSRGAN_DFOWMFC_s64w8_SwinIR-L_x4_GAN.pth")
SCUNET = (
    Published(name="ScuNET GAN", address=_KAIR + "scunet_color_real_gan.pth"),
    Published(name="ScuNET PSNR", address=_KAIR + "scunet_color_real_psnr.pth"),
)
LDSR = Published(name="LDSR", address="https://heibox.uni-heidelberg.de/f/578df07c8fc04ffbadf3/model.ckpt")


@dataclass(frozen=True, slots=True, kw_only=True)
class UpscalerFile:
    """An upscaler by its name. `filename` is None where the file is not there: `wanted` says where it should be, and
    `address` where it is published. `scale` is None where only the file can tell.
    """

    name: str
    family: Family
    filename: str | None
    wanted: str
    address: str = ""
    scale: float | None = 4.0


def embedded_file() -> Path:
    """The network that comes with the package."""
    return Path(str(files("darkroom"))) / "mini" / "darkroom-2x.safetensors"


def upscalers(
    folders: Mapping[Family, Path], *, realesrgan: Sequence[str], dat: Sequence[str]
) -> tuple[UpscalerFile, ...]:
    """All upscalers by name, in small letters; of two files of one name the first counts.

    `folders` has one for every family but the embedded one's; the other two are the published networks on offer.
    """
    found = [
        _embedded(),
        *_family("ESRGAN", folders["ESRGAN"], instead=(ESRGAN,)),
        *_family("RealESRGAN", folders["RealESRGAN"], always=[one for one in REALESRGAN if one.name in realesrgan]),
        *_family("DAT", folders["DAT"], always=[one for one in DAT if one.name in dat], scale=None),
        *_family("HAT", folders["HAT"]),
        *_family("SwinIR", folders["SwinIR"], instead=(SWINIR,)),
        *_scunet(folders["ScuNET"]),
        _published("LDSR", folders["LDSR"], LDSR),
    ]
    by_name: dict[str, UpscalerFile] = {}
    for file in found:
        by_name.setdefault(file.name, file)
    return tuple(sorted(by_name.values(), key=lambda file: file.name.lower()))


def _embedded() -> UpscalerFile:
    path = embedded_file()
    return UpscalerFile(name=EMBEDDED_NAME, family="Darkroom", filename=_there(path), wanted=str(path), scale=2.0)


def _family(
    family: Family,
    folder: Path,
    *,
    instead: Sequence[Published] = (),
    always: Sequence[Published] = (),
    scale: float | None = 4.0,
) -> Iterator[UpscalerFile]:
    """The published networks that are `always` on offer, every other file, and what stands there `instead` of none."""
    paths = list(_files(folder))
    taken = {one.file for one in always}
    for path in paths:
        if path.name not in taken:
            yield UpscalerFile(name=path.stem, family=family, filename=str(path), wanted=str(path), scale=scale)
    for one in (*always, *(() if paths else instead)):
        yield _published(family, folder, one)


def _scunet(folder: Path) -> Iterator[UpscalerFile]:
    """A1111: the second network is on offer whatever lies in the folder."""
    own = list(_family("ScuNET", folder))
    yield from own
    for one in SCUNET if not own else SCUNET[1:]:
        yield _published("ScuNET", folder, one)


def _published(family: Family, folder: Path, one: Published) -> UpscalerFile:
    path = next((path for path in _files(folder) if path.name == one.file), folder / one.file)
    return UpscalerFile(
        name=one.name, family=family, filename=_there(path), wanted=str(path), address=one.address, scale=one.scale
    )


def _there(path: Path) -> str | None:
    return str(path) if path.is_file() else None


def _files(folder: Path) -> Iterator[Path]:
    yield from walk(folder.absolute(), lambda path: path.suffix.lower() in SUFFIXES and path.is_file())

"""Which upscalers and face restorers there are, under which names, and where their files should be."""

from pathlib import Path

import pytest

from darkroom.nets.faces.shelf import Restorer, restorers
from darkroom.nets.upscalers.shelf import EMBEDDED_NAME, Family, UpscalerFile, upscalers

FAMILIES: tuple[Family, ...] = ("ESRGAN", "RealESRGAN", "DAT", "HAT", "SwinIR", "ScuNET", "LDSR")
OFFERED = ["R-ESRGAN 4x+", "R-ESRGAN 4x+ Anime6B"]


def listed(folder: Path) -> dict[str, UpscalerFile]:
    found = upscalers({family: folder / family for family in FAMILIES}, realesrgan=OFFERED, dat=["DAT x2", "DAT x4"])
    return {file.name: file for file in found}


def touch(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return str(path)


def test_without_files_the_published_networks_are_listed_by_name(tmp_path: Path) -> None:
    found = listed(tmp_path)
    assert list(found) == [
        EMBEDDED_NAME, "DAT x2", "DAT x4", "ESRGAN_4x", "LDSR", "R-ESRGAN 4x+", "R-ESRGAN 4x+ Anime6B", "ScuNET GAN",
        "ScuNET PSNR", "SwinIR 4x",
    ]  # fmt: skip
    assert all(file.filename is None for name, file in found.items() if name != EMBEDDED_NAME)
    assert found["R-ESRGAN 4x+"].wanted == str(tmp_path / "RealESRGAN" / "RealESRGAN_x4plus.pth")
    assert (found[EMBEDDED_NAME].scale, found["DAT x2"].scale, found["SwinIR 4x"].scale) == (2, 2, 4)


@pytest.mark.parametrize("family", ["ESRGAN", "SwinIR"])
def test_a_file_takes_the_place_of_the_published_network(tmp_path: Path, family: Family) -> None:
    path = touch(tmp_path / family / "4x-Sharp.pth")
    found = listed(tmp_path)
    assert found["4x-Sharp"].filename == path
    assert {"ESRGAN": "ESRGAN_4x", "SwinIR": "SwinIR 4x"}[family] not in found


def test_a_published_file_is_found_by_its_name_and_listed_once(tmp_path: Path) -> None:
    path = touch(tmp_path / "RealESRGAN" / "RealESRGAN_x4plus.pth")
    found = listed(tmp_path)
    assert found["R-ESRGAN 4x+"].filename == path
    assert "RealESRGAN_x4plus" not in found


def test_further_files_are_listed_beside_the_published_ones(tmp_path: Path) -> None:
    for name in ("RealESRGAN/mine.safetensors", "DAT/own.pt", "HAT/deep/HAT-L.pth", "ScuNET/noise.pth", "ESRGAN/x.txt"):
        touch(tmp_path / name)
    found = listed(tmp_path)
    assert {"mine", "own", "HAT-L", "noise", "ScuNET PSNR", "R-ESRGAN 4x+", "ESRGAN_4x"} <= set(found)
    assert "ScuNET GAN" not in found
    assert "x" not in found
    assert found["own"].scale is None


def find(folder: Path) -> dict[str, str | None]:
    folders: dict[Restorer, Path] = {"CodeFormer": folder / "Codeformer", "GFPGAN": folder / "GFPGAN"}
    return {file.name: file.filename for file in restorers(folders)}


def test_restorers_are_listed_whether_or_not_their_files_are_there(tmp_path: Path) -> None:
    assert find(tmp_path) == {"CodeFormer": None, "GFPGAN": None}


def test_the_file_with_the_restorer_s_name_is_taken(tmp_path: Path) -> None:
    touch(tmp_path / "GFPGAN" / "detection_Resnet50_Final.pth")
    assert find(tmp_path)["GFPGAN"] is None
    stand_in = touch(tmp_path / "GFPGAN" / "RestoreFormer.pth")
    assert find(tmp_path)["GFPGAN"] == stand_in
    own = touch(tmp_path / "GFPGAN" / "GFPGANv1.4.pth")
    code = touch(tmp_path / "Codeformer" / "codeformer-v0.1.0.pth")
    assert find(tmp_path) == {"CodeFormer": code, "GFPGAN": own}

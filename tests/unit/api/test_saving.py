"""What lies in the output folders after a request that wants its pictures saved."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from darkroom.images.metadata import read_notes
from tests.unit.api.fake_engine import FakeEngine


def saved(client: TestClient, folder: Path, **options: Any) -> list[Path]:
    """The files that a request for two pictures leaves behind."""
    client.post("/sdapi/v1/options", json=options)
    fields = {"prompt": "猫", "seed": 5, "width": 64, "height": 64, "batch_size": 2, "save_images": True}
    assert client.post("/sdapi/v1/txt2img", json=fields).status_code == 200
    return sorted(path for path in (folder / "outputs").rglob("*") if path.is_file())


@pytest.mark.parametrize("file_format", ["png", "jpg", "webp", "avif", "gif"])
def test_saved_pictures_have_their_format_and_text(client: TestClient, tmp_path: Path, file_format: str) -> None:
    files = saved(client, tmp_path, samples_format=file_format)
    assert [path.name for path in files] == ["grid-0000.png", f"00000-5.{file_format}", f"00001-6.{file_format}"]
    for path in files:
        with Image.open(path) as picture:
            assert read_notes(picture)[0].startswith("猫\nSteps: 50")


def test_a_text_can_lie_beside_every_picture(client: TestClient, tmp_path: Path) -> None:
    files = saved(client, tmp_path, save_txt=True)
    texts = [path for path in files if path.suffix == ".txt"]
    assert [path.name for path in texts] == ["00000-5.txt", "00001-6.txt"]
    assert "Seed: 6" in texts[1].read_text(encoding="utf-8")


def test_webp_on_disk_can_be_lossless(client: TestClient, tmp_path: Path) -> None:
    files = saved(client, tmp_path, samples_format="webp", webp_lossless=True)
    with Image.open(files[-1]) as picture:
        levels = np.asarray(picture.convert("RGB"))
    assert (levels == levels[0, 0]).all()
    assert levels[0, 0].tolist() == [6, 0, 77]


def names(files: list[Path], folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in files]


def test_names_and_folders_follow_their_patterns(client: TestClient, tmp_path: Path) -> None:
    files = saved(
        client,
        tmp_path,
        samples_filename_pattern="[prompt_spaces] [seed] of [seed_first], [batch_number]",
        directories_filename_pattern="[model_name]/[width]",
        save_images_add_number=False,
        outdir_txt2img_samples="outputs/mine",
        grid_save_to_dirs=False,
    )
    assert names(files, tmp_path) == [
        "outputs/mine/small-a/64/猫 5 of 5, 1.png",
        "outputs/mine/small-a/64/猫 6 of 5, 2.png",
        "outputs/txt2img-grids/grid-0000.png",
    ]


def test_without_folders_a_name_tells_the_prompt_too(client: TestClient, tmp_path: Path) -> None:
    files = saved(client, tmp_path, save_to_dirs=False, grid_extended_filename=True, grid_save_to_dirs=False)
    assert names(files, tmp_path) == [
        "outputs/txt2img-grids/grid-0000-5-猫.png",
        "outputs/txt2img-images/00000-5-猫.png",
        "outputs/txt2img-images/00001-6-猫.png",
    ]


def test_a_file_of_the_same_name_is_replaced_or_left(client: TestClient, tmp_path: Path) -> None:
    plain = {"samples_filename_pattern": "[prompt]", "save_images_add_number": False, "grid_save": False}
    assert [path.name for path in saved(client, tmp_path, **plain)] == ["猫.png"]
    kept = saved(client, tmp_path, **plain, save_images_replace_action="Add number suffix")
    assert [path.name for path in kept] == ["猫-1.png", "猫-2.png", "猫.png"]


def test_a_large_file_gets_a_smaller_jpeg_beside_it(client: TestClient, tmp_path: Path) -> None:
    files = saved(client, tmp_path, target_side_length=32, grid_save=False)
    assert [path.name for path in files] == ["00000-5.jpg", "00000-5.png", "00001-6.jpg", "00001-6.png"]
    with Image.open(files[0]) as picture:
        assert picture.size == (32, 32)
        assert "Seed: 5" in read_notes(picture)[0]
    assert len(saved(client, tmp_path, export_for_4chan=False)) == 6


def test_a_file_above_the_megabytes_gets_one_of_the_same_size(client: TestClient, tmp_path: Path) -> None:
    files = saved(client, tmp_path, img_downscale_threshold=0, grid_save=False)
    with Image.open(files[0]) as picture:
        assert (picture.format, picture.size) == ("JPEG", (64, 64))


@pytest.mark.parametrize("folder", ["/tmp/x", "../x", "outputs/../../x", "..", "a\\..\\b", "a\0b"])
@pytest.mark.parametrize("option", ["outdir_txt2img_samples", "outdir_img2img_grids", "outdir_init_images"])
def test_no_folder_leads_out_of_the_data_folder(client: TestClient, option: str, folder: str) -> None:
    answer = client.post("/sdapi/v1/options", json={option: folder})
    assert answer.status_code == 422
    assert option in answer.json()["detail"]
    fields = {"width": 64, "height": 64, "save_images": True, "override_settings": {option: folder}}
    assert client.post("/sdapi/v1/txt2img", json=fields).status_code == 422


@pytest.mark.parametrize("pattern", ["../../[seed]", "/tmp/[seed]", "[prompt]/../..", ".", "[datetime<../../x>]"])
def test_no_pattern_leads_out_of_its_folder(client: TestClient, tmp_path: Path, pattern: str) -> None:
    before = set(tmp_path.parent.iterdir())
    files = saved(client, tmp_path, samples_filename_pattern=pattern, directories_filename_pattern=pattern)
    assert len(files) == 3
    assert set(tmp_path.parent.iterdir()) == before


def test_a_request_can_have_its_own_folder(client: TestClient, tmp_path: Path) -> None:
    overrides = {"outdir_txt2img_samples": "outputs/theirs", "samples_filename_pattern": "x", "samples_format": "webp"}
    fields = {"width": 64, "height": 64, "save_images": True, "override_settings": overrides}
    assert client.post("/sdapi/v1/txt2img", json=fields).status_code == 200
    assert [path.name for path in (tmp_path / "outputs/theirs").rglob("*.webp")] == ["00000-x.webp"]
    assert client.get("/sdapi/v1/options").json()["outdir_txt2img_samples"] == "outputs/txt2img-images"


HIRES = {
    "enable_hr": True,
    "denoising_strength": 0.5,
    "prompt": "a cat",
    "seed": 5,
    "width": 64,
    "height": 64,
    "steps": 2,
}


@pytest.mark.parametrize("wanted", [True, False])
def test_the_first_passs_picture_is_saved_beside_the_second_ones(
    client: TestClient, tmp_path: Path, wanted: bool
) -> None:
    client.post("/sdapi/v1/options", json={"save_images_before_highres_fix": wanted})
    answer = client.post("/sdapi/v1/txt2img", json={**HIRES, "save_images": True})
    assert "X-Darkroom-Ignored" not in answer.headers
    assert len(answer.json()["images"]) == 1
    assert len(json.loads(answer.json()["info"])["infotexts"]) == 1
    files = sorted(path.name for path in (tmp_path / "outputs").rglob("*") if path.is_file())
    assert files == (["00000-5-before-highres-fix.png", "00001-5.png"] if wanted else ["00000-5.png"])


def test_a_first_pass_that_is_not_saved_is_not_asked_for(client: TestClient, engine: FakeEngine) -> None:
    client.post("/sdapi/v1/options", json={"save_images_before_highres_fix": True})
    for fields in ({"save_images": False}, {"save_images": True, "override_settings": {"samples_save": False}}):
        client.post("/sdapi/v1/txt2img", json={**HIRES, **fields})
        hires = engine.specs[-1].hires
        assert hires
        assert not hires.keeps_first

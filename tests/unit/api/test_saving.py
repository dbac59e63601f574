"""What lies in the output folders after a request that wants its pictures saved."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from darkroom.images.metadata import read_notes


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

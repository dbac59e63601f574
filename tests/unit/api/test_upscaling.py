"""Networks for finished pictures as requests name them: in lists, in extras, in second passes, for start pictures, in
scripts, and for faces.
"""

import threading
import time
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from darkroom.api.extras import order
from darkroom.api.upscaling import tiles_for
from darkroom.errors import DarkroomError
from darkroom.jobs.networks import FaceRestorerInfo, UpscalerInfo
from darkroom.jobs.retouching import Enlargement
from darkroom.jobs.spec import FaceRestoration, Tiles
from darkroom.options.values import OptionValues
from tests.unit.api.conftest import Serve, from_base64, noise, to_base64
from tests.unit.api.fake_engine import ABSENT, TWICE, FakeEngine

SINGLE = "/sdapi/v1/extra-single-image"
BATCH = "/sdapi/v1/extra-batch-images"
TXT2IMG = "/sdapi/v1/txt2img"
IMG2IMG = "/sdapi/v1/img2img"
SMALL = {"prompt": "a cat", "width": 64, "height": 64, "steps": 2, "seed": 1}
HIRES = {**SMALL, "enable_hr": True, "denoising_strength": 0.5}

GFPGAN = FaceRestorerInfo(name="GFPGAN", filename="/models/GFPGAN/GFPGANv1.4.pth", wanted="")
CODEFORMER = FaceRestorerInfo(name="CodeFormer", filename="/models/Codeformer/codeformer.pth", wanted="")


@pytest.fixture
def engine() -> FakeEngine:
    engine = FakeEngine()
    engine.shelf.upscalers = [ABSENT, TWICE]
    return engine


def pixels(text: str) -> np.ndarray[tuple[int, ...], np.dtype[np.int_]]:
    return np.asarray(from_base64(text)).astype(int)


def test_a_network_is_listed_with_its_file_or_where_it_is_published(client: TestClient) -> None:
    rows = {row["name"]: row for row in client.get("/sdapi/v1/upscalers").json()}
    assert list(rows) == ["None", "Lanczos", "Nearest", "R-ESRGAN 4x+", "Twice"]
    assert (rows["Twice"]["model_path"], rows["Twice"]["scale"]) == (TWICE.filename, 2.0)
    assert rows["R-ESRGAN 4x+"] == {
        "name": "R-ESRGAN 4x+", "model_name": None, "model_path": ABSENT.address, "model_url": None, "scale": 4.0,
    }  # fmt: skip


def test_an_option_says_which_published_networks_are_on_offer(client: TestClient) -> None:
    client.post("/sdapi/v1/options", json={"realesrgan_enabled_models": ["R-ESRGAN 2x+"]})
    assert "R-ESRGAN 4x+" not in [row["name"] for row in client.get("/sdapi/v1/upscalers").json()]
    answer = client.post(SINGLE, json={"image": to_base64(noise(16, 16)), "upscaler_1": "R-ESRGAN 4x+"})
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_name")


def test_extras_have_the_engine_enlarge(client: TestClient, engine: FakeEngine) -> None:
    source = noise(16, 16)
    client.post("/sdapi/v1/options", json={"ESRGAN_tile": 64, "ESRGAN_tile_overlap": 4})
    answer = client.post(SINGLE, json={"image": to_base64(source), "upscaler_1": "Twice"}).json()
    expected = np.asarray(source).repeat(2, 0).repeat(2, 1)
    np.testing.assert_array_equal(pixels(answer["image"]), expected)
    assert answer["html_info"] == "<p>Postprocess upscale by: 2.0, Postprocess upscaler: Twice</p>"
    [spec] = engine.retouched
    assert spec.work == Enlargement(upscaler="Twice", tiles=Tiles(side=64, overlap=4))
    assert spec.title == "Upscale"


def test_a_network_runs_again_until_the_picture_is_large_enough(client: TestClient, engine: FakeEngine) -> None:
    body = {"image": to_base64(noise(16, 16)), "upscaler_1": "Twice", "upscaling_resize": 3}
    assert from_base64(client.post(SINGLE, json=body).json()["image"]).size == (48, 48)
    assert [spec.picture.shape[:2] for spec in engine.retouched] == [(16, 16), (32, 32)]


def test_two_upscalers_are_blended(client: TestClient, engine: FakeEngine) -> None:
    source = noise(16, 16)
    body = {"image": to_base64(source), "upscaler_1": "Lanczos", "upscaler_2": "Twice"}
    answer = client.post(SINGLE, json={**body, "extras_upscaler_2_visibility": 1}).json()
    np.testing.assert_array_equal(pixels(answer["image"]), np.asarray(source).repeat(2, 0).repeat(2, 1))
    assert "Postprocess upscaler 2: Twice" in answer["html_info"]
    client.post(SINGLE, json=body)
    assert len(engine.retouched) == 1


def test_a_network_without_its_file_is_refused_with_where_to_put_it(client: TestClient, engine: FakeEngine) -> None:
    for path, body, name in (
        (SINGLE, {"image": to_base64(noise(16, 16)), "upscaler_1": ABSENT.name}, "upscaler_1"),
        (TXT2IMG, {**HIRES, "hr_upscaler": ABSENT.name}, "hr_upscaler"),
    ):
        answer = client.post(path, json=body)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_installed")
        assert answer.json()["detail"].startswith(f"{name}: ")
        assert ABSENT.wanted in answer.json()["detail"]
        assert ABSENT.address in answer.json()["detail"]
    assert not engine.specs


def test_a_network_that_fails_is_told(client: TestClient, engine: FakeEngine) -> None:
    engine.failure = DarkroomError("Twice.pth: torn")
    answer = client.post(SINGLE, json={"image": to_base64(noise(16, 16)), "upscaler_1": "Twice"})
    assert answer.status_code == 500
    assert "Twice.pth: torn" in answer.text


def in_background(client: TestClient, path: str, body: object) -> tuple[threading.Thread, list[object]]:
    answers: list[object] = []
    thread = threading.Thread(target=lambda: answers.append(client.post(path, json=body).json()))
    thread.start()
    return thread, answers


def wait_for_job(engine: FakeEngine, count: int = 1) -> str:
    deadline = time.monotonic() + 20
    while len(engine.retouched) < count and time.monotonic() < deadline:
        time.sleep(0.005)
    return engine.jobs()[0].job_id


def test_extras_show_their_progress(client: TestClient, engine: FakeEngine) -> None:
    engine.held = True
    body = {"image": to_base64(noise(16, 16)), "upscaler_1": "Twice"}
    thread, _ = in_background(client, SINGLE, body)
    job_id = wait_for_job(engine)
    engine.set(job_id, step=2)
    progress = client.get("/sdapi/v1/progress").json()
    assert progress["state"]["sampling_steps"] == 4
    assert client.get("/sdapi/v1/progress").json()["state"]["job"] == "1 out of 1"
    engine.finish(job_id)
    thread.join()
    assert client.get("/sdapi/v1/progress").json()["state"]["job_count"] == 0


def test_an_interrupt_leaves_out_what_was_not_begun(client: TestClient, engine: FakeEngine) -> None:
    engine.held = True
    pictures = [{"data": to_base64(noise(16, 16)), "name": "x"}] * 3
    thread, answers = in_background(client, BATCH, {"imageList": pictures, "upscaler_1": "Twice"})
    wait_for_job(engine)
    client.post("/sdapi/v1/interrupt")
    thread.join()
    [answer] = answers
    assert isinstance(answer, dict)
    assert len(answer["images"]) == 1
    assert len(engine.retouched) == 1


def test_faces_are_restored_as_visible_as_asked(client: TestClient, engine: FakeEngine) -> None:
    engine.shelf.face_restorers = [CODEFORMER, GFPGAN]
    source = noise(16, 16)
    body = {"image": to_base64(source), "gfpgan_visibility": 1}
    answer = client.post(SINGLE, json=body)
    np.testing.assert_array_equal(pixels(answer.json()["image"]), 255 - np.asarray(source).astype(int))
    assert answer.json()["html_info"] == "<p>GFPGAN visibility: 1.0</p>"
    assert "X-Darkroom-Ignored" not in answer.headers
    half = client.post(
        SINGLE, json={**body, "gfpgan_visibility": 0, "codeformer_visibility": 0.5, "codeformer_weight": 0.25}
    )
    np.testing.assert_allclose(pixels(half.json()["image"]), 127.5, atol=1)
    assert half.json()["html_info"] == "<p>CodeFormer visibility: 0.5, CodeFormer weight: 0.25</p>"
    assert [spec.work for spec in engine.retouched] == [
        FaceRestoration(restorer="GFPGAN", weight=0.0), FaceRestoration(restorer="CodeFormer", weight=0.25),
    ]  # fmt: skip


def test_a_restorer_without_its_file_is_told_and_changes_nothing(client: TestClient, engine: FakeEngine) -> None:
    source = noise(16, 16)
    answer = client.post(SINGLE, json={"image": to_base64(source), "codeformer_visibility": 1})
    np.testing.assert_array_equal(pixels(answer.json()["image"]), np.asarray(source))
    assert answer.headers["X-Darkroom-Ignored"] == "codeformer_visibility"
    assert "/models/Codeformer/codeformer-v0.1.0.pth" in answer.headers["X-Darkroom-Warnings"]


def test_the_steps_of_extras_may_be_reordered_and_left_out() -> None:
    assert order(OptionValues()) == ["Upscale", "GFPGAN", "CodeFormer"]
    changed = OptionValues({"postprocessing_operation_order": ("CodeFormer", "Caption", "Upscale")})
    assert order(changed) == ["CodeFormer", "Upscale", "GFPGAN"]
    assert order(OptionValues({"postprocessing_disable_in_extras": ("Upscale",)})) == ["GFPGAN", "CodeFormer"]


@pytest.mark.parametrize(
    ("family", "tiles"),
    [
        ("ESRGAN", Tiles(side=1, overlap=2)),
        ("RealESRGAN", Tiles(side=1, overlap=2)),
        ("Darkroom", Tiles(side=1, overlap=2)),
        ("DAT", Tiles(side=3, overlap=4)),
        ("SwinIR", Tiles(side=5, overlap=6, mean=True)),
        ("ScuNET", Tiles(side=7, overlap=8, mean=True)),
    ],
)
def test_every_family_has_tiles_of_its_own(family: str, tiles: Tiles) -> None:
    values = OptionValues(
        {
            "ESRGAN_tile": 1, "ESRGAN_tile_overlap": 2, "DAT_tile": 3, "DAT_tile_overlap": 4,
            "SWIN_tile": 5, "SWIN_tile_overlap": 6, "SCUNET_tile": 7, "SCUNET_tile_overlap": 8,
        }
    )  # fmt: skip
    assert tiles_for(UpscalerInfo(name="x", family=family, filename="x", wanted="x"), values) == tiles


def test_a_second_pass_may_have_any_upscaler_that_is_listed(client: TestClient, engine: FakeEngine) -> None:
    overrides = {"ESRGAN_tile": 96}
    answer = client.post(TXT2IMG, json={**HIRES, "hr_upscaler": "Twice", "override_settings": overrides})
    hires = engine.specs[-1].hires
    assert hires is not None
    assert (hires.upscaler, hires.tiles) == ("Twice", Tiles(side=96, overlap=8))
    assert "Hires upscaler: Twice" in answer.json()["info"]
    assert "X-Darkroom-Ignored" not in answer.headers


def test_a_start_picture_that_grows_goes_through_a_network(client: TestClient, engine: FakeEngine) -> None:
    source = noise(32, 32)
    body = {**SMALL, "init_images": [to_base64(source)], "override_settings": {"upscaler_for_img2img": "Twice"}}
    answer = client.post(IMG2IMG, json=body)
    assert answer.status_code == 200
    init = engine.specs[-1].init
    assert init is not None
    np.testing.assert_array_equal(init.pictures[0], np.asarray(source).repeat(2, 0).repeat(2, 1))


def test_a_start_picture_s_upscaler_that_cannot_be_used_is_lanczos(client: TestClient, engine: FakeEngine) -> None:
    body = {**SMALL, "init_images": [to_base64(noise(32, 32))]}
    plain = client.post(IMG2IMG, json=body)
    assert "X-Darkroom-Warnings" not in plain.headers
    answer = client.post(IMG2IMG, json={**body, "override_settings": {"upscaler_for_img2img": ABSENT.name}})
    assert "Lanczos was used" in answer.headers["X-Darkroom-Warnings"]
    first, second = (spec.init for spec in engine.specs)
    assert first is not None
    assert second is not None
    np.testing.assert_array_equal(first.pictures[0], second.pictures[0])


def test_sd_upscale_may_use_a_network(client: TestClient, engine: FakeEngine) -> None:
    body = {**SMALL, "init_images": [to_base64(noise(64, 64))], "script_name": "sd upscale"}
    answer = client.post(IMG2IMG, json={**body, "script_args": ["", 16, "twice", 2.0]})
    assert answer.status_code == 200
    assert from_base64(answer.json()["images"][0]).size == (128, 128)
    assert len(engine.retouched) == 1
    assert "SD upscale upscaler: Twice" in answer.json()["info"]


def test_faces_of_pictures_that_are_drawn_are_restored_as_options_say(client: TestClient, engine: FakeEngine) -> None:
    engine.shelf.face_restorers = [CODEFORMER, GFPGAN]
    answer = client.post(TXT2IMG, json={**SMALL, "restore_faces": True})
    assert engine.specs[-1].faces == FaceRestoration(restorer="CodeFormer", weight=0.5)
    assert "Face restoration: CodeFormer" in answer.json()["info"]
    assert '"restore_faces": true, "face_restoration_model": "CodeFormer"' in answer.json()["info"]
    assert not {"X-Darkroom-Ignored", "X-Darkroom-Warnings"} & set(answer.headers)
    options = {"face_restoration": True, "face_restoration_model": "GFPGAN", "code_former_weight": 0.1}
    client.post("/sdapi/v1/options", json=options)
    client.post(TXT2IMG, json=SMALL)
    assert engine.specs[-1].faces == FaceRestoration(restorer="GFPGAN", weight=0.1)
    client.post(TXT2IMG, json={**SMALL, "restore_faces": False})
    assert engine.specs[-1].faces is None


def test_faces_stay_as_they_are_without_the_file_and_a_warning_says_so(client: TestClient) -> None:
    answer = client.post(TXT2IMG, json={**SMALL, "restore_faces": True})
    assert answer.status_code == 200
    assert "/models/Codeformer/codeformer-v0.1.0.pth" in answer.headers["X-Darkroom-Warnings"]


def test_the_picture_before_is_kept_only_where_pictures_are_saved(client: TestClient, engine: FakeEngine) -> None:
    client.post("/sdapi/v1/options", json={"save_images_before_face_restoration": True})
    kept = []
    for saved in (True, False):
        client.post(TXT2IMG, json={**SMALL, "restore_faces": True, "save_images": saved})
        faces = engine.specs[-1].faces
        kept.append(faces is not None and faces.keep)
    assert kept == [True, False]


def test_the_picture_before_is_saved_beside_the_one_after(client: TestClient, tmp_path: Path) -> None:
    client.post("/sdapi/v1/options", json={"save_images_before_face_restoration": True, "save_to_dirs": False})
    answer = client.post(TXT2IMG, json={**SMALL, "restore_faces": True, "save_images": True})
    assert len(answer.json()["images"]) == 1
    files = sorted(path.stem for path in (tmp_path / "outputs" / "txt2img-images").iterdir())
    assert [name.endswith("-before-face-restoration") for name in files] == [True, False]


def test_folders_of_networks_may_be_moved(serve: Serve, tmp_path: Path) -> None:
    client = serve(esrgan_models_path=tmp_path / "up", gfpgan_models_path=tmp_path / "faces")
    flags = client.get("/sdapi/v1/cmd-flags").json()
    assert (flags["esrgan_models_path"], flags["gfpgan_models_path"]) == (str(tmp_path / "up"), str(tmp_path / "faces"))
    assert flags["dat_models_path"].endswith("/models/DAT")

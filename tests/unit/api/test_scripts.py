import base64
import json
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from tests.unit.api.conftest import Serve, from_base64, noise, to_base64
from tests.unit.api.fake_engine import FakeEngine, colour

SMALL = {"prompt": "a cat", "steps": 3, "width": 64, "height": 64, "seed": 5}
MATRIX = {**SMALL, "prompt": "a cat|red|big", "script_name": "Prompt matrix"}
MATRIX_ARGS = [False, False, "positive", "comma", 0]
PLOT_ARGS = [4, "3,4", None, 0, "", None, 0, "", None, True, *[False] * 6, 0, False]


def post(client: TestClient, body: dict[str, Any], kind: str = "txt2img") -> dict[str, Any]:
    answer = client.post(f"/sdapi/v1/{kind}", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return {**found, "info": json.loads(found["info"])}


def test_scripts_and_their_arguments_are_listed_as_recorded(client: TestClient, recordings: Path) -> None:
    recorded = json.loads((recordings / "cases/get_script_info.response.json").read_text())["body"]
    described = client.get("/sdapi/v1/script-info").json()
    by_name = {(entry["name"], entry["is_img2img"]): entry for entry in recorded}
    for entry in described:
        known = by_name[entry["name"], entry["is_img2img"]]
        assert entry["is_alwayson"] == known["is_alwayson"]
        assert len(entry["args"]) == len(known["args"])
        for argument, wanted in zip(entry["args"], known["args"], strict=True):
            assert set(argument) == set(wanted)
            if wanted["label"]:  # what people only read is worded otherwise here
                shown = {key: value for key, value in argument.items() if key != "choices"}
                assert shown == {key: value for key, value in wanted.items() if key != "choices"}
    names = json.loads((recordings / "cases/get_scripts.response.json").read_text())["body"]
    listed = client.get("/sdapi/v1/scripts").json()
    for tab in ("txt2img", "img2img"):
        assert [name for name in names[tab] if name in listed[tab]] == listed[tab]


def test_a_matrix_has_a_grid_first_and_says_so(client: TestClient, engine: FakeEngine) -> None:
    answer = post(client, {**MATRIX, "script_args": MATRIX_ARGS})
    info = answer["info"]
    assert len(answer["images"]) == 5
    assert info["index_of_first_image"] == 1
    assert info["all_prompts"] == ["a cat", "a cat, red", "a cat, big", "a cat, red, big"]
    assert info["all_seeds"] == [5, 5, 5, 5]
    assert len(info["infotexts"]) == 5
    assert answer["parameters"]["script_name"] == "Prompt matrix"
    assert "parameters" not in from_base64(answer["images"][0]).info
    assert from_base64(answer["images"][1]).info["parameters"] == info["infotexts"][1]
    assert len(engine.specs) == 4


def test_the_name_of_a_script_may_have_any_case(client: TestClient) -> None:
    assert len(post(client, {**MATRIX, "script_name": "prompt MATRIX", "script_args": MATRIX_ARGS})["images"]) == 5


def test_an_unknown_script_is_refused_in_the_words_that_clients_know(client: TestClient) -> None:
    answer = client.post("/sdapi/v1/txt2img", json={**SMALL, "script_name": "prompt matrx"})
    assert answer.status_code == 422
    assert answer.json()["detail"] == "Script 'prompt matrx' not found"
    assert "Prompt matrix" in answer.json()["errors"]


def test_scripts_of_the_other_generator_are_unknown(client: TestClient) -> None:
    answer = client.post("/sdapi/v1/txt2img", json={**SMALL, "script_name": "loopback", "script_args": []})
    assert answer.status_code == 422


@pytest.mark.parametrize("name", [None, "", "None"])
def test_no_script_is_none(client: TestClient, name: str | None) -> None:
    assert len(post(client, {**SMALL, "script_name": name})["images"]) == 1


@pytest.mark.parametrize(
    ("arguments", "named"),
    [([], "5 values"), ([False, "x", "positive", "comma", 0], "[1]"), ([False, False, "up", "comma", 0], "[2]")],
)
def test_arguments_that_are_missing_or_wrong_are_named(client: TestClient, arguments: list[Any], named: str) -> None:
    answer = client.post("/sdapi/v1/txt2img", json={**MATRIX, "script_args": arguments})
    assert answer.status_code == 422
    assert named in answer.json()["detail"]


def test_a_selectable_script_is_not_always_on(client: TestClient) -> None:
    answer = client.post("/sdapi/v1/txt2img", json={**SMALL, "alwayson_scripts": {"Prompt matrix": {"args": []}}})
    assert answer.status_code == 422
    assert answer.json()["detail"] == "Cannot have a selectable script in the always on scripts params"


def test_an_unknown_always_on_script_may_be_named_but_not_used(client: TestClient) -> None:
    answer = client.post("/sdapi/v1/txt2img", json={**SMALL, "alwayson_scripts": {"ControlNet": {"args": []}}})
    assert answer.status_code == 200
    assert "ControlNet" in answer.headers["X-Darkroom-Warnings"]
    answer = client.post("/sdapi/v1/txt2img", json={**SMALL, "alwayson_scripts": {"ControlNet": {"args": [{}]}}})
    assert answer.json()["detail"] == "Script 'ControlNet' not found"


@pytest.mark.parametrize("name", ["Sampler", "seed", "REFINER", "Hypertile", "Comments", "Extra options"])
def test_the_always_on_parts_are_known(client: TestClient, name: str) -> None:
    assert len(post(client, {**SMALL, "alwayson_scripts": {name: {"args": [4, "Heun"]}}})["images"]) == 1


def test_a_script_keeps_the_limit_on_pictures(serve: Serve, engine: FakeEngine) -> None:
    lines = [False, False, "start", "\n".join("abc")]
    body = {**SMALL, "n_iter": 3, "script_name": "prompts from file or textbox", "script_args": lines}
    answer = serve(max_images=8).post("/sdapi/v1/txt2img", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "limit_exceeded")
    assert engine.specs == []


def test_a_request_of_a_script_that_cannot_be_served_is_refused_before_any_is(
    client: TestClient, engine: FakeEngine
) -> None:
    lines = [False, False, "start", "a\n--prompt b --steps 9999"]
    body = {**SMALL, "script_name": "prompts from file or textbox", "script_args": lines}
    answer = client.post("/sdapi/v1/txt2img", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "limit_exceeded")
    assert engine.specs == []


def test_a_cell_that_cannot_be_made_is_empty_and_told(client: TestClient) -> None:
    arguments = [4, "3,9999", "", 0, "", "", 0, "", "", True, True, False, False, False, False, False, 0, False]
    answer = client.post("/sdapi/v1/txt2img", json={**SMALL, "script_name": "x/y/z plot", "script_args": arguments})
    assert answer.status_code == 200
    assert len(answer.json()["images"]) == 2
    assert "9999" in answer.headers["X-Darkroom-Warnings"]
    arguments[1] = "9999"
    answer = client.post("/sdapi/v1/txt2img", json={**SMALL, "script_name": "x/y/z plot", "script_args": arguments})
    assert (answer.status_code, answer.json()["code"]) == (422, "limit_exceeded")


def test_loops_start_from_the_picture_before(client: TestClient, engine: FakeEngine) -> None:
    body = {**SMALL, "init_images": [to_base64(noise(64, 64))], "script_name": "loopback"}
    answer = post(client, {**body, "script_args": [3, 0.5, "Linear", "None"]}, "img2img")
    starts = [spec.init.pictures[0] for spec in engine.specs if spec.init]
    assert (starts[1] == np.array(colour(5), dtype=np.uint8)).all()
    assert (starts[2] == np.array(colour(6), dtype=np.uint8)).all()
    assert len(answer["images"]) == 4
    assert "Denoising curve: Linear" in answer["info"]["infotexts"][0]


@pytest.mark.parametrize(("prompt", "full"), [("a boat", "a boat, a red square"), ("", "a red square")])
def test_what_describes_a_loop_s_picture_goes_behind_the_prompt(
    client: TestClient, engine: FakeEngine, prompt: str, full: str
) -> None:
    body = {**SMALL, "prompt": prompt, "init_images": [to_base64(noise(64, 64))], "script_name": "loopback"}
    answer = post(client, {**body, "script_args": [2, 0.5, "Linear", "CLIP"]}, "img2img")
    assert [spec.prompt for spec in engine.specs] == [full, full]
    assert answer["info"]["infotexts"][0].startswith(full)
    assert [picture.shape for picture, _ in engine.questions] == [(64, 64, 3)] * 2
    assert (engine.questions[1][0] == np.array(colour(5), dtype=np.uint8)).all()


def test_a_script_answers_without_pictures_where_none_are_wanted(client: TestClient) -> None:
    answer = post(client, {**MATRIX, "script_args": MATRIX_ARGS, "send_images": False})
    assert answer["images"] == []
    assert len(answer["info"]["infotexts"]) == 5


def test_a_script_saves_what_it_made_only_where_that_is_asked_for(client: TestClient, tmp_path: Path) -> None:
    post(client, {**MATRIX, "script_args": MATRIX_ARGS})
    assert not list((tmp_path / "outputs").rglob("*.png"))
    post(client, {**MATRIX, "script_args": MATRIX_ARGS, "save_images": True})
    assert len(list((tmp_path / "outputs/txt2img-images").rglob("*.png"))) == 4
    assert len(list((tmp_path / "outputs/txt2img-grids").rglob("*.png"))) == 1


@pytest.mark.parametrize(
    ("script", "arguments", "said"),
    [
        ("Prompt matrix", MATRIX_ARGS, "a cat\n"),
        ("X/Y/Z plot", PLOT_ARGS, 'X Type: Steps, X Values: "3,4"'),
    ],
)
def test_the_file_of_a_grid_bears_the_text_that_the_answer_has_for_it(
    client: TestClient, tmp_path: Path, script: str, arguments: list[object], said: str
) -> None:
    body = {**MATRIX, "script_name": script, "script_args": arguments, "save_images": True}
    text = post(client, body)["info"]["infotexts"][0]
    assert said in text
    [path] = (tmp_path / "outputs/txt2img-grids").rglob("*.png")
    shown = client.post("/sdapi/v1/png-info", json={"image": base64.b64encode(path.read_bytes()).decode()}).json()
    assert shown["info"] == text


def test_an_interrupt_ends_all_of_a_script_and_gives_what_there_is(serve: Serve, engine: FakeEngine) -> None:
    engine.held = True
    client = serve(max_batch_size=1)
    found: list[dict[str, Any]] = []
    body = {**MATRIX, "script_args": MATRIX_ARGS, "force_task_id": "mine"}
    work = Thread(target=lambda: found.append(post(client, body)))
    work.start()
    wait_for(lambda: len(engine.specs) == 1)
    progress = client.get("/sdapi/v1/progress").json()
    assert progress["state"]["job"] == "1 out of 4"
    assert progress["state"]["job_count"] == 4
    engine.finish("job0")
    wait_for(lambda: len(engine.specs) == 2)
    assert client.get("/sdapi/v1/progress").json()["state"]["job_no"] == 1
    task = client.post("/internal/progress", json={"id_task": "mine"}).json()
    assert (task["active"], task["completed"], task["progress"]) == (True, False, 0.25)
    assert client.get("/internal/pending-tasks").json() == {"size": 1, "tasks": ["mine"]}
    client.post("/sdapi/v1/interrupt")
    work.join(10)
    assert len(found[0]["images"]) == 2
    assert len(engine.specs) == 2
    assert client.get("/sdapi/v1/progress").json()["state"]["job_count"] == 0


def wait_for(condition: Any) -> None:
    import time

    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


XYZ = {**SMALL, "script_name": "X/Y/Z plot", "script_args": [
    4, "1,2", [], 0, "", [], 0, "", [], True, False, False, False, False, False, False, 0, False,
]}  # fmt: skip


def test_captions_have_the_colours_of_the_options(client: TestClient) -> None:
    client.post("/sdapi/v1/options", json={"grid_text_active_color": "#ff0000", "grid_text_inactive_color": "#00ff00"})
    grid = from_base64(post(client, {**MATRIX, "script_args": MATRIX_ARGS})["images"][0])
    red, green, blue = np.asarray(grid.convert("RGB")).astype(int).transpose(2, 0, 1)
    assert (red - np.maximum(green, blue)).max() > 60
    assert (green - np.maximum(red, blue)).max() > 60


def test_a_grid_may_be_no_larger_than_the_options_say(client: TestClient) -> None:
    assert len(post(client, XYZ)["images"]) == 1
    client.post("/sdapi/v1/options", json={"img_max_size_mp": 0})
    answer = client.post("/sdapi/v1/txt2img", json=XYZ)
    assert (answer.status_code, answer.json()["code"]) == (422, "limit_exceeded")

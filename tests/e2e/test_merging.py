"""Merges through the real server, with the model that comes with the package."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import darkroom
from tests.e2e.serving import Server, picture, serving

MINI = Path(darkroom.__file__).parent / "mini" / "darkroom-mini.safetensors"
REQUEST = {"prompt": "a red apple", "seed": 3, "steps": 3, "width": 64, "height": 64}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("merging")
    checkpoints = folder / "models" / "Stable-diffusion"
    checkpoints.mkdir(parents=True)
    for name in ("one", "two"):
        for suffix in (".safetensors", ".yaml"):
            shutil.copy(MINI.with_suffix(suffix), checkpoints / (name + suffix))
    with serving(folder, "--models-dir", str(folder / "models"), "--precision", "fp32") as server:
        yield server


def test_a_sum_of_a_model_and_itself_draws_the_same_picture(server: Server) -> None:
    made = server.post("/models/merge", {"a": "one", "b": "two", "multiplier": 0.5, "dtype": "fp32", "name": "sum"})
    assert made["title"].startswith("sum.safetensors [")
    assert made["config"].endswith("sum.yaml")
    assert made["title"] in [model["title"] for model in server.get("/sdapi/v1/sd-models")]
    drawn = [
        picture(
            server.post("/sdapi/v1/txt2img", REQUEST | {"override_settings": {"sd_model_checkpoint": name}})["images"][
                0
            ]
        )
        for name in ("one", made["title"])
    ]
    assert np.array_equal(np.asarray(drawn[0]), np.asarray(drawn[1]))


def test_a_second_merge_of_the_same_name_is_refused(server: Server) -> None:
    body = {"a": "one", "method": "No interpolation", "name": "copy"}
    server.post("/models/merge", body)
    answer = server.client.post("/models/merge", json=body)
    assert (answer.status_code, answer.json()["code"]) == (409, "name_taken")


@pytest.mark.parametrize(("model", "file"), [("clip", "BLIP"), ("deepdanbooru", "model-resnet_custom_v3.pt")])
def test_a_describing_network_that_is_not_there_is_named(server: Server, model: str, file: str) -> None:
    image = server.post("/sdapi/v1/txt2img", REQUEST)["images"][0]
    answer = server.client.post("/sdapi/v1/interrogate", json={"image": image, "model": model})
    assert (answer.status_code, answer.json()["code"]) == (404, "not_installed")
    assert file in str(answer.json()["detail"])

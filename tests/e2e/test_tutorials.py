"""What tutorials for the original tell people to type gives pictures here: requests with PIL, curl, full payloads."""

import base64
import io
import json
import shutil
import subprocess
from pathlib import Path

import pytest
import requests
from PIL import Image, PngImagePlugin

from tests.e2e.serving import Json, Server, as_base64, picture

FULL_TXT2IMG: Json = {
    "enable_hr": False, "denoising_strength": 0, "firstphase_width": 0, "firstphase_height": 0, "hr_scale": 2,
    "hr_upscaler": None, "hr_second_pass_steps": 0, "hr_resize_x": 0, "hr_resize_y": 0, "hr_sampler_name": None,
    "hr_prompt": "", "hr_negative_prompt": "", "prompt": "a red apple", "styles": ["string"], "seed": -1,
    "subseed": -1, "subseed_strength": 0, "seed_resize_from_h": -1, "seed_resize_from_w": -1, "sampler_name": "UniPC",
    "batch_size": 1, "n_iter": 1, "steps": 5, "cfg_scale": 7, "width": 128, "height": 128, "restore_faces": True,
    "tiling": True, "do_not_save_samples": False, "do_not_save_grid": False, "negative_prompt": "string", "eta": 0,
    "s_min_uncond": 0, "s_churn": 0, "s_tmax": 0, "s_tmin": 0, "s_noise": 1, "override_settings": {},
    "override_settings_restore_afterwards": True, "script_args": [], "sampler_index": "Euler", "script_name": "",
    "send_images": True, "save_images": False, "alwayson_scripts": {},
}  # fmt: skip
"""The example request of the interactive documentation, filled in as tutorials do."""

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


def test_the_first_tutorial_writes_a_picture_with_its_parameters(server: Server, tmp_path: Path) -> None:
    url = server.url
    payload = {"prompt": "puppy dog", "steps": 5, "width": 128, "height": 128}
    response = requests.post(url=f"{url}/sdapi/v1/txt2img", json=payload)
    r = response.json()
    for i in r["images"]:
        image = Image.open(io.BytesIO(base64.b64decode(i.split(",", 1)[0])))
        png_payload = {"image": "data:image/png;base64," + i}
        response2 = requests.post(url=f"{url}/sdapi/v1/png-info", json=png_payload)
        pnginfo = PngImagePlugin.PngInfo()
        pnginfo.add_text("parameters", response2.json().get("info"))
        image.save(tmp_path / "output.png", pnginfo=pnginfo)
    with Image.open(tmp_path / "output.png") as written:
        assert written.text["parameters"].startswith("puppy dog\nSteps: 5, ")  # type: ignore[attr-defined]


def test_the_newer_tutorial_decodes_the_bytes_alone(server: Server, tmp_path: Path) -> None:
    payload = {"prompt": "puppy dog", "steps": 5, "width": 128, "height": 128}
    response = requests.post(url=f"{server.url}/sdapi/v1/txt2img", json=payload)
    (tmp_path / "output.png").write_bytes(base64.b64decode(response.json()["images"][0]))
    with Image.open(tmp_path / "output.png") as written:
        assert written.size == (128, 128)


def test_options_and_override_settings_as_in_the_tutorial(server: Server) -> None:
    title = requests.get(url=f"{server.url}/sdapi/v1/sd-models").json()[0]["title"]
    opt_json = requests.get(url=f"{server.url}/sdapi/v1/options").json()
    opt_json["sd_model_checkpoint"] = title
    answer = requests.post(url=f"{server.url}/sdapi/v1/options", json=opt_json)
    assert (answer.status_code, answer.json()) == (200, None)
    payload = {
        "prompt": "cirno", "steps": 4, "width": 128, "height": 128,
        "override_settings": {"sd_model_checkpoint": title, "CLIP_stop_at_last_layers": 2, "filter_nsfw": False},
    }  # fmt: skip
    payload["override_settings"].pop("filter_nsfw")  # type: ignore[attr-defined]
    info = json.loads(requests.post(url=f"{server.url}/sdapi/v1/txt2img", json=payload).json()["info"])
    assert info["clip_skip"] == 2
    assert requests.get(url=f"{server.url}/sdapi/v1/options").json()["CLIP_stop_at_last_layers"] == 1


def test_the_whole_payload_of_the_interactive_documentation_draws(server: Server) -> None:
    answer = server.post("/sdapi/v1/txt2img", FULL_TXT2IMG)
    assert picture(answer["images"][0]).size == (128, 128)
    info = json.loads(answer["info"])
    assert info["sampler_name"] == "UniPC"
    assert "Tiling: True" in info["infotexts"][0]
    assert answer["parameters"]["styles"] == ["string"]


def test_the_same_payload_with_a_picture_redraws(server: Server, photo: Image.Image) -> None:
    hires = [name for name in FULL_TXT2IMG if name.startswith(("hr_", "firstphase", "enable_hr"))]
    body = {name: value for name, value in FULL_TXT2IMG.items() if name not in hires} | {
        "init_images": ["data:image/png;base64, " + as_base64(photo)], "denoising_strength": "0.5", "resize_mode": 0,
        "image_cfg_scale": 0, "mask": None, "mask_blur": 4, "inpainting_fill": 0, "inpaint_full_res": True,
        "inpaint_full_res_padding": 0, "inpainting_mask_invert": 0, "initial_noise_multiplier": 1,
        "include_init_images": False, "sampler_name": "Euler", "seed": "-1", "restore_faces": False,
    }  # fmt: skip
    assert picture(server.post("/sdapi/v1/img2img", body)["images"][0]).size == (128, 128)


@needs_curl
def test_curl_without_a_content_type_draws(server: Server, tmp_path: Path) -> None:
    (tmp_path / "payload.json").write_text(json.dumps({"prompt": "a tree", "steps": 3, "width": 128, "height": 128}))
    script = (
        f"curl -sf -X POST -H 'Content-Type:' -d @payload.json {server.url}/sdapi/v1/txt2img"
        " | python3 -c \"import base64, json, sys; open('output.png', 'wb')"
        ".write(base64.b64decode(json.load(sys.stdin)['images'][0]))\""
    )
    subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=tmp_path, timeout=120, check=True)
    with Image.open(tmp_path / "output.png") as written:
        assert written.size == (128, 128)


@needs_curl
@pytest.mark.parametrize("authorization", ["Basic dXNlcjpwYXNz", "Basic dW5kZWZpbmVk", "Basic ", "Basic", ""])
def test_a_password_that_nobody_asked_for_is_ignored(server: Server, authorization: str) -> None:
    command = ["curl", "-s", "-H", f"Authorization: {authorization}", f"{server.url}/sdapi/v1/samplers"]
    done = subprocess.run(command, capture_output=True, timeout=30, check=True)
    assert "Euler a" in [sampler["name"] for sampler in json.loads(done.stdout)]


@needs_curl
def test_curl_posts_an_empty_body_to_the_buttons(server: Server) -> None:
    for route, answer in (("interrupt", {}), ("skip", None), ("refresh-checkpoints", None), ("refresh-loras", None)):
        command = ["curl", "-sf", "-X", "POST", f"{server.url}/sdapi/v1/{route}", "-d", ""]
        done = subprocess.run(command, capture_output=True, timeout=30, check=True)
        assert json.loads(done.stdout) == answer, route


def test_probes_of_other_servers_get_an_answer_in_json(server: Server) -> None:
    for path in ("/config", "/sdapi/v1/version", "/controlnet/version", "/sdapi/v1/artists"):
        answer = server.client.get(path)
        assert answer.status_code == 404, path
        assert answer.json()["detail"] == "Not Found"
    assert server.client.get("/queue/status").status_code == 200
    assert server.client.get("/sdapi/v1/options/", follow_redirects=True).status_code == 200
    assert server.client.get("/sdapi/v1/progress?skipCurrentImage=true").status_code == 200


def test_scripts_of_extensions_that_are_not_here_do_not_stop_a_request(server: Server) -> None:
    body = {"prompt": "a tree", "steps": 3, "width": 128, "height": 128, "clip_skip": 2, "url": "http://x", "auth": ""}
    answer = server.post("/sdapi/v1/txt2img", body | {"alwayson_scripts": {"ControlNet": {"args": []}}})
    assert len(answer["images"]) == 1


def test_old_payloads_with_numbers_in_texts_draw(server: Server) -> None:
    body = {
        "prompt": "a tree", "steps": 3.0, "width": "128", "height": "128", "seed": "42", "cfg_scale": "7.0",
        "sampler_index": "DPM++ 2M Karras", "restore_faces": 0, "tiling": "false", "eta": None, "s_tmax": None,
        "styles": ["None", ""], "override_settings": {"sd_model_checkpoint": ""}, "hr_second_pass_steps": 2.5,
    }  # fmt: skip
    info = json.loads(server.post("/sdapi/v1/txt2img", body)["info"])
    assert (info["seed"], info["sampler_name"]) == (42, "DPM++ 2M")
    assert "Schedule type: Karras" in info["infotexts"][0]

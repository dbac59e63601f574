"""A picture tells how it was made, and can be made again from that."""

import json

from PIL import Image

from tests.e2e.serving import Server, apart, as_base64, pixels

SMALL = {"prompt": "a (red:1.2) apple", "negative_prompt": "blue", "steps": 3, "width": 64, "height": 64, "seed": 11}


def test_png_info_reads_back_what_txt2img_wrote(server: Server) -> None:
    answer = server.post("/sdapi/v1/txt2img", SMALL)
    found = server.post("/sdapi/v1/png-info", {"image": answer["images"][0]})
    assert found["info"] == json.loads(answer["info"])["infotexts"][0]
    assert found["parameters"]["Prompt"] == SMALL["prompt"]
    assert found["parameters"]["Negative prompt"] == "blue"
    assert found["parameters"]["Seed"] == "11"


def test_the_parameters_of_a_picture_make_it_again(server: Server) -> None:
    answer = server.post("/sdapi/v1/txt2img", SMALL)
    told = server.post("/sdapi/v1/png-info", {"image": answer["images"][0]})["parameters"]
    again = {
        "prompt": told["Prompt"],
        "negative_prompt": told["Negative prompt"],
        "steps": told["Steps"],
        "sampler_name": told["Sampler"],
        "cfg_scale": told["CFG scale"],
        "seed": told["Seed"],
        "width": told["Size-1"],
        "height": told["Size-2"],
    }
    repeated = server.post("/sdapi/v1/txt2img", again)
    assert apart(pixels(answer["images"][0]), pixels(repeated["images"][0])) < 0.5


def test_a_picture_without_parameters_has_none(server: Server) -> None:
    found = server.post("/sdapi/v1/png-info", {"image": as_base64(Image.new("RGB", (8, 8)))})
    assert found["info"] in ("", None)

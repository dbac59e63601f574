"""Whatever a client sends, the answer is a 4xx that says why, and the server goes on serving."""

import base64
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from darkroom.api.app import create_app
from darkroom.errors import Busy, JobFailed
from darkroom.options.store import Options
from darkroom.settings import Settings
from tests.unit.api.conftest import Serve, noise, to_base64
from tests.unit.api.fake_engine import FakeEngine

TXT2IMG = "/sdapi/v1/txt2img"
IMG2IMG = "/sdapi/v1/img2img"
PNG_INFO = "/sdapi/v1/png-info"


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(width: int, height: int) -> bytes:
    """A small PNG of one colour that unpacks to width x height pixels."""
    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(1 + width)) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def serves_on(client: TestClient) -> bool:
    return client.post(TXT2IMG, json={"prompt": "a cat", "width": 64, "height": 64}).status_code == 200


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"steps": "abc"}, "steps"),
        ({"steps": "1.0"}, "steps"),
        ({"cfg_scale": "7,5"}, "cfg_scale"),
        ({"cfg_scale": "nan"}, "cfg_scale"),
        ({"cfg_scale": "1e999"}, "cfg_scale"),
        ({"prompt": ["a"]}, "prompt"),
        ({"prompt": {"a": 1}}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"prompt": "x" * 20_001}, "prompt"),
        ({"negative_prompt": "x" * 20_001}, "negative_prompt"),
        ({"steps": None}, "steps"),
        ({"width": None}, "width"),
        ({"cfg_scale": None}, "cfg_scale"),
        ({"send_images": None}, "send_images"),
        ({"send_images": "maybe"}, "send_images"),
        ({"sampler_index": None}, "sampler_index"),
        ({"alwayson_scripts": None}, "alwayson_scripts"),
        ({"alwayson_scripts": "x"}, "alwayson_scripts"),
        ({"script_args": {}}, "script_args"),
        ({"styles": "photo"}, "styles"),
        ({"override_settings": [1]}, "override_settings"),
        ({"width": 0}, "width"),
        ({"width": 4}, "width"),
        ({"height": -64}, "height"),
        ({"width": 2056}, "width"),
        ({"height": 10**30}, "height"),
        ({"steps": 0}, "steps"),
        ({"steps": -1}, "steps"),
        ({"steps": 151}, "steps"),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": 9}, "batch_size"),
        ({"n_iter": 0}, "n_iter"),
        ({"n_iter": 65}, "n_iter"),
        ({"batch_size": 8, "n_iter": 9}, "batch_size"),
        ({"seed": 2**63}, "seed"),
        ({"seed": -5}, "seed"),
        ({"subseed": 10**40}, "subseed"),
        ({"seed_resize_from_w": 10**6, "seed_resize_from_h": 64}, "seed_resize_from_w"),
        ({"override_settings": {"CLIP_stop_at_last_layers": "abc"}}, "override_settings.CLIP_stop_at_last_layers"),
        ({"override_settings": {"randn_source": "TPU"}}, "override_settings.randn_source"),
    ],
)
def test_a_wrong_field_is_named_with_its_value(client: TestClient, fields: dict[str, Any], name: str) -> None:
    answer = client.post(TXT2IMG, json=fields)
    assert answer.status_code == 422
    assert name in answer.text
    assert answer.json()["code"] in {"bad_request", "limit_exceeded"}
    assert serves_on(client)


def test_a_number_above_a_limit_says_the_limit(serve: Serve) -> None:
    body = serve(max_steps=10).post(TXT2IMG, json={"steps": 11}).json()
    assert body["detail"] == "steps: 11 is not allowed; from 1 to 10"
    assert body["code"] == "limit_exceeded"
    assert all(isinstance(value, str) for value in body.values())


def test_a_picture_within_both_sides_but_too_large_is_refused(serve: Serve) -> None:
    client = serve(max_pixels=100_000)
    assert client.post(TXT2IMG, json={"width": 320, "height": 320}).status_code == 422
    assert client.post(TXT2IMG, json={"width": 320, "height": 304}).status_code == 200


def test_violations_are_worded_as_clients_know_them(client: TestClient) -> None:
    answer = client.post(TXT2IMG, json={"seed": "abc", "cfg_scale": "x", "send_images": None})
    detail = [(entry["loc"], entry["msg"], entry["type"]) for entry in answer.json()["detail"]]
    assert detail == [
        (["body", "seed"], "value is not a valid integer", "type_error.integer"),
        (["body", "cfg_scale"], "value is not a valid float", "type_error.float"),
        (["body", "send_images"], "none is not an allowed value", "type_error.none.not_allowed"),
    ]


def test_a_missing_field_is_worded_as_clients_know_it(client: TestClient) -> None:
    entry = client.post(PNG_INFO, json={}).json()["detail"][0]
    assert (entry["loc"], entry["msg"], entry["type"]) == (
        ["body", "image"],
        "field required",
        "value_error.missing",
    )


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"5",
        b'"text"',
        b"[1]",
        b"\xff\xfe",
        b'{"prompt": "\xff"}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"override_settings":' + b'{"a":' * 500 + b"1" + b"}" * 501,
        b'{"seed": ' + b"9" * 10_000 + b"}",
        b'{"cfg_scale": NaN}',
        b'{"cfg_scale": -Infinity}',
        b'{"script_args": [NaN]}',
        b'{"prompt": "\\ud800"}',
        b'{"script_args": ["\\udfff"]}',
        b'{"sampler_name": "\\ud800"}',
        b'{"prompt": "a", "prompt',
    ],
)
def test_a_body_that_is_no_request_is_refused(client: TestClient, body: bytes) -> None:
    for route in (TXT2IMG, IMG2IMG, "/sdapi/v1/options", "/generate/"):
        answer = client.post(route, content=body)
        assert answer.status_code < 500, answer.text
        assert "Traceback" not in answer.text
    assert client.post(TXT2IMG, content=body).status_code in {400, 422} or b"override" in body
    assert serves_on(client)


def test_a_body_of_another_type_is_refused(client: TestClient) -> None:
    answer = client.post(TXT2IMG, content=b"{}", headers={"Content-Type": "text/plain"})
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body"]
    assert answer.json()["detail"][0]["msg"] == "value is not a valid dict"


def test_broken_json_is_located(client: TestClient) -> None:
    entry = client.post(TXT2IMG, content=b'{"a"\n 1}').json()["detail"][0]
    assert entry["type"] == "value_error.jsondecode"
    assert entry["loc"] == ["body", 6]
    assert entry["msg"].endswith("line 2 column 2 (char 6)")


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_above_the_limit_is_refused(serve: Serve, declared: bool) -> None:
    client = serve(max_body_bytes=2000)
    data = json.dumps({"prompt": "x" * 3000}).encode()
    body: Any = data if declared else iter([data[:1000], data[1000:]])
    answer = client.post(TXT2IMG, content=body)
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
    assert "2000 bytes" in answer.json()["detail"]
    assert serves_on(client)


HUNDRED_MEGAPIXELS = base64.b64encode(bomb(10_000, 10_000)).decode()
PICTURE = base64.b64decode(to_base64(noise(64, 64)))
CUT = base64.b64encode(PICTURE[: len(PICTURE) // 2]).decode()
SVG = base64.b64encode(b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>').decode()
EPS = base64.b64encode(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n").decode()


@pytest.mark.parametrize(
    "picture",
    [HUNDRED_MEGAPIXELS, CUT, SVG, EPS, "A" * 10_000_000, "data:image/png;base64,", "data:text/plain;base64,aGVsbG8="],
    ids=["100 megapixels", "cut", "svg", "eps", "huge", "empty uri", "text"],
)
def test_a_picture_that_must_not_be_decoded_is_refused(client: TestClient, picture: str) -> None:
    for route, body, field in (
        (IMG2IMG, {"init_images": [picture]}, "init_images[0]"),
        (IMG2IMG, {"init_images": [to_base64(noise(8, 8))], "mask": picture}, "mask"),
        (PNG_INFO, {"image": picture}, "image"),
    ):
        answer = client.post(route, json=body)
        assert answer.status_code == 422
        assert answer.json()["code"] == "bad_image"
        assert field in answer.json()["detail"]
        assert answer.json()["detail"].startswith("Invalid encoded image")
        assert len(answer.text) < 1000
    assert serves_on(client)


def test_the_bomb_is_small() -> None:
    assert len(HUNDRED_MEGAPIXELS) < 200_000


def test_many_pictures_share_one_allowance(serve: Serve) -> None:
    client = serve(max_image_pixels=10_000)
    fields = {"init_images": [to_base64(noise(64, 100))] * 2, "batch_size": 2}
    answer = client.post(IMG2IMG, json=fields)
    assert answer.status_code == 422
    assert "init_images[1]" in answer.json()["detail"]


def test_an_unknown_path_and_a_wrong_method_are_plain(client: TestClient) -> None:
    answer = client.get("/sdapi/v1/version")
    assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"})
    answer = client.get(TXT2IMG)
    assert (answer.status_code, answer.json(), answer.headers["Allow"]) == (
        405,
        {"detail": "Method Not Allowed"},
        "POST",
    )


def test_a_trailing_slash_is_redirected(client: TestClient) -> None:
    assert client.get("/sdapi/v1/options/").status_code == 307


def test_a_full_queue_asks_to_come_back(client: TestClient, engine: FakeEngine) -> None:
    engine.capacity = 0
    answer = client.post(TXT2IMG, json={})
    assert (answer.status_code, answer.json()["code"], answer.headers["Retry-After"]) == (429, Busy.code, "1")


def test_a_failed_job_says_so_without_a_traceback(client: TestClient, engine: FakeEngine) -> None:
    engine.failure = JobFailed("the job stopped; the log has the rest")
    answer = client.post(TXT2IMG, json={})
    assert answer.status_code == 500
    assert answer.json() == {
        "error": "HTTPException",
        "detail": "the job stopped; the log has the rest",
        "body": "",
        "errors": "",
        "code": "job_failed",
    }
    engine.failure = None
    assert serves_on(client)


def test_what_nobody_expected_is_a_500_with_headers_and_without_a_traceback(serve: Serve, engine: FakeEngine) -> None:
    client = serve(cors_allow_origins="http://ui")
    engine.crash = RuntimeError("/secret/path")
    answer = client.post(TXT2IMG, json={}, headers={"Origin": "http://ui"})
    assert answer.status_code == 500
    assert answer.json()["error"] == "RuntimeError"
    assert answer.json()["code"] == "internal"
    assert "secret" not in answer.text
    assert answer.headers["Access-Control-Allow-Origin"] == "http://ui"
    assert "X-Process-Time" in answer.headers
    engine.crash = None
    assert serves_on(client)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
FUZZED = """
    prompt negative_prompt styles seed subseed subseed_strength seed_resize_from_h seed_resize_from_w sampler_name
    scheduler steps cfg_scale eta denoising_strength s_churn s_tmax s_tmin s_noise override_settings comments hr_scale
    script_args alwayson_scripts infotext force_task_id init_images mask mask_blur inpainting_fill resize_mode
""".split()


@settings(suppress_health_check=[HealthCheck.too_slow])  # of a busy machine
@given(fields=st.dictionaries(st.sampled_from(FUZZED), json_values, max_size=4), img2img=st.booleans())
def test_no_value_of_any_field_is_a_server_error(fields: dict[str, Any], img2img: bool) -> None:
    app = create_app(Settings(data_dir=Path("/nonexistent"), history=False), FakeEngine(), Options())
    start = {"init_images": [to_base64(noise(8, 8))]} if img2img else {}
    body = json.dumps({**start, "width": 8, "height": 8, **fields})
    answer = TestClient(app).post(IMG2IMG if img2img else TXT2IMG, content=body)
    assert answer.status_code in {200, 404, 422}, answer.text
    assert answer.json()

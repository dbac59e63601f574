"""Pictures leave an answer and come back into it, byte for byte."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkroom.api.jobs.unpacking import link, pack, unpack

JSON = "application/json"
FILES = st.lists(st.binary(min_size=30, max_size=60), max_size=4)


def encoded(files: list[bytes]) -> list[str]:
    return [base64.b64encode(data).decode() for data in files]


@given(files=FILES, prompt=st.text(), ascii_only=st.booleans())
def test_an_answer_comes_back_as_it_was(files: list[bytes], prompt: str, ascii_only: bool) -> None:
    bodies = (
        {"images": encoded(files), "parameters": {"prompt": prompt}, "info": json.dumps({"all_seeds": [1]})},
        {"html_info": prompt, "image": encoded([*files, b"x" * 30])[0]},
        {"created": 1, "data": [{"b64_json": text, "seed": 5} for text in encoded(files)]},
    )
    for document in bodies:
        body = json.dumps(document, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
        unpacked = unpack(JSON, body, {})
        assert pack(unpacked.body, [one.data for one in unpacked.pictures], media_type=JSON) == body
        for one in unpacked.pictures:
            assert base64.b64encode(one.data) not in unpacked.body


def test_what_is_known_of_a_picture_comes_along() -> None:
    info = {
        "all_seeds": [7, 8], "infotexts": ["grid", "one", "two"], "index_of_first_image": 1,
        "sd_model_name": "m", "sd_model_hash": "0123456789",
    }  # fmt: skip
    files = [bytes([place]) * 40 for place in range(3)]
    body = json.dumps({"images": encoded(files), "info": json.dumps(info)}).encode()
    found = unpack(JSON, body, {}).pictures
    assert [(one.seed, one.infotext) for one in found] == [(None, "grid"), (7, "one"), (8, "two")]
    assert {(one.model, one.model_hash) for one in found} == {("m", "0123456789")}


def test_a_bare_picture_is_one() -> None:
    unpacked = unpack("image/png", b"PNG", {"x-seed": "12"})
    assert [(one.data, one.seed) for one in unpacked.pictures] == [(b"PNG", 12)]
    assert pack(unpacked.body, [b"PNG"], media_type="image/png") == b"PNG"


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"images": [5]}', b'{"images": ["no base64 of a picture"]}', b"{", b"\xff"]
)
def test_what_holds_no_picture_is_left_alone(body: bytes) -> None:
    unpacked = unpack(JSON, body, {})
    assert (unpacked.body, unpacked.pictures) == (body, ())
    assert pack(unpacked.body, [], media_type=JSON) == body


def test_addresses_take_the_place_of_pictures() -> None:
    body = json.dumps({"images": encoded([b"a" * 30, b"b" * 30]), "info": "{}"}).encode()
    linked = json.loads(link(unpack(JSON, body, {}).body, ["/images/x/file", "/images/y/file"]))
    assert linked == {"images": ["/images/x/file", "/images/y/file"], "info": "{}"}


def test_a_picture_that_is_gone_leaves_an_empty_text() -> None:
    body = json.dumps({"images": encoded([b"a" * 30, b"b" * 30])}).encode()
    left = unpack(JSON, body, {}).body
    assert json.loads(pack(left, [None, b"b" * 30], media_type=JSON))["images"] == ["", encoded([b"b" * 30])[0]]

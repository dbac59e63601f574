import base64
import contextlib
import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from darkroom.errors import BadImage
from darkroom.images.codecs import Format, decode_base64, decode_bytes, encode, fitting, flatten, to_base64, to_pixels
from darkroom.images.metadata import read_notes, read_user_comment


def packed(picture: Image.Image, file_format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, file_format, **options)
    return buffer.getvalue()


def decode(data: bytes, max_pixels: int = 10**6) -> Image.Image:
    return decode_bytes(data, field="image", max_pixels=max_pixels)


def noise(width: int = 9, height: int = 7) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def rewritten(text: str) -> list[str]:
    lines = [text[i : i + 60] for i in range(0, len(text), 60)]
    return [
        text,
        text.rstrip("="),
        "\r\n".join(lines),
        " " + text + "\n",
        text.replace("+", "-").replace("/", "_"),
        "data:image/png;base64," + text,
        "data:image/png;base64, " + text,
        "data:image/webp;charset=utf-8;base64," + text,
        "data:application/octet-stream;base64," + text,
    ]


@pytest.mark.parametrize("head", [" \n", "DATA:image/png;base64,\r\n ", "\n\tdata:image/png;base64,\n"])
def test_blanks_and_letter_case_in_front_of_base64_do_not_matter(head: str) -> None:
    text = head + "\n ".join(to_base64(packed(noise())))
    assert np.array_equal(to_pixels(decode_base64(text, field="image", max_pixels=100)), np.asarray(noise()))


@pytest.mark.parametrize("form", range(9))
def test_base64_is_read_in_every_form_that_clients_send(form: int) -> None:
    picture = noise()
    text = rewritten(to_base64(packed(picture)))[form]
    assert np.array_equal(to_pixels(decode_base64(text, field="image", max_pixels=100)), np.asarray(picture))


@pytest.mark.parametrize("file_format", ["png", "jpg", "jpeg", "webp", "avif", "gif"])
@pytest.mark.parametrize("text", ["", "a cat\nSteps: 1", "猫 🐈 ä"])
def test_a_generation_text_survives_every_format(file_format: Format, text: str) -> None:
    picture = decode(encode(np.asarray(noise()), file_format, text=text))
    assert read_notes(picture)[0] == text


def test_png_is_lossless() -> None:
    pixels = np.asarray(noise())
    assert np.array_equal(to_pixels(decode(encode(pixels, "png"))), pixels)


@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30))
def test_any_text_survives_in_a_png(text: str) -> None:
    assert read_notes(decode(encode(np.asarray(noise()), "png", text=text)))[0] == text


@pytest.mark.parametrize("file_format", ["jpg", "webp", "avif"])
def test_quality_counts(file_format: Format) -> None:
    pixels = np.asarray(noise(64, 64))
    assert len(encode(pixels, file_format, quality=90)) > len(encode(pixels, file_format, quality=10))


def test_webp_can_be_lossless() -> None:
    pixels = np.asarray(noise(64, 64))
    assert np.array_equal(to_pixels(decode(encode(pixels, "webp", lossless=True))), pixels)


def test_a_picture_too_long_for_its_format_becomes_a_png() -> None:
    assert fitting(np.zeros((1, 16384, 3), dtype=np.uint8), "webp") == "png"
    assert fitting(np.zeros((16383, 1, 3), dtype=np.uint8), "webp") == "webp"


def test_a_picture_lying_on_its_side_is_turned_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode(packed(noise(9, 7), "JPEG", exif=exif.tobytes())).size == (7, 9)


def test_a_palette_with_transparency_becomes_an_alpha_channel() -> None:
    picture = noise().quantize(8)
    assert decode(packed(picture, transparency=bytes([0, 128, 255]))).mode == "RGBA"


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK"])
def test_every_kind_of_pixel_becomes_rgb(mode: str) -> None:
    picture = Image.new(mode, (5, 4))
    data = packed(picture, "JPEG" if mode == "CMYK" else "PNG")
    assert to_pixels(flatten(decode(data), "#ffffff")).shape == (4, 5, 3)


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    picture = Image.fromarray(np.array([[0, 32768, 65535]], dtype=np.uint16))
    assert to_pixels(decode(packed(picture)))[0, :, 0].tolist() == [0, 128, 255]


def test_transparency_shows_the_background() -> None:
    picture = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    picture.putpixel((1, 0), (255, 0, 0, 0))
    assert to_pixels(flatten(picture, "#0000ff")).tolist() == [[[255, 0, 0], [0, 0, 255]]]


def test_a_picture_above_the_limit_is_refused_before_it_is_unpacked() -> None:
    data = packed(Image.new("L", (100, 100)))
    assert decode(data, 10_000).size == (100, 100)
    with pytest.raises(BadImage, match="100x100"):
        decode(data, 9_999)
    with pytest.raises(BadImage, match="100x100"):
        decode(data[:60], 9_999)


@settings(max_examples=50)
@given(cut=st.integers(0, 400), noise_at=st.integers(0, 300), value=st.integers(0, 255))
def test_damaged_files_are_bad_images_and_nothing_else(cut: int, noise_at: int, value: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for file_format in ("PNG", "JPEG", "WEBP", "AVIF", "GIF", "BMP", "TIFF"):
        data = bytearray(packed(noise(), file_format, exif=exif.tobytes()))
        if noise_at < len(data):
            data[noise_at] = value
        with contextlib.suppress(BadImage):
            read_notes(decode(bytes(data[: len(data) - cut])))


@given(data=st.binary(max_size=200))
def test_any_bytes_are_a_picture_or_a_bad_image(data: bytes) -> None:
    with contextlib.suppress(BadImage):
        decode(data)
    with contextlib.suppress(BadImage):
        decode_base64(base64.b64encode(data).decode()[1:], field="image", max_pixels=100)


def test_formats_that_run_programs_or_fetch_are_not_read() -> None:
    for data in (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"<svg></svg>", packed(noise(), "PPM")):
        with pytest.raises(BadImage):
            decode(data)


def test_a_url_is_refused_with_advice() -> None:
    with pytest.raises(BadImage, match="not fetched"):
        decode_base64("https://example.com/a.png", field="image", max_pixels=100)


def test_technical_entries_are_no_notes() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert read_notes(decode(packed(noise(), "PNG", dpi=(72, 72), icc_profile=profile))) == ("", {})
    assert read_notes(decode(packed(noise(), "JPEG", dpi=(72, 72)))) == ("", {})


def test_a_gif_comment_is_a_generation_text() -> None:
    assert read_notes(decode(packed(noise(), "GIF", comment=b"a cat")))[0] == "a cat"


@pytest.mark.parametrize(("theirs", "ours"), [("k_euler", "Euler"), ("K_EULER", "Euler"), ("nai_smea", "Euler a")])
def test_a_picture_of_novel_ai_is_translated(theirs: str, ours: str) -> None:
    from PIL.PngImagePlugin import PngInfo

    notes = PngInfo()
    notes.add_text("Software", "NovelAI")
    notes.add_text("Description", "a cat")
    notes.add_text("Comment", '{"uc": "dog", "steps": 28, "scale": 11.0, "seed": 5, "sampler": "' + theirs + '"}')
    text, _ = read_notes(decode(packed(noise(), pnginfo=notes)), samplers={"k_euler": "Euler"})
    assert text.startswith(f"a cat\nNegative prompt: dog\nSteps: 28, Sampler: {ours}, CFG scale: 11.0, Seed: 5")


def test_a_comment_that_is_not_unicode_is_read_as_what_it_is() -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = b"ASCII\0\0\0plain"
    assert read_user_comment(decode(packed(noise(), "JPEG", exif=exif.tobytes()))) == "plain"

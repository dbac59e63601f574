"""Draw, redraw and inpaint over HTTP with httpx. Start the server first: make serve."""

import base64
import io
import os
from pathlib import Path
from typing import Any

import httpx
from PIL import Image, ImageDraw

URL = os.environ.get("DARKROOM_URL", "http://127.0.0.1:7860")


def ask(route: str, body: dict[str, Any]) -> Image.Image:
    """The first picture of an answer."""
    answer = httpx.post(f"{URL}/sdapi/v1/{route}", json=body, timeout=300)
    if answer.is_error:
        raise SystemExit(f"{route}: {answer.status_code} {answer.json()['detail']}")
    return Image.open(io.BytesIO(base64.b64decode(answer.json()["images"][0])))


def as_base64(image: Image.Image) -> str:
    """A picture as a request carries it."""
    sink = io.BytesIO()
    image.save(sink, format="PNG")
    return base64.b64encode(sink.getvalue()).decode()


def save(image: Image.Image, name: str) -> None:
    """Write the picture; the parameters that made it are in `image.info`."""
    image.save(name)
    print(Path(name).resolve(), image.size)


def main() -> None:
    """Three pictures, each from the one before."""
    common = {"steps": 12, "width": 128, "height": 128, "seed": 1, "sampler_name": "DPM++ 2M"}
    dog = ask("txt2img", common | {"prompt": "puppy dog"})
    save(dog, "txt2img.png")

    start = {"init_images": [as_base64(dog)]}
    save(ask("img2img", common | start | {"prompt": "a blue dog", "denoising_strength": 0.6}), "img2img.png")

    mask = Image.new("L", dog.size, 0)
    ImageDraw.Draw(mask).rectangle((64, 0, 127, 127), fill=255)
    inpaint = {"mask": as_base64(mask), "inpaint_full_res": False, "inpainting_fill": 1, "denoising_strength": 0.9}
    save(ask("img2img", common | start | inpaint | {"prompt": "a red apple"}), "inpaint.png")


if __name__ == "__main__":
    main()

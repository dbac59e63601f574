"""Draws docs/images/hero.png, the picture at the top of the README, with a running server: `python docs/hero.py`."""

import base64
import io
import os
from pathlib import Path

import httpx
from PIL import Image

URL = os.environ.get("DARKROOM_URL", "http://127.0.0.1:7860")
TARGET = Path(__file__).parent / "images" / "hero.png"
PROMPTS = (
    ("puppy dog", "red apple", "rocket", "sunflower", "smiling face with sunglasses", "pizza"),
    ("cat face", "house", "penguin on a blue background", "flag of Finland", "cupcake", "automobile"),
)
SIDE = 128


def draw(prompt: str, seed: int) -> Image.Image:
    """One picture of the server's."""
    body = {
        "prompt": prompt,
        "seed": seed,
        "steps": 20,
        "cfg_scale": 5,
        "width": SIDE,
        "height": SIDE,
        "sampler_name": "DPM++ 2M",
    }
    answer = httpx.post(f"{URL}/sdapi/v1/txt2img", json=body, timeout=300)
    answer.raise_for_status()
    return Image.open(io.BytesIO(base64.b64decode(answer.json()["images"][0])))


def main() -> None:
    """All prompts on one sheet."""
    sheet = Image.new("RGB", (SIDE * len(PROMPTS[0]), SIDE * len(PROMPTS)), "white")
    for y, row in enumerate(PROMPTS):
        for x, prompt in enumerate(row):
            sheet.paste(draw(prompt, seed=7), (x * SIDE, y * SIDE))
    TARGET.parent.mkdir(exist_ok=True)
    sheet.save(TARGET, optimize=True)
    print(TARGET)


if __name__ == "__main__":
    main()

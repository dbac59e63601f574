"""Draws and edits with OpenAI's Python client: pip install openai pillow."""

import base64
import os
from pathlib import Path

from openai import OpenAI
from PIL import Image

URL = os.environ.get("DARKROOM_URL", "http://127.0.0.1:7860")


def main() -> None:
    """Write two apples, and one of them with its right half drawn anew."""
    client = OpenAI(base_url=f"{URL}/v1", api_key=os.environ.get("DARKROOM_KEY", "none"))
    drawn = client.images.generate(prompt="a red apple", n=2, quality="low", extra_body={"seed": 7})
    for place, entry in enumerate(drawn.data or []):
        Path(f"apple-{place}.png").write_bytes(base64.b64decode(entry.b64_json or ""))

    with Image.open("apple-0.png") as apple:
        mask = Image.new("RGBA", apple.size, "black")
    mask.paste((0, 0, 0, 0), (mask.width // 2, 0, *mask.size))  # what is transparent is drawn anew
    mask.save("mask.png")
    edited = client.images.edit(
        image=Path("apple-0.png"),
        mask=Path("mask.png"),
        prompt="a green apple",
        output_format="webp",
        extra_body={"seed": 8, "steps": 12},
    )
    for entry in edited.data or []:
        Path("edited.webp").write_bytes(base64.b64decode(entry.b64_json or ""))


if __name__ == "__main__":
    main()

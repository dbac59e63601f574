"""stable-diffusion.cpp through its Python package, `pip install darkroom[bench]`, which compiles it."""

from collections.abc import Callable
from typing import Any

from darkroom.bench.orders import Order
from darkroom.bench.subjects import NotHereError


def model(told: dict[str, Any]) -> Callable[[Order], object]:
    """What draws with it, with the file's own number format. Raises NotHereError."""
    try:
        from stable_diffusion_cpp import StableDiffusion
    except ImportError as error:
        raise NotHereError("stable-diffusion-cpp-python is not installed: pip install 'darkroom[bench]'") from error
    if told["name"] == "mini":
        raise NotHereError("it knows no networks of the embedded model's sizes")
    loaded = StableDiffusion(
        model_path=told["path"], n_threads=told["threads"], vae_decode_only=True, verbose=False, **told["options"]
    )

    def draw(order: Order) -> None:
        loaded.generate_image(
            prompt=order.prompt,
            width=order.size,
            height=order.size,
            sample_steps=order.steps,
            sample_method="euler",
            cfg_scale=order.cfg_scale,
            seed=order.seed,
        )

    return draw

"""Pictures of stable-diffusion-webui 1.10.1, recorded on a CPU in fp32, are drawn again by Darkroom.

The recordings lie beside the repository (`../shared/reference`); without them these tests are skipped. Their models are
rebuilt from their script, bit for bit (2 GB, once). `DARKROOM_REFERENCE=all` replays every recorded picture, not only
the selection; `make parity` replays all else too, and writes a page of it.
"""

import json
import os
import re
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.e2e.serving import Json, Server, pixels, serving
from tests.recordings import RECORDED

MEAN_LIMIT = 0.1
"""Mean difference in 8-bit levels. The original differs from itself by 0.01 with another thread count."""
WORST_LIMIT = 2
"""Largest difference of any pixel, in 8-bit levels."""
CHAOTIC = {"sampler_dpm_adaptive": 5.0}
"""Cases that the original does not repeat itself: mean difference allowed there, whatever the largest is."""

EXPLAINED = Path(__file__).parents[2] / "bench/parity_notes.toml"

SELECTION = """
    basic sampler_heun sampler_ddim sampler_dpmpp_2m_20steps sampler_alias sampler_unipc sampler_dpm_fast sampler_plms
    sampler_dpm2_a sampler_restart sampler_ddim_cfgpp scheduler_karras scheduler_exponential scheduler_sgm_uniform
    scheduler_normal scheduler_align_your_steps beta_dist prompt_emphasis prompt_76 prompt_comma_backtrack
    prompt_comment prompt_editing_nested prompt_and_negweight prompt_long_pad_cond_v0 styles_two cfg_1 cfg_frac cfg_ngms
    clip_skip_2 subseed subseed_batch seed_resize_smaller n_iter_2 batch_2x2_sde steps_1 churn_euler ensd_euler_a rng_nv
    tiling token_merging unipc_vary downcast_alphas sigma_min_max_karras img2img_denoise_0.3 img2img_resize_0_tall
    img2img_resize_3_tall img2img_two_inits img2img_sampler_dpmpp_2m_sde img2img_sampler_euler_a img2img_sampler_ddim
    img2img_extra_noise img2img_rgba inpaint_fill_0 inpaint_full_res_pad0 inpaint_full_res_big
    inpaint_whole_fill_0 inpaint_whole_fill_2 inpaint_whole_fill_3 inpaint_whole_ddim inpaint_whole_nv
    inpaint_whole_soft inpmodel_inpaint inpmodel_txt2img hires_latent_bicubic hires_lanczos hires_sampler hires_prompt
    hires_checkpoint refiner_05 refiner_hires emb_boundary lora_te_unet lora_two lora_locon lora_loha lora_lokr
    lora_hr_prompt vae_override_img2img override_checkpoint jpeg_format infotext_options return_grid
""".split()


def recorded_pictures() -> list[str]:
    """Every recorded request that was answered with pictures, save those whose departure is explained."""
    if not RECORDED.is_dir():
        return SELECTION
    explained = tomllib.loads(EXPLAINED.read_text())["cases"]
    names = (RECORDED / "cases/order.txt").read_text().split()
    return [name for name in names if name not in explained and _has_pictures(name)]


def _has_pictures(name: str) -> bool:
    body = json.loads((RECORDED / f"cases/{name}.response.json").read_text())["body"]
    return isinstance(body, dict) and isinstance(body.get("images"), list) and "info" in body


CASES = recorded_pictures() if os.environ.get("DARKROOM_REFERENCE") == "all" else SELECTION

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def original(recordings: Path, recorded_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server in fp32 over the recordings' models and styles."""
    folder = tmp_path_factory.mktemp("reference")
    shutil.copy(recordings / "styles.csv", folder)
    with serving(folder, "--precision", "fp32", "--models-dir", str(recorded_models)) as server:
        yield server


@pytest.mark.parametrize("case", CASES)
def test_a_recorded_picture_is_drawn_again(original: Server, recordings: Path, case: str) -> None:
    asked: Json = json.loads((recordings / f"cases/{case}.json").read_text())
    expected: Json = json.loads((recordings / f"cases/{case}.response.json").read_text())["body"]
    answer = original.post(asked["path"], asked["body"])
    assert len(answer["images"]) == len(expected["images"])
    for name, drawn in zip(expected["images"], answer["images"], strict=True):
        with Image.open(recordings / "cases" / name) as image:
            difference = np.abs(pixels(image) - pixels(drawn))
        worst, mean = int(difference.max()), float(difference.mean())
        limit = CHAOTIC.get(case)
        fits = mean <= limit if limit else worst <= WORST_LIMIT and mean <= MEAN_LIMIT
        assert fits, f"{name}: largest {worst}, mean {mean:.3f}"
    assert texts(answer) == texts(expected)


def texts(answer: Json) -> list[str]:
    """The infotexts, without the version."""
    found: list[str] = json.loads(answer["info"])["infotexts"]
    return [re.sub(r",? ?Version: [^,\n]*", "", text) for text in found]

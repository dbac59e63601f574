"""Pictures of stable-diffusion-webui 1.10.1, recorded on a CPU in fp32, are drawn again by Darkroom.

The recordings lie beside the repository (`../shared/reference`); without them these tests are skipped. Their models are
rebuilt from their scripts, bit for bit (4 GB, once). `DARKROOM_REFERENCE=all` replays every recorded picture, not only
the selections; `make parity` replays all else too, and writes a page of it.
"""

import json
import os
import re
import shutil
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.e2e.serving import Json, Server, pixels, serving
from tests.recordings import RECORDED, RECORDED_LARGE, in_order

MEAN_LIMIT = 0.1
"""Mean difference in 8-bit levels. The original differs from itself by 0.01 with another thread count."""
WORST_LIMIT = 2
"""Largest difference of any pixel, in 8-bit levels."""
CHAOTIC = {"sampler_dpm_adaptive": 5.0, "xl_sampler_dpm_adaptive": 5.0, "v2_sampler_dpm_adaptive": 5.0}
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

LARGE_SELECTION = """
    xl_basic xl_sampler_unipc xl_scheduler_ays_11steps xl_prompt_long_pad_v0 xl_negative_empty_long xl_prompt_and
    xl_hires_prompt xl_img2img_0.5 xl_inpaint_soft xl_crop_both xl_clip_l_skip_1 xl_lora_two xl_emb
    xr_switch_0.5_aesthetic xr_alone_img2img v2_sampler_lcm v2_prompt_unicode v2_zero_snr_img2img v2_vae_approx_cheap
    v2_lora xv_sampler_unipc xi_inpaint_mask_weight_0.5
""".split()


def chosen(recordings: Path, selection: list[str]) -> list[str]:
    """The selection, or every recorded request that was answered with pictures, save those whose departure is
    explained.
    """
    if os.environ.get("DARKROOM_REFERENCE") != "all" or not recordings.is_dir():
        return selection
    explained = tomllib.loads(EXPLAINED.read_text())["cases"]
    names = in_order(recordings / "cases")
    return [name for name in names if name not in explained and _has_pictures(recordings, name)]


def _has_pictures(recordings: Path, name: str) -> bool:
    body = json.loads((recordings / f"cases/{name}.response.json").read_text())["body"]
    return isinstance(body, dict) and isinstance(body.get("images"), list) and "info" in body


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def original(recordings: Path, recorded_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server in fp32 over the recordings' models and styles."""
    folder = tmp_path_factory.mktemp("reference")
    shutil.copy(recordings / "styles.csv", folder)
    with serving(folder, "--precision", "fp32", "--models-dir", str(recorded_models)) as server:
        yield server


@pytest.fixture(scope="module")
def larger(larger_checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The same over the models of Stable Diffusion 2 and XL."""
    folder = tmp_path_factory.mktemp("larger")
    shutil.copy(RECORDED_LARGE / "styles.csv", folder)
    with serving(folder, "--precision", "fp32", "--models-dir", str(larger_checkpoints.parent)) as server:
        yield server


@pytest.mark.parametrize("case", chosen(RECORDED, SELECTION))
def test_a_recorded_picture_is_drawn_again(original: Server, recordings: Path, case: str) -> None:
    check(original, recordings / "cases", case)


@pytest.mark.parametrize("case", chosen(RECORDED_LARGE, LARGE_SELECTION))
def test_a_recorded_picture_of_a_larger_family_is_drawn_again(larger: Server, case: str) -> None:
    cases = RECORDED_LARGE / "cases"
    recorded = json.loads((cases / f"{case}.response.json").read_text())["body"]["info"]
    larger.post("/sdapi/v1/options", {"sd_model_checkpoint": json.loads(recorded)["sd_model_name"]})
    check(larger, cases, case)


def test_recorded_pictures_of_several_families_are_drawn_at_once(larger: Server) -> None:
    together = ("xl_prompt_long", "xl_negative_empty_long", "xr_switch_0.5", "xr_alone", "v2_prompt_long")
    with ThreadPoolExecutor(len(together)) as pool:
        for done in [pool.submit(check, larger, RECORDED_LARGE / "cases", case, choose=True) for case in together]:
            done.result()


def check(server: Server, cases: Path, case: str, *, choose: bool = False) -> None:
    """Send the recorded request, which may `choose` the checkpoint for itself; compare pictures and texts."""
    asked: Json = json.loads((cases / f"{case}.json").read_text())
    expected: Json = json.loads((cases / f"{case}.response.json").read_text())["body"]
    own = {"sd_model_checkpoint": json.loads(expected["info"])["sd_model_name"]} if choose else {}
    overrides = {"override_settings": asked["body"].get("override_settings", {}) | own}
    answer = server.post(asked["path"], asked["body"] | overrides)
    assert len(answer["images"]) == len(expected["images"])
    for name, drawn in zip(expected["images"], answer["images"], strict=True):
        with Image.open(cases / name) as image:
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

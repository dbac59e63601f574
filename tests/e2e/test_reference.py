"""Pictures of stable-diffusion-webui 1.10.1, recorded on a CPU in fp32, are drawn again by Darkroom.

The recordings lie beside the repository (`../shared/reference`); without them these tests are skipped. Their
checkpoint is rebuilt from its script, bit for bit (0.7 GB, some seconds). `DARKROOM_REFERENCE=all` replays every case
that Darkroom covers, not only the selection.
"""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.e2e.serving import Json, Server, pixels, serving

MEAN_LIMIT = 0.1
"""Mean difference in 8-bit levels. The original differs from itself by 0.01 with another thread count."""
WORST_LIMIT = 2
"""Largest difference of any pixel, in 8-bit levels."""

SELECTION = """
    basic sampler_heun sampler_ddim sampler_dpmpp_2m_20steps sampler_alias scheduler_karras scheduler_exponential
    scheduler_sgm_uniform scheduler_normal prompt_emphasis prompt_76 prompt_comma_backtrack cfg_1 cfg_frac clip_skip_2
    subseed subseed_batch seed_resize_smaller n_iter_2 batch_2x2_sde steps_1 churn_euler ensd_euler_a rng_nv
    img2img_denoise_0.3 img2img_resize_0_tall img2img_two_inits img2img_sampler_dpmpp_2m_sde img2img_sampler_euler_a
    img2img_sampler_ddim img2img_extra_noise img2img_rgba inpaint_fill_0 inpaint_full_res_pad0 inpaint_full_res_big
    inpaint_whole_fill_0 inpaint_whole_fill_2 inpaint_whole_fill_3 inpaint_whole_ddim inpaint_whole_nv prompt_comment
    prompt_editing_nested prompt_and_negweight sampler_dpm2_a sampler_restart sampler_plms scheduler_align_your_steps
    img2img_resize_3_tall
""".split()

THE_OTHERS = """
    scheduler_automatic scheduler_on_ddim sampler_index_field prompt_empty prompt_emphasis_nonorm
    prompt_emphasis_negative prompt_break prompt_break_emphasis prompt_exact75 prompt_style_missing clip_skip_12
    cfg_15 seed_zero subseed_1 seed_resize_subseed steps_1_dpmpp2m eta_euler_a_0 rng_nv_batch_sub
    error_unknown_sampler img2img_denoise_0.0 img2img_default_denoise img2img_batch_2 img2img_sampler_dpmpp_2m
    img2img_sampler_euler img2img_sampler_heun img2img_eta_ddim img2img_noise_mult img2img_noise_mult_opt
    img2img_include_init img2img_jpeg img2img_image_cfg img2img_clip_skip img2img_subseed img2img_denoise_low_1step
    img2img_grey_l error_unknown_sampler_img2img override_checkpoint_unknown jpeg_format webp_format no_pnginfo
    infotext_options inpaint_fill_1 inpaint_fill_3 inpaint_fill_0_denoise1 inpaint_fill_1_denoise1
    inpaint_fill_3_denoise1 inpaint_blur_12 inpaint_invert inpaint_full_res_false_big inpaint_full_res_invert
    inpaint_grey_mask inpaint_empty_mask_full_res inpaint_dpmpp2m inpaint_batch2 inpaint_whole_batch2
    inpaint_whole_blur_0 inpaint_whole_blur_12 inpaint_whole_euler_a inpaint_whole_fill_0_denoise1
    inpaint_whole_grey_noround inpaint_whole_rgba_init sampler_dpmpp_2m_sde_heun sampler_lms sampler_dpm2
    sampler_restart_20steps scheduler_uniform scheduler_polyexponential scheduler_kl_optimal scheduler_simple
    scheduler_ddim scheduler_dpm2_karras prompt_editing prompt_editing_negative prompt_editing_second_order
    prompt_editing_float_gt1 prompt_alternation_empty prompt_and_batch2 prompt_lora_missing batch_2_sde steps_2_3m
    ensd_sde rng_nv_sde eta_dpmppsde_05 eta_ancestral_opt churn_dpm2 s_noise_sde_opt img2img_sampler_dpmpp_2m_sde_heun
    img2img_sampler_dpmpp_2s_a img2img_sampler_dpmpp_3m_sde img2img_sampler_dpm2 inpaint_resize_3 inpaint_whole_plms
    inpaint_whole_sde send_images_false
""".split()

CASES = SELECTION + THE_OTHERS if os.environ.get("DARKROOM_REFERENCE") == "all" else SELECTION

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def original(recorded_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server in fp32 over the recordings' checkpoint."""
    flags = ("--precision", "fp32", "--ckpt-dir", str(recorded_checkpoint.parent))
    with serving(tmp_path_factory.mktemp("reference"), *flags) as server:
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
        assert worst <= WORST_LIMIT and mean <= MEAN_LIMIT, f"{name}: largest {worst}, mean {mean:.3f}"  # noqa: PT018
    assert texts(answer) == texts(expected)


def texts(answer: Json) -> list[str]:
    """The infotexts, without the version."""
    found: list[str] = json.loads(answer["info"])["infotexts"]
    return [re.sub(r",? ?Version: [^,\n]*", "", text) for text in found]

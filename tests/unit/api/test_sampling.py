"""What a request says about samplers and schedules reaches the job and the generation text."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from starlette.testclient import TestClient

from darkroom.sampling.options import SamplingOptions
from tests.unit.api.conftest import noise, to_base64
from tests.unit.api.fake_engine import FakeEngine

TXT2IMG = "/sdapi/v1/txt2img"
IMG2IMG = "/sdapi/v1/img2img"

EVERY_OPTION = {
    "sigma_min": 0.1,
    "sigma_max": 10.0,
    "rho": 5.0,
    "use_old_karras_scheduler_sigmas": True,
    "beta_dist_alpha": 0.9,
    "beta_dist_beta": 0.4,
    "always_discard_next_to_last_sigma": True,
    "sgm_noise_multiplier": True,
    "enable_quantization": True,
    "use_downcasted_alpha_bar": True,
    "no_dpmpp_sde_batch_determinism": True,
    "uni_pc_variant": "vary_coeff",
    "uni_pc_skip_type": "logSNR",
    "uni_pc_order": 2,
    "uni_pc_lower_order_final": False,
}


def entries(client: TestClient, options: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
    """What the answer's document says of the sampling, in order."""
    body = {"steps": 4, "width": 64, "height": 64, "seed": 1, "override_settings": dict(options), **fields}
    answer = client.post(IMG2IMG if "init_images" in fields else TXT2IMG, json=body)
    assert answer.status_code == 200, answer.text
    extra: dict[str, Any] = json.loads(answer.json()["info"])["extra_generation_params"]
    return extra


def test_without_options_sampling_is_plain(client: TestClient, engine: FakeEngine) -> None:
    assert entries(client, {}) == {}
    assert engine.specs[-1].sampling == SamplingOptions()


def test_every_option_reaches_the_job(client: TestClient, engine: FakeEngine) -> None:
    entries(client, EVERY_OPTION)
    assert engine.specs[-1].sampling == SamplingOptions(
        sigma_min=0.1,
        sigma_max=10.0,
        rho=5.0,
        old_karras_sigmas=True,
        beta_alpha=0.9,
        beta_beta=0.4,
        discard_penultimate=True,
        sgm_noise_multiplier=True,
        quantize=True,
        downcast_alphas=True,
        shared_brownian_path=True,
        unipc_variant="vary_coeff",
        unipc_skip_type="logSNR",
        unipc_order=2,
        unipc_lower_order_final=False,
    )
    entries(client, {"sd_noise_schedule": "Zero Terminal SNR"})
    assert engine.specs[-1].sampling == SamplingOptions(zero_terminal_snr=True)


def test_the_text_tells_of_a_schedule_in_the_originals_order(client: TestClient) -> None:
    told = entries(client, EVERY_OPTION, sampler_name="Euler a", scheduler="Karras", eta=0.5)
    assert list(told.items()) == [
        ("Downcast alphas_cumprod", True),
        ("Discard penultimate sigma", True),
        ("Schedule type", "Karras"),
        ("Schedule min sigma", 0.1),
        ("Schedule max sigma", 10.0),
        ("Schedule rho", 5.0),
        ("SGM noise multiplier", True),
        ("Eta", 0.5),
    ]


def test_only_the_beta_schedule_tells_of_its_distribution(client: TestClient) -> None:
    assert entries(client, {}, scheduler="Beta") == {
        "Schedule type": "Beta",
        "Beta schedule alpha": 0.6,
        "Beta schedule beta": 0.6,
    }
    assert "Schedule rho" not in entries(client, EVERY_OPTION, scheduler="Beta")
    assert "Beta schedule alpha" not in entries(client, EVERY_OPTION, scheduler="Karras")


@pytest.mark.parametrize(("scheduler", "rho", "told"), [("Karras", 7, False), ("Polyexponential", 7, True)])
def test_a_schedules_own_rho_is_not_told(client: TestClient, scheduler: str, rho: float, told: bool) -> None:
    assert ("Schedule rho" in entries(client, {"rho": rho}, scheduler=scheduler)) is told


def test_the_models_own_schedule_is_not_told(client: TestClient) -> None:
    options = {"sigma_min": 0.1, "rho": 5.0}
    assert entries(client, options, sampler_name="Euler") == {}
    assert entries(client, options, sampler_name="DPM fast", scheduler="Uniform") == {
        "Schedule type": "Uniform",
        "Schedule min sigma": 0.1,
    }


def test_the_timestep_family_tells_only_of_the_step_that_is_left_out(client: TestClient) -> None:
    told = entries(client, EVERY_OPTION | {"use_downcasted_alpha_bar": False}, sampler_name="DDIM", scheduler="Karras")
    assert told == {"Discard penultimate sigma": True}


def test_a_sampler_that_always_leaves_out_a_step_does_not_tell(client: TestClient) -> None:
    assert entries(client, {"always_discard_next_to_last_sigma": True}, sampler_name="DPM2") == {
        "Schedule type": "Karras"
    }


def test_noise_over_a_picture_is_never_scaled(client: TestClient) -> None:
    fields = {"init_images": [to_base64(noise(64, 64))]}
    assert "SGM noise multiplier" not in entries(client, {"sgm_noise_multiplier": True}, **fields)


def test_a_whole_number_is_told_as_it_was_sent(client: TestClient) -> None:
    told = entries(client, {"sigma_max": 10, "rho": 5, "eta_ancestral": 0}, sampler_name="Euler a", scheduler="Karras")
    assert [str(told[key]) for key in ("Schedule max sigma", "Schedule rho", "Eta")] == ["10", "5", "0"]


@pytest.mark.parametrize(
    "options",
    [
        {"rho": -1},
        {"sigma_min": -0.1},
        {"uni_pc_order": 0},
        {"uni_pc_variant": "bh3"},
        {"beta_dist_alpha": 0},
        {"sd_noise_schedule": "Other"},
    ],
)
def test_impossible_values_are_refused_by_name(client: TestClient, options: dict[str, Any]) -> None:
    answer = client.post(TXT2IMG, json={"override_settings": options})
    assert answer.status_code == 422
    assert f"override_settings.{next(iter(options))}" in answer.json()["detail"]

"""Names of samplers and schedulers, and what a request means by them."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkroom.errors import UnknownName
from darkroom.sampling.names import (
    SAMPLERS,
    SCHEDULERS,
    Sampler,
    Scheduler,
    effective_scheduler,
    find_sampler,
    find_scheduler,
    get_sampler,
    resolve,
)

RESOLVED = [
    (None, None, "Euler", "Automatic"),
    ("", None, "Euler", "Automatic"),
    ("Euler a", None, "Euler a", "Automatic"),
    ("euler a", None, "DPM++ 2M", "Karras"),
    ("k_euler", None, "DPM++ 2M", "Karras"),
    ("nope", None, "DPM++ 2M", "Karras"),
    ("DPM++ 2M Karras", None, "DPM++ 2M", "Karras"),
    ("DPM++ 2M karras", None, "DPM++ 2M", "Karras"),
    ("DPM++ SDE Exponential", None, "DPM++ SDE", "Exponential"),
    ("Euler SGMUniform", None, "Euler", "SGM Uniform"),
    ("Euler SGM Uniform", None, "DPM++ 2M", "Uniform"),
    ("DPM++ 2M Karras Exponential", None, "DPM++ 2M", "Exponential"),
    ("DPM++ 2M Automatic", None, "DPM++ 2M", "Karras"),
    ("Euler a", "karras", "Euler a", "Karras"),
    ("Euler a", "Karras", "Euler a", "Karras"),
    ("Euler a", "KARRAS", "Euler a", "Automatic"),
    ("Euler a", "nope", "Euler a", "Automatic"),
    ("Euler Karras", "Exponential", "Euler", "Exponential"),
    ("Euler Karras", "Automatic", "Euler", "Automatic"),
    ("DPM++ 2M", "Automatic", "DPM++ 2M", "Karras"),
    ("DPM++ 2M", "", "DPM++ 2M", "Karras"),
    ("DPM++ 2M", "Karras", "DPM++ 2M", "Karras"),
    ("Euler", "SGMUniform", "Euler", "Automatic"),
    ("Euler", "sgm_uniform", "Euler", "SGM Uniform"),
    ("DDIM", "Karras", "DDIM", "Karras"),
]

OPTIONS = {
    "DPM++ 2M": {"scheduler": "karras"},
    "DPM++ SDE": {"scheduler": "karras", "second_order": "True", "brownian_noise": "True"},
    "DPM++ 2M SDE": {"scheduler": "exponential", "brownian_noise": "True"},
    "DPM++ 2M SDE Heun": {"scheduler": "exponential", "brownian_noise": "True", "solver_type": "heun"},
    "DPM++ 2S a": {"scheduler": "karras", "uses_ensd": "True", "second_order": "True"},
    "DPM++ 3M SDE": {"scheduler": "exponential", "discard_next_to_last_sigma": "True", "brownian_noise": "True"},
    "Euler a": {"uses_ensd": "True"},
    "Euler": {},
    "Heun": {"second_order": "True"},
    "DPM2 a": {
        "scheduler": "karras",
        "discard_next_to_last_sigma": "True",
        "uses_ensd": "True",
        "second_order": "True",
    },
    "DPM fast": {"uses_ensd": "True"},
    "DDIM": {},
    "DDIM CFG++": {},
    "UniPC": {},
    "LCM": {},
}


@pytest.mark.parametrize(("sampler_name", "scheduler", "sampler", "shown"), RESOLVED)
def test_a_request_is_resolved_as_the_original_does(
    sampler_name: str | None, scheduler: str | None, sampler: str, shown: str
) -> None:
    resolved = resolve(sampler_name, scheduler=scheduler)
    assert resolved.sampler.name == sampler
    assert effective_scheduler(resolved.sampler, resolved.scheduler) == shown


def test_a_sampler_index_counts_only_without_a_sampler_name() -> None:
    assert resolve(None, "Heun").sampler.name == "Heun"
    assert resolve("Euler", "Heun").sampler.name == "Euler"


@pytest.mark.parametrize(("name", "fallback"), [("Euler", False), ("Euler Karras", False), ("euler", True)])
def test_falling_back_to_the_first_sampler_is_told(name: str, fallback: bool) -> None:
    assert resolve(name).fallback is fallback


def test_a_suffix_that_is_the_samplers_default_becomes_automatic() -> None:
    assert resolve("DPM++ 2M Karras").scheduler == "Automatic"
    assert resolve("Euler Karras").scheduler == "Karras"


@given(st.one_of(st.none(), st.text()), st.one_of(st.none(), st.text()))
def test_any_names_resolve_to_something_listed(sampler: str | None, scheduler: str | None) -> None:
    resolved = resolve(sampler, scheduler=scheduler)
    assert resolved.sampler in SAMPLERS
    assert find_scheduler(resolved.scheduler) in SCHEDULERS


@given(st.sampled_from(SAMPLERS), st.sampled_from(SCHEDULERS))
def test_listed_names_resolve_to_themselves(sampler: Sampler, scheduler: Scheduler) -> None:
    resolved = resolve(sampler.name, scheduler=scheduler.label)
    assert (resolved.sampler, resolved.scheduler) == (sampler, scheduler.label)


@pytest.mark.parametrize("name", OPTIONS)
def test_options_are_spelled_as_clients_know_them(name: str) -> None:
    options = get_sampler(name).options
    assert options == OPTIONS[name]
    assert list(options) == list(OPTIONS[name])


def test_the_samplers_are_listed_in_the_originals_order() -> None:
    names = (
        "DPM++ 2M, DPM++ SDE, DPM++ 2M SDE, DPM++ 2M SDE Heun, DPM++ 2S a, DPM++ 3M SDE, Euler a, Euler, LMS, Heun, "
        "DPM2, DPM2 a, DPM fast, DPM adaptive, Restart, DDIM, DDIM CFG++, PLMS, UniPC, LCM"
    )
    assert [sampler.name for sampler in SAMPLERS] == names.split(", ")
    aliases = {sampler.name: sampler.aliases for sampler in SAMPLERS}
    assert (aliases["DPM adaptive"], aliases["LCM"]) == (("k_dpm_ad",), ("k_lcm",))


def test_names_are_unique() -> None:
    assert len({sampler.name for sampler in SAMPLERS}) == len(SAMPLERS)
    assert len({scheduler.label for scheduler in SCHEDULERS}) == len(SCHEDULERS)


def test_an_unknown_sampler_is_named_with_its_near_misses() -> None:
    assert find_sampler("euler") is None
    with pytest.raises(UnknownName, match="Euler"):
        get_sampler("euler")


def test_the_catalogue_does_without_torch() -> None:
    program = "import sys, darkroom.sampling.names; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0

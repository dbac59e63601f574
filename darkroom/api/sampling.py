"""From the options and fields about samplers and schedules to the job's numbers and to entries of the generation text.

Knows names and numbers; what they do to noise levels is somebody else's.
"""

from collections.abc import Mapping
from typing import TypedDict

from darkroom.api.models import Generation
from darkroom.options.values import OptionValues
from darkroom.sampling.names import AUTOMATIC, Sampler, effective_scheduler, find_scheduler
from darkroom.sampling.options import SamplingOptions

ZERO_TERMINAL_SNR = "Zero Terminal SNR"

_TAKES_ETA = frozenset(
    {
        "Euler a", "DPM2 a", "DPM++ 2S a", "DPM++ SDE", "DPM++ 2M SDE", "DPM++ 2M SDE Heun", "DPM++ 3M SDE", "DPM fast",
        "DPM adaptive", "DDIM", "DDIM CFG++",
    }
)  # fmt: skip
_TAKES_CHURN = frozenset({"Euler", "Heun", "DPM2"})
_TAKES_NOISE_SCALE = _TAKES_CHURN | {
    "DPM fast", "DPM2 a", "DPM++ 2S a", "DPM++ SDE", "DPM++ 2M SDE", "DPM++ 2M SDE Heun", "DPM++ 3M SDE",
}  # fmt: skip

_CHURN_KNOBS = (
    ("s_churn", 0.0, "Sigma churn", _TAKES_CHURN),
    ("s_tmin", 0.0, "Sigma tmin", _TAKES_CHURN),
    ("s_tmax", 0.0, "Sigma tmax", _TAKES_CHURN),
    ("s_noise", 1.0, "Sigma noise", _TAKES_NOISE_SCALE),
)
"""Field, neutral value, entry of the generation text, samplers that read it."""

Notes = dict[str, object]
"""Entries of the generation text, in order, with their values as JSON has them."""


class Knobs(TypedDict):
    """The fields of a job that samplers read."""

    eta: float
    s_churn: float
    s_tmin: float
    s_tmax: float
    s_noise: float


def sampling_options(values: OptionValues) -> SamplingOptions:
    """What the options say about noise levels and solvers."""
    return SamplingOptions(
        sigma_min=values.sigma_min,
        sigma_max=values.sigma_max,
        rho=values.rho,
        old_karras_sigmas=values.use_old_karras_scheduler_sigmas,
        beta_alpha=values.beta_dist_alpha,
        beta_beta=values.beta_dist_beta,
        discard_penultimate=values.always_discard_next_to_last_sigma,
        sgm_noise_multiplier=values.sgm_noise_multiplier,
        quantize=values.enable_quantization,
        downcast_alphas=values.use_downcasted_alpha_bar,
        zero_terminal_snr=values.sd_noise_schedule == ZERO_TERMINAL_SNR,
        shared_brownian_path=values.no_dpmpp_sde_batch_determinism,
        unipc_variant=values.uni_pc_variant,
        unipc_skip_type=values.uni_pc_skip_type,
        unipc_order=values.uni_pc_order,
        unipc_lower_order_final=values.uni_pc_lower_order_final,
    )


def table_notes(values: OptionValues) -> Notes:
    """The entries about the noise that the model is taken to know."""
    notes: Notes = {}
    if values.use_downcasted_alpha_bar:
        notes["Downcast alphas_cumprod"] = True
    if values.sd_noise_schedule != "Default":
        notes["Noise Schedule"] = values.sd_noise_schedule
    return notes


def schedule_notes(sampler: Sampler, scheduler: str, values: OptionValues, sent: Mapping[str, object]) -> Notes:
    """The entries about a pass's schedule; `scheduler` is a label, `sent` the options that came with the request.

    A1111: they are told of samplers that choose their own levels too, but not of the model's own schedule.
    """
    notes: Notes = {}
    if values.always_discard_next_to_last_sigma and not sampler.discard_next_to_last_sigma:
        notes["Discard penultimate sigma"] = True
    label = effective_scheduler(sampler, scheduler)
    if sampler.family == "timestep" or label == AUTOMATIC:
        return notes
    notes["Schedule type"] = label
    told = []
    if values.sigma_min != 0:
        told.append(("Schedule min sigma", "sigma_min"))
    if values.sigma_max != 0:
        told.append(("Schedule max sigma", "sigma_max"))
    found = find_scheduler(label)
    if found is not None and found.default_rho != -1 and values.rho not in {0, found.default_rho}:
        told.append(("Schedule rho", "rho"))
    if label == "Beta":
        told += [("Beta schedule alpha", "beta_dist_alpha"), ("Beta schedule beta", "beta_dist_beta")]
    return notes | {entry: as_sent(name, values, sent) for entry, name in told}


def start_notes(sampler: Sampler, values: OptionValues) -> Notes:
    """The entry about how noise alone is scaled."""
    return {"SGM noise multiplier": True} if values.sgm_noise_multiplier and sampler.family == "sigma" else {}


def sampler_knobs(wire: Generation, sampler: Sampler, values: OptionValues) -> tuple[Knobs, Notes]:
    """Numbers for the sampler, and their entries in the generation text.

    A1111: an option that is not neutral beats the request, and only then the text tells.
    """
    sent = wire.override_settings or {}
    ancestral = sampler.family == "sigma"
    option = "eta_ancestral" if ancestral else "eta_ddim"
    knobs = {"eta": getattr(values, option) if wire.eta is None else wire.eta}
    notes: Notes = {}
    if sampler.name in _TAKES_ETA and knobs["eta"] != sampler.default_eta:
        entry = "Eta" if ancestral else "Eta DDIM"
        notes[entry] = as_sent(option, values, sent) if wire.eta is None else wire.eta
    for name, neutral, entry, readers in _CHURN_KNOBS:
        asked, chosen = getattr(wire, name), getattr(values, name)
        knobs[name] = chosen if asked is None or chosen != neutral else asked
        if chosen != neutral and sampler.name in readers:
            notes[entry] = as_sent(name, values, sent)
    knobs["s_tmax"] = knobs["s_tmax"] or float("inf")
    return Knobs(**knobs), notes  # type: ignore[typeddict-item]


def as_sent(name: str, values: OptionValues, sent: Mapping[str, object]) -> float:
    """An option's value as the text tells it. A1111: a whole number that came with the request stays one."""
    value: float = getattr(values, name)
    number = sent.get(name)
    return number if isinstance(number, int) and not isinstance(number, bool) and number == value else value

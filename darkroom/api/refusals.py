"""What cannot be sampled as it is asked, found before the job waits for its turn.

Knows which numbers of steps and which options go together; what they do to noise levels is somebody else's.
"""

from collections.abc import Iterator

from darkroom.api.sdxl import check_emphasis
from darkroom.errors import BadRequest
from darkroom.jobs.latent_modes import LATENT_MODES
from darkroom.jobs.spec import JobSpec
from darkroom.sampling.names import Sampler, get_sampler

_SMALLER = frozenset({"Approx NN", "Approx cheap"})
"""Decoders whose pictures are smaller than asked for."""

_TIMESTEPS = 1000
"""Of the networks that UniPC draws with."""


def check_job(spec: JobSpec) -> None:
    """Raises BadRequest for what cannot be about a job."""
    for check in (check_samplers, check_emphasis, check_decoder, check_latents):
        check(spec)


def check_samplers(spec: JobSpec) -> None:
    """Raises BadRequest where a pass of the job could not be planned."""
    for sampler, steps in _passes(spec):
        _check_table(sampler, spec)
        if sampler.table == "continuous" and 0 < steps < spec.sampling.unipc_order:
            allowed = f"at most the {steps} steps that UniPC makes here"
            raise BadRequest("uni_pc_order", spec.sampling.unipc_order, allowed)


def check_decoder(spec: JobSpec) -> None:
    """Raises BadRequest where a smaller picture would have to be laid over the one that it began with."""
    if spec.decoder in _SMALLER and spec.init is not None and spec.init.latent_mask is not None:
        raise BadRequest("sd_vae_decode_method", spec.decoder, "Full or TAESD where there is a mask")


def check_latents(spec: JobSpec) -> None:
    """Raises BadRequest where a latent would go to a checkpoint that cannot read it."""
    hires = spec.hires
    if hires is None or hires.upscaler not in LATENT_MODES:
        return
    if hires.traits.latent_channels != spec.traits.latent_channels:
        allowed = "an upscaler of pictures, because the second checkpoint has other latents than the first"
        raise BadRequest("hr_upscaler", hires.upscaler, allowed)


def _check_table(sampler: Sampler, spec: JobSpec) -> None:
    """A last level without any signal cannot be told to a network in half precision."""
    options = spec.sampling
    looks_up = sampler.table == "training" and sampler.family == "sigma" and spec.traits.training.flow is None
    if looks_up and options.downcast_alphas and options.zero_terminal_snr:
        raise BadRequest("sd_noise_schedule", "Zero Terminal SNR", "not together with use_downcasted_alpha_bar")


def _passes(spec: JobSpec) -> Iterator[tuple[Sampler, int]]:
    """The samplers of a job's passes, each with the steps that it makes where it is one of timesteps."""
    sampler, hires, init = get_sampler(spec.sampler), spec.hires, spec.init
    if init is not None:
        fixed = init.fix_steps and init.denoising_strength > 0
        yield sampler, spec.steps - 1 if fixed else int(min(init.denoising_strength, 0.999) * spec.steps)
    elif hires is None or hires.picture is None:
        stride = max(_TIMESTEPS // (spec.steps + spec.sampling.discard_penultimate), 1)
        yield sampler, len(range(0, _TIMESTEPS, stride))
    if hires is not None:
        yield get_sampler(hires.sampler), hires.steps - 1

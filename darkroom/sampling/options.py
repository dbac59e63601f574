"""What a request and a checkpoint may say about noise levels and solvers, beyond sampler, schedule and steps.

Values only; imports no torch.
"""

from dataclasses import dataclass
from typing import Literal

UniPcVariant = Literal["bh1", "bh2", "vary_coeff"]
UniPcSkipType = Literal["time_uniform", "time_quadratic", "logSNR"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingOptions:
    """Zero means "the default" for `sigma_min`, `sigma_max` and `rho`.

    `quantize` rounds the timestep that the network is told. `downcast_alphas` computes the noise table in half
    precision; `zero_terminal_snr` stretches it until its last level holds no picture (Lin et al. 2023,
    arXiv:2305.08891). `shared_brownian_path` gives up the SDE samplers' path of every image's own.
    """

    sigma_min: float = 0.0
    sigma_max: float = 0.0
    rho: float = 0.0
    old_karras_sigmas: bool = False
    beta_alpha: float = 0.6
    beta_beta: float = 0.6
    discard_penultimate: bool = False
    sgm_noise_multiplier: bool = False
    quantize: bool = False
    downcast_alphas: bool = False
    zero_terminal_snr: bool = False
    shared_brownian_path: bool = False
    unipc_variant: UniPcVariant = "bh1"
    unipc_skip_type: UniPcSkipType = "time_uniform"
    unipc_order: int = 3
    unipc_lower_order_final: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """Flow matching: how far times are shifted towards the noise; None: the farther, the larger the picture is."""

    shift: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """The noise that a checkpoint was trained on: betas linear in their square root, from `start` to `end`, or a `flow`
    instead.

    `sdxl`: it is of SDXL's family, which has an Align Your Steps schedule of its own.
    """

    start: float = 0.00085
    end: float = 0.012
    timesteps: int = 1000
    sdxl: bool = False
    flow: Flow | None = None


NO_OPTIONS = SamplingOptions()
STABLE_DIFFUSION = Training()

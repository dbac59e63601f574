"""The catalogue of samplers and schedulers, and how a request's names are resolved. Imports no torch: the API reads it.

Knows names, aliases and flags; the functions behind them are in `samplers.SOLVERS` and `schedules.SCHEDULES`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from darkroom.errors import BadRequest, UnknownName

Family = Literal["sigma", "timestep"]
"""How a sampler's noise levels are chosen: by a scheduler, or as evenly spaced training timesteps."""

FlowUse = Literal["plain", "rectified", "none"]
"""How a sampler works with models of flow matching: as it is, by way of another form of their noise, or not at all."""

Table = Literal["training", "continuous", "consistency"]
"""How a sampler reads the model's noise levels: those of training, a continuous curve through them, or every 20th."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampler:
    """What clients may know of a sampler.

    `scheduler` is the internal name of the schedule that "Automatic" stands for, None for the model's own.
    `second_order` samplers call the model about twice a step. `brownian_noise` ones draw from a Brownian path instead
    of the image's stream. `discard_next_to_last_sigma` ones take a schedule of one step more, less its last-but-one.
    `chooses_levels` ones take a schedule's ends only. The guidance scale is divided by `guidance_divisor`. `flow` says
    how one works with models of flow matching.
    """

    name: str
    aliases: tuple[str, ...]
    scheduler: str | None = None
    family: Family = "sigma"
    second_order: bool = False
    brownian_noise: bool = False
    uses_ensd: bool = False
    discard_next_to_last_sigma: bool = False
    solver_type: str | None = None
    table: Table = "training"
    chooses_levels: bool = False
    guidance_divisor: float = 1.0
    flow: FlowUse = "none"

    @property
    def options(self) -> dict[str, str]:
        """The non-default properties as `/sdapi/v1/samplers` spells them."""
        listed: dict[str, str | bool | None] = {
            "scheduler": self.scheduler,
            "discard_next_to_last_sigma": self.discard_next_to_last_sigma,
            "uses_ensd": self.uses_ensd,
            "second_order": self.second_order,
            "brownian_noise": self.brownian_noise,
            "solver_type": self.solver_type,
        }
        return {key: str(value) for key, value in listed.items() if value}

    @property
    def default_eta(self) -> float:
        """The eta of a request that gives none: full ancestral noise, but a deterministic DDIM."""
        return 1.0 if self.family == "sigma" else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheduler:
    """What clients may know of a noise schedule. `default_rho` is -1 where a schedule has no rho."""

    name: str
    label: str
    aliases: tuple[str, ...] = ()
    default_rho: float = -1.0
    need_inner_model: bool = False


SAMPLERS: tuple[Sampler, ...] = (
    Sampler(name="DPM++ 2M", aliases=("k_dpmpp_2m",), scheduler="karras", flow="plain"),
    Sampler(
        name="DPM++ SDE",
        aliases=("k_dpmpp_sde",),
        scheduler="karras",
        second_order=True,
        brownian_noise=True,
        flow="rectified",
    ),
    Sampler(
        name="DPM++ 2M SDE", aliases=("k_dpmpp_2m_sde",), scheduler="exponential", brownian_noise=True, flow="rectified"
    ),
    Sampler(
        name="DPM++ 2M SDE Heun",
        aliases=("k_dpmpp_2m_sde_heun",),
        scheduler="exponential",
        brownian_noise=True,
        solver_type="heun",
        flow="rectified",
    ),
    Sampler(
        name="DPM++ 2S a",
        aliases=("k_dpmpp_2s_a",),
        scheduler="karras",
        uses_ensd=True,
        second_order=True,
        flow="rectified",
    ),
    Sampler(
        name="DPM++ 3M SDE",
        aliases=("k_dpmpp_3m_sde",),
        scheduler="exponential",
        discard_next_to_last_sigma=True,
        brownian_noise=True,
        flow="rectified",
    ),
    Sampler(name="Euler a", aliases=("k_euler_a", "k_euler_ancestral"), uses_ensd=True, flow="rectified"),
    Sampler(name="Euler", aliases=("k_euler",), flow="plain"),
    Sampler(name="LMS", aliases=("k_lms",), flow="plain"),
    Sampler(name="Heun", aliases=("k_heun",), second_order=True, flow="plain"),
    Sampler(
        name="DPM2",
        aliases=("k_dpm_2",),
        scheduler="karras",
        discard_next_to_last_sigma=True,
        second_order=True,
        flow="plain",
    ),
    Sampler(
        name="DPM2 a",
        aliases=("k_dpm_2_a",),
        scheduler="karras",
        discard_next_to_last_sigma=True,
        uses_ensd=True,
        second_order=True,
        flow="rectified",
    ),
    Sampler(name="DPM fast", aliases=("k_dpm_fast",), uses_ensd=True, chooses_levels=True),
    Sampler(name="DPM adaptive", aliases=("k_dpm_ad",), uses_ensd=True, chooses_levels=True),
    Sampler(name="Restart", aliases=("restart",), scheduler="karras", second_order=True),
    Sampler(name="DDIM", aliases=("ddim",), family="timestep"),
    Sampler(name="DDIM CFG++", aliases=("ddim_cfgpp",), family="timestep", guidance_divisor=12.5),
    Sampler(name="PLMS", aliases=("plms",), family="timestep"),
    Sampler(name="UniPC", aliases=("unipc",), family="timestep", table="continuous"),
    Sampler(name="LCM", aliases=("k_lcm",), table="consistency"),
)
"""In the order clients show them; the first is what an unknown name falls back to."""

AUTOMATIC = "Automatic"

SCHEDULERS: tuple[Scheduler, ...] = (
    Scheduler(name="automatic", label=AUTOMATIC),
    Scheduler(name="uniform", label="Uniform", need_inner_model=True),
    Scheduler(name="karras", label="Karras", default_rho=7.0),
    Scheduler(name="exponential", label="Exponential"),
    Scheduler(name="polyexponential", label="Polyexponential", default_rho=1.0),
    Scheduler(name="sgm_uniform", label="SGM Uniform", aliases=("SGMUniform",), need_inner_model=True),
    Scheduler(name="kl_optimal", label="KL Optimal"),
    Scheduler(name="align_your_steps", label="Align Your Steps"),
    Scheduler(name="simple", label="Simple", need_inner_model=True),
    Scheduler(name="normal", label="Normal", need_inner_model=True),
    Scheduler(name="ddim", label="DDIM", need_inner_model=True),
    Scheduler(name="beta", label="Beta", need_inner_model=True),
)
"""In the order clients show them, which is also the order in which suffixes of sampler names are tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """The sampler and the scheduler's label that a request means; `fallback`: its sampler name was unknown."""

    sampler: Sampler
    scheduler: str
    fallback: bool


def find_sampler(name: str) -> Sampler | None:
    """The sampler of exactly this name."""
    return next((sampler for sampler in SAMPLERS if sampler.name == name), None)


def get_sampler(name: str) -> Sampler:
    """The sampler of exactly this name; raises UnknownName."""
    sampler = find_sampler(name)
    if sampler is None:
        raise UnknownName("sampler_name", name, [known.name for known in SAMPLERS])
    return sampler


def find_scheduler(name: str) -> Scheduler | None:
    """The scheduler whose internal name or label is exactly this. A1111: aliases do not count here."""
    return next((scheduler for scheduler in SCHEDULERS if name in (scheduler.name, scheduler.label)), None)


def resolve(sampler_name: str | None, sampler_index: str = "Euler", scheduler: str | None = None) -> Resolved:
    """Turn the names of a request into a sampler and a scheduler's label.

    A1111: `sampler_index` counts where `sampler_name` is empty. A sampler's name may end in a scheduler's. An unknown
    sampler silently becomes the first of the list, an unknown scheduler "Automatic". A scheduler field that is not
    empty beats the suffix, even when it is unknown.
    """
    rest, suffix = _split_suffixes(sampler_name or sampler_index)
    sampler = find_sampler(rest)
    chosen = find_scheduler(scheduler) if scheduler else suffix
    return Resolved(
        sampler=sampler or SAMPLERS[0],
        scheduler=_reported(chosen, sampler or SAMPLERS[0], explicit=bool(scheduler)),
        fallback=sampler is None,
    )


def names_of_text(sampler: object, schedule: object) -> tuple[str, str]:
    """A sampler's name and a schedule's label as a generation text tells of them.

    A1111: no sampler is the first of the list; its own schedule is Automatic.
    """
    found = resolve(str(sampler or SAMPLERS[0].name))
    scheduler = find_scheduler(str(schedule)) if schedule else None
    if found.scheduler != AUTOMATIC or scheduler is None or scheduler.name == found.sampler.scheduler:
        return found.sampler.name, found.scheduler
    return found.sampler.name, scheduler.label


def effective_scheduler(sampler: Sampler, scheduler: str) -> str:
    """The label of the schedule that is really used; "Automatic" stands for the model's own (it equals Uniform)."""
    if scheduler != AUTOMATIC or sampler.scheduler is None:
        return scheduler
    return _labels()[sampler.scheduler]


def flow_scheduler(sampler: Sampler, scheduler: str, automatic: str) -> str:
    """The scheduler's label for a model of flow matching, whose own schedule has the label `automatic`.

    Raises BadRequest for what is only meant for other noise: most of the timestep family, schedules tuned for a model.
    """
    if sampler.flow == "none":
        allowed = ", ".join(known.name for known in SAMPLERS if known.flow != "none")
        raise BadRequest("sampler_name", sampler.name, f"one of those that follow a flow: {allowed}")
    if scheduler == "Align Your Steps":
        raise BadRequest("scheduler", scheduler, "a schedule that was not tuned for models of another kind")
    return automatic if scheduler == AUTOMATIC else scheduler


def _split_suffixes(name: str) -> tuple[str, Scheduler | None]:
    """Cut schedulers off the end of a name, each at most once, in the list's order.

    A1111: so "Euler SGM Uniform" loses its "Uniform" and becomes an unknown sampler.
    """
    found = None
    for scheduler in SCHEDULERS:
        ending = _first_ending(name, (scheduler.label, scheduler.name, *scheduler.aliases))
        if ending is not None:
            name, found = name.removesuffix(ending), scheduler
    return name, found


def _first_ending(name: str, words: Iterable[str]) -> str | None:
    return next((f" {word}" for word in words if name.endswith(f" {word}")), None)


def _reported(scheduler: Scheduler | None, sampler: Sampler, *, explicit: bool) -> str:
    """A1111: a suffix that names the sampler's own default is reported as "Automatic"; a scheduler field is kept."""
    if scheduler is None or (not explicit and scheduler.name == sampler.scheduler):
        return AUTOMATIC
    return scheduler.label


def _labels() -> dict[str, str]:
    return {scheduler.name: scheduler.label for scheduler in SCHEDULERS}

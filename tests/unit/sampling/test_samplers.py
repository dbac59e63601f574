"""The samplers: recorded numbers of the original program, and what theory says of them."""

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from darkroom.sampling.names import SAMPLERS, get_sampler
from darkroom.sampling.noise import ImageNoise
from darkroom.sampling.plan import plan_txt2img
from darkroom.sampling.samplers import SOLVERS, ancestral_split, solver_of
from darkroom.sampling.schedules import timestep_sigmas
from darkroom.sampling.steps import Knobs
from tests.unit.sampling.toy import TABLE, Gaussian, KnownDraws, drive, sample, toy, toy_eps

START = torch.tensor([1.0, -0.5, 0.25, 2.0])
CHURN = Knobs(s_churn=5.0)
HALF = Knobs(eta=0.5)
NONE = Knobs(eta=0.0)

# sampler, scheduler, steps, knobs, calls, draws, latent
RECORDED = [
    ("Euler", "Uniform", 10, Knobs(), 10, 10, (1.788766, -1.319599, 1.036675, 2.663029)),
    ("Euler", "Uniform", 10, CHURN, 10, 10, (0.959611, -0.368225, -0.417978, 0.704387)),
    ("Euler a", "Uniform", 10, Knobs(), 10, 9, (0.773864, -0.472888, -0.313709, 0.895849)),
    ("Euler a", "Uniform", 10, HALF, 10, 9, (1.601599, -1.131672, 0.230989, 1.911899)),
    ("Heun", "Uniform", 10, Knobs(), 19, 10, (1.941289, -1.390535, 1.060563, 2.975846)),
    ("LMS", "Uniform", 10, Knobs(), 10, 0, (1.901422, -1.373017, 1.058336, 2.893995)),
    ("DPM2", "Karras", 10, Knobs(), 19, 10, (1.937947, -1.388210, 1.060127, 2.970085)),
    ("DPM2 a", "Karras", 10, Knobs(), 19, 9, (0.916658, -0.519896, -0.242792, 0.937269)),
    ("DPM++ 2S a", "Karras", 10, Knobs(), 19, 9, (0.779843, -0.511801, -0.236201, 0.920874)),
    ("DPM++ SDE", "Karras", 10, Knobs(), 19, 18, (0.311717, -0.621870, -0.338222, 0.745672)),
    ("DPM++ 2M", "Karras", 10, Knobs(), 10, 0, (1.965858, -1.397840, 1.059275, 3.030441)),
    ("DPM++ 2M", "Uniform", 10, Knobs(), 10, 0, (2.066886, -1.450021, 1.091953, 3.239191)),
    ("DPM++ 2M SDE", "Exponential", 10, Knobs(), 10, 9, (0.296369, -0.651682, -0.451322, 0.945447)),
    ("DPM++ 2M SDE Heun", "Exponential", 10, Knobs(), 10, 9, (0.167629, -0.654856, -0.434188, 0.949601)),
    ("DPM++ 3M SDE", "Exponential", 10, Knobs(), 10, 9, (0.308088, -0.383943, 0.185017, 0.794546)),
    ("Restart", "Karras", 10, Knobs(), 19, 0, (1.968688, -1.401824, 1.064506, 3.034043)),
    ("Restart", "Karras", 20, Knobs(), 39, 1, (2.305188, -0.244722, 0.275553, 0.764127)),
    ("Restart", "Karras", 36, Knobs(), 71, 2, (1.275764, -1.494094, -1.149145, 0.419293)),
    ("DPM++ 2M", "KL Optimal", 10, Knobs(), 10, 0, (1.956382, -1.399722, 1.073495, 3.007361)),
    ("Euler", "KL Optimal", 10, Knobs(), 10, 10, (1.820406, -1.335689, 1.047605, 2.727579)),
]

NINE = (901, 801, 701, 601, 501, 401, 301, 201, 101)
RECORDED_TIMESTEP = [
    ("DDIM", 0.0, 9, NINE, (3.273588, -1.022725, 0.434416, 10.756347)),
    ("DDIM", 1.0, 9, NINE, (2.361053, -0.316504, -0.113617, 3.944322)),
    ("PLMS", 0.0, 0, (901, 801, *NINE[1:]), (3.414924, -1.088385, 0.467376, 11.069571)),
]

# sampler, least order of convergence without noise; a multistep start of low order bounds the order of the whole
ORDERS = {
    "Euler": 1,
    "Euler a": 1,
    "DDIM": 1,
    "Heun": 2,
    "Restart": 2,
    "DPM2": 2,
    "DPM2 a": 2,
    "DPM++ 2M": 2,
    "DPM++ 2M SDE": 2,
    "DPM++ 2M SDE Heun": 2,
    "DPM++ 2S a": 2,
    "DPM++ SDE": 2,
    "DPM++ 3M SDE": 2,
    "LMS": 2,
    "PLMS": 2,
}


@pytest.mark.parametrize(("name", "scheduler", "steps", "knobs", "calls", "draws", "latent"), RECORDED)
def test_a_sampler_gives_the_recorded_latent(
    name: str, scheduler: str, steps: int, knobs: Knobs, calls: int, draws: int, latent: Sequence[float]
) -> None:
    plan = plan_txt2img(TABLE, get_sampler(name), scheduler, steps)
    known = KnownDraws()
    run = drive(solver_of(get_sampler(name))(START * plan.sigmas[0], plan.sigmas, known, knobs), toy)
    assert run.latent.tolist() == pytest.approx(latent, abs=2e-5)
    assert (len(run.questions), known.count) == (calls, draws)


@pytest.mark.parametrize(("name", "eta", "draws", "timesteps", "latent"), RECORDED_TIMESTEP)
def test_a_timestep_sampler_gives_the_recorded_latent(
    name: str, eta: float, draws: int, timesteps: Sequence[int], latent: Sequence[float]
) -> None:
    sigmas = timestep_sigmas(TABLE, 10)
    known = KnownDraws()
    run = drive(SOLVERS[name](START * math.hypot(1, sigmas[0]), sigmas, known, Knobs(eta=eta)), toy_eps)
    assert run.latent.tolist() == pytest.approx(latent, abs=2e-5)
    assert [TABLE.timestep_of(question.sigma) for question in run.questions] == list(timesteps)
    assert known.count == draws


def test_every_listed_sampler_has_a_function() -> None:
    assert {sampler.name for sampler in SAMPLERS} == set(SOLVERS) == set(ORDERS)


def flow_error(name: str, steps: int) -> float:
    """Distance from the exact probability flow of Gaussian data, in double precision."""
    model = Gaussian()
    sigmas = torch.logspace(1, -1, steps + 1, dtype=torch.float64).tolist()
    x = torch.ones(1, dtype=torch.float64) * model.total(sigmas[0])
    latent = drive(SOLVERS[name](x, sigmas, KnownDraws(), NONE), model).latent
    scale = math.hypot(1, sigmas[-1]) if get_sampler(name).family == "timestep" else 1.0
    return abs(latent[0].item() * scale - model.total(sigmas[-1]))


@pytest.mark.parametrize("name", sorted(ORDERS.keys() - {"Restart"}))
def test_without_noise_the_error_falls_at_the_samplers_order(name: str) -> None:
    coarse, fine = flow_error(name, 80), flow_error(name, 160)
    assert math.log2(coarse / fine) > ORDERS[name] - 0.15


@pytest.mark.parametrize(("name", "knobs"), [(name, Knobs()) for name in ORDERS] + [("Euler", CHURN), ("Heun", CHURN)])
def test_samples_have_the_variance_of_the_data(name: str, knobs: Knobs) -> None:
    model = Gaussian()
    sampler = get_sampler(name)
    plan = plan_txt2img(TABLE, sampler, "Karras", 200 if ORDERS[name] == 1 else 60)
    noise = ImageNoise(7, (1, 100, 200), source="CPU", sigma_range=plan.sigma_range)
    if sampler.family == "timestep":
        noise.initial = noise.initial * math.hypot(1, plan.sigmas[0]) / plan.sigmas[0]
    latent = sample(solver_of(sampler), model, list(plan.sigmas), noise, knobs)
    assert latent.std().item() == pytest.approx(model.deviation, rel=0.035)


@pytest.mark.parametrize("name", ["DPM++ 2M SDE", "DPM++ 2M SDE Heun", "DPM++ 3M SDE"])
def test_without_eta_the_first_steps_of_the_sde_samplers_are_those_of_dpmpp_2m(name: str) -> None:
    sigmas = [10.0, 5.0, 2.0]
    x = START * sigmas[0]
    plain = drive(SOLVERS["DPM++ 2M"](x, sigmas[:2], KnownDraws(), NONE), toy).latent
    assert torch.allclose(drive(SOLVERS[name](x, sigmas[:2], KnownDraws(), NONE), toy).latent, plain, atol=1e-6)


def test_without_eta_dpmpp_2m_sde_is_dpmpp_2m() -> None:
    sigmas = [*torch.logspace(1, -1, 13).tolist(), 0.0]
    runs = [drive(SOLVERS[name](START, sigmas, KnownDraws(), NONE), toy) for name in ("DPM++ 2M", "DPM++ 2M SDE")]
    assert torch.allclose(runs[0].latent, runs[1].latent, atol=1e-5)


def test_without_eta_ancestral_euler_is_euler() -> None:
    sigmas = [*torch.logspace(1, -1, 13).tolist(), 0.0]
    runs = [drive(SOLVERS[name](START, sigmas, KnownDraws(), NONE), toy) for name in ("Euler", "Euler a")]
    assert torch.allclose(runs[0].latent, runs[1].latent, atol=1e-5)


@pytest.mark.parametrize("name", sorted(ORDERS))
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_very_few_steps_give_a_finite_latent(name: str, steps: int) -> None:
    sampler = get_sampler(name)
    plan = plan_txt2img(TABLE, sampler, "Automatic", steps)
    run = drive(solver_of(sampler)(START * plan.sigmas[0], plan.sigmas, KnownDraws(), Knobs()), toy)
    assert torch.isfinite(run.latent).all()


def test_a_timestep_sampler_with_nothing_to_do_returns_its_input() -> None:
    assert torch.equal(drive(SOLVERS["DDIM"](START, [], KnownDraws(), NONE), toy).latent, START)


def test_the_ancestral_split_keeps_the_variance() -> None:
    for eta in (0.0, 0.3, 1.0, 5.0):
        down, up = ancestral_split(3.0, 2.0, eta)
        assert math.hypot(down, up) == pytest.approx(2.0)
    assert ancestral_split(3.0, 2.0, 0.0) == (2.0, 0.0)
    assert ancestral_split(3.0, 0.0, 1.0) == (0.0, 0.0)


def test_a_sampler_changes_neither_its_input_nor_an_answer() -> None:
    for name, solver in SOLVERS.items():
        sigmas = [4.0, 2.0, 1.0, 0.5, 0.25]
        x = START.clone()
        answers: list[tuple[Tensor, Tensor]] = []

        def remembered(x: Tensor, sigma: float, answers: list[tuple[Tensor, Tensor]] = answers) -> Tensor:
            answer = toy(x, sigma)
            answers.append((answer, answer.clone()))
            return answer

        drive(solver(x, sigmas, KnownDraws(), Knobs()), remembered)
        assert torch.equal(x, START), name
        assert all(torch.equal(now, then) for now, then in answers), name

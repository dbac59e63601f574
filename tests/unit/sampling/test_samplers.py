"""The samplers: recorded numbers of the original program, and what theory says of them."""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from darkroom.sampling.names import SAMPLERS, SCHEDULERS, Sampler, get_sampler
from darkroom.sampling.noise import ImageNoise
from darkroom.sampling.options import NO_OPTIONS, SamplingOptions, UniPcVariant
from darkroom.sampling.plan import begin_txt2img, plan_img2img, plan_txt2img
from darkroom.sampling.samplers import SOLVERS, ancestral_split, solver_of
from darkroom.sampling.schedules import timestep_sigmas
from darkroom.sampling.steps import Knobs
from darkroom.sampling.tables import noise_table
from darkroom.sampling.unipc import unipc
from tests.unit.sampling.toy import CURVE, TABLE, Gaussian, KnownDraws, drive, sample, toy, toy_eps, unguided_eps

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
    ("DPM fast", "Automatic", 10, Knobs(), 10, 4, (1.908983, -0.558051, -0.456570, 0.695992)),
    ("DPM fast", "Karras", 10, NONE, 10, 4, (1.922827, -1.383711, 1.060783, 2.939382)),
    ("DPM fast", "Automatic", 12, Knobs(), 12, 5, (1.444613, -0.634536, -0.836680, 0.395673)),
    ("DPM adaptive", "Automatic", 10, Knobs(), 30, 8, (1.414418, 0.421774, 0.572198, 0.819097)),
    ("DPM adaptive", "Automatic", 3, NONE, 21, 7, (1.931780, -1.387013, 1.067297, 2.960801)),
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
    ("DDIM CFG++", 0.0, 9, NINE, (3.392838, -1.555095, 0.572468, 4.091199)),
    ("PLMS", 0.0, 0, (901, 801, *NINE[1:]), (3.414924, -1.088385, 0.467376, 11.069571)),
]

TENTHS = (999, 899.1, 799.2, 699.3, 599.4, 499.5, 399.6, 299.7, 199.8, 99.9)
QUADRATIC = (999, 814.702, 649.159, 502.372, 374.339, 265.061, 174.539, 102.772, 49.759, 15.502)
LOG_SNR = (999, 888.218, 756.512, 597.432, 413.163, 233.209, 102.974, 36.144, 10.621, 2.44)
RECORDED_UNIPC = [
    (SamplingOptions(), TENTHS, (4.571452, -1.181496, 0.478661, 17.497211)),
    (SamplingOptions(unipc_variant="bh2"), TENTHS, (4.562402, -1.173423, 0.474441, 17.456879)),
    (SamplingOptions(unipc_variant="vary_coeff"), TENTHS, (4.496021, -1.155721, 0.467062, 17.343987)),
    (SamplingOptions(unipc_skip_type="time_quadratic"), QUADRATIC, (4.556960, -1.183103, 0.483510, 17.369059)),
    (SamplingOptions(unipc_skip_type="logSNR"), LOG_SNR, (4.579626, -1.184954, 0.480021, 17.497950)),
    (SamplingOptions(unipc_order=2), TENTHS, (4.577322, -1.185727, 0.480725, 17.515881)),
    (SamplingOptions(unipc_lower_order_final=False), TENTHS, (4.303173, -1.043523, 0.419721, 17.193014)),
]

# sampler, least order of convergence without noise; a multistep start of low order bounds the order of the whole
ORDERS = {
    "Euler": 1,
    "Euler a": 1,
    "DDIM": 1,
    "DDIM CFG++": 1,
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
    "DPM fast": 2,
    "UniPC": 2,
}
ADAPTIVE, DISTILLED = "DPM adaptive", "LCM"


@pytest.mark.parametrize(("name", "scheduler", "steps", "knobs", "calls", "draws", "latent"), RECORDED)
def test_a_sampler_gives_the_recorded_latent(
    name: str, scheduler: str, steps: int, knobs: Knobs, calls: int, draws: int, latent: Sequence[float]
) -> None:
    plan = plan_txt2img(TABLE, get_sampler(name), scheduler, steps)
    known = KnownDraws()
    run = drive(solver_of(get_sampler(name))(begin_txt2img(plan, START), plan.sigmas, known, knobs), toy)
    # Steps that follow an error of float32 follow its rounding too.
    assert run.latent.tolist() == pytest.approx(latent, abs=1e-3 if name == ADAPTIVE else 2e-5)
    assert (len(run.questions), known.count) == (calls, draws)


@pytest.mark.parametrize(("name", "eta", "draws", "timesteps", "latent"), RECORDED_TIMESTEP)
def test_a_timestep_sampler_gives_the_recorded_latent(
    name: str, eta: float, draws: int, timesteps: Sequence[int], latent: Sequence[float]
) -> None:
    sigmas = timestep_sigmas(TABLE, 10)
    known = KnownDraws()
    x = START * math.hypot(1, sigmas[0])
    run = drive(SOLVERS[name](x, sigmas, known, Knobs(eta=eta)), toy_eps, unguided_eps)
    assert run.latent.tolist() == pytest.approx(latent, abs=2e-5)
    assert [TABLE.timestep_of(question.sigma) for question in run.questions] == list(timesteps)
    assert known.count == draws


@pytest.mark.parametrize(("options", "timesteps", "latent"), RECORDED_UNIPC)
def test_unipc_gives_the_recorded_latent(
    options: SamplingOptions, timesteps: Sequence[float], latent: Sequence[float]
) -> None:
    plan = plan_txt2img(CURVE, get_sampler("UniPC"), "Automatic", 10, options)
    run = drive(unipc(begin_txt2img(plan, START), plan.sigmas, KnownDraws(), unipc_knobs(options)), toy_eps)
    assert [CURVE.timestep_of(question.sigma) for question in run.questions] == pytest.approx(timesteps, abs=2e-3)
    assert run.latent.tolist() == pytest.approx(latent, abs=2e-5)


def test_unipc_starts_from_a_picture_as_recorded() -> None:
    plan = plan_img2img(CURVE, get_sampler("UniPC"), "Automatic", 10, 0.5)
    run = drive(unipc(START * math.hypot(1, plan.sigmas[0]), plan.sigmas, KnownDraws(), Knobs()), toy_eps)
    timesteps = [CURVE.timestep_of(question.sigma) for question in run.questions]
    assert timesteps == pytest.approx([401, 320.8, 240.6, 160.4, 80.2], abs=1e-3)
    assert run.latent.tolist() == pytest.approx([1.273206, -0.604629, 0.296930, 2.755199], abs=2e-5)


def unipc_knobs(options: SamplingOptions) -> Knobs:
    return Knobs(
        unipc_variant=options.unipc_variant,
        unipc_order=options.unipc_order,
        unipc_lower_order_final=options.unipc_lower_order_final,
    )


@pytest.mark.parametrize("variant", ["bh1", "bh2", "vary_coeff"])
@pytest.mark.parametrize("order", [1, 2, 3, 5, 10])
def test_unipc_of_every_order_and_kind_comes_near_the_exact_flow(variant: UniPcVariant, order: int) -> None:
    knobs = Knobs(unipc_variant=variant, unipc_order=order)
    # The original's varying coefficients miss their order.
    assert flow_error("UniPC", 40, knobs) < (0.02 if order == 1 or variant == "vary_coeff" else 1e-3)


def test_dpm_adaptive_keeps_its_error_near_its_tolerance_however_many_steps_are_asked_for() -> None:
    errors = [flow_error(ADAPTIVE, steps) for steps in (1, 20)]
    assert errors[0] == errors[1] < 0.05


@pytest.mark.parametrize("answer", [math.nan, math.inf, 1e30])
def test_dpm_adaptive_ends_whatever_it_is_told(answer: float) -> None:
    calls = 0

    def broken(x: Tensor, _sigma: float) -> Tensor:
        nonlocal calls
        calls += 1
        return x * 0 + answer * (1 if calls % 2 else -1)

    drive(SOLVERS[ADAPTIVE](START, [10.0, 0.1], KnownDraws(), Knobs()), broken)
    assert calls < 5000


def test_lcm_noises_every_answer_but_the_last() -> None:
    known = KnownDraws()
    run = drive(SOLVERS[DISTILLED](START, [4.0, 2.0, 0.0], known, Knobs()), torch.full_like)
    first = KnownDraws().normal()
    assert torch.equal(run.questions[1].x, 4.0 + 2.0 * first)
    assert torch.equal(run.latent, torch.full_like(START, 2.0))
    assert known.count == 1


def test_ddim_cfg_plus_plus_without_guidance_is_ddim() -> None:
    sigmas = timestep_sigmas(TABLE, 10)
    runs = [drive(SOLVERS[name](START, sigmas, KnownDraws(), Knobs(eta=0.5)), toy) for name in ("DDIM", "DDIM CFG++")]
    assert torch.equal(runs[0].latent, runs[1].latent)


def half_ddim(x: Tensor, alphas: Sequence[float]) -> Tensor:
    """DDIM at unit variance, with sqrt(1 - alpha) in half precision where x0 is found."""
    for alpha, following in pairwise(alphas):
        sigma = math.sqrt((1 - alpha) / alpha)
        noise = (x / math.sqrt(alpha) - toy(x / math.sqrt(alpha), sigma)) / sigma
        rounded = torch.tensor(1 - alpha).half().sqrt().item()
        x0 = (x - rounded * noise) / math.sqrt(alpha)
        x = math.sqrt(following) * x0 + math.sqrt(1 - following) * noise
    return x


def test_a_half_precision_table_is_also_rounded_where_ddim_looks_for_x0() -> None:
    alphas = torch.tensor([0.01, 0.05, 0.2, 0.5, 0.9]).half().tolist()
    sigmas = [math.sqrt((1 - alpha) / alpha) for alpha in alphas]
    knobs = Knobs(eta=0.0, half_table=True)
    expected = half_ddim(START.double(), alphas)
    for name in ("DDIM", "DDIM CFG++"):
        latent = drive(
            SOLVERS[name](START.double() * math.hypot(1, sigmas[0]), sigmas, KnownDraws(), knobs), toy
        ).latent
        assert torch.allclose(latent, expected, atol=1e-5)
        assert not torch.allclose(latent, half_ddim(START.double(), [*alphas[:-1], 0.899]), atol=1e-5)


def test_every_listed_sampler_has_a_function() -> None:
    assert {sampler.name for sampler in SAMPLERS} == set(SOLVERS) == {*ORDERS, ADAPTIVE, DISTILLED}


def flow_error(name: str, steps: int, knobs: Knobs = NONE) -> float:
    """Distance from the exact probability flow of Gaussian data, in double precision."""
    model = Gaussian()
    sigmas = torch.logspace(1, -1, steps + 1, dtype=torch.float64).tolist()
    x = torch.ones(1, dtype=torch.float64) * model.total(sigmas[0])
    latent = drive(SOLVERS[name](x, sigmas, KnownDraws(), knobs), model).latent
    scale = math.hypot(1, sigmas[-1]) if get_sampler(name).family == "timestep" else 1.0
    return abs(latent[0].item() * scale - model.total(sigmas[-1]))


@pytest.mark.parametrize("name", sorted(ORDERS.keys() - {"Restart", "DPM fast"}))
def test_without_noise_the_error_falls_at_the_samplers_order(name: str) -> None:
    coarse, fine = flow_error(name, 80), flow_error(name, 160)
    assert math.log2(coarse / fine) > ORDERS[name] - 0.15


def test_dpm_fast_errs_as_little_as_its_steps_of_low_order_at_the_end() -> None:
    errors = [flow_error("DPM fast", steps) for steps in (30, 60, 120)]
    assert math.log2(errors[0] / errors[2]) / 2 > 1.85


KNOBS = [(name, Knobs()) for name in (*ORDERS, ADAPTIVE)] + [("Euler", CHURN), ("Heun", CHURN)]


@pytest.mark.parametrize(("name", "knobs"), KNOBS)
def test_samples_have_the_variance_of_the_data(name: str, knobs: Knobs) -> None:
    model = Gaussian()
    sampler = get_sampler(name)
    plan = plan_txt2img(noise_table(NO_OPTIONS, sampler), sampler, "Karras", 200 if ORDERS.get(name) == 1 else 60)
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


OPTIONS = st.builds(
    SamplingOptions,
    sigma_min=st.sampled_from([0.0, 0.1]),
    sigma_max=st.sampled_from([0.0, 10.0, 20.0]),
    rho=st.sampled_from([0.0, 0.5, 5.0]),
    old_karras_sigmas=st.booleans(),
    beta_alpha=st.sampled_from([0.05, 0.6, 5.0]),
    beta_beta=st.sampled_from([0.05, 0.6, 5.0]),
    discard_penultimate=st.booleans(),
    sgm_noise_multiplier=st.booleans(),
    quantize=st.booleans(),
    downcast_alphas=st.booleans(),
    zero_terminal_snr=st.booleans(),
    shared_brownian_path=st.booleans(),
    unipc_order=st.just(1),
    unipc_variant=st.sampled_from(["bh1", "bh2", "vary_coeff"]),
    unipc_skip_type=st.sampled_from(["time_uniform", "time_quadratic", "logSNR"]),
).filter(lambda options: not (options.downcast_alphas and options.zero_terminal_snr))


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(SAMPLERS),
    st.sampled_from([scheduler.label for scheduler in SCHEDULERS]),
    st.sampled_from([1, 2, 3, 7, 31]),
    OPTIONS,
)
def test_any_sampler_with_any_schedule_and_step_count_gives_a_finite_latent(
    sampler: Sampler, scheduler: str, steps: int, options: SamplingOptions
) -> None:
    plan = plan_txt2img(noise_table(options, sampler), sampler, scheduler, steps, options)
    noise = ImageNoise(1, (1, 4, 4), sigma_range=plan.sigma_range)
    knobs = replace(unipc_knobs(options), eta=sampler.default_eta)
    run = drive(solver_of(sampler)(begin_txt2img(plan, noise.initial), plan.sigmas, noise, knobs), toy)
    assert torch.isfinite(run.latent).all()


@pytest.mark.parametrize("name", sorted({*SOLVERS} - {"UniPC"}))
def test_repeated_levels_give_a_finite_latent(name: str) -> None:
    noise = ImageNoise(1, (1, 4, 4), sigma_range=(0.5, 4.0))
    run = drive(SOLVERS[name](noise.initial, [4.0, 4.0, 4.0, 2.0, 2.0, 0.5], noise, Knobs()), toy)
    assert torch.isfinite(run.latent).all()


@pytest.mark.parametrize("name", ["DDIM", "DDIM CFG++", "PLMS", "UniPC"])
def test_a_timestep_sampler_with_nothing_to_do_returns_its_input(name: str) -> None:
    assert torch.equal(drive(SOLVERS[name](START, [], KnownDraws(), NONE), toy).latent, START)


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

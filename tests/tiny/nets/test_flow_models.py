"""Stable Diffusion 3 and FLUX.1 against diffusers' own pipelines, with the same weights, noise and levels."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor

from darkroom.engine.runner import encode_text, estimate_x0
from darkroom.errors import BadModelFile, BadRequest, MissingPart
from darkroom.jobs.ops import Decode, Denoise, EncodeText
from darkroom.jobs.programs import program
from darkroom.jobs.spec import FlowOptions, JobSpec, Traits
from darkroom.nets import flux, t5
from darkroom.nets.libraries import CLIPTextModel, CLIPTokenizer
from darkroom.nets.network import Network
from darkroom.nets.placement import Tier, Turns
from darkroom.nets.store import Store, load
from darkroom.sampling.names import SAMPLERS
from darkroom.sampling.options import Flow, Training
from tests.tiny.checkpoints import write_tiny_vae
from tests.tiny.flow_checkpoints import (
    UNET,
    Tiny,
    denoiser_in_file,
    encoders_in_file,
    tiny_flux,
    tiny_sd3,
    vae_in_file,
    whole,
    write,
)
from tests.unit.engine.fake_runner import make_spec

CPU = torch.device("cpu")
PROMPT, NEGATIVE = "a photo of a red cat, 35mm", "blurry"
SIZE = 64
SD3 = Traits(family="sd3", training=Training(flow=Flow(shift=3.0)), latent_channels=16)
DEV = Traits(family="flux", training=Training(flow=Flow(shift=None)), latent_channels=16)
FAST = Traits(family="flux", training=Training(flow=Flow(shift=1.0)), latent_channels=16)


def spec_of(traits: Traits, steps: int, **changes: Any) -> JobSpec:
    spec = make_spec(PROMPT, size=SIZE, steps=steps)
    return replace(spec, traits=traits, negative_prompt=NEGATIVE, sampler="Euler", noise_source="CPU", **changes)


def latent_of(network: Network, spec: JobSpec) -> Tensor:
    """Run a job by hand up to the latent that it wants to have decoded."""
    steps = program(spec, 0, CPU)
    answer: Any = None
    with torch.inference_mode():
        while True:
            match steps.send(answer):
                case EncodeText() as op:
                    answer = encode_text(network, op)
                case Denoise() as op:
                    answer = estimate_x0(network, op.rows)
                case Decode() as op:
                    return op.latent
                case other:
                    raise AssertionError(other)


class T5Words:
    """What pipelines expect of T5's tokenizer."""

    model_max_length = 512
    added_tokens_encoder: Mapping[str, int] = {}

    def __init__(self) -> None:
        self._tokenizer = t5.T5Tokenizer()

    def tokenize(self, prompt: str) -> list[str]:
        return prompt.split()

    def __call__(self, prompts: Sequence[str], max_length: int = 0, **_: Any) -> Any:
        ids = [self._tokenizer.tokenize(prompt) for prompt in prompts]
        length = max_length or 1 + max(map(len, ids))
        return SimpleNamespace(input_ids=torch.tensor([t5.framed(one, length) for one in ids]))


def clip_words(pad: str) -> CLIPTokenizer:
    folder = files("darkroom") / "nets" / "data" / "clip_tokenizer"
    return CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), pad_token=pad, model_max_length=77)


def noise(seed: int = 1) -> Tensor:
    return torch.randn(16, SIZE // 8, SIZE // 8, generator=torch.Generator().manual_seed(seed))[None]


def load_tiny(folder: Path, tiny: Tiny) -> Network:
    return load(write(folder / "tiny.safetensors", whole(tiny)), None, CPU, torch.float32)


def as_diffusers_runs_sd3(tiny: Tiny, times: Sequence[float], tokens: int = 77) -> Tensor:
    pipe = diffusers.StableDiffusion3Pipeline(
        transformer=tiny.transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=tiny.vae,
        text_encoder=tiny.clip_l,
        tokenizer=clip_words("<|endoftext|>"),
        text_encoder_2=tiny.clip_g,
        tokenizer_2=clip_words("!"),
        text_encoder_3=tiny.t5,
        tokenizer_3=T5Words(),
    )
    pipe.set_progress_bar_config(disable=True)
    latents: Tensor = pipe(
        prompt=PROMPT,
        negative_prompt=NEGATIVE,
        sigmas=list(times),
        guidance_scale=5.0,
        latents=noise(),
        max_sequence_length=tokens,
        output_type="latent",
    ).images
    return latents[0]


def as_diffusers_runs_flux(tiny: Tiny, steps: int, guidance: float, tokens: int, *, shifts: bool) -> Tensor:
    pipe = diffusers.FluxPipeline(
        transformer=tiny.transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=shifts),
        vae=tiny.vae,
        text_encoder=flux_clip(tiny),
        tokenizer=clip_words("<|endoftext|>"),
        text_encoder_2=tiny.t5,
        tokenizer_2=T5Words(),
    )
    pipe.set_progress_bar_config(disable=True)
    side = SIZE // 8
    latents: Tensor = pipe(
        prompt=PROMPT,
        height=SIZE,
        width=SIZE,
        num_inference_steps=steps,
        guidance_scale=guidance,
        latents=flux.packed(noise()),
        max_sequence_length=tokens,
        output_type="latent",
    ).images
    return flux.unpacked(latents, side // 2, side // 2)[0]


def flux_clip(tiny: Tiny) -> CLIPTextModel:
    model = CLIPTextModel(tiny.clip_l.config)
    weights = {name.removeprefix("text_model."): weight for name, weight in tiny.clip_l.state_dict().items()}
    model.load_state_dict({name: weight for name, weight in weights.items() if "projection" not in name})
    return model.eval()


def plain_vector(tiny: Tiny) -> Tiny:
    """With the identity for the first encoder's projection, which files lack and diffusers takes for granted."""
    tiny.clip_l.text_projection.weight.copy_(torch.eye(len(tiny.clip_l.text_projection.weight)))
    return tiny


def normal_times(steps: int) -> list[float]:
    return [(999 * (1 - k / (steps - 1)) + 1) / 1000 for k in range(steps)]


def test_stable_diffusion_3_draws_what_diffusers_draws(tmp_path: Path) -> None:
    tiny = plain_vector(tiny_sd3())
    spec = spec_of(SD3, 10, scheduler="Normal", cfg_scale=5.0, flow=FlowOptions(t5=True))
    ours = latent_of(load_tiny(tmp_path, tiny), spec)
    assert (ours - as_diffusers_runs_sd3(tiny, normal_times(10))).abs().max() < 1e-4


@pytest.mark.parametrize("guidance", [3.5, 1.5])
def test_flux_dev_draws_what_diffusers_draws(tmp_path: Path, guidance: float) -> None:
    tiny = tiny_flux()
    spec = spec_of(DEV, 10, scheduler="Simple", cfg_scale=1.0, flow=FlowOptions(guidance=guidance))
    ours = latent_of(load_tiny(tmp_path, tiny), spec)
    assert (ours - as_diffusers_runs_flux(tiny, 10, guidance, 512, shifts=True)).abs().max() < 1e-4


def test_flux_schnell_draws_what_diffusers_draws(tmp_path: Path) -> None:
    tiny = tiny_flux(guided=False)
    ours = latent_of(load_tiny(tmp_path, tiny), spec_of(FAST, 4, scheduler="Simple", cfg_scale=1.0))
    assert (ours - as_diffusers_runs_flux(tiny, 4, 0.0, 256, shifts=False)).abs().max() < 1e-4


@pytest.mark.parametrize("make", [tiny_sd3, tiny_flux])
def test_latents_become_pictures_as_diffusers_makes_them(tmp_path: Path, make: Callable[[], Tiny]) -> None:
    tiny = make()
    network = load_tiny(tmp_path, tiny)
    scale, shift = (1.5305, 0.0609) if tiny.clip_g else (0.3611, 0.1159)
    with torch.inference_mode():
        theirs = tiny.vae.decode(noise() / scale + shift).sample
        ours = network.decode(noise())
        back = network.encode_image(ours)
        again = (tiny.vae.encode(ours).latent_dist.mean - shift) * scale
    assert (ours - theirs).abs().max() < 1e-4
    assert (back - again).abs().max() < 1e-4


def test_networks_may_lie_in_files_of_their_own(tmp_path: Path) -> None:
    tiny = tiny_flux()
    alone = write(tmp_path / "alone" / "tiny.safetensors", denoiser_in_file(tiny.transformer))
    for name, weights in encoders_in_file(tiny).items():
        write(tmp_path / "text_encoder" / f"{name}_fp16.safetensors", weights)
    write(tmp_path / "VAE" / "ae.safetensors", vae_in_file(tiny))
    network = load(alone, None, CPU, torch.float32, parts=[tmp_path / "text_encoder", tmp_path / "VAE"])
    spec = spec_of(DEV, 4, scheduler="Simple", cfg_scale=1.0)
    assert torch.equal(latent_of(network, spec), latent_of(load_tiny(tmp_path, tiny), spec))


@pytest.mark.parametrize(
    ("lacking", "wanted"),
    [("clip_l", "clip_l.safetensors"), ("t5xxl", "t5xxl_fp16.safetensors"), ("first_stage", "ae.safetensors")],
)
def test_a_network_that_lies_nowhere_is_asked_for_by_name(tmp_path: Path, lacking: str, wanted: str) -> None:
    weights = {name: weight for name, weight in whole(tiny_flux()).items() if lacking not in name}
    path = write(tmp_path / "tiny.safetensors", weights)
    with pytest.raises(MissingPart, match=wanted):
        load(path, None, CPU, torch.float32, parts=[tmp_path / "text_encoder", tmp_path / "VAE"])


def test_files_that_are_only_called_alike_are_passed_over(tmp_path: Path) -> None:
    tiny = tiny_flux()
    weights = {name: weight for name, weight in whole(tiny).items() if "first_stage" not in name}
    path = write(tmp_path / "models" / "tiny.safetensors", weights)
    write_tiny_vae(tmp_path / "VAE" / "ae.safetensors")
    write(tmp_path / "VAE" / "aeons.safetensors", vae_in_file(tiny))
    write(tmp_path / "models" / "sub" / "ae.safetensors", vae_in_file(tiny))
    with pytest.raises(MissingPart, match=r"ae\.safetensors"):
        load(path, None, CPU, torch.float32, parts=[tmp_path / "VAE"])
    write(tmp_path / "models" / "ae_bf16.safetensors", vae_in_file(tiny))
    assert load(path, None, CPU, torch.float32, parts=[tmp_path / "VAE"]).latent_channels == 16


def test_stable_diffusion_3_does_without_t5(tmp_path: Path) -> None:
    tiny = tiny_sd3()
    without = {name: weight for name, weight in whole(tiny).items() if ".t5xxl." not in name}
    network = load(write(tmp_path / "less.safetensors", without), None, CPU, torch.float32)
    spec = spec_of(SD3, 4, scheduler="Normal", flow=FlowOptions(t5=True))
    unasked = replace(spec, flow=FlowOptions(t5=False))
    assert torch.equal(latent_of(network, spec), latent_of(load_tiny(tmp_path, tiny), unasked))
    assert not torch.equal(latent_of(network, spec), latent_of(load_tiny(tmp_path, tiny), spec))


@pytest.mark.parametrize(("make", "missing"), [(tiny_sd3, "x_embedder.proj.bias"), (tiny_flux, "img_in.bias")])
def test_no_tensor_may_be_missing_or_left_over(tmp_path: Path, make: Callable[[], Tiny], missing: str) -> None:
    weights = whole(make())
    more = {**weights, UNET + "one_too_many.weight": torch.zeros(1)}
    with pytest.raises(BadModelFile, match="one_too_many"):
        load(write(tmp_path / "more.safetensors", more), None, CPU, torch.float32)
    del weights[UNET + missing]
    with pytest.raises(BadModelFile, match=missing):
        load(write(tmp_path / "less.safetensors", weights), None, CPU, torch.float32)


def test_weights_of_eight_bits_are_read_with_their_factors(tmp_path: Path) -> None:
    tiny = tiny_flux()
    weights = whole(tiny)
    name = UNET + "double_blocks.0.img_attn.proj.weight"
    factor = weights[name].abs().max() / 448
    weights[name.removesuffix("weight") + "scale_weight"] = factor
    weights[name] = (weights[name] / factor).to(torch.float8_e4m3fn)
    weights[UNET + "scaled_fp8"] = torch.zeros(2, dtype=torch.float8_e4m3fn)
    network = load(write(tmp_path / "eight.safetensors", weights), None, CPU, torch.float32)
    spec = spec_of(DEV, 4, scheduler="Simple", cfg_scale=1.0)
    difference = (latent_of(network, spec) - latent_of(load_tiny(tmp_path, tiny), spec)).abs().max()
    assert 0 < difference < 0.05


@pytest.mark.parametrize(("make", "traits"), [(tiny_sd3, SD3), (tiny_flux, DEV)])
def test_weights_may_be_held_in_eight_bits(tmp_path: Path, make: Callable[[], Tiny], traits: Traits) -> None:
    path = write(tmp_path / "tiny.safetensors", whole(make()))
    wide = load(path, None, CPU, torch.float32)
    narrow = load(path, None, CPU, torch.float32, eight_bits=True)
    spec = spec_of(traits, 4, scheduler="Simple", cfg_scale=1.0, flow=FlowOptions(t5=True))
    ours, theirs = latent_of(narrow, spec), latent_of(wide, spec)
    assert narrow.nbytes < wide.nbytes
    assert 0 < (ours - theirs).abs().max() < 0.3


@pytest.mark.parametrize("size", [72, 104])
def test_sides_need_not_be_whole_patches(tmp_path: Path, size: int) -> None:
    network = load_tiny(tmp_path, tiny_flux())
    latent = latent_of(network, replace(spec_of(DEV, 2, scheduler="Simple"), width=size, height=64))
    assert latent.shape == (16, 8, size // 8)
    assert latent.isfinite().all()


def test_a_picture_with_more_places_than_it_has_is_refused(tmp_path: Path) -> None:
    network = load_tiny(tmp_path, tiny_sd3())
    with pytest.raises(BadRequest, match="at most 256"):
        latent_of(network, replace(spec_of(SD3, 2), width=272))


@pytest.mark.parametrize("sampler", [known.name for known in SAMPLERS if known.flow != "none"])
def test_every_allowed_sampler_draws_a_picture(tmp_path: Path, sampler: str) -> None:
    network = load_tiny(tmp_path, tiny_sd3())
    latent = latent_of(network, spec_of(SD3, 5, scheduler="Normal", cfg_scale=3.0))
    other = latent_of(network, replace(spec_of(SD3, 5, scheduler="Normal", cfg_scale=3.0), sampler=sampler))
    assert other.isfinite().all()
    assert 0.2 < float(other.std() / latent.std()) < 5


@pytest.mark.parametrize("tier", ["whole", "parts", "blocks"])
@pytest.mark.parametrize(("make", "traits"), [(tiny_sd3, SD3), (tiny_flux, DEV)])
def test_networks_may_take_turns_on_the_device(
    tmp_path: Path, make: Callable[[], Tiny], traits: Traits, tier: Tier
) -> None:
    path = write(tmp_path / "tiny.safetensors", whole(make()))
    sent: list[Tensor] = []

    def send(weight: Tensor, device: torch.device) -> Tensor:
        sent.append(weight)
        return weight.to(device, copy=True)

    turns = Turns(CPU, lambda _: tier, send)
    network = Store(CPU, torch.float32, 1 << 40, turns=turns).get(str(path), None)
    spec = spec_of(traits, 3, scheduler="Simple", flow=FlowOptions(t5=True))
    assert torch.equal(latent_of(network, spec), latent_of(load(path, None, CPU, torch.float32), spec))
    assert bool(sent) == (tier != "whole")


@pytest.mark.parametrize(("make", "traits"), [(tiny_sd3, SD3), (tiny_flux, DEV)])
def test_a_folder_in_diffusers_layout_is_the_same_model(
    tmp_path: Path, make: Callable[[], Tiny], traits: Traits
) -> None:
    tiny = make()
    folder = tmp_path / "folder"
    if tiny.clip_g is None:
        networks = {"text_encoder": flux_clip(tiny), "text_encoder_2": tiny.t5}
    else:
        networks = {"text_encoder": tiny.clip_l, "text_encoder_2": tiny.clip_g, "text_encoder_3": tiny.t5}
    for name, network in {"transformer": tiny.transformer, "vae": tiny.vae, **networks}.items():
        network.save_pretrained(folder / name)
    (folder / "model_index.json").write_text("{}")
    spec = spec_of(traits, 3, scheduler="Simple", flow=FlowOptions(t5=True))
    ours = latent_of(load(folder, None, CPU, torch.float32), spec)
    assert torch.equal(ours, latent_of(load_tiny(tmp_path, tiny), spec))


def test_files_may_hold_what_savers_of_other_programs_add(tmp_path: Path) -> None:
    tiny = tiny_flux()
    weights = {name.replace("first_stage_model.", "vae."): weight for name, weight in whole(tiny).items()}
    t5_prefix, clip_prefix = "text_encoders.t5xxl.", "text_encoders.clip_l."
    weights |= {
        f"{clip_prefix}logit_scale": torch.tensor(4.6),
        f"{t5_prefix}logit_scale": torch.tensor(4.6),
        f"{t5_prefix}spiece_model": torch.zeros(9, dtype=torch.uint8),
        f"{t5_prefix}transformer.encoder.embed_tokens.weight": weights[f"{t5_prefix}transformer.shared.weight"],
        "model_sampling.sigmas": torch.zeros(3),
    }
    network = load(write(tmp_path / "more.safetensors", weights), None, CPU, torch.float32)
    spec = spec_of(DEV, 3, scheduler="Simple", cfg_scale=1.0)
    assert torch.equal(latent_of(network, spec), latent_of(load_tiny(tmp_path, tiny), spec))

"""What a merge makes of every weight, against the formulas in float64, on files of a few numbers."""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from darkroom.errors import BadRequest
from darkroom.nets import merger
from darkroom.nets.merger import Mix, Parents, Part, block_names, block_of, plan
from darkroom.nets.tensorfile import Form, TensorFile

UNET = "model.diffusion_model."
VAE = "first_stage_model.decoder.conv_in.weight"
IDS = "cond_stage_model.transformer.text_model.embeddings.position_ids"
SHAPES: dict[str, tuple[int, ...]] = {
    UNET + "time_embed.0.weight": (4, 4),
    UNET + "label_emb.0.0.weight": (4, 3),
    UNET + "input_blocks.0.0.weight": (6, 4, 3, 3),
    UNET + "input_blocks.1.0.in_layers.0.weight": (5,),
    UNET + "input_blocks.2.0.op.bias": (5,),
    UNET + "middle_block.1.proj_in.weight": (5, 5),
    UNET + "output_blocks.0.0.out_layers.0.bias": (5,),
    UNET + "output_blocks.1.1.transformer_blocks.0.attn1.to_out.0.weight": (5, 5),
    UNET + "output_blocks.2.0.skip_connection.weight": (5, 5, 1, 1),
    UNET + "out.2.weight": (4, 5, 3, 3),
    "cond_stage_model.transformer.text_model.final_layer_norm.weight": (7,),
    VAE: (5, 4, 3, 3),
}
BLOCKS = ["IN00", "IN01", "IN02", "M00", "OUT00", "OUT01", "OUT02"]

Weights = dict[str, Tensor]


def weights(
    seed: int, dtype: torch.dtype = torch.float32, shapes: Mapping[str, tuple[int, ...]] = MappingProxyType({})
) -> Weights:
    generator = torch.Generator().manual_seed(seed)
    made = {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in {**SHAPES, **shapes}.items()}
    return {**made, "alphas_cumprod": torch.rand(3, generator=generator), IDS: torch.arange(77)[None] + seed}


def result(folder: Path, mix: Mix, **files: Weights) -> tuple[Weights, list[Part]]:
    """The merged weights, and what they were planned as."""
    with ExitStack() as stack:
        opened = {}
        for name, tensors in files.items():
            save_file(tensors, folder / f"{name}.safetensors")
            opened[name] = stack.enter_context(TensorFile(folder / f"{name}.safetensors"))
        parts = plan(Parents(**opened), mix)
        pieces = {part.name: list(part.pieces()) for part in parts}
    # Memory does not depend on a weight's size; the one input that is merged in part is small.
    assert all(len(one) <= merger.PIECE for part in parts if part.kind == "none" for one in pieces[part.name])
    made = {part.name: torch.cat(pieces[part.name]).view(part.form.shape) for part in parts}
    assert all(made[part.name].dtype == part.form.dtype for part in parts)
    return made, parts


def exact(tensor: Tensor) -> NDArray[np.float64]:
    return tensor.double().numpy()


def close(found: Tensor, wanted: NDArray[np.float64]) -> bool:
    """Within one rounding of the tensor's own format and one of float32 for every operation."""
    room = torch.finfo(found.dtype).eps + 8 * np.finfo(np.float32).eps
    return bool(np.allclose(exact(found), wanted, rtol=room, atol=room))


def is_weight(name: str) -> bool:
    return "model" in name and name != IDS


@pytest.fixture(autouse=True, params=[3, 1 << 22])
def piece(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights are the same whether they are worked on whole or in pieces."""
    monkeypatch.setattr(merger, "PIECE", request.param)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0, 1.7])
def test_a_weighted_sum_is_what_its_formula_says(tmp_path: Path, dtype: torch.dtype, share: float) -> None:
    a, b = weights(1, dtype), weights(2, dtype)
    found, _ = result(tmp_path, Mix(method="Weighted sum", multiplier=share), a=a, b=b)
    with TensorFile(tmp_path / "a.safetensors") as file:
        assert list(found) == list(file.forms)
    for name in filter(is_weight, a):
        assert found[name].dtype == dtype
        assert close(found[name], (1 - share) * exact(a[name]) + share * exact(b[name])), name


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_difference_is_added_as_its_formula_says(tmp_path: Path, share: float) -> None:
    a, b, c = weights(1), weights(2), weights(3)
    found, _ = result(tmp_path, Mix(method="Add difference", multiplier=share), a=a, b=b, c=c)
    for name in filter(is_weight, a):
        assert close(found[name], exact(a[name]) + share * (exact(b[name]) - exact(c[name]))), name


def test_a_difference_to_a_missing_weight_is_none(tmp_path: Path) -> None:
    a, b, c = weights(1), weights(2), weights(3)
    del c[VAE], b[UNET + "out.2.weight"]
    found, _ = result(tmp_path, Mix(method="Add difference", multiplier=0.5), a=a, b=b, c=c)
    for name in (VAE, UNET + "out.2.weight"):
        assert torch.equal(found[name], a[name])


@pytest.mark.parametrize("method", ["Weighted sum", "Add difference"])
def test_what_is_no_weight_or_only_in_a_stays_as_it_is(tmp_path: Path, method: merger.Method) -> None:
    a, b, c = weights(1), weights(2), weights(3)
    del b["cond_stage_model.transformer.text_model.final_layer_norm.weight"]
    extra = {**b, "model.only_in_b": torch.ones(3)}
    found, _ = result(tmp_path, Mix(method=method, multiplier=1.0), a=a, b=extra, c=c)
    assert found.keys() == a.keys()
    for name in ("alphas_cumprod", IDS, "cond_stage_model.transformer.text_model.final_layer_norm.weight"):
        assert torch.equal(found[name], a[name])


def test_weights_that_are_no_floats_in_b_are_not_merged(tmp_path: Path) -> None:
    a, b = weights(1), {**weights(2), VAE: torch.ones(SHAPES[VAE], dtype=torch.int64)}
    found, _ = result(tmp_path, Mix(method="Weighted sum", multiplier=1.0), a=a, b=b)
    assert torch.equal(found[VAE], a[VAE])


def test_without_interpolation_a_is_copied(tmp_path: Path) -> None:
    a = weights(1, torch.float16)
    found, _ = result(tmp_path, Mix(method="No interpolation", multiplier=0.3), a=a)
    assert all(torch.equal(found[name], a[name]) for name in a)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_all_weights_get_the_format_that_was_asked_for_and_nothing_else_does(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    a, b = weights(1), weights(2)
    del b[VAE]
    found, _ = result(tmp_path, Mix(method="Weighted sum", multiplier=0.5, dtype=dtype), a=a, b=b)
    assert {name for name in found if found[name].dtype == dtype and is_weight(name)} == set(filter(is_weight, a))
    assert (found["alphas_cumprod"].dtype, found[IDS].dtype) == (torch.float32, torch.int64)
    assert torch.equal(found[VAE], a[VAE].to(dtype))


@pytest.mark.parametrize(
    ("ours", "theirs", "wanted"),
    [
        (torch.float16, torch.float32, torch.float32),
        (torch.float32, torch.bfloat16, torch.float32),
        (torch.float16, torch.bfloat16, torch.float32),
        (torch.float8_e4m3fn, torch.float16, torch.float16),
        (torch.float8_e4m3fn, torch.float8_e4m3fn, torch.float8_e4m3fn),
    ],
)
def test_of_two_formats_the_one_that_holds_both_is_kept(
    tmp_path: Path, ours: torch.dtype, theirs: torch.dtype, wanted: torch.dtype
) -> None:
    found, _ = result(tmp_path, Mix(method="Weighted sum", multiplier=0.5), a=weights(1, ours), b=weights(2, theirs))
    assert found[VAE].dtype == wanted


@given(multipliers=st.lists(st.floats(-1, 2, width=16), min_size=8, max_size=8))
def test_every_block_has_its_own_multiplier(multipliers: list[float], tmp_path_factory: pytest.TempPathFactory) -> None:
    a, b = weights(1), weights(2)
    base, blocks = multipliers[0], tuple(multipliers[1:])
    folder = tmp_path_factory.mktemp("blocks")
    found, _ = result(folder, Mix(method="Weighted sum", multiplier=base, block_weights=blocks), a=a, b=b)
    of = dict(zip(BLOCKS, blocks, strict=True))
    wanted: Mapping[str, float] = {
        UNET + "time_embed.0.weight": of["IN00"],
        UNET + "label_emb.0.0.weight": base,
        UNET + "input_blocks.0.0.weight": of["IN00"],
        UNET + "input_blocks.1.0.in_layers.0.weight": of["IN01"],
        UNET + "input_blocks.2.0.op.bias": of["IN02"],
        UNET + "middle_block.1.proj_in.weight": of["M00"],
        UNET + "output_blocks.0.0.out_layers.0.bias": of["OUT00"],
        UNET + "output_blocks.1.1.transformer_blocks.0.attn1.to_out.0.weight": of["OUT01"],
        UNET + "output_blocks.2.0.skip_connection.weight": of["OUT02"],
        UNET + "out.2.weight": of["OUT02"],
        "cond_stage_model.transformer.text_model.final_layer_norm.weight": base,
        VAE: base,
    }
    for name, share in wanted.items():
        assert close(found[name], (1 - share) * exact(a[name]) + share * exact(b[name])), name


@pytest.mark.parametrize(
    ("inputs", "outputs", "count"), [(12, 12, 25), (9, 9, 19)], ids=["Stable Diffusion 1 and 2", "XL"]
)
def test_blocks_are_as_many_as_the_unet_has(inputs: int, outputs: int, count: int) -> None:
    form = Form(torch.float16, (1,))
    names = [f"{UNET}input_blocks.{n}.0.x" for n in range(inputs)]
    names += [f"{UNET}output_blocks.{n}.0.x" for n in range(outputs)]
    blocks = block_names(dict.fromkeys(names, form))
    assert len(blocks) == count
    assert [block_of(name, blocks) for name in names] == [*range(inputs), *range(inputs + 1, count)]
    assert block_of(UNET + "middle_block.0.x", blocks) == inputs
    assert block_of("conditioner.embedders.1.model.x", blocks) is None


@pytest.mark.parametrize("count", [1, 6, 8, 25])
def test_another_number_of_block_weights_is_refused(tmp_path: Path, count: int) -> None:
    mix = Mix(method="Weighted sum", multiplier=0.5, block_weights=(0.5,) * count)
    with pytest.raises(BadRequest, match=r"block_weights: .*7 numbers for IN00 to OUT02"):
        result(tmp_path, mix, a=weights(1), b=weights(2))


def test_a_network_without_blocks_takes_no_block_weights(tmp_path: Path) -> None:
    bare = {"double_blocks.0.img_attn.qkv.weight": torch.ones(3, 3)}
    mix = Mix(method="Weighted sum", multiplier=0.5, block_weights=(0.5,) * 25)
    with pytest.raises(BadRequest, match="A has no UNet of blocks"):
        result(tmp_path, mix, a=bare, b=bare)


def test_a_bare_transformer_is_merged_whole(tmp_path: Path) -> None:
    a, b = ({"double_blocks.0.img_attn.qkv.weight": torch.full((3, 3), level)} for level in (1.0, 3.0))
    found, _ = result(tmp_path, Mix(method="Weighted sum", multiplier=0.5), a=a, b=b)
    assert torch.equal(found["double_blocks.0.img_attn.qkv.weight"], torch.full((3, 3), 2.0))


@pytest.mark.parametrize(("channels", "kind"), [(9, "inpainting"), (8, "instruct-pix2pix")])
@pytest.mark.parametrize("method", ["Weighted sum", "Add difference"])
def test_of_an_input_that_sees_more_the_part_for_the_latent_is_merged(
    tmp_path: Path, channels: int, kind: str, method: merger.Method
) -> None:
    first = UNET + "input_blocks.0.0.weight"
    a, b, c = weights(1, shapes={first: (6, channels, 3, 3)}), weights(2), weights(3)
    parents = {"a": a, "b": b} | ({"c": c} if method == "Add difference" else {})
    found, parts = result(tmp_path, Mix(method=method, multiplier=0.25), **parents)
    seen, other, third = exact(a[first])[:, :4], exact(b[first]), exact(c[first])
    wanted = 0.75 * seen + 0.25 * other if method == "Weighted sum" else seen + 0.25 * (other - third)
    assert close(found[first][:, :4], wanted)
    assert torch.equal(found[first][:, 4:], a[first][:, 4:])
    assert {part.kind for part in parts} == {"none", kind}


def test_shapes_that_do_not_fit_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    first = UNET + "input_blocks.0.0.weight"
    mix = Mix(method="Weighted sum", multiplier=0.5)
    with pytest.raises(BadRequest, match=r"b: 'b\.safetensors'.*an inpainting checkpoint must be A"):
        result(tmp_path, mix, a=weights(1), b=weights(2, shapes={first: (6, 9, 3, 3)}))
    for shape in ((6, 5, 3, 3), (7, 4, 3, 3), (6, 4), ()):
        with pytest.raises(BadRequest, match="one that fits A"):
            result(tmp_path, mix, a=weights(1), b=weights(2, shapes={first: shape}))
    difference = Mix(method="Add difference", multiplier=0.5)
    with pytest.raises(BadRequest, match="one that fits B"):
        result(tmp_path, difference, a=weights(1), b=weights(2), c=weights(3, shapes={first: (6, 9, 3, 3)}))


@pytest.mark.parametrize("name", ["scaled_fp8", UNET + "out.2.scale_weight"])
def test_weights_with_scales_are_copied_and_never_merged(tmp_path: Path, name: str) -> None:
    scaled = {**weights(1, torch.float8_e4m3fn), name: torch.ones(1)}
    found, _ = result(tmp_path, Mix(method="No interpolation", multiplier=0.5), a=scaled)
    assert found[VAE].dtype == torch.float8_e4m3fn
    for mix, parents in (
        (Mix(method="Weighted sum", multiplier=0.5), {"a": weights(2), "b": scaled}),
        (Mix(method="No interpolation", multiplier=0.5, dtype=torch.float16), {"a": scaled}),
    ):
        with pytest.raises(BadRequest, match="whose weights need no scales"):
            result(tmp_path, mix, **parents)


@pytest.mark.parametrize("prefix", ["", "first_stage_model."])
def test_an_autoencoder_takes_the_place_of_a_s_own(tmp_path: Path, prefix: str) -> None:
    a, b = weights(1, torch.float16), weights(2, torch.float16)
    name = VAE.removeprefix("first_stage_model.")
    vae = {prefix + name: torch.randn(5, 4, 3, 3), "loss.x": torch.ones(1), "encoder.more": torch.ones(1)}
    found, _ = result(tmp_path, Mix(method="Weighted sum", multiplier=0.5), a=a, b=b, vae=vae)
    assert torch.equal(found[VAE], vae[prefix + name])
    assert found.keys() == a.keys()
    half = Mix(method="Weighted sum", multiplier=0.5, dtype=torch.float16)
    found, _ = result(tmp_path, half, a=a, b=b, vae=vae)
    assert torch.equal(found[VAE], vae[prefix + name].half())


def test_an_autoencoder_of_another_shape_is_refused(tmp_path: Path) -> None:
    mix = Mix(method="No interpolation", multiplier=0.5)
    with pytest.raises(BadRequest, match=r"vae: .*one that fits A"):
        result(tmp_path, mix, a=weights(1), vae={VAE: torch.ones(1)})


def test_discarded_weights_are_left_out(tmp_path: Path) -> None:
    gone = frozenset({VAE, "alphas_cumprod"})
    mix = Mix(method="No interpolation", multiplier=0.5, discarded=gone)
    found, _ = result(tmp_path, mix, a=weights(1), vae={VAE: torch.ones(5, 4, 3, 3)})
    assert found.keys() == weights(1).keys() - gone
    everything = Mix(method="No interpolation", multiplier=0.5, discarded=frozenset(weights(1)))
    with pytest.raises(BadRequest, match="nothing would be left"):
        result(tmp_path, everything, a=weights(1))

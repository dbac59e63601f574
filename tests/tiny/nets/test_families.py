"""Networks of Stable Diffusion 2 and XL, tiny: what goes in and out, and what adapters change in them."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from darkroom.errors import BadModelFile
from darkroom.nets.adapters import read_adapter
from darkroom.nets.merging import Share
from darkroom.nets.network import Network, Variant
from darkroom.nets.open_clip import padded
from darkroom.nets.sd2 import predicts_v
from darkroom.nets.store import load
from darkroom.nets.text import Asked, Encoded, Text
from darkroom.nets.tokenizer import BOS, EOS
from tests.tiny.checkpoints import LABELS, WIDTH, write_tiny_checkpoint

CPU = torch.device("cpu")
NUMBERS = {"sdxl": (64.0, 64.0, 0.0, 0.0, 64.0, 64.0), "refiner": (64.0, 64.0, 0.0, 0.0, 6.0)}
CONTEXT = {"sd2": WIDTH, "sdxl": 2 * WIDTH, "refiner": WIDTH}

every_family = pytest.mark.parametrize("family", CONTEXT)
Insertions = Sequence[Sequence[tuple[int, Tensor]]]


def network(folder: Path, family: str, dtype: torch.dtype = torch.float32, prediction: str = "eps") -> Network:
    path = write_tiny_checkpoint(folder, family, family=family, dtype=torch.float32, prediction=prediction)
    return load(path, path.with_suffix(".yaml"), CPU, dtype)


def chunk(*tokens: int) -> list[int]:
    return [BOS, *tokens, *[EOS] * (76 - len(tokens))]


def text(*chunks: list[int], insertions: Insertions = ()) -> Text:
    return Text(chunks=chunks, weights=[[1.0] * 77 for _ in chunks], insertions=insertions)


def encode(model: Network, family: str, *texts: Text) -> Encoded:
    return model.encode_text(texts, Asked(numbers=NUMBERS.get(family, ())))


def answers(model: Network, family: str) -> tuple[Tensor, Tensor, Tensor]:
    """Context, vector and noise of fixed inputs."""
    encoded = encode(model, family, text(chunk(320, 321, 322)))
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    noise = model.denoise(x, torch.tensor([500.0]), encoded.context, encoded.vector)
    return encoded.context, torch.zeros(1) if encoded.vector is None else encoded.vector, noise


@every_family
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_family_has_its_shapes(tmp_path: Path, family: str, dtype: torch.dtype) -> None:
    model = network(tmp_path, family, dtype)
    encoded = encode(model, family, text(chunk(320)), text(chunk(321), chunk(322)))
    assert model.text_width == CONTEXT[family]
    assert encoded.context.shape == (2, 154, CONTEXT[family])
    assert (encoded.vector is None) == (family == "sd2")
    if encoded.vector is not None:
        assert encoded.vector.shape == (2, LABELS[family])
    noise = model.denoise(torch.randn(2, 4, 8, 8), torch.tensor([1.0, 900.5]), encoded.context, encoded.vector)
    assert noise.shape == (2, 4, 8, 8)
    assert noise.isfinite().all()


@every_family
def test_a_tensor_without_a_place_is_refused(tmp_path: Path, family: str) -> None:
    path = write_tiny_checkpoint(tmp_path, family, family=family)
    weights = load_file(path)
    prefix = "cond_stage_model.model" if family == "sd2" else "conditioner.embedders.0.model"
    save_file(weights | {f"{prefix}.surprise.weight": torch.zeros(3)}, path)
    with pytest.raises(BadModelFile, match=r"no place .*surprise"):
        load(path, path.with_suffix(".yaml"), CPU, torch.float32)


def test_behind_the_first_end_open_clip_sees_zeros() -> None:
    ids = torch.tensor([[BOS, 5, EOS, EOS, EOS], [BOS, 5, 6, 7, EOS], [BOS, EOS, 8, EOS, EOS]])
    assert padded(ids).tolist() == [[BOS, 5, EOS, 0, 0], [BOS, 5, 6, 7, EOS], [BOS, EOS, 0, 0, 0]]


@pytest.mark.parametrize("family", ["sdxl", "refiner"])
def test_the_whole_text_s_vector_is_of_its_first_chunk(tmp_path: Path, family: str) -> None:
    model = network(tmp_path, family)
    one, other, third = (
        encode(model, family, text(chunk(320), chunk(321))),
        encode(model, family, text(chunk(320), chunk(999))),
        encode(model, family, text(chunk(999), chunk(321))),
    )
    assert one.vector is not None
    assert other.vector is not None
    assert third.vector is not None
    assert torch.equal(one.vector, other.vector)
    assert not torch.equal(one.vector, third.vector)
    assert not torch.equal(one.context, other.context)


def test_each_encoder_sees_its_own_columns_of_an_embedding(tmp_path: Path) -> None:
    model = network(tmp_path, "sdxl")

    def with_vectors(vectors: Tensor) -> Tensor:
        return encode(model, "sdxl", text(chunk(0, 0, 400), insertions=[[(1, vectors)]])).context

    table = torch.randn(2, 2 * WIDTH, generator=torch.Generator().manual_seed(0))
    first, second = table.clone(), table.clone()
    first[:, :WIDTH] += 1
    second[:, WIDTH:] += 1
    plain, changed_first, changed_second = with_vectors(table), with_vectors(first), with_vectors(second)
    assert not torch.equal(plain[..., :WIDTH], changed_first[..., :WIDTH])
    assert torch.equal(plain[..., WIDTH:], changed_first[..., WIDTH:])
    assert torch.equal(plain[..., :WIDTH], changed_second[..., :WIDTH])
    assert not torch.equal(plain[..., WIDTH:], changed_second[..., WIDTH:])


@pytest.mark.parametrize(("level", "v"), [(-9.0, True), (0.0, False)])
def test_a_unet_tells_itself_whether_it_predicts_v(tmp_path: Path, level: float, *, v: bool) -> None:
    path = write_tiny_checkpoint(tmp_path, "sd2", family="sd2", dtype=torch.float32)
    weights = load_file(path)
    weights["model.diffusion_model.out.2.bias"] += level
    save_file(weights, path)
    model = load(path, path.with_suffix(".yaml"), CPU, torch.float32)
    assert predicts_v(model._unet) == v


def test_a_published_turbo_of_the_second_family_names_its_encoder_like_the_third(tmp_path: Path) -> None:
    path = write_tiny_checkpoint(tmp_path, "turbo", family="sd2")
    weights = load_file(path)
    renamed = {
        name.replace("cond_stage_model.", "conditioner.embedders.0."): weight for name, weight in weights.items()
    }
    save_file(renamed, path)
    model = load(path, path.with_suffix(".yaml"), CPU, torch.float32)
    assert encode(model, "sd2", text(chunk(320))).vector is None


def test_a_depth_model_of_the_second_family_is_shown_one_more_channel(tmp_path: Path) -> None:
    path = write_tiny_checkpoint(tmp_path, "depth", family="sd2", channels=5)
    save_file(load_file(path) | {"depth_model.model.pretrained.weight": torch.zeros(3)}, path)
    model = load(path, path.with_suffix(".yaml"), CPU, torch.float32)
    assert model.image_channels == 1


def test_a_network_without_its_middle_attention_draws(tmp_path: Path) -> None:
    path = write_tiny_checkpoint(tmp_path, "pruned", family="sdxl", dtype=torch.float32)
    middle = tuple(f"model.diffusion_model.middle_block.{n}." for n in (1, 2))
    save_file({name: weight for name, weight in load_file(path).items() if not name.startswith(middle)}, path)
    model = load(path, path.with_suffix(".yaml"), CPU, torch.float32)
    noise = answers(model, "sdxl")[2]
    assert noise.shape == (1, 4, 8, 8)
    assert noise.isfinite().all()


# Adapters


def share(folder: Path, name: str, tensors: dict[str, Tensor], **more: object) -> Share:
    path = folder / f"{name}.safetensors"
    save_file(tensors, path)
    return Share(key=name, file=read_adapter(path), strength=1.0, **more)  # type: ignore[arg-type]


def changed_by(model: Network, family: str, one: Share) -> tuple[Tensor, Tensor, Tensor]:
    model.variant = Variant(unet=(one,), text=(one,))
    found = answers(model, family)
    model.variant = Variant()
    return found


ATTENTION = "encoder_layers_0_self_attn"


@pytest.mark.parametrize(
    ("family", "prefix"),
    [("sd2", "lora_te_"), ("sd2", "text_encoder_"), ("sdxl", "lora_te2_"), ("sdxl", "text_encoder_2_")],
)
def test_rows_stacked_in_a_file_are_those_of_three_layers(tmp_path: Path, family: str, prefix: str) -> None:
    model = network(tmp_path, family)
    parts = [torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(n)) / 8 for n in range(3)]
    name = f"{prefix}text_model_{ATTENTION}"
    apart = {f"{name}_{letter}_proj.diff": part for letter, part in zip("qkv", parts, strict=True)}
    one = changed_by(model, family, share(tmp_path, "apart", apart))
    two = changed_by(model, family, share(tmp_path, "stacked", {f"{name}_in_proj.diff": torch.cat(parts)}))
    assert not torch.equal(one[0], answers(model, family)[0])
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


LAYERS = [
    ("lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q.diff", 32),
    ("lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.diff", 32),
    ("unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.diff", 32),
    ("diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.diff", 32),
]


@every_family
def test_all_names_of_a_layer_mean_the_same(tmp_path: Path, family: str) -> None:
    model = network(tmp_path, family)
    plain = answers(model, family)
    found = [
        changed_by(model, family, share(tmp_path, f"{n}", {key: torch.eye(size)}))
        for n, (key, size) in enumerate(LAYERS)
    ]
    assert all(torch.equal(found[0][2], other[2]) for other in found)
    assert not torch.equal(found[0][2], plain[2])
    assert torch.equal(found[0][0], plain[0])


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        ("lora_unet_label_emb_0_0.diff", (128, LABELS["sdxl"])),
        ("lora_unet_time_embed_2.diff", (128, 128)),
        ("lora_unet_out_2.diff", (4, 32, 3, 3)),
        ("unet.add_embedding.linear_1.diff", (128, LABELS["sdxl"])),
    ],
)
def test_layers_outside_of_all_blocks_are_found(tmp_path: Path, key: str, shape: tuple[int, ...]) -> None:
    model = network(tmp_path, "sdxl")
    plain = answers(model, "sdxl")
    assert not torch.equal(
        changed_by(model, "sdxl", share(tmp_path, "one", {key: torch.full(shape, 0.1)}))[2], plain[2]
    )


@pytest.mark.parametrize(
    ("family", "prefix", "touched"),
    [
        ("sdxl", "lora_te1_", slice(0, WIDTH)),
        ("sdxl", "lora_te2_", slice(WIDTH, 2 * WIDTH)),
        ("sdxl", "lora_te_", slice(0, 0)),
        ("refiner", "lora_te2_", slice(0, 0)),
        ("refiner", "lora_te1_", slice(0, 0)),
        ("refiner", "text_encoder_2_", slice(0, WIDTH)),
        ("sd2", "lora_te_", slice(0, WIDTH)),
        ("sd2", "lora_te2_", slice(0, 0)),
    ],
)
def test_an_adapter_s_text_layers_change_the_encoder_that_they_are_named_after(
    tmp_path: Path, family: str, prefix: str, touched: slice
) -> None:
    model = network(tmp_path, family)
    before = answers(model, family)[0]
    key = f"{prefix}text_model_encoder_layers_0_mlp_fc1.diff"
    after = changed_by(model, family, share(tmp_path, "one", {key: torch.full((4 * WIDTH, WIDTH), 0.05)}))[0]
    columns = (before != after).any(dim=1).any(dim=0).nonzero().flatten().tolist()
    assert columns == list(range(CONTEXT[family]))[touched]


def test_what_does_not_fit_another_family_is_left_out_and_the_rest_counts(tmp_path: Path) -> None:
    model = network(tmp_path, "sdxl")
    name = "lora_unet_input_blocks_1_1_transformer_blocks_0_attn2_to"
    fits, misfits = {f"{name}_q.diff": torch.eye(32)}, {f"{name}_k.diff": torch.ones(32, WIDTH)}
    both = changed_by(model, "sdxl", share(tmp_path, "both", fits | misfits))
    assert torch.equal(both[2], changed_by(model, "sdxl", share(tmp_path, "one", fits))[2])


def test_the_blocks_of_an_adapter_have_their_own_strengths(tmp_path: Path) -> None:
    model = network(tmp_path, "sdxl")
    tensors = {
        "lora_unet_input_blocks_1_1_proj_in.diff": torch.eye(32),
        "lora_unet_middle_block_1_proj_in.diff": torch.eye(64),
        "lora_unet_output_blocks_3_1_proj_in.diff": torch.eye(32),
        "lora_te2_text_model_encoder_layers_0_mlp_fc1.diff": torch.full((4 * WIDTH, WIDTH), 0.05),
    }
    doubled = {key: 2 * tensor for key, tensor in tensors.items()}
    names = dict(zip(("IN01", "MID", "OUT03", "BASE"), tensors, strict=True))
    for block, key in names.items():
        weighed = share(tmp_path, "all", tensors, blocks=((block, 2.0),))
        alone = share(tmp_path, "alone", {key: doubled[key]})
        pairs = zip(changed_by(model, "sdxl", weighed), changed_by(model, "sdxl", alone), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs), block

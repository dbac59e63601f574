"""The changes that adapters make to weights, each against a dense formula that is written another way."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from darkroom.errors import BadModelFile
from darkroom.nets.adapters import MisfitError, change, read_adapter

Parts = dict[str, Tensor]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)), dtype=torch.float64)


LINEAR = noise(6, 4, seed=50)
CONV = noise(6, 4, 3, 3, seed=51)


def lora() -> tuple[Tensor, Parts, Tensor]:
    up, down = noise(6, 2), noise(2, 4)
    dense = sum((torch.outer(up[:, r], down[r]) for r in range(2)), torch.zeros(6, 4))
    return LINEAR, {"lora_up.weight": up, "lora_down.weight": down, "alpha": torch.tensor(1.0)}, dense / 2


def lora_by_other_names() -> tuple[Tensor, Parts, Tensor]:
    up, down = noise(6, 2), noise(2, 4)
    return LINEAR, {"lora_B.weight": up, "lora_A.weight": down}, up @ down


def locon() -> tuple[Tensor, Parts, Tensor]:
    up, down, x = noise(6, 2, 1, 1), noise(2, 4, 3, 3), torch.eye(4 * 9, dtype=torch.float64).reshape(36, 4, 3, 3)
    through = torch.conv2d(torch.conv2d(x, down), up)  # what the two convolutions make of every unit input
    return CONV, {"lora_up.weight": up, "lora_down.weight": down}, through.reshape(36, 6).T.reshape(6, 4, 3, 3)


def locon_with_a_core() -> tuple[Tensor, Parts, Tensor]:
    up, core, down = noise(6, 2, 1, 1), noise(2, 3, 3, 3), noise(3, 4, 1, 1)
    x = torch.eye(4 * 9, dtype=torch.float64).reshape(36, 4, 3, 3)
    through = torch.conv2d(torch.conv2d(torch.conv2d(x, down), core), up)
    parts = {"lora_up.weight": up, "lora_mid.weight": core, "lora_down.weight": down}
    return CONV, parts, through.reshape(36, 6).T.reshape(6, 4, 3, 3)


def loha() -> tuple[Tensor, Parts, Tensor]:
    a1, b1, a2, b2 = noise(6, 2), noise(2, 36, seed=1), noise(6, 2, seed=2), noise(2, 36, seed=3)
    parts = {"hada_w1_a": a1, "hada_w1_b": b1, "hada_w2_a": a2, "hada_w2_b": b2, "alpha": torch.tensor(4.0)}
    return CONV, parts, ((a1 @ b1) * (a2 @ b2)).reshape(6, 4, 3, 3) * 2


def loha_with_cores() -> tuple[Tensor, Parts, Tensor]:
    parts: Parts = {}
    dense = torch.ones(6, 4, 3, 3, dtype=torch.float64)
    for n in ("1", "2"):
        core, a, b = noise(2, 2, 3, 3, seed=int(n)), noise(2, 6, seed=int(n)), noise(2, 4, seed=int(n))
        parts |= {f"hada_t{n}": core, f"hada_w{n}_a": a, f"hada_w{n}_b": b}
        for k in range(3):
            for m in range(3):
                dense[:, :, k, m] *= a.T @ core[:, :, k, m] @ b
    return CONV, parts, dense


def lokr() -> tuple[Tensor, Parts, Tensor]:
    left, a, b = noise(2, 2), noise(3, 1), noise(1, 2)
    right = a @ b
    blocks = torch.cat([torch.cat([left[i, j] * right for j in range(2)], dim=1) for i in range(2)])
    return LINEAR, {"lokr_w1": left, "lokr_w2_a": a, "lokr_w2_b": b, "alpha": torch.tensor(0.5)}, blocks / 2


def lokr_of_a_convolution() -> tuple[Tensor, Parts, Tensor]:
    left, right = noise(2, 2), noise(3, 2, 3, 3)
    dense = torch.zeros(6, 4, 3, 3, dtype=torch.float64)
    for i in range(6):
        for j in range(4):
            dense[i, j] = left[i // 3, j // 2] * right[i % 3, j % 2]
    return CONV, {"lokr_w1": left, "lokr_w2": right, "alpha": torch.tensor(7.0)}, dense  # whole factors have no scale


def ia3_of_outputs() -> tuple[Tensor, Parts, Tensor]:
    factor = noise(6)
    return LINEAR, {"weight": factor, "on_input": torch.tensor(False)}, torch.diag(factor) @ LINEAR


def ia3_of_inputs() -> tuple[Tensor, Parts, Tensor]:
    factor = noise(4)
    return LINEAR, {"weight": factor, "on_input": torch.tensor(True)}, LINEAR @ torch.diag(factor)


def full() -> tuple[Tensor, Parts, Tensor]:
    return CONV, {"diff": noise(6, 4, 3, 3)}, noise(6, 4, 3, 3)


def glora() -> tuple[Tensor, Parts, Tensor]:
    a1, a2, b1, b2 = noise(2, 4), noise(4, 2), noise(2, 4, seed=1), noise(6, 2)
    parts = {"a1.weight": a1, "a2.weight": a2, "b1.weight": b1, "b2.weight": b2, "alpha": torch.tensor(3.0)}
    return LINEAR, parts, LINEAR @ (a2 @ a1) + b2 @ b1


def oft() -> tuple[Tensor, Parts, Tensor]:
    blocks = noise(2, 3, 3) / 3
    skew = blocks - blocks.transpose(1, 2)
    turned = torch.zeros_like(LINEAR)
    for k, q in enumerate(skew):
        rotation = torch.linalg.solve(torch.eye(3) - q, torch.eye(3) + q, left=False)
        turned[3 * k : 3 * k + 3] = rotation.T @ LINEAR[3 * k : 3 * k + 3]
    return LINEAR, {"oft_blocks": blocks}, turned - LINEAR


def dora() -> tuple[Tensor, Parts, Tensor]:
    up, down, size = noise(6, 2), noise(2, 4), noise(1, 4).abs()
    whole = LINEAR + up @ down
    columns = [whole[:, j] / whole[:, j].square().sum().sqrt() * size[0, j] for j in range(4)]
    parts = {"lora_up.weight": up, "lora_down.weight": down, "dora_scale": size}
    return LINEAR, parts, torch.stack(columns, dim=1) - LINEAR


def dora_by_rows() -> tuple[Tensor, Parts, Tensor]:
    up, down, size = noise(6, 2), noise(2, 4), noise(6, 1).abs()
    whole = LINEAR + up @ down
    rows = [whole[i] / whole[i].square().sum().sqrt() * size[i, 0] for i in range(6)]
    parts = {"lora_B.weight": up, "lora_A.weight": down, "dora_scale": size}
    return LINEAR, parts, torch.stack(rows) - LINEAR


def dora_of_a_convolution() -> tuple[Tensor, Parts, Tensor]:
    size = noise(1, 4, 1, 1).abs()
    whole = CONV + noise(6, 4, 3, 3)
    turned = torch.zeros_like(CONV)
    for j in range(4):
        turned[:, j] = whole[:, j] / whole[:, j].square().sum().sqrt() * size[0, j]
    return CONV, {"diff": noise(6, 4, 3, 3), "dora_scale": size}, turned - CONV


def lokr_with_both_factors_split() -> tuple[Tensor, Parts, Tensor]:
    a1, b1, a2, b2 = noise(2, 1), noise(1, 2), noise(3, 1, seed=1), noise(1, 2, seed=1)
    dense = torch.zeros(6, 4, dtype=torch.float64)
    for i in range(6):
        for j in range(4):
            dense[i, j] = a1[i // 3, 0] * b1[0, j // 2] * a2[i % 3, 0] * b2[0, j % 2]
    parts = {"lokr_w1_a": a1, "lokr_w1_b": b1, "lokr_w2_a": a2, "lokr_w2_b": b2, "alpha": torch.tensor(3.0)}
    return LINEAR, parts, dense * 3


def lokr_with_a_core() -> tuple[Tensor, Parts, Tensor]:
    left, core, a, b = noise(2, 2), noise(2, 2, 3, 3), noise(2, 3), noise(2, 2, seed=1)
    right = torch.zeros(3, 2, 3, 3, dtype=torch.float64)
    for k in range(3):
        for m in range(3):
            right[:, :, k, m] = a.T @ core[:, :, k, m] @ b
    blocks = [torch.cat([left[i, j] * right for j in range(2)], dim=1) for i in range(2)]
    return CONV, {"lokr_w1": left, "lokr_t2": core, "lokr_w2_a": a, "lokr_w2_b": b}, torch.cat(blocks)


def ia3_of_a_convolution() -> tuple[Tensor, Parts, Tensor]:
    factor = noise(6, 1, 1, 1)
    dense = torch.stack([CONV[i] * factor[i, 0, 0, 0] for i in range(6)])
    return CONV, {"weight": factor, "on_input": torch.tensor(False)}, dense


def glora_of_a_convolution() -> tuple[Tensor, Parts, Tensor]:
    a1, a2, b1, b2 = noise(2, 36), noise(36, 2), noise(2, 36, seed=1), noise(6, 2)
    flat = CONV.reshape(6, 36)
    dense = torch.zeros(6, 36, dtype=torch.float64)
    for r in range(2):
        dense += torch.outer(b2[:, r], b1[r]) + torch.outer(flat @ a2[:, r], a1[r])
    parts = {"a1.weight": a1, "a2.weight": a2, "b1.weight": b1, "b2.weight": b2}
    return CONV, parts, dense.reshape(6, 4, 3, 3)


def oft_of_old() -> tuple[Tensor, Parts, Tensor]:
    turns, sizes = torch.linalg.qr(noise(2, 3, 3))[0], noise(6, 1)
    whole = torch.cat([turn.T @ LINEAR[3 * k : 3 * k + 3] for k, turn in enumerate(turns)])
    return LINEAR, {"oft_diag": turns, "rescale": sizes}, torch.diag(sizes[:, 0]) @ whole - LINEAR


def boft() -> tuple[Tensor, Parts, Tensor]:
    blocks = noise(2, 2, 4, 4) / 4
    weight = noise(8, 3)
    turned = weight.clone()
    for stage in range(2):
        mixing = torch.zeros(8, 8, dtype=torch.float64)
        stride = 2**stage * 2
        # Rows that are mixed by one block: two runs of them, a stride apart, taken by turns.
        order = [c * 2 * stride + g * stride + k for c in range(4 // stride) for k in range(stride) for g in range(2)]
        for block, q in enumerate(blocks[stage] - blocks[stage].transpose(1, 2)):
            rows = order[4 * block : 4 * block + 4]
            rotation = (torch.eye(4) + q) @ torch.linalg.inv(torch.eye(4, dtype=torch.float64) - q)
            for i, row in enumerate(rows):
                mixing[row, rows] = rotation[i]
        turned = mixing @ turned
    return weight, {"oft_blocks": blocks}, turned - weight


def static_bias_beside_a_lora() -> tuple[Tensor, Parts, Tensor]:
    up, down, bias = noise(6, 2), noise(2, 4), noise(6, 4, seed=9)
    parts = {"lora_up.weight": up, "lora_down.weight": down, "alpha": torch.tensor(1.0), "bias": bias}
    return LINEAR, parts, (up @ down + bias) / 2


KINDS = [
    dora_by_rows, dora_of_a_convolution, lokr_with_both_factors_split, lokr_with_a_core, ia3_of_a_convolution,
    glora_of_a_convolution, oft_of_old, boft, static_bias_beside_a_lora, lora,
    lora_by_other_names, locon, locon_with_a_core, loha, loha_with_cores, lokr, lokr_of_a_convolution,
    ia3_of_outputs, ia3_of_inputs, full, glora, oft, dora,
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_agrees_with_its_dense_formula(kind: Callable[[], tuple[Tensor, Parts, Tensor]]) -> None:
    weight, parts, dense = kind()
    for strength in (1.0, -0.3):
        torch.testing.assert_close(change(parts, weight, strength).weight, dense * strength)


def test_an_orthogonal_rotation_keeps_the_lengths_of_columns() -> None:
    weight, parts, _ = oft()
    turned = weight + change(parts, weight, 1.0).weight
    torch.testing.assert_close(turned.norm(dim=0), weight.norm(dim=0))


def test_stages_of_rotations_are_orthogonal_too_and_mix_distant_rows() -> None:
    weight = torch.eye(8, dtype=torch.float64)
    turned = weight + change({"oft_blocks": noise(3, 4, 2, 2)}, weight, 1.0).weight
    torch.testing.assert_close(turned.T @ turned, weight)
    assert (turned[0].abs() > 1e-6).all(), "after three stages every row depends on every other"


def test_a_small_alpha_keeps_rotations_near_the_identity() -> None:
    weight, parts, _ = oft()
    bounded = change(parts | {"alpha": torch.tensor(1e-4)}, weight, 1.0).weight
    assert 0 < bounded.norm() < 0.01 * change(parts, weight, 1.0).weight.norm()


def test_a_rank_takes_the_first_directions_at_the_scale_of_all() -> None:
    weight, parts, _ = lora()
    cut = change(parts, weight, 1.0, rank=1).weight
    torch.testing.assert_close(cut, torch.outer(parts["lora_up.weight"][:, 0], parts["lora_down.weight"][0]) / 2)


def test_a_norm_changes_weight_and_bias() -> None:
    found = change({"w_norm": noise(6), "b_norm": noise(6, seed=1)}, noise(6, seed=2), 0.5)
    torch.testing.assert_close(found.weight, noise(6) / 2)
    assert found.bias is not None
    torch.testing.assert_close(found.bias, noise(6, seed=1) / 2)


def test_a_change_for_four_channels_leaves_the_other_five_of_an_inpainting_input() -> None:
    _, parts, dense = locon()
    found = change(parts, noise(6, 9, 3, 3), 1.0).weight
    torch.testing.assert_close(found[:, :4], dense)
    assert not found[:, 4:].any()


@pytest.mark.parametrize(
    "parts",
    [
        {"lora_up.weight": noise(60_000, 1), "lora_down.weight": noise(1, 60_000)},
        {"lokr_w1": noise(300, 300), "lokr_w2": noise(300, 300)},
        {"lokr_w1_a": noise(60_000, 1), "lokr_w1_b": noise(1, 60_000), "lokr_w2": noise(1, 1)},
        {f"hada_w{n}_{side}": noise(*shape) for n in "12" for side, shape in (("a", (60_000, 1)), ("b", (1, 60_000)))},
        {"lora_up.weight": noise(6, 3), "lora_down.weight": noise(2, 4)},
        {"oft_blocks": noise(5, 3, 3)},
        {"diff": noise(7)},
        {"lora_up.weight": torch.tensor(1.0), "lora_down.weight": torch.tensor(1.0)},
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_before_it_takes_memory(parts: Parts) -> None:
    with pytest.raises(MisfitError):
        change(parts, LINEAR, 1.0)


def test_a_file_is_read_by_layers_with_the_embeddings_in_it(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    tensors = {
        "lora_unet_x.lora_up.weight": noise(6, 2).float(),
        "lora_unet_x.lora_down.weight": noise(2, 4).float(),
        "bundle_emb.word.emb_params": noise(2, 8).float(),
        "bundle_emb.other.string_to_param.*": noise(3, 8).float(),
    }
    save_file(tensors, path)
    file = read_adapter(path)
    assert set(file.layers["lora_unet_x"]) == {"lora_up.weight", "lora_down.weight"}
    assert {name: one.vectors for name, one in file.embeddings.items()} == {"word": 2, "other": 3}


@pytest.mark.parametrize(
    ("more", "scale"),
    [({}, 4.0), ({"unet.use_rslora": True}, 8 / 2**0.5), ({"unet.alpha_pattern": {"proj_in": 1}}, 0.5)],
)
def test_diffusers_tells_the_scale_in_the_header(tmp_path: Path, more: dict[str, object], scale: float) -> None:
    path = tmp_path / "a.safetensors"
    layer = "unet.mid_block.attentions.0.proj_in"
    up, down = noise(6, 2).float(), noise(2, 4).float()
    notes = {"unet.r": 2, "unet.lora_alpha": 8, "text_encoder.lora_alpha": 100, **more}
    tensors = {f"{layer}.lora_B.weight": up, f"{layer}.lora_A.weight": down}
    save_file(tensors, path, metadata={"lora_adapter_metadata": json.dumps(notes)})
    [parts] = read_adapter(path).layers.values()
    torch.testing.assert_close(change(parts, noise(6, 4).float(), 1.0).weight, up @ down * scale)


def test_magnitudes_by_peft_are_those_of_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    weight, parts, dense = dora_by_rows()
    layer = "base_model.model.conv_out"
    tensors = {f"{layer}.lora_{end}.weight": parts[f"lora_{end}.weight"].float() for end in "AB"}
    tensors[f"{layer}.lora_magnitude_vector"] = parts["dora_scale"].flatten().float()
    save_file(tensors, path)
    [found] = read_adapter(path).layers.values()
    torch.testing.assert_close(change(found, weight.float(), 1.0).weight, dense.float())


@pytest.mark.parametrize("name", ["lora_unet_x.mystery", "lora_unet_x.lora_up.weight", "plain"])
def test_a_file_with_a_layer_of_no_known_kind_is_refused_by_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / "odd.safetensors"
    save_file({name: torch.zeros(2)}, path)
    with pytest.raises(BadModelFile, match=r"odd\.safetensors"):
        read_adapter(path)

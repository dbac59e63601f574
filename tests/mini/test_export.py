"""The weights file reads back through diffusers' own converters, name by name and number by number."""

from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file

from darkroom.mini import export
from darkroom.mini.networks import build_text, build_unet, build_vae, ldm_config


def reference() -> ModuleType:
    """diffusers' own converters. Late: they may be imported only after darkroom.nets.libraries."""
    from diffusers.loaders import single_file_utils

    module: ModuleType = single_file_utils
    return module


def test_the_unet_comes_back_through_the_reference_converter() -> None:
    unet = build_unet()
    tensors = export.ldm_unet(unet)
    config = reference().create_unet_diffusers_config_from_ldm(ldm_config(), tensors)
    back = reference().convert_ldm_unet_checkpoint(dict(tensors), config)
    other = build_unet()
    other.load_state_dict(back, strict=True)
    assert all(torch.equal(a, b) for a, b in zip(unet.state_dict().values(), other.state_dict().values(), strict=True))
    assert tuple(config["block_out_channels"]) == tuple(unet.config["block_out_channels"])
    assert tuple(config["down_block_types"]) == tuple(unet.config["down_block_types"])
    assert tuple(config["up_block_types"]) == tuple(unet.config["up_block_types"])


def test_the_autoencoder_comes_back_through_the_reference_converter() -> None:
    vae = build_vae()
    tensors = export.ldm_vae(vae)
    config = reference().create_vae_diffusers_config_from_ldm(ldm_config(), tensors)
    back = reference().convert_ldm_vae_checkpoint(dict(tensors), config)
    other = build_vae()
    other.load_state_dict(back, strict=True)
    assert all(torch.equal(a, b) for a, b in zip(vae.state_dict().values(), other.state_dict().values(), strict=True))
    assert tuple(config["block_out_channels"]) == tuple(vae.config["block_out_channels"])


def test_the_file_has_the_original_names_and_stays_below_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "mini.safetensors"
    size = export.write_weights(build_text(), build_unet(), build_vae(), path)
    tensors = load_file(path)
    assert size <= export.MAX_BYTES
    assert {t.dtype for t in tensors.values()} == {torch.float16}
    assert "model.diffusion_model.input_blocks.0.0.weight" in tensors
    assert "first_stage_model.encoder.mid.attn_1.proj_out.weight" in tensors
    assert "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight" in tensors
    assert path.with_suffix(".yaml").exists()


def test_a_file_above_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "MAX_BYTES", 1000)
    path = tmp_path / "mini.safetensors"
    with pytest.raises(ValueError, match="at most 1000"):
        export.write_weights(build_text(layers=1), build_unet(), build_vae(), path)
    assert not path.exists()

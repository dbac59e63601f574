"""What tools call the layers of adapters."""

import pytest

from darkroom.nets.adapter_names import split

ATTENTION = "down_blocks.0.attentions.0.transformer_blocks.0.attn1"
LAYER = "unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1"


@pytest.mark.parametrize(
    ("key", "layer", "part"),
    [
        ("lora_unet_out_2.lora_up.weight", "lora_unet_out_2", "lora_up.weight"),
        ("lora_te2_text_model_encoder_layers_0_mlp_fc1.alpha", "lora_te2_text_model_encoder_layers_0_mlp_fc1", "alpha"),
        ("diffusion_model_out_2.diff_b", "diffusion_model_out_2", "diff_b"),
        ("bundle_emb.word.emb_params", "bundle_emb", "word.emb_params"),
        (f"unet.{ATTENTION}.to_q.lora.up.weight", f"{LAYER}_to_q", "lora_up.weight"),
        (f"unet.{ATTENTION}.to_out.0.lora_A.weight", f"{LAYER}_to_out_0", "lora_A.weight"),
        (f"unet.{ATTENTION}.to_q.alpha", f"{LAYER}_to_q", "alpha"),
        (f"unet.{ATTENTION}.processor.to_q_lora.down.weight", f"{LAYER}_to_q", "lora_down.weight"),
        (f"{ATTENTION}.processor.to_out_lora.up.weight", f"{LAYER}_to_out_0", "lora_up.weight"),
        ("base_model.model.conv_in.lora_B.default.weight", "unet_conv_in", "lora_B.weight"),
        ("base_model.model.conv_in.lora_magnitude_vector.default.weight", "unet_conv_in", "lora_magnitude_vector"),
        (
            "text_encoder_2.text_model.encoder.layers.3.self_attn.q_proj.lora_linear_layer.down.weight",
            "text_encoder_2_text_model_encoder_layers_3_self_attn_q_proj",
            "lora_down.weight",
        ),
        (
            "base_model.model.text_model.encoder.layers.3.mlp.fc1.lora_A.weight",
            "text_encoder_text_model_encoder_layers_3_mlp_fc1",
            "lora_A.weight",
        ),
        ("model.diffusion_model.out.2.hada_w1_a", "diffusion_model_out_2", "hada_w1_a"),
        ("diffusion_model.out.2.oft_blocks", "diffusion_model_out_2", "oft_blocks"),
        ("transformer.transformer_blocks.0.attn.to_q.lora_A.weight", "transformer_transformer_blocks_0_attn_to_q",
         "lora_A.weight"),
    ],
)  # fmt: skip
def test_every_tool_s_names_come_to_the_same(key: str, layer: str, part: str) -> None:
    assert split(key) == (layer, part)


@pytest.mark.parametrize("key", ["plain", "unet", "lora_unet_x"])
def test_a_name_without_an_end_belongs_to_no_part(key: str) -> None:
    assert split(key) == (key, "")


def test_an_unknown_end_stays_as_it_is_for_the_message() -> None:
    assert split("unet.x.mystery") == ("unet", "x.mystery")

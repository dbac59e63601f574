"""Training can go on from the weights file alone."""

from pathlib import Path

import torch
from safetensors.torch import load_file

from darkroom.mini import export, train
from darkroom.mini.export import TEXT_PREFIX


def test_unpacked_weights_are_where_the_stages_look_for_them(tmp_path: Path) -> None:
    settings = train.Settings(
        out=tmp_path, minutes=None, device=torch.device("cpu"), seed=0, resume=False, workers=1, batch=1,
        weights=export.WEIGHTS,
    )  # fmt: skip
    train.unpack(settings)
    shipped = load_file(export.WEIGHTS)

    used = torch.tensor([5, 320, 49406, 49407])
    table = train.load_text(settings, used).state_dict()["embeddings.token_embedding.weight"]
    torch.testing.assert_close(table, shipped[f"{TEXT_PREFIX}embeddings.token_embedding.weight"][used].float())

    start = torch.load(tmp_path / train.START_UNET, weights_only=True)
    torch.testing.assert_close(
        start["conv_in.weight"], shipped["model.diffusion_model.input_blocks.0.0.weight"].float()
    )
    vae = train.load_vae(settings).state_dict()
    torch.testing.assert_close(vae["decoder.conv_out.bias"], shipped["first_stage_model.decoder.conv_out.bias"].float())

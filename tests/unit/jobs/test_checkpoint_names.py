"""What a checkpoint is called, by its file or folder."""

import pytest

from darkroom.jobs.spec import CheckpointInfo


@pytest.mark.parametrize(
    ("path", "model_name", "base"),
    [
        ("a.safetensors", "a", "a"),
        ("sub/b.v2.CKPT", "sub_b.v2", "b.v2"),
        ("sub.dir/folder", "sub.dir_folder", "folder"),
        ("model-v1.5", "model-v1.5", "model-v1.5"),
    ],
)
def test_a_file_is_called_without_its_ending_and_a_folder_as_it_is(path: str, model_name: str, base: str) -> None:
    info = CheckpointInfo(key=path, filename=f"/models/{path}", path=path)
    assert (info.model_name, info.base, info.title) == (model_name, base, path)

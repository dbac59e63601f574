"""Finding adapters, autoencoders, embeddings and hypernetworks, and what their headers say."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from darkroom.nets import shelves
from darkroom.nets.architecture import text_width
from darkroom.nets.catalog import Hashes
from darkroom.nets.hashing import Hasher
from darkroom.nets.headers import preferred_vae
from darkroom.nets.inspection import find_shapes


def put_adapter(folder: Path, name: str, **metadata: str) -> Path:
    path = folder / f"{name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"lora_unet_x.diff": torch.ones(3)}, path, metadata=metadata)
    return path


def test_the_last_of_several_files_with_one_stem_counts(tmp_path: Path) -> None:
    put_adapter(tmp_path, "a/x")
    last = put_adapter(tmp_path, "b/x")
    [file] = shelves.adapters([tmp_path])
    assert file.filename == str(last)


def test_metadata_come_with_objects_decoded_and_the_interesting_first(tmp_path: Path) -> None:
    put_adapter(tmp_path, "x", other="1", ss_tag_frequency='{"a": {"b": 1}}', ss_resolution="(512,512)", bad="{no")
    [file] = shelves.adapters([tmp_path])
    assert list(file.metadata)[:2] == ["ss_resolution", "ss_tag_frequency"]
    assert file.metadata["ss_tag_frequency"] == {"a": {"b": 1}}
    assert file.metadata["bad"] == "{no"


@pytest.mark.parametrize(
    ("text", "wishes"), [('{"activation text": "red"}', {"activation text": "red"}), ("[1]", {}), ("{", {}), (None, {})]
)
def test_what_people_noted_beside_an_adapter_is_read(tmp_path: Path, text: str | None, wishes: object) -> None:
    path = put_adapter(tmp_path, "one")
    if text is not None:
        path.with_suffix(".json").write_text(text)
    [file] = shelves.adapters([tmp_path])
    assert file.wishes == wishes


def test_an_adapter_is_found_by_name_and_by_alias_but_not_by_one_that_means_two(tmp_path: Path) -> None:
    put_adapter(tmp_path, "one", ss_output_name="style")
    put_adapter(tmp_path, "three", ss_output_name="shared")
    put_adapter(tmp_path, "two", ss_output_name="shared")
    put_adapter(tmp_path, "four", ss_output_name="None")
    files = shelves.adapters([tmp_path])

    def found(name: str) -> str | None:
        file = shelves.find_adapter(files, name)
        return file.name if file else None

    assert found("one") == "one"
    assert found("style") == "one"
    assert found("shared") is None
    assert found("None") is None
    assert found("ONE") is None


def test_the_hash_of_an_adapter_does_not_depend_on_its_metadata(tmp_path: Path) -> None:
    put_adapter(tmp_path, "a", note="short")
    put_adapter(tmp_path, "b", note="a much longer one")
    put_adapter(tmp_path, "c", sshs_model_hash="0123456789abcdef")
    plain, other, told = shelves.adapters([tmp_path])
    hashes = Hashes(None)
    hasher = Hasher(lambda path, offset: hashes.get(path, offset=offset), patience_s=30)
    tensors = torch.ones(3).numpy().tobytes()
    assert shelves.adapter_hash(plain, hasher) == hashlib.sha256(tensors).hexdigest()[:12]
    assert shelves.adapter_hash(other, hasher) == shelves.adapter_hash(plain, hasher)
    assert shelves.adapter_hash(told, hasher) == "0123456789ab"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 64,
        b"\x08\0\0\0\0\0\0\0not json",
        b"\x02\0\0\0\0\0\0\0[]",
        (200_000).to_bytes(8, "little") + b"[" * 200_000,
    ],
)
def test_a_file_without_a_header_is_left_out_and_the_others_are_listed(tmp_path: Path, content: bytes) -> None:
    put_adapter(tmp_path, "good")
    (tmp_path / "bad.safetensors").write_bytes(content)
    assert [file.name for file in shelves.adapters([tmp_path])] == ["good"]


def test_autoencoders_lie_beside_checkpoints_and_in_their_own_folder(tmp_path: Path) -> None:
    for name in ("ckpt/m.safetensors", "ckpt/m.vae.safetensors", "ckpt/sub/n.vae.pt", "vae/o.pt", "vae/p.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    found = shelves.autoencoders([tmp_path / "ckpt"], [tmp_path / "vae"])
    assert [file.name for file in found] == ["m.vae.safetensors", "n.vae.pt", "o.pt"]


def test_empty_files_and_previews_are_no_embeddings(tmp_path: Path) -> None:
    for name, content in (("a.pt", b"x"), ("b.pt", b""), ("a.preview.png", b"x"), ("c.PNG", b"x"), ("d.txt", b"x")):
        (tmp_path / name).write_bytes(content)
    assert [file.name for file in shelves.embeddings([tmp_path])] == ["a", "c"]


def test_a_hypernetwork_called_none_does_not_count(tmp_path: Path) -> None:
    for name in ("None.pt", "h.pt"):
        (tmp_path / name).write_bytes(b"x")
    assert [file.name for file in shelves.hypernetworks([tmp_path, tmp_path / "absent"])] == ["h"]


def test_a_checkpoint_tells_the_width_of_its_text_encoders(tmp_path: Path) -> None:
    one, two = "cond_stage_model.transformer.text_model.embeddings", "conditioner.embedders.1.model"
    tables = {f"{one}.token_embedding.weight": torch.zeros(5, 7), f"{two}.token_embedding.weight": torch.zeros(5, 4)}
    save_file(tables, tmp_path / "m.safetensors")
    assert text_width(find_shapes(tmp_path / "m.safetensors")) == 11
    assert text_width(find_shapes(tmp_path / "absent.safetensors")) is None


@pytest.mark.parametrize(
    ("content", "wish"),
    [(json.dumps({"vae": "x.pt"}), "x.pt"), ("{}", None), ("[]", None), ("no", None), ('{"vae": 5}', None)],
)
def test_the_json_beside_a_checkpoint_may_ask_for_an_autoencoder(
    tmp_path: Path, content: str, wish: str | None
) -> None:
    (tmp_path / "m.json").write_text(content)
    assert preferred_vae(tmp_path / "m.safetensors") == wish


def test_hidden_folders_are_passed_over_on_request(tmp_path: Path) -> None:
    put_adapter(tmp_path, ".hidden/x")
    shown = put_adapter(tmp_path, "shown/y")
    assert [file.name for file in shelves.adapters([tmp_path])] == ["x", "y"]
    assert [file.filename for file in shelves.adapters([tmp_path], hidden=False)] == [str(shown)]

"""Textual-inversion embeddings in every format that they come in, and files that only look like one."""

import base64
import json
import pickle
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors.torch import save_file
from torch import Tensor

from darkroom.errors import BadModelFile
from darkroom.nets.embeddings import read_embedding
from darkroom.nets.pickles import read_tensors

VECTORS = torch.arange(24, dtype=torch.float32).reshape(3, 8) / 7


def as_json(vectors: Tensor) -> bytes:
    return json.dumps({"string_to_param": {"*": {"TORCHTENSOR": vectors.tolist()}}, "name": "within"}).encode()


def write_pt(path: Path) -> None:
    notes = {"name": "x", "step": 100, "sd_checkpoint": "abc", "sd_checkpoint_name": "model"}
    torch.save({"string_to_token": {"*": 265}, "string_to_param": {"*": VECTORS}, **notes}, path)


def write_text_chunk(path: Path) -> None:
    info = PngInfo()
    info.add_text("sd-ti-embedding", base64.b64encode(as_json(VECTORS)).decode())
    Image.new("RGB", (8, 8)).save(path, pnginfo=info)


def write_pixels(path: Path) -> None:
    """Low nibbles left of the picture, high ones right of it, each under the generator's mask."""
    data = np.frombuffer(zlib.compress(as_json(VECTORS)), dtype=np.uint8)
    height = 16
    width = -(-len(data) // (3 * height))
    padded = np.zeros(width * height * 3, dtype=np.uint8)
    padded[: len(data)] = data
    seed, mask = 0, []
    for _ in range(len(padded)):
        seed = (1664525 * seed + 1013904223) % 2**32
        mask.append(seed % 255 & 15)
    blocks = [((half ^ np.array(mask)) | 0xA0).astype(np.uint8) for half in (padded & 15, padded >> 4)]
    left, right = (block.reshape(height, width, 3) for block in blocks)
    edge, picture = np.full((height, 1, 3), 0xF0, np.uint8), np.full((height, 10, 3), 0x77, np.uint8)
    sheet = np.concatenate([left, edge, picture, edge, right], axis=1)
    framed = np.pad(sheet, ((3, 3), (5, 5), (0, 0)))
    Image.fromarray(framed).save(path)


def write_lossless_webp(path: Path) -> None:
    write_pixels(path.with_suffix(".png"))
    with Image.open(path.with_suffix(".png")) as image:
        image.save(path, lossless=True, exact=True)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.safetensors", lambda path: save_file({"emb_params": VECTORS}, path)),
        ("a.pt", write_pt),
        ("a.bin", lambda path: torch.save({"<word>": VECTORS}, path)),
        ("a.pt", lambda path: torch.save({"x": VECTORS}, path, _use_new_zipfile_serialization=False)),
        ("a.png", write_text_chunk),
        ("a.webp", write_lossless_webp),
        ("renamed.pt", lambda path: save_file({"emb_params": VECTORS}, path)),
    ],
)
def test_vectors_come_out_of_every_format(tmp_path: Path, name: str, write: object) -> None:
    path = tmp_path / name
    assert callable(write)
    write(path)
    embedding = read_embedding(path)
    assert embedding is not None
    torch.testing.assert_close(embedding.table, VECTORS)
    assert (embedding.vectors, embedding.width) == (3, 8)


def test_notes_of_the_training_are_kept(tmp_path: Path) -> None:
    write_pt(tmp_path / "a.pt")
    embedding = read_embedding(tmp_path / "a.pt")
    assert embedding is not None
    assert (embedding.step, embedding.sd_checkpoint, embedding.sd_checkpoint_name) == (100, "abc", "model")


def test_vectors_for_two_text_encoders_lie_side_by_side(tmp_path: Path) -> None:
    save_file({"clip_l": VECTORS, "clip_g": torch.zeros(3, 10)}, tmp_path / "xl.safetensors")
    embedding = read_embedding(tmp_path / "xl.safetensors")
    assert embedding is not None
    torch.testing.assert_close(embedding.table, torch.cat([VECTORS, torch.zeros(3, 10)], dim=1))
    assert (embedding.vectors, embedding.width) == (3, 18)


def test_a_single_vector_may_lie_flat(tmp_path: Path) -> None:
    torch.save({"<word>": torch.ones(8)}, tmp_path / "a.bin")
    embedding = read_embedding(tmp_path / "a.bin")
    assert embedding is not None
    assert embedding.vectors == 1


def test_an_ordinary_picture_holds_no_embedding(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(1, 255, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no picture")
    assert read_embedding(tmp_path / "a.png") is None
    assert read_embedding(tmp_path / "b.png") is None


@pytest.mark.parametrize(
    "content",
    [
        {"a": VECTORS, "b": VECTORS},
        {"string_to_param": {}},
        {"a": VECTORS.int()},
        {"a": torch.zeros(2, 3, 4)},
        {"a": torch.zeros(0, 8)},
        {"a": torch.zeros(76, 8)},
        {"clip_l": VECTORS, "clip_g": torch.zeros(2, 10)},
        [VECTORS],
        {5: VECTORS},
    ],
)
def test_other_content_is_refused_by_name(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "odd.pt")
    with pytest.raises(BadModelFile, match=r"odd\.pt"):
        read_embedding(tmp_path / "odd.pt")


class Trap:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("suffix", [".pt", ".bin", ".safetensors", ".PT"])
@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_never_runs_whatever_the_file_is_called(tmp_path: Path, suffix: str, *, zipped: bool) -> None:
    mark, path = tmp_path / "ran", tmp_path / f"trap{suffix}"
    if zipped:
        torch.save({"a": Trap(mark)}, path)
    else:
        path.write_bytes(pickle.dumps({"a": Trap(mark)}, protocol=2))
    with pytest.raises(BadModelFile, match="trap"):
        read_embedding(path)
    assert not mark.exists()


def test_an_archive_that_unpacks_to_more_than_may_be_read_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/data.pkl", bytes(1 << 20))
    assert (tmp_path / "bomb.pt").stat().st_size < 1 << 14
    with pytest.raises(BadModelFile, match="compressed"):
        read_tensors(tmp_path / "bomb.pt", 1 << 19)


def test_a_file_larger_than_the_limit_is_not_opened(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1000)}, tmp_path / "a.safetensors")
    with pytest.raises(BadModelFile, match="at most 100"):
        read_tensors(tmp_path / "a.safetensors", 100)

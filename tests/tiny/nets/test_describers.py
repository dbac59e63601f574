"""Describing networks with random weights: read from the files that are published, and computed as they say."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as f

from darkroom.engine.describing import Describers, Describing
from darkroom.errors import BadModelFile
from darkroom.jobs.describing import Description, InTags, InWords
from darkroom.jobs.spec import Picture
from darkroom.nets.describers import blip, danbooru
from darkroom.nets.describers.blip import PROMPT, Captioner, load_captioner
from darkroom.nets.describers.clip import BATCH, Category, Ranker, best, find_ranker, load_ranker, read_categories
from darkroom.nets.describers.danbooru import FILE, STAGES, Danbooru, Stage, load_tagger, numbered
from darkroom.nets.describers.missing import MissingNetwork
from darkroom.nets.describers.pictures import DEVIATION, MEAN, normalised, squared
from darkroom.nets.libraries import BlipConfig, BlipForConditionalGeneration, CLIPConfig, CLIPModel

CPU = torch.device("cpu")
TINY = (Stage(2, 16, stride=1), Stage(1, 32), Stage(2, 32, late=True))
TAGS = ["1girl", "blue_eyes", "rating:safe"]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "picture", "of", "dog", "cat", "##s", "red", "on", "the", "beach"]


@pytest.fixture
def picture() -> Picture:
    return np.random.default_rng(3).integers(0, 256, (48, 64, 3), dtype=np.uint8)


# DeepDanbooru.


def write_tagger(models: Path, **more: object) -> dict[str, Tensor]:
    """The file of a tiny network, with its weights by the names in it."""
    torch.manual_seed(1)
    network = Danbooru(len(TAGS), TINY)
    state = network.state_dict()
    weights = {
        f"n_Conv_{number}.{leaf}": state[f"{name}.{leaf}"]
        for number, name in enumerate(numbered(TINY))
        for leaf in ("weight", "bias")
        if f"{name}.{leaf}" in state
    }
    path = models / "torch_deepdanbooru" / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({**weights, "tags": TAGS, **more}, path)
    return weights


def written_out(w: dict[str, Tensor], x: Tensor) -> Tensor:
    """The tiny network, one convolution after another by their numbers."""

    def conv(n: int, x: Tensor, stride: int = 1, sides: tuple[int, ...] = (0, 0, 0, 0)) -> Tensor:
        return f.conv2d(f.pad(x, sides), w[f"n_Conv_{n}.weight"], w.get(f"n_Conv_{n}.bias"), stride)

    same, half = (1, 1, 1, 1), (0, 1, 0, 1)
    x = f.relu(conv(0, x, 2, (2, 3, 2, 3)))
    x = f.max_pool2d(f.pad(x, half, value=-1e9), 3, 2)
    x = f.relu(conv(4, f.relu(conv(3, f.relu(conv(2, x)), 1, same))) + conv(1, x))
    x = f.relu(conv(7, f.relu(conv(6, f.relu(conv(5, x)), 1, same))) + x)
    x = f.relu(conv(11, f.relu(conv(10, f.relu(conv(9, x)), 2, half))) + conv(8, x, 2))
    x = f.relu(conv(14, f.relu(conv(13, f.relu(conv(12, x)), 2, half))) + conv(15, x, 2))
    x = f.relu(conv(18, f.relu(conv(17, f.relu(conv(16, x)), 1, same))) + x)
    return torch.sigmoid(conv(19, x).mean((2, 3)))


def test_the_network_of_tags_computes_what_its_numbers_say(tmp_path: Path) -> None:
    weights = write_tagger(tmp_path)
    tagger = load_tagger(tmp_path, CPU, torch.float32, TINY)
    assert tagger.tags == tuple(TAGS)
    pixels = torch.rand(3, 64, 64)
    torch.testing.assert_close(torch.tensor([tagger.likelihoods(pixels)]), written_out(weights, pixels[None]))


def test_the_published_network_of_tags_has_its_published_shapes() -> None:
    names = list(numbered())
    with torch.device("meta"):
        network = Danbooru(9176, STAGES)
    state = network.state_dict()
    shapes = [tuple(state[f"{name}.weight"].shape) for name in names]
    assert len(names) == len(set(names)) == 179
    assert len(state) == 2 * 179 - 1
    assert [shapes[n] for n in (0, 1, 2, 3, 4, 11, 12, 36, 96, 97, 98, 99, 100, 101, 158, 159, 168, 177, 178)] == [
        (64, 3, 7, 7), (256, 64, 1, 1), (64, 64, 1, 1), (64, 64, 3, 3), (256, 64, 1, 1), (512, 256, 1, 1),
        (128, 256, 1, 1), (1024, 512, 1, 1), (1024, 256, 1, 1), (256, 1024, 1, 1), (256, 256, 3, 3), (1024, 256, 1, 1),
        (1024, 1024, 1, 1), (256, 1024, 1, 1), (2048, 1024, 1, 1), (512, 1024, 1, 1), (4096, 2048, 1, 1),
        (4096, 1024, 1, 1), (9176, 4096, 1, 1),
    ]  # fmt: skip


def test_a_missing_network_of_tags_is_named_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(MissingNetwork, match=r"'deepdanbooru' needs .*model-resnet_custom_v3\.pt is not there"):
        load_tagger(tmp_path, CPU, torch.float32)


@pytest.mark.parametrize("more", [{"tags": None}, {"tags": [1, 2, 3]}, {"n_Conv_3.weight": torch.zeros(1)}])
def test_a_file_of_another_network_is_refused(tmp_path: Path, more: dict[str, object]) -> None:
    write_tagger(tmp_path, **more)
    with pytest.raises(BadModelFile, match=FILE):
        load_tagger(tmp_path, CPU, torch.float32, TINY)


# BLIP.


def blip_config() -> Any:
    text = {
        "vocab_size": len(WORDS) + 2,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 1,
        "max_position_embeddings": 32,
        "bos_token_id": len(WORDS),
        "sep_token_id": 3,
        "eos_token_id": 3,
        "pad_token_id": 0,
    }
    vision = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 1,
        "image_size": 32,
        "patch_size": 16,
        "layer_norm_eps": 1e-6,
    }
    return BlipConfig(text_config=text, vision_config=vision)


def blip_model() -> BlipForConditionalGeneration:
    torch.manual_seed(2)
    model = BlipForConditionalGeneration(blip_config()).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
        # Marks are not words; without this a random network says little else.
        model.text_decoder.cls.predictions.bias[[0, 1, 2, len(WORDS), len(WORDS) + 1]] = -50
        model.tie_weights()
    return model


def write_folder(models: Path, model: BlipForConditionalGeneration, *, words: str = "vocab.txt") -> Path:
    folder = models / "BLIP" / "tiny"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(model.config.to_dict()))
    save_file({name: value.clone() for name, value in model.state_dict().items()}, folder / "model.safetensors")
    if words == "vocab.txt":
        (folder / words).write_text("\n".join(WORDS))
    else:
        vocabulary = {word: number for number, word in enumerate(WORDS)}
        (folder / words).write_text(json.dumps({"model": {"vocab": vocabulary}}))
    return folder


ORIGINAL_NAMES = (
    ("vision_model.embeddings.class_embedding", "visual_encoder.cls_token"),
    ("vision_model.embeddings.position_embedding", "visual_encoder.pos_embed"),
    ("vision_model.embeddings.patch_embedding", "visual_encoder.patch_embed.proj"),
    ("vision_model.post_layernorm", "visual_encoder.norm"),
    ("vision_model.encoder.layers", "visual_encoder.blocks"),
    ("self_attn.projection", "attn.proj"),
    ("self_attn", "attn"),
    ("layer_norm", "norm"),
)


def write_original(models: Path, model: BlipForConditionalGeneration) -> None:
    def original(name: str) -> str:
        for ours, theirs in ORIGINAL_NAMES if name.startswith("vision_model") else ():
            name = name.replace(ours, theirs)
        return name

    folder = models / "BLIP"
    folder.mkdir(parents=True)
    weights = {original(name): value.clone() for name, value in model.state_dict().items()}
    weights["text_decoder.bert.embeddings.position_ids"] = torch.arange(32)[None]
    torch.save({"model": weights, "epoch": 5}, folder / blip.ORIGINAL)
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")


def greedy(model: BlipForConditionalGeneration, picture: Picture, *, shortest: int, longest: int) -> str:
    """The likeliest word after the likeliest word, by the whole network each time."""
    levels = np.asarray(Image.fromarray(picture).resize((32, 32), Image.Resampling.BICUBIC)) / 255
    pixels = torch.tensor((levels - MEAN) / DEVIATION).permute(2, 0, 1)[None].float()
    seen = model.vision_model(pixel_values=pixels).last_hidden_state
    ids = [len(WORDS), *(WORDS.index(word) for word in PROMPT.split())]
    begun = len(ids)
    while len(ids) < longest:
        logits = model.text_decoder(input_ids=torch.tensor([ids]), encoder_hidden_states=seen).logits[0, -1]
        if len(ids) < shortest:
            logits[3] = -torch.inf
        ids.append(int(logits.argmax()))
        if ids[-1] == 3:
            break
    spelt = " ".join(WORDS[n] for n in ids[begun:] if n < len(WORDS) and not WORDS[n].startswith("["))
    return spelt.replace(" ##", "")


def test_the_picture_decides_what_is_said(tmp_path: Path, picture: Picture) -> None:
    write_folder(tmp_path, blip_model())
    captioner = load_captioner(tmp_path, CPU, torch.float32)
    said = {sentence(captioner, seen, shortest=8, longest=16) for seen in (picture, 255 - picture, picture * 0)}
    assert len(said) > 1


def sentence(captioner: Captioner, picture: Picture, *, shortest: int, longest: int, beams: int = 1) -> str:
    return captioner.caption(Image.fromarray(picture), beams=beams, shortest=shortest, longest=longest)


@pytest.mark.parametrize("words", ["vocab.txt", "tokenizer.json"])
def test_a_sentence_is_what_the_network_finds_likeliest(tmp_path: Path, picture: Picture, words: str) -> None:
    model = blip_model()
    write_folder(tmp_path, model, words=words)
    captioner = load_captioner(tmp_path, CPU, torch.float32)
    for shortest, longest in ((5, 12), (10, 20)):
        found = sentence(captioner, picture, shortest=shortest, longest=longest)
        assert found == greedy(model, picture, shortest=shortest, longest=longest)
    assert found


def test_the_original_s_file_says_the_same_as_the_folder(tmp_path: Path, picture: Picture) -> None:
    model = blip_model()
    write_folder(tmp_path / "folder", model)
    write_original(tmp_path / "file", model)
    one, other = (load_captioner(tmp_path / name, CPU, torch.float32) for name in ("folder", "file"))
    assert {
        name for name, value in one.model.state_dict().items() if not torch.equal(value, other.model.state_dict()[name])
    } == set()
    for beams in (1, 3):
        found = [sentence(captioner, picture, shortest=8, longest=16, beams=beams) for captioner in (one, other)]
        assert found[0] == found[1]


def test_lengths_that_contradict_each_other_still_give_a_sentence(tmp_path: Path, picture: Picture) -> None:
    write_folder(tmp_path, blip_model())
    captioner = load_captioner(tmp_path, CPU, torch.float32)
    for shortest, longest in ((128, 1), (1, 1), (200, 256), (24, 8)):
        assert isinstance(sentence(captioner, picture, shortest=shortest, longest=longest), str)


def test_a_missing_captioning_network_is_named_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(MissingNetwork, match=r"'clip' needs a BLIP captioning model.*model\.safetensors is not there"):
        load_captioner(tmp_path, CPU, torch.float32)
    write_original(tmp_path, blip_model())
    (tmp_path / "BLIP" / "vocab.txt").unlink()
    with pytest.raises(MissingNetwork, match=r"vocab\.txt is not there"):
        load_captioner(tmp_path, CPU, torch.float32)


def spoil(folder: Path) -> Iterator[str]:
    """Spoil one file of a folder after another, telling which."""
    for name, content in (
        ("config.json", b"[]"),
        ("config.json", b"{"),
        ("config.json", b'{"text_config": {"hidden_size": "x"}}'),
        ("config.json", b'{"text_config": {"hidden_size": 32}}'),
        ("model.safetensors", b"nothing"),
        ("vocab.txt", b"a\nb"),
        ("vocab.txt", b"\xff\xfe"),
    ):
        kept = (folder / name).read_bytes()
        (folder / name).write_bytes(content)
        yield name
        (folder / name).write_bytes(kept)


def test_spoilt_files_are_refused_by_name(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, blip_model())
    for _ in spoil(folder):
        with pytest.raises(BadModelFile):
            load_captioner(tmp_path, CPU, torch.float32)
    load_captioner(tmp_path, CPU, torch.float32)


# CLIP.


def write_clip(models: Path) -> CLIPModel:
    torch.manual_seed(4)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config={
            **sizes,
            "vocab_size": 49408,
            "max_position_embeddings": 77,
            "eos_token_id": 49407,
            "bos_token_id": 49406,
        },
        vision_config={**sizes, "image_size": 32, "patch_size": 16},
        projection_dim=24,
    )
    model = CLIPModel(config).eval()
    folder = models / "CLIP" / "tiny"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    save_file(model.state_dict(), folder / "model.safetensors")
    return model


def test_shares_are_those_of_clip_s_own_similarities(tmp_path: Path, picture: Picture) -> None:
    model = write_clip(tmp_path)
    path = find_ranker(tmp_path)
    assert path is not None
    ranker = load_ranker(path, CPU, torch.float32)
    lines = ("by Rembrandt", "oil on canvas", "x " * 200, "")
    image = Image.fromarray(picture)
    found = dict(
        best(ranker.encode_picture(image), ranker.encode_texts(lines), Category(name="all", lines=lines, top=4))
    )
    rows = [[49406, *ranker.words.tokenize(line)[:75], 49407] for line in lines]
    ids = torch.tensor([row + [0] * (77 - len(row)) for row in rows])
    seen = model(input_ids=ids, pixel_values=normalised(squared(image, 32))[None])
    wanted = torch.softmax(100 * seen.image_embeds @ seen.text_embeds.T, dim=-1)[0]
    assert list(found.values()) == pytest.approx(sorted(wanted.tolist(), reverse=True), abs=1e-4)
    assert [found[line] for line in lines] == pytest.approx(wanted.tolist(), abs=1e-4)


def test_categories_are_files_of_lines(tmp_path: Path) -> None:
    none, folder = tmp_path / "none", tmp_path / "interrogate"
    folder.mkdir()
    (folder / "flavors.top3.txt").write_text("a\n b \nc\nd\n")
    (folder / "artists.txt").write_text("x\ny\n")
    (folder / "mediums.top9.txt").write_text("p\nq\n")
    (folder / "empty.txt").write_text("")
    found = read_categories([none, folder], ("artists",), 0)
    assert found == [
        Category(name="flavors.top3", lines=("a", "b", "c", "d"), top=3),
        Category(name="mediums.top9", lines=("p", "q"), top=2),
    ]
    assert read_categories([folder], (), 1)[0] == Category(name="artists", lines=("x",), top=1)
    assert read_categories([none], (), 0) == []


def test_the_middle_of_a_picture_is_looked_at() -> None:
    wide = Image.new("RGB", (64, 32))
    wide.paste((255, 0, 0), (16, 0, 48, 32))
    assert squared(wide, 32).getcolors() == [(32 * 32, (255, 0, 0))]
    assert squared(wide.rotate(90, expand=True), 8).size == (8, 8)


# All of them, as the engine has them.


def described(describers: Describers, picture: Picture, question: InWords | InTags) -> Description:
    return finished(describers.describe(picture, question))


def finished(parts: Describing) -> Description:
    while True:
        try:
            next(parts)
        except StopIteration as end:
            found: Description = end.value
            return found


def test_networks_are_dropped_unless_they_are_to_be_kept(tmp_path: Path, picture: Picture) -> None:
    models = tmp_path / "models"
    write_folder(models, blip_model())
    describers = Describers(models, CPU, half=True)
    first = described(describers, picture, InWords(shortest=6, longest=12))
    assert (first.texts, first.warnings) == ((), ())
    (models / "BLIP" / "tiny" / "config.json").rename(models / "moved.json")
    with pytest.raises(MissingNetwork):
        described(describers, picture, InWords())
    (models / "moved.json").rename(models / "BLIP" / "tiny" / "config.json")
    assert described(describers, picture, InWords(shortest=6, longest=12, keep=True)) == first
    (models / "BLIP" / "tiny" / "config.json").unlink()
    assert described(describers, picture, InWords(shortest=6, longest=12, keep=True)) == first
    describers.clear()
    with pytest.raises(MissingNetwork):
        described(describers, picture, InWords())


def test_texts_are_compared_where_there_are_lists_and_clip(tmp_path: Path, picture: Picture) -> None:
    models = tmp_path / "models"
    write_folder(models, blip_model())
    lists = tmp_path / "interrogate"
    lists.mkdir()
    (lists / "artists.txt").write_text("Rembrandt\nVermeer\n")
    describers = Describers(models, CPU, half=False)
    alone = described(describers, picture, InWords())
    assert (alone.texts, len(alone.warnings)) == ((), 1)
    assert str(models / "CLIP") in alone.warnings[0]
    write_clip(models)
    both = described(describers, picture, InWords())
    assert [text for text, _ in both.texts] in (["Rembrandt"], ["Vermeer"])
    assert both.warnings == ()
    assert described(describers, picture, InWords(left_out=("artists",))).texts == ()


def test_a_list_is_encoded_once_part_by_part(tmp_path: Path, picture: Picture, monkeypatch: pytest.MonkeyPatch) -> None:
    models = tmp_path / "models"
    write_folder(models, blip_model())
    write_clip(models)
    (models / "interrogate").mkdir()
    (models / "interrogate" / "flavors.txt").write_text("\n".join(f"flavor {n}" for n in range(2 * BATCH + 1)))
    encoded: list[int] = []
    encode = Ranker.encode_texts

    def count(ranker: Ranker, lines: Sequence[str]) -> Tensor:
        encoded.append(len(lines))
        return encode(ranker, lines)

    monkeypatch.setattr(Ranker, "encode_texts", count)
    describers = Describers(models, CPU, half=False)
    turns = len(list(describers.describe(picture, InWords())))
    assert encoded == [BATCH, BATCH, 1]
    assert turns > len(encoded)
    assert described(describers, picture, InWords()).texts
    assert encoded == [BATCH, BATCH, 1]
    described(describers, picture, InWords(lines=5))
    assert encoded[3:] == [5]
    describers.clear()
    described(describers, picture, InWords(lines=5))
    assert encoded[4:] == [5]


def test_networks_that_are_dropped_between_two_parts_are_missed_by_nobody(tmp_path: Path, picture: Picture) -> None:
    write_folder(tmp_path, blip_model())
    describers = Describers(tmp_path, CPU, half=False)
    question = InWords(shortest=6, longest=12, keep=True)
    parts = describers.describe(picture, question)
    next(parts)
    describers.clear()
    assert finished(parts) == described(describers, picture, question)


def test_tags_are_those_above_the_threshold_in_the_network_s_order(
    tmp_path: Path, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = write_tagger(tmp_path)
    monkeypatch.setattr(danbooru.load_tagger, "__defaults__", (TINY,))
    pixels = torch.tensor(picture / 255).permute(2, 0, 1)[None].float()
    likely = dict(zip(TAGS, written_out(weights, pixels)[0].tolist(), strict=True))
    threshold = sorted(likely.values())[1]
    found = described(Describers(tmp_path, CPU, half=False), picture, InTags(threshold=threshold - 1e-6))
    assert dict(found.texts) == pytest.approx({tag: share for tag, share in likely.items() if share >= threshold})
    assert [tag for tag, _ in found.texts] == [tag for tag in TAGS if likely[tag] >= threshold]

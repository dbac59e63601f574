"""Downloads of models from a stand-in for a hub: what arrives, what goes on where it stopped, what is refused."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
import torch
from safetensors.torch import save

from darkroom.errors import BadModelFile
from darkroom.pull.commands import Order, Pulled, pull
from darkroom.pull.errors import InterruptedPullError, PullError
from darkroom.pull.places import safe_name
from darkroom.pull.transfer import Rules
from darkroom.settings import Settings
from tests.unit.nets import traps
from tests.unit.pull.hub import REPO, Hub, serving

CHECKPOINT = save(
    {
        "model.diffusion_model.input_blocks.0.0.weight": torch.rand(320, 4, 3, 3),
        "cond_stage_model.transformer.text_model.final_layer_norm.weight": torch.rand(768),
    }
)
LORA = save({"lora_unet_x.lora_up.weight": torch.rand(8, 4), "lora_unet_x.lora_down.weight": torch.rand(4, 8)})
SMALL = frozenset({"model_index.json", "unet/config.json", "scheduler/scheduler_config.json"})


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    with serving(Hub(files={"model.safetensors": CHECKPOINT, "README.md": b"# words"})) as served:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", served.url)
        yield served


def settings_in(folder: Path) -> Settings:
    return Settings(data_dir=folder / "data", models_dir=folder / "models")


def run(folder: Path, source: str = REPO, rules: dict[str, Any] | None = None, **order: Any) -> list[Pulled]:
    """Pull, and check that what is reported never goes down and ends with the whole file."""
    seen: dict[str, list[int]] = {}

    def watch(name: str, _: int | None) -> Any:
        return lambda done, total: seen.setdefault(name, []).append(done)

    allowed = Rules(**{"public_only": False, "pause_s": 0.001, "attempts": 2, **(rules or {})})
    pulled = anyio.run(pull, Order(source=source, **order), settings_in(folder), allowed, watch)
    assert all(counts[-1] == max(counts) for counts in seen.values())
    return pulled


def leftovers(folder: Path) -> list[str]:
    downloads = folder / "data" / "downloads"
    return sorted(path.suffix for path in downloads.iterdir()) if downloads.is_dir() else []


def test_a_repositorys_only_model_comes_to_the_checkpoints(tmp_path: Path, hub: Hub) -> None:
    [pulled] = run(tmp_path)
    assert pulled.path == tmp_path / "models" / "Stable-diffusion" / "model.safetensors"
    assert pulled.path.read_bytes() == CHECKPOINT
    assert (pulled.sha256, pulled.fresh) == (hashlib.sha256(CHECKPOINT).hexdigest(), True)
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    ("data", "folder"),
    [
        (CHECKPOINT, "Stable-diffusion"),
        (LORA, "Lora"),
        (save({"emb_params": torch.rand(2, 768)}), "embeddings"),
        (save({"clip_l": torch.rand(2, 768), "clip_g": torch.rand(2, 1280)}), "embeddings"),
        (save({"encoder.down.0.block.0.conv1.weight": torch.rand(4, 4)}), "VAE"),
        (save({"encoder.down_blocks.0.resnets.0.conv1.weight": torch.rand(4, 4)}), "VAE"),
    ],
)
def test_a_model_goes_where_its_kind_is_looked_for(tmp_path: Path, hub: Hub, data: bytes, folder: str) -> None:
    hub.files = {"it.safetensors": data}
    [pulled] = run(tmp_path)
    assert pulled.path == tmp_path / "models" / folder / "it.safetensors"


def test_a_model_of_no_known_kind_waits_until_somebody_says_what_it_is(tmp_path: Path, hub: Hub) -> None:
    hub.files = {"odd.safetensors": save({"x": torch.rand(3)})}
    with pytest.raises(PullError, match="say --to"):
        run(tmp_path)
    [pulled] = run(tmp_path, to="upscaler")
    assert pulled.path == tmp_path / "models" / "ESRGAN" / "odd.safetensors"
    assert len(hub.asked("odd.safetensors")) == 1  # it had arrived already


def test_a_folder_of_ones_own_and_another_name_are_possible(tmp_path: Path, hub: Hub) -> None:
    [pulled] = run(tmp_path, to=str(tmp_path / "mine"), name="other.safetensors")
    assert pulled.path == tmp_path / "mine" / "other.safetensors"


def test_a_transfer_that_breaks_off_goes_on_where_it_stopped(tmp_path: Path, hub: Hub) -> None:
    hub.drops = [1000, 0, 2000, 0]
    [pulled] = run(tmp_path, rules={"attempts": 3})
    assert pulled.path.read_bytes() == CHECKPOINT
    begins = [headers.get("range") for headers in hub.asked("model.safetensors")]
    assert begins == [None, "bytes=1000-", "bytes=1000-", "bytes=3000-", "bytes=3000-"]


def test_what_arrived_in_one_run_counts_in_the_next(tmp_path: Path, hub: Hub) -> None:
    hub.drops = [5000, 0, 0]
    with pytest.raises(InterruptedPullError, match="5000 bytes are kept"):
        run(tmp_path)
    [pulled] = run(tmp_path)
    assert pulled.path.read_bytes() == CHECKPOINT
    assert hub.asked("model.safetensors")[-1]["range"] == "bytes=5000-"


def test_a_host_that_knows_no_ranges_begins_anew(tmp_path: Path, hub: Hub) -> None:
    hub.drops, hub.ranges = [5000], False
    [pulled] = run(tmp_path)
    assert pulled.path.read_bytes() == CHECKPOINT


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_host_is_asked_again(tmp_path: Path, hub: Hub, status: int) -> None:
    hub.answers = [status]
    assert run(tmp_path)[0].fresh


def test_a_file_with_another_hash_is_deleted(tmp_path: Path, hub: Hub) -> None:
    hub.sends = {"model.safetensors": CHECKPOINT[:-1] + b"\xff"}
    with pytest.raises(PullError, match=r"its hash is wrong.*deleted"):
        run(tmp_path)
    assert leftovers(tmp_path) == []
    assert not (tmp_path / "models").exists()


def test_a_small_file_is_held_against_its_hash_in_git(tmp_path: Path, hub: Hub) -> None:
    hub.files, hub.small = {"model.safetensors": LORA}, frozenset({"model.safetensors"})
    assert run(tmp_path)[0].fresh
    hub.sends = {"model.safetensors": LORA[:-1] + bytes([LORA[-1] ^ 1])}
    with pytest.raises(PullError, match="its hash is wrong"):
        run(tmp_path / "again")


def test_a_part_of_another_file_does_not_spoil_the_next(tmp_path: Path, hub: Hub) -> None:
    hub.sends, hub.drops = {"model.safetensors": bytes(len(CHECKPOINT))}, [5000, 0, 0]
    with pytest.raises(InterruptedPullError):
        run(tmp_path)
    hub.sends = {}
    with pytest.raises(PullError, match="its hash is wrong"):
        run(tmp_path)
    assert run(tmp_path)[0].path.read_bytes() == CHECKPOINT


def test_a_file_larger_than_announced_is_given_up(tmp_path: Path, hub: Hub) -> None:
    hub.sends = {"model.safetensors": CHECKPOINT + b"more"}
    with pytest.raises(PullError, match="ought to have"):
        run(tmp_path)


def test_more_than_may_come_is_refused_before_it_comes(tmp_path: Path, hub: Hub) -> None:
    with pytest.raises(PullError, match="--max-gb"):
        run(tmp_path, rules={"max_bytes": 1000})
    with pytest.raises(PullError, match="--max-gb"):
        run(tmp_path, f"{hub.url}/store/model.safetensors", rules={"max_bytes": 1000})
    assert leftovers(tmp_path) == []


def test_a_full_disk_is_told_beforehand(tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 10

    monkeypatch.setattr("darkroom.pull.transfer.shutil.disk_usage", lambda _: Usage)
    with pytest.raises(PullError, match="and 10 are free"):
        run(tmp_path)


def test_the_same_file_is_not_put_twice_and_another_one_never_replaced(tmp_path: Path, hub: Hub) -> None:
    [first] = run(tmp_path)
    assert [one.fresh for one in run(tmp_path)] == [False]
    first.path.write_bytes(b"mine")
    with pytest.raises(PullError, match="is there already and differs"):
        run(tmp_path)
    assert first.path.read_bytes() == b"mine"
    assert run(tmp_path, overwrite=True)[0].path.read_bytes() == CHECKPOINT


def test_of_several_models_one_has_to_be_named(tmp_path: Path, hub: Hub) -> None:
    hub.files |= {"big.safetensors": CHECKPOINT + bytes(0), "sub/lora.safetensors": LORA, "old.ckpt": b"x"}
    with pytest.raises(PullError, match=r"which file\? .*big\.safetensors .*sub/lora\.safetensors"):
        run(tmp_path)
    [pulled] = run(tmp_path, files=("sub/lora.safetensors",))
    assert pulled.path == tmp_path / "models" / "Lora" / "lora.safetensors"
    with pytest.raises(PullError, match=r"has no gone\.safetensors"):
        run(tmp_path, files=("gone.safetensors",))


def test_the_address_of_a_hubs_page_means_the_file(tmp_path: Path, hub: Hub) -> None:
    hub.files["other.safetensors"] = LORA
    [pulled] = run(tmp_path, f"{hub.url}/{REPO}/blob/main/other.safetensors?download=true")
    assert pulled.path.name == "other.safetensors"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("owner/gone", "no such repository"),
        (f"{REPO}@nowhere", "has no revision"),
        ("just words", "neither"),
        ("ftp://host/file.safetensors", "neither"),
        ("../../etc/passwd", "neither"),
    ],
)
def test_what_is_not_there_is_named(tmp_path: Path, hub: Hub, source: str, words: str) -> None:
    with pytest.raises(PullError, match=words):
        run(tmp_path, source)


def test_a_hub_that_cannot_be_reached_is_told_without_a_traceback(
    tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(Hub()) as gone:
        pass
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", gone.url)
    with pytest.raises(PullError, match="the hub cannot be asked"):
        run(tmp_path)


def test_a_token_is_shown_to_the_hub_and_to_nobody_else(tmp_path: Path, hub: Hub) -> None:
    with serving(Hub(files=hub.files)) as store:
        hub.token, hub.elsewhere = "secret", store.url
        with pytest.raises(PullError, match="HF_TOKEN"):
            run(tmp_path)
        assert run(tmp_path, token="secret")[0].fresh
        assert all(headers.get("authorization") == "Bearer secret" for _, headers in hub.seen[-2:])
        assert [headers.get("authorization") for headers in store.asked("model.safetensors")] == [None]


# Folders in diffusers' layout.


def diffusers() -> dict[str, bytes]:
    weights = save({"x": torch.rand(3)})
    folder = {
        "model_index.json": json.dumps({"_class_name": "StableDiffusionPipeline"}).encode(),
        "unet/config.json": b"{}",
        "scheduler/scheduler_config.json": b"{}",
        "tokenizer/vocab.json": b"{}",
        "safety_checker/model.safetensors": weights,
    }
    for part, stem in (
        ("unet", "diffusion_pytorch_model"),
        ("vae", "diffusion_pytorch_model"),
        ("text_encoder", "model"),
    ):
        for variant in ("", ".fp16"):
            folder[f"{part}/{stem}{variant}.safetensors"] = weights
        folder[f"{part}/{stem}.bin"] = b"pickled"
    return folder


def test_a_folder_comes_with_what_is_of_use_and_nothing_else(tmp_path: Path, hub: Hub) -> None:
    hub.files, hub.small = diffusers(), SMALL
    run(tmp_path)
    folder = tmp_path / "models" / "Stable-diffusion" / "model"
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) == [
        "model_index.json", "scheduler/scheduler_config.json", "text_encoder/model.safetensors", "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors",
    ]  # fmt: skip


def test_a_variant_and_shards_are_taken_with_their_index(tmp_path: Path, hub: Hub) -> None:
    files = diffusers()
    whole = files.pop("unet/diffusion_pytorch_model.fp16.safetensors")
    index = {"weight_map": {"x": "diffusion_pytorch_model.fp16-00001-of-00001.safetensors"}}
    files["unet/diffusion_pytorch_model.safetensors.index.fp16.json"] = json.dumps(index).encode()
    files["unet/diffusion_pytorch_model.fp16-00001-of-00001.safetensors"] = whole
    hub.files, hub.small = files, SMALL
    pulled = [one.path.name for one in run(tmp_path, variant="fp16")]
    assert "diffusion_pytorch_model.fp16-00001-of-00001.safetensors" in pulled
    assert "diffusion_pytorch_model.safetensors.index.fp16.json" in pulled
    assert "model.fp16.safetensors" in pulled
    assert "model.safetensors" not in pulled


def test_nothing_of_a_folder_is_there_before_all_of_it(tmp_path: Path, hub: Hub) -> None:
    hub.files, hub.small = diffusers(), SMALL
    hub.sends = {"vae/diffusion_pytorch_model.safetensors": b"x" * len(hub.files["vae/diffusion_pytorch_model.bin"])}
    with pytest.raises(PullError):
        run(tmp_path)
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    "path", ["../up.safetensors", "/abs.safetensors", "a/../../up.safetensors", "a\\..\\b.safetensors"]
)
def test_a_repositorys_file_that_leads_elsewhere_does_not_exist(tmp_path: Path, hub: Hub, path: str) -> None:
    hub.files = {path: CHECKPOINT}
    with pytest.raises(PullError):
        run(tmp_path, files=(path,))
    assert not (tmp_path / "models").exists()


# Addresses.


def test_an_address_is_of_one_file_which_its_host_may_name(tmp_path: Path, hub: Hub) -> None:
    hub.files["nested/lora.safetensors"] = LORA
    [pulled] = run(tmp_path, f"{hub.url}/store/nested/lora.safetensors?x=1")
    assert pulled.path == tmp_path / "models" / "Lora" / "lora.safetensors"
    hub.disposition = "attachment; filename=\"plain.safetensors\"; filename*=UTF-8''na%C3%AFve%20one.safetensors"
    assert run(tmp_path, f"{hub.url}/store/model.safetensors")[0].path.name == "naïve one.safetensors"
    hub.disposition = 'attachment; filename="../../../../etc/evil.safetensors"'
    assert run(tmp_path, f"{hub.url}/store/nested/lora.safetensors")[0].path == (
        tmp_path / "models" / "Lora" / "evil.safetensors"
    )


def test_an_address_with_the_wrong_hash_leaves_nothing(tmp_path: Path, hub: Hub) -> None:
    with pytest.raises(PullError, match="its hash is wrong"):
        run(tmp_path, f"{hub.url}/store/model.safetensors", sha256="0" * 64)
    assert leftovers(tmp_path) == []
    right = hashlib.sha256(CHECKPOINT).hexdigest().upper()
    assert run(tmp_path, f"{hub.url}/store/model.safetensors", sha256=right)[0].fresh


def test_an_address_goes_on_only_with_the_same_version(tmp_path: Path, hub: Hub) -> None:
    address = f"{hub.url}/store/model.safetensors"
    hub.drops = [5000, 0, 0]
    with pytest.raises(InterruptedPullError):
        run(tmp_path, address)
    hub.files["model.safetensors"] = CHECKPOINT[:-1] + bytes([CHECKPOINT[-1] ^ 1])
    [pulled] = run(tmp_path, address)
    assert pulled.path.read_bytes() == hub.files["model.safetensors"]


def test_a_host_that_is_not_public_needs_the_operators_word(tmp_path: Path, hub: Hub) -> None:
    for source in (f"{hub.url}/store/model.safetensors", REPO, f"http://localhost:{hub.port}/store/model.safetensors"):
        with pytest.raises(PullError, match="--allow-private"):
            run(tmp_path, source, rules={"public_only": True})
    assert hub.asked("model.safetensors") == []


def test_a_redirect_to_itself_ends(tmp_path: Path, hub: Hub) -> None:
    with serving(Hub()) as loop:
        loop.elsewhere = f"{loop.url}/{REPO}/resolve/main"
        with pytest.raises(PullError, match=r"redirects|no such file"):
            run(tmp_path, f"{loop.url}/{REPO}/resolve/main/x.safetensors")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"<!doctype html><html>log in first</html>", "model.ckpt: is a web page"),
        (traps.as_archive(traps.LIVE["builtins.eval"](Path("/nothing"))), "model.ckpt: is a pickled file that is not"),
        (CHECKPOINT[:-5], "cut off|not a whole"),
    ],
)
def test_what_is_no_model_never_comes_among_them(tmp_path: Path, hub: Hub, data: bytes, words: str) -> None:
    hub.files = {"model.ckpt": data}
    with pytest.raises(BadModelFile, match=words):
        run(tmp_path, f"{hub.url}/store/model.ckpt")
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("a.safetensors", "a.safetensors"),
        ("../../x.ckpt", "x.ckpt"),
        ("C:\\models\\x.PT", "x.PT"),
        (" .hidden.safetensors", "hidden.safetensors"),
        ("a\nb\x00?*|.safetensors", "a_b____.safetensors"),
        ("ß" * 300 + ".safetensors", None),
    ],
)
def test_a_name_that_somebody_else_wrote_is_made_safe(text: str, name: str | None) -> None:
    made = safe_name(text)
    assert len(made.encode()) <= 200
    assert name is None or made == name


@pytest.mark.parametrize("text", ["", "..", "model", "run.sh", ".safetensors", "a.safetensors.exe", "_.ckpt/"])
def test_a_name_that_is_not_a_models_is_refused(text: str) -> None:
    with pytest.raises(PullError, match="say --name"):
        safe_name(text)

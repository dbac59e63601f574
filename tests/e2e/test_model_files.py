"""Models of every kind of file, from the command line and through the server."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from darkroom.nets.catalog import embedded
from tests.e2e.serving import darkroom, pixels, serving
from tests.tiny.checkpoints import write_tiny_checkpoint, write_tiny_vae
from tests.tiny.folders import write_tiny_folder
from tests.unit.nets import traps
from tests.unit.pull.hub import REPO, Hub
from tests.unit.pull.hub import serving as serving_hub

REQUEST = {"prompt": "puppy dog", "steps": 2, "seed": 5, "width": 64, "height": 64}


@pytest.fixture
def mini() -> Path:
    path = embedded()
    if path is None:
        pytest.skip("the package was built without its model")
    return path


def put_mini(mini: Path, folder: Path, name: str, *, pickled: bool = False) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if pickled:
        torch.save({"state_dict": load_file(mini), "global_step": 3}, path)
    else:
        shutil.copy(mini, path)
    shutil.copy(mini.with_suffix(".yaml"), path.with_suffix(".yaml"))
    return path


def test_a_pickled_checkpoint_draws_the_same_picture_and_a_trap_among_them_does_not_run(
    tmp_path: Path, mini: Path
) -> None:
    folder = tmp_path / "models" / "Stable-diffusion"
    put_mini(mini, folder, "a-safe.safetensors")
    pickled = put_mini(mini, folder, "b-pickled.ckpt", pickled=True)
    before = hashlib.sha256(pickled.read_bytes()).hexdigest()
    mark = tmp_path / "ran"
    (folder / "c-trap.ckpt").write_bytes(traps.as_archive(traps.LIVE["builtins.eval"](mark)))
    with serving(tmp_path, "--models-dir", str(tmp_path / "models")) as server:
        titles = [model["title"].split(" ")[0] for model in server.get("/sdapi/v1/sd-models")]
        assert titles == ["a-safe.safetensors", "b-pickled.ckpt", "c-trap.ckpt"]
        pictures = []
        for name in ("a-safe", "b-pickled"):
            wanted = {"override_settings": {"sd_model_checkpoint": name}}
            pictures.append(pixels(server.post("/sdapi/v1/txt2img", REQUEST | wanted)["images"][0]))
        assert (pictures[0] == pictures[1]).all()
        refused = server.client.post("/sdapi/v1/options", json={"sd_model_checkpoint": "c-trap.ckpt"})
        assert refused.status_code == 500
        assert "c-trap.ckpt: is a pickled file that is not opened" in refused.text
        assert server.post("/sdapi/v1/txt2img", REQUEST)["images"]
    assert not mark.exists()
    assert hashlib.sha256(pickled.read_bytes()).hexdigest() == before
    assert len(list((tmp_path / "converted").glob("*.safetensors"))) == 1


def test_the_checkpoint_of_the_flag_is_first_and_in_use(tmp_path: Path, mini: Path) -> None:
    put_mini(mini, tmp_path / "models" / "Stable-diffusion", "a.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"sd_model_checkpoint": "a.safetensors"}))
    chosen = put_mini(mini, tmp_path / "elsewhere", "z.safetensors")
    flags = ("--models-dir", str(tmp_path / "models"), "--ckpt", str(chosen), "--no-hashing")
    with serving(tmp_path, *flags) as server:
        models = server.get("/sdapi/v1/sd-models")
        assert [model["title"] for model in models] == ["z.safetensors", "a.safetensors"]
        assert server.get("/sdapi/v1/options")["sd_model_checkpoint"] == "z.safetensors"
        assert "Model hash" not in server.post("/sdapi/v1/txt2img", REQUEST)["info"]
    for flag in ("--ckpt", "--vae-path"):
        gone = darkroom("generate", "x", flag, str(tmp_path / "gone.pt"), cwd=tmp_path, env={"COLUMNS": "300"})
        assert gone.returncode != 0
        assert "gone.pt is not there" in " ".join((gone.stderr + gone.stdout).split())


def test_the_autoencoder_of_the_flag_draws_every_picture(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "Stable-diffusion"
    write_tiny_checkpoint(folder)
    vae = write_tiny_vae(tmp_path / "mine.safetensors", seed=7)
    flags = ("--models-dir", str(tmp_path / "models"), "--precision", "fp32", "--vae-path", str(vae))
    with serving(tmp_path, *flags) as server:
        wanted = {"override_settings": {"sd_vae": "None"}}
        told = json.loads(server.post("/sdapi/v1/txt2img", REQUEST | wanted)["info"])
    assert told["sd_vae_name"] == "mine.safetensors"
    assert "VAE: mine.safetensors" in told["infotexts"][0]


def test_a_folder_in_diffusers_layout_draws_what_the_single_file_does(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "Stable-diffusion"
    single = write_tiny_folder(folder / "a-folder")
    with serving(tmp_path, "--models-dir", str(tmp_path / "models"), "--precision", "fp32") as server:
        listed = {model["model_name"]: model for model in server.get("/sdapi/v1/sd-models")}
        assert listed.keys() == {"a-folder", "single_tiny"}
        assert listed["a-folder"]["filename"] == str(folder / "a-folder")
        assert listed["single_tiny"]["filename"] == str(single)
        pictures = []
        for name in listed:
            wanted = {"override_settings": {"sd_model_checkpoint": name}}
            pictures.append(pixels(server.post("/sdapi/v1/txt2img", REQUEST | wanted)["images"][0]))
        assert (pictures[0] == pictures[1]).all()
        assert len(set(pictures[0].flatten().tolist())) > 1


@pytest.fixture
def hub(mini: Path) -> Iterator[Hub]:
    with serving_hub(Hub(files={"mini.safetensors": mini.read_bytes()})) as served:
        yield served


def pull(folder: Path, hub: Hub, *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output, and what was told beside it, in one line."""
    flags = ("--data-dir", str(folder), "--models-dir", str(folder / "models"))
    environment = {"HF_ENDPOINT": hub.url, "COLUMNS": "300"}
    done = darkroom("models", "pull", *arguments, *flags, cwd=folder, env=environment)
    return done.returncode, done.stdout.strip(), " ".join(done.stderr.split())


def test_a_model_is_pulled_broken_off_and_gone_on_with(tmp_path: Path, hub: Hub, mini: Path) -> None:
    code, _, told = pull(tmp_path, hub, REPO)
    assert code != 0
    assert "--allow-private" in told
    hub.drops = [1_000_000]
    code, _, told = pull(tmp_path, hub, REPO, "--allow-private", "--attempts", "1")
    assert code != 0
    assert "1000000 bytes are kept" in told
    code, out, told = pull(tmp_path, hub, REPO, "--allow-private")
    assert code == 0, told
    target = tmp_path / "models" / "Stable-diffusion" / "mini.safetensors"
    assert out == str(target)
    assert target.read_bytes() == mini.read_bytes()
    assert f"sha256 {hashlib.sha256(mini.read_bytes()).hexdigest()}" in told
    assert hub.asked("mini.safetensors")[-1]["range"] == "bytes=1000000-"


def test_a_model_is_described_and_converted(tmp_path: Path, mini: Path) -> None:
    pickled = put_mini(mini, tmp_path, "mini.ckpt", pickled=True)
    done = darkroom("models", "inspect", str(pickled), "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert (facts["kept_as"], facts["architecture"]) == ("a pickled file", "sd1")
    assert facts["sha256"] == hashlib.sha256(pickled.read_bytes()).hexdigest()
    done = darkroom("models", "convert", str(pickled), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    converted, original = load_file(tmp_path / "mini.safetensors"), load_file(mini)
    assert converted.keys() == original.keys()
    assert all(torch.equal(converted[name], original[name]) for name in original)
    again = darkroom("models", "convert", str(pickled), cwd=tmp_path)
    assert again.returncode != 0
    assert "is there already" in again.stderr
    table = darkroom("models", "inspect", "mini.safetensors", cwd=tmp_path)
    assert "sd1" in table.stdout, table.stderr

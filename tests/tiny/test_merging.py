"""Merges from names to files: what they are called, what their headers tell, and what is left when they fail."""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from threading import Event

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from darkroom.engine.catalogue import Catalogue
from darkroom.engine.merging import CannotWrite, NameTaken, Stopped, merge
from darkroom.errors import BadRequest
from darkroom.jobs.merging import ConfigSource, MergeOrder, Method, Notes, Stage
from darkroom.jobs.spec import CheckpointInfo
from darkroom.settings import Settings
from tests.tiny.checkpoints import UNET_INPUT, tiny_weights, write_tiny_checkpoint, write_tiny_vae
from tests.tiny.folders import write_tiny_folder

NOTE = "what somebody wrote"


@cache
def weights(seed: int) -> dict[str, Tensor]:
    """A tiny checkpoint's, without the largest."""
    return {name: value for name, value in tiny_weights(seed).items() if "token_embedding" not in name}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = Settings(data_dir=tmp_path / "data", models_dir=tmp_path / "models")
    folder = settings.checkpoint_dir
    for seed, name in enumerate(("a", "b", "c")):
        path = folder / ("sub" if name == "b" else "") / f"{name}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(weights(seed), path, {"note": NOTE + name, "format": "tf"})
        if name != "a":
            path.with_suffix(".yaml").write_text("model: {}")
    write_tiny_vae(settings.models_dir / "VAE" / "other.safetensors", seed=7)
    return settings


@pytest.fixture
def catalogue(settings: Settings) -> Iterator[Catalogue]:
    catalogue = Catalogue(settings)
    yield catalogue
    catalogue.close()


class Run:
    """Runs merges in the folder of checkpoints, and remembers what was reported."""

    def __init__(self, settings: Settings, catalogue: Catalogue) -> None:
        self.folder = settings.checkpoint_dir
        self.catalogue = catalogue
        self.stages: list[Stage] = []
        self.stop = Event()

    def __call__(self, **fields: object) -> CheckpointInfo:
        known = {info.base: info.key for info in self.catalogue.checkpoints()}
        order = MergeOrder(a=known["a"], b=known["b"], c=known["c"], method="Weighted sum")
        return merge(replace(order, **fields), self.catalogue, self.folder, self.stages.append, self.stop)  # type: ignore[arg-type]

    def files(self) -> set[str]:
        return {str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file()}


@pytest.fixture
def run(settings: Settings, catalogue: Catalogue) -> Run:
    return Run(settings, catalogue)


def notes_of(info: CheckpointInfo) -> dict[str, str]:
    with safe_open(info.filename, framework="pt") as file:
        found: dict[str, str] = file.metadata() or {}
        return found


@pytest.mark.parametrize(
    ("method", "multiplier", "name"),
    [
        ("Weighted sum", 0.3, "0.7(a) + 0.3(sub_b)"),
        ("Weighted sum", 1 / 3, "0.67(a) + 0.33(sub_b)"),
        ("Add difference", 1.0, "a + 1.0(sub_b - c)"),
        ("Weighted sum", 0.0, "1.0(a) + 0.0(sub_b)"),
    ],
)
def test_a_result_without_a_name_is_called_after_its_parents(
    run: Run, method: Method, multiplier: float, name: str
) -> None:
    info = run(method=method, multiplier=multiplier)
    assert info.path == name + ".safetensors"
    assert Path(info.filename).parent == run.folder


def test_the_result_is_listed_with_its_hash_and_holds_the_sum(run: Run) -> None:
    info = run(name="mix", multiplier=0.25)
    assert info in run.catalogue.checkpoints()
    assert info.sha256 == merging_hash(Path(info.filename))
    found, (a, b) = load_file(info.filename), (weights(0), weights(1))
    assert list(found) == list(a)
    for name in a:
        wanted = (0.75 * a[name].double() + 0.25 * b[name].double()).half()
        torch.testing.assert_close(found[name], wanted, rtol=1e-3, atol=1e-6)


def merging_hash(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_header_has_the_recipe_as_the_original_writes_it(run: Run) -> None:
    first = run(name="first", multiplier=0.5, number_format="fp16", discard="logit_scale", vae="other.safetensors")
    recipe = json.loads(notes_of(first)["sd_merge_recipe"])
    hashes = {info.base: info.sha256 for info in run.catalogue.checkpoints()}
    assert recipe == {
        "type": "webui",
        "primary_model_hash": run.catalogue.sha256(str(run.folder / "a.safetensors")),
        "secondary_model_hash": run.catalogue.sha256(str(run.folder / "sub/b.safetensors")),
        "tertiary_model_hash": None,
        "interp_method": "Weighted sum",
        "multiplier": 0.5,
        "save_as_half": True,
        "custom_name": "first",
        "config_source": 0,
        "bake_in_vae": "other.safetensors",
        "discard_weights": "logit_scale",
        "is_inpainting": False,
        "is_instruct_pix2pix": False,
    }
    assert list(recipe)[:3] == ["type", "primary_model_hash", "secondary_model_hash"]
    assert hashes["first"] == first.sha256
    models = json.loads(notes_of(first)["sd_merge_models"])
    assert [model["name"] for model in models.values()] == ["a.safetensors", "sub/b.safetensors"]
    assert all(model["sd_merge_recipe"] is None and len(model["legacy_hash"]) == 8 for model in models.values())
    second = run(a=first.key, name="second", method="Add difference")
    models = json.loads(notes_of(second)["sd_merge_models"])
    assert {model["name"] for model in models.values()} == {
        "first.safetensors", "a.safetensors", "sub/b.safetensors", "c.safetensors",
    }  # fmt: skip
    assert models[first.sha256]["sd_merge_recipe"] == recipe


def test_texts_of_the_parents_are_copied_in_turn_and_then_those_that_were_sent(run: Run) -> None:
    noted = notes_of(run(name="x", notes=Notes(extra=(("mine", "yes"), ("format", "mine")))))
    assert (noted["note"], noted["mine"], noted["format"]) == (NOTE + "b", "yes", "pt")
    noted = notes_of(run(name="y", notes=Notes(copied=False, recipe=False)))
    assert noted == {"format": "pt"}
    assert notes_of(run(name="z", notes=Notes(written=False))) == {}


@pytest.mark.parametrize(("source", "parent"), [("A, B or C", "b"), ("B", "b"), ("C", "c"), ("Don't", None)])
def test_the_yaml_of_a_parent_goes_beside_the_result(run: Run, source: ConfigSource, parent: str | None) -> None:
    marks = {"b": run.folder / "sub/b.yaml", "c": run.folder / "c.yaml"}
    for name, path in marks.items():
        path.write_text(path.read_text() + f"# {name}\n")
    run.catalogue.refresh()
    info = run(name="x.y", method="Add difference", config_source=source)
    copy = run.folder / "x.y.yaml"
    assert info.config == (str(copy) if parent else None)
    assert copy.exists() == (parent is not None)
    assert parent is None or copy.read_text() == marks[parent].read_text()


def test_an_inpainting_result_says_so_in_its_name(run: Run) -> None:
    path = write_tiny_checkpoint(run.folder, "paints", 3, channels=9)
    run.catalogue.refresh()
    info = run(a=path.name, name="x", b=path.name.replace("paints", "c"))
    assert info.path == "x.inpainting.safetensors"
    assert json.loads(notes_of(info)["sd_merge_recipe"])["is_inpainting"] is True
    assert load_file(info.filename)[UNET_INPUT].shape[1] == 9


def test_nothing_is_overwritten_unless_that_is_wanted(run: Run) -> None:
    before = run.files()
    first = run(name="x", multiplier=0.0)
    with pytest.raises(NameTaken, match=r"name: 'x\.safetensors' .*overwrite"):
        run(name="x")
    assert load_file(first.filename).keys() == weights(0).keys()
    second = run(name="x", multiplier=1.0, overwrite=True, config_source="Don't")
    assert torch.equal(load_file(second.filename)[UNET_INPUT], weights(1)[UNET_INPUT])
    assert second.sha256 == merging_hash(Path(second.filename))
    assert run.files() == before | {"x.safetensors"}


def test_a_yaml_without_its_checkpoint_is_not_overwritten_either(run: Run) -> None:
    (run.folder / "x.yaml").write_text("model: {}")
    with pytest.raises(NameTaken, match=r"x\.yaml"):
        run(name="x")


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_parent_is_never_overwritten(run: Run, overwrite: bool) -> None:
    with pytest.raises(NameTaken, match="one of the checkpoints that are merged"):
        run(method="No interpolation", overwrite=overwrite)
    (run.folder / "link.safetensors").symlink_to(run.folder / "a.safetensors")
    with pytest.raises(NameTaken):
        run(name="link", overwrite=overwrite)


@pytest.mark.parametrize(
    "name", ["../x", "a/b", "a\\b", "..", ".hidden", "x\n", "x\0", "x.", " x", "ü" * 101, 'a"b', "x.VAE"]
)
def test_a_name_that_is_none_is_refused(run: Run, name: str) -> None:
    before = run.files()
    with pytest.raises(BadRequest, match=r"name: .* a file name without its ending"):
        run(name=name)
    assert run.files() == before


@pytest.mark.parametrize("moment", ["Reading", "Hashing a", "Merging A and B"])
def test_a_merge_that_is_stopped_leaves_nothing(run: Run, moment: str) -> None:
    before = run.files()

    def report(stage: Stage) -> None:
        if stage.text == moment and stage.done in (0, 5):
            run.stop.set()

    run.stages = type("Stages", (list,), {"append": staticmethod(report)})()
    with pytest.raises(Stopped):
        run(name="x")
    assert run.files() == before


def test_progress_counts_every_weight(run: Run) -> None:
    run(name="x")
    merged = [stage for stage in run.stages if stage.text == "Merging A and B"]
    assert [stage.done for stage in merged] == list(range(len(weights(0))))
    assert {stage.total for stage in merged} == {len(weights(0))}
    assert (run.stages[-1].text, run.stages[-1].done) == ("Saving", run.stages[-1].total)


def test_a_full_disk_is_told_before_anything_is_written(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    before = run.files()
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(CannotWrite, match="MiB are needed and 0 MiB are free"):
        run(name="x")
    assert run.files() == before


def test_a_disk_that_fails_while_it_is_written_leaves_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    before = run.files()

    def fail(_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(CannotWrite, match="No space left on device"):
        run(name="x")
    assert run.files() == before


def test_a_name_that_is_taken_meanwhile_is_not_overwritten(run: Run) -> None:
    other = run.folder / "x.safetensors"

    def report(_: Stage) -> None:
        other.write_text("somebody else's")

    run.stages = type("Stages", (list,), {"append": staticmethod(report)})()
    with pytest.raises(NameTaken):
        run(name="x")
    assert other.read_text() == "somebody else's"
    assert not (run.folder / "x.yaml").exists()


def test_what_a_killed_process_left_is_removed_and_nobody_else_s_work(run: Run) -> None:
    old, young = run.folder / ".merge-0123.part", run.folder / ".merge-4567.part"
    for part in (old, young):
        part.write_bytes(b"half")
    os.utime(old, (0, 0))
    run(name="x")
    assert (old.exists(), young.exists()) == (False, True)


def test_a_damaged_parent_is_named_by_field_and_file(run: Run) -> None:
    path = run.folder / "sub/b.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BadRequest, match=r"b: 'b\.safetensors' .* a whole file of weights"):
        run(name="x")


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_pickled_parent_is_merged_like_any_other(run: Run, wrapped: bool) -> None:
    content = {"state_dict": weights(1), "global_step": 5} if wrapped else weights(1)
    torch.save(content, run.folder / "pickled.ckpt")
    run.catalogue.refresh()
    info = run(b="pickled.ckpt", name="x", multiplier=1.0)
    found = load_file(info.filename)
    assert all(torch.equal(found[name], weights(1)[name]) for name in found)
    assert set(notes_of(info)) == {"note", "format", "sd_merge_recipe", "sd_merge_models"}


def test_a_model_in_a_folder_is_merged_like_a_file(run: Run, tmp_path: Path) -> None:
    single = load_file(write_tiny_folder(run.folder / "model"))
    shutil.rmtree(run.folder / "single", ignore_errors=True)
    run.catalogue.refresh()
    assert "model" in [info.key for info in run.catalogue.checkpoints()]
    copy = load_file(run(a="model", method="No interpolation", name="copy").filename)
    assert copy.keys() >= {name for name in single if "position_ids" not in name}
    assert all(torch.equal(copy[name].flatten(), single[name].flatten()) for name in copy)
    merged = run(b="model", name="x", multiplier=1.0)
    found = load_file(merged.filename)
    assert all(found[name].shape == weights(0)[name].shape for name in found)
    assert all(torch.equal(found[name].flatten(), single[name].flatten()) for name in found)


def test_what_is_not_there_is_named_by_its_field(run: Run) -> None:
    with pytest.raises(BadRequest, match="b: 'nobody'"):
        run(b="nobody")
    with pytest.raises(BadRequest, match=r"vae: 'nobody' .*other\.safetensors"):
        run(vae="nobody")


def test_block_weights_may_have_one_more_for_everything_else(run: Run) -> None:
    count = 4 + 1 + 4
    info = run(name="x", block_weights=(1.0, *[0.0] * count))
    found, (a, b) = load_file(info.filename), (weights(0), weights(1))
    unet = "model.diffusion_model."
    assert all(torch.equal(found[name], (a if name.startswith(unet) else b)[name]) for name in a)
    assert run(block_weights=(0.0,) * count).base == "0.7(a) + 0.3(sub_b) by blocks"
    with pytest.raises(BadRequest, match="9 numbers for IN00 to OUT03"):
        run(name="y", block_weights=(0.0,) * (count + 2))

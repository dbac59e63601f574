"""Networks at work on finished pictures, piece by piece: in tiles as at once, stopped between two of them, kept within
bounds.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from darkroom.engine.picture_networks import PictureNetworks
from darkroom.engine.retouching import Retouching
from darkroom.errors import BadModelFile, LimitExceeded, NotInstalled, UnknownName
from darkroom.jobs.ops import Answer, EnlargeTile, Interrupted, Op, Program, RestoreFace, RestoreFaces, Upscale
from darkroom.jobs.retouching import Enlargement, RetouchSpec
from darkroom.jobs.spec import FaceRestoration, Model, Picture, Tiles
from darkroom.nets.store import Store
from darkroom.nets.upscalers.network import load_network
from darkroom.settings import Settings
from tests.tiny.networks_of_pictures import UPSCALERS, small_restorer, weights_of
from tests.unit.nets.test_faces import drawn_face

CPU = torch.device("cpu")
WHOLE, TILED = Tiles(side=0), Tiles(side=48, overlap=16)
MODEL = Model(checkpoint="any")

pytestmark = pytest.mark.filterwarnings("ignore:torch.meshgrid")


@pytest.fixture(autouse=True)
def inference() -> object:
    with torch.inference_mode():
        yield


def retouching(folder: Path, store: Store | None = None, *, max_picture_pixels: int = 1_000_000) -> Retouching:
    networks = PictureNetworks(Settings(models_dir=folder, data_dir=folder))
    store = store or Store(CPU, torch.float32, 1 << 30)
    return Retouching(networks, store, CPU, torch.float32, max_picture_pixels=max_picture_pixels)


def put(folder: Path, name: str, *, family: str = "ESRGAN", kind: str = "Compact", seed: int = 0) -> Path:
    path = folder / family / f"{name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights_of(UPSCALERS[kind][1], seed), path)
    return path


def noise(width: int, height: int, channels: int = 3) -> Picture:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


def smooth(width: int, height: int) -> Picture:
    small = Image.fromarray(noise(width // 8 + 2, height // 8 + 2))
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC), dtype=np.uint8)


def drive(program: Program, answer: Callable[[Op], Answer], asked: list[Op] | None = None) -> Picture:
    """Answer a program's questions to its end."""
    try:
        op = next(program)
        while True:
            if asked is not None:
                asked.append(op)
            op = program.send(answer(op))
    except StopIteration as end:
        result: Picture = end.value
        return result


def pieces(worker: Retouching) -> Callable[[Op], Answer]:
    def answer(op: Op) -> Answer:
        assert isinstance(op, EnlargeTile | RestoreFace)
        return worker.answer([op])[0]

    return answer


def enlarge(worker: Retouching, picture: Picture, tiles: Tiles = WHOLE, name: str = "x") -> Picture:
    spec = RetouchSpec(picture=picture, work=Enlargement(upscaler=name, tiles=tiles))
    return drive(worker.program(spec), pieces(worker))


# With random weights; windows of attention begin elsewhere in every tile, so those that attend differ more.
@pytest.mark.parametrize(
    ("kind", "mean", "most"),
    [("Compact", 0.5, 20), ("ESRGAN", 0.5, 20), ("DAT", 3, 90), ("HAT", 3, 90), ("SwinIR", 3, 90)],
)
def test_in_tiles_a_picture_becomes_about_what_it_becomes_at_once(
    tmp_path: Path, kind: str, mean: float, most: int
) -> None:
    put(tmp_path, "x", kind=kind)
    worker, picture = retouching(tmp_path), smooth(100, 72)
    whole = enlarge(worker, picture).astype(int)
    for tiles in (TILED, Tiles(side=48, overlap=16, mean=True)):
        difference = np.abs(enlarge(worker, picture, tiles) - whole)
        assert difference.mean() < mean
        assert difference.max() <= most


def test_a_picture_no_larger_than_a_tile_is_shown_as_it_is(tmp_path: Path) -> None:
    put(tmp_path, "x")
    worker, picture = retouching(tmp_path), noise(40, 30)
    np.testing.assert_array_equal(enlarge(worker, picture, TILED), enlarge(worker, picture))


def test_the_pieces_say_how_far_the_picture_is(tmp_path: Path) -> None:
    put(tmp_path, "x")
    worker, asked = retouching(tmp_path), list[Op]()
    spec = RetouchSpec(picture=noise(100, 48), work=Enlargement(upscaler="x", tiles=TILED))
    drive(worker.program(spec), pieces(worker), asked)
    assert [(op.step, op.steps) for op in asked if isinstance(op, EnlargeTile)] == [(0, 3), (1, 3), (2, 3)]


def test_what_is_transparent_stays_so(tmp_path: Path) -> None:
    put(tmp_path, "x")
    picture = np.concatenate([noise(16, 16), np.full((16, 16, 1), 30, dtype=np.uint8)], axis=-1)
    assert (enlarge(retouching(tmp_path), picture)[..., 3] == 30).all()


def upscaled(worker: Retouching, size: tuple[int, int], asked: list[Op] | None = None) -> Picture:
    op = Upscale(model=MODEL, upscaler="x", picture=noise(24, 16), size=size, tiles=WHOLE)

    return drive(worker.expanded(iter_op(op)), pieces(worker), asked)


@pytest.mark.parametrize(
    ("size", "passes"), [((48, 32), 1), ((70, 50), 2), ((30, 24), 1), ((24, 17), 0), ((400, 300), 3), ((12, 8), 0)]
)
def test_a_network_runs_until_the_picture_is_large_enough(tmp_path: Path, size: tuple[int, int], passes: int) -> None:
    put(tmp_path, "x")
    asked: list[Op] = []
    assert upscaled(retouching(tmp_path), size, asked).shape == (size[1], size[0], 3)
    assert len(asked) == passes


def test_an_interrupt_leaves_the_rest_to_lanczos(tmp_path: Path) -> None:
    put(tmp_path, "x")
    worker, picture = retouching(tmp_path), noise(24, 16)
    program = worker.expanded(iter_op(Upscale(model=MODEL, upscaler="x", picture=picture, size=(48, 32))))
    assert isinstance(next(program), EnlargeTile)
    with pytest.raises(StopIteration) as end:
        program.throw(Interrupted())
    expected = Image.fromarray(picture).resize((48, 32), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(end.value.value, np.asarray(expected))


def iter_op(op: Op) -> Program:
    """A program that asks one question and gives its answer."""
    picture: Picture = yield op
    return picture


def test_an_interrupted_job_gives_the_picture_as_it_was(tmp_path: Path) -> None:
    put(tmp_path, "x")
    picture = noise(24, 16)
    program = retouching(tmp_path).program(RetouchSpec(picture=picture, work=Enlargement(upscaler="x")))
    next(program)
    with pytest.raises(StopIteration) as end:
        program.throw(Interrupted())
    assert end.value.value is picture


def test_other_questions_pass_through_with_their_answers_and_interrupts() -> None:
    worker = retouching(Path("nowhere"))
    heard: list[object] = []

    def program() -> Program:
        heard.append((yield EnlargeTile(upscaler="x", picture=noise(8, 8))))
        try:
            yield EnlargeTile(upscaler="x", picture=noise(8, 8))
        except Interrupted:
            heard.append("interrupted")
        return noise(8, 8)

    expanded = worker.expanded(program())
    next(expanded)
    expanded.send("answer")
    with pytest.raises(StopIteration):
        expanded.throw(Interrupted())
    assert heard == ["answer", "interrupted"]


def test_networks_are_kept_by_the_store_and_read_again_when_their_file_changes(tmp_path: Path) -> None:
    put(tmp_path, "n")
    store = Store(CPU, torch.float32, 1 << 30)
    worker, picture = retouching(tmp_path, store), noise(16, 16)
    before = enlarge(worker, picture, name="n")
    held = store.nbytes
    assert held == load_network(tmp_path / "ESRGAN" / "n.safetensors", CPU, torch.float32).nbytes
    np.testing.assert_array_equal(enlarge(worker, picture, name="n"), before)
    put(tmp_path, "n", seed=1)
    assert (enlarge(worker, picture, name="n") != before).any()
    assert store.nbytes == held


def test_networks_of_users_are_shown_blue_first(tmp_path: Path) -> None:
    path, picture = put(tmp_path, "x"), noise(16, 16)
    expected = load_network(path, CPU, torch.float32).enlarge(picture, blue_first=True)
    np.testing.assert_array_equal(enlarge(retouching(tmp_path), picture), expected)


def test_what_cannot_be_used_is_refused_by_name(tmp_path: Path) -> None:
    worker, picture = retouching(tmp_path, max_picture_pixels=100), noise(16, 16)
    with pytest.raises(UnknownName, match="nope"):
        enlarge(worker, picture, name="nope")
    with pytest.raises(NotInstalled, match=r"RealESRGAN_x4plus\.pth"):
        enlarge(worker, picture, name="R-ESRGAN 4x+")
    (tmp_path / "ESRGAN").mkdir()
    (tmp_path / "ESRGAN" / "bad.pth").write_bytes(b"no tensors")
    with pytest.raises(BadModelFile, match=r"bad\.pth"):
        enlarge(worker, picture, name="bad")
    put(tmp_path, "x")
    with pytest.raises(LimitExceeded, match="32x32"):
        enlarge(worker, picture, name="x")


def restore(worker: Retouching, picture: Picture, answer: Callable[[Op], Answer], *, unload: bool = False) -> Picture:
    asked = RestoreFaces(model=MODEL, picture=picture, restoration=FaceRestoration(restorer="GFPGAN", unload=unload))
    return drive(worker.expanded(iter_op(asked)), answer)


def put_restorer(folder: Path) -> None:
    (folder / "GFPGAN").mkdir()
    save_file(weights_of(small_restorer), folder / "GFPGAN" / "RestoreFormer.safetensors")


def test_without_its_file_a_restorer_leaves_the_picture_as_it_was(tmp_path: Path) -> None:
    picture = drawn_face()
    np.testing.assert_array_equal(restore(retouching(tmp_path), picture, lambda op: pytest.fail(str(op))), picture)


def test_a_face_is_shown_to_the_restorer_upright_and_laid_back(tmp_path: Path) -> None:
    put_restorer(tmp_path)
    picture, shown = drawn_face(), list[Picture]()

    def unchanged(op: Op) -> Answer:
        assert isinstance(op, RestoreFace)
        shown.append(op.picture)
        return op.picture

    np.testing.assert_array_equal(restore(retouching(tmp_path), picture, unchanged), picture)
    assert [face.shape for face in shown] == [(512, 512, 3)]


def test_a_restorer_changes_the_face_and_nothing_far_from_it(tmp_path: Path) -> None:
    put_restorer(tmp_path)
    store = Store(CPU, torch.float32, 1 << 30)
    worker, picture = retouching(tmp_path, store), np.pad(drawn_face(), ((0, 200), (0, 200), (0, 0)), mode="edge")
    restored = restore(worker, picture, pieces(worker))
    assert (restored[100:240, 90:230] != picture[100:240, 90:230]).mean() > 0.5
    np.testing.assert_array_equal(restored[400:, 400:], picture[400:, 400:])
    assert store.nbytes > 0
    again = restore(worker, picture, pieces(worker), unload=True)
    np.testing.assert_array_equal(again, restored)
    assert store.nbytes == 0


def test_a_network_that_restores_no_faces_is_refused_as_a_restorer(tmp_path: Path) -> None:
    path = put(tmp_path, "GFPGAN-not", family="GFPGAN")
    worker = retouching(tmp_path)
    with pytest.raises(BadModelFile, match=f"{path.name}: a Compact network, which restores no faces"):
        restore(worker, drawn_face(), pieces(worker))

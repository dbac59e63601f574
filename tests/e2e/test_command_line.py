"""The command line: a picture without a server, the list of models, and every flag in three places."""

import os
import subprocess
import sys
from pathlib import Path

from PIL import Image

from tests.e2e.serving import darkroom, serving


def test_generate_writes_a_picture_with_its_parameters(tmp_path: Path) -> None:
    target = tmp_path / "out.png"
    arguments = ["puppy dog", "-o", str(target), "--steps", "3", "--width", "64", "--height", "64", "--seed", "12"]
    done = darkroom("generate", *arguments, "--data-dir", str(tmp_path), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with Image.open(target) as image:
        assert image.size == (64, 64)
        assert image.info["parameters"].startswith("puppy dog\nSteps: 3, ")
        assert "Seed: 12," in image.info["parameters"]


def test_models_lists_the_embedded_model(tmp_path: Path) -> None:
    done = darkroom("models", "--data-dir", str(tmp_path), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "darkroom-mini" in done.stdout


def test_a_bad_flag_is_told_in_one_line_and_not_as_a_traceback(tmp_path: Path) -> None:
    done = darkroom("generate", "apple", "--steps", "-1", "--data-dir", str(tmp_path), cwd=tmp_path)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr + done.stdout
    assert "steps" in done.stderr + done.stdout


def test_a_setting_from_the_environment_reaches_the_server(tmp_path: Path) -> None:
    with serving(tmp_path, env={"DARKROOM_API_AUTH": "me:secret"}, auth=("me", "secret")) as server:
        assert server.get("/sdapi/v1/samplers")
        assert server.client.get("/sdapi/v1/samplers", auth=("me", "wrong")).status_code == 401


def test_help_answers_without_loading_torch(tmp_path: Path) -> None:
    watcher = (
        "import sys\n"
        "sys.argv = ['darkroom', '--help']\n"
        "from darkroom.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'numpy.linalg.lapack'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", watcher], cwd=tmp_path, env=dict(os.environ), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "serve" in done.stdout

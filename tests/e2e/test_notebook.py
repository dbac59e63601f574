"""The notebook runs from its first cell to its last, on the embedded model, without the network."""

import json
import os
import subprocess
import sys
from pathlib import Path


def test_the_notebook_runs_to_its_end(repository: Path, tmp_path: Path) -> None:
    notebook = repository / "examples/notebook.ipynb"
    run = [sys.executable, "-m", "pytest", "--nbmake", str(notebook), "--nbmake-timeout=240", "-p", "no:cacheprovider"]
    apart = ["-c", os.devnull, "--rootdir", str(tmp_path), "-q", f"--basetemp={tmp_path / 'run'}"]
    environment = os.environ | {"DARKROOM_SHARE": "0", "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [*run, *apart], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert "1 passed" in done.stdout


def test_the_notebook_is_kept_without_its_answers(repository: Path) -> None:
    cells = json.loads((repository / "examples/notebook.ipynb").read_text(encoding="utf-8"))["cells"]
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in cells)

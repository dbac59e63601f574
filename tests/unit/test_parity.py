"""The comparison with the original program: in which order its cases are sent, and what counts as met."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench.parity import FAMILIES, as_row, good, page
from tests.recordings import in_order


def record(folder: Path, name: str, body: dict[str, Any], model: str | None = None) -> str:
    answer = {"info": json.dumps({"sd_model_name": model})} if model else None
    (folder / f"{name}.json").write_text(json.dumps({"body": body}))
    (folder / f"{name}.response.json").write_text(json.dumps({"body": answer}))
    return name


def test_a_case_follows_the_request_that_selects_its_checkpoint(tmp_path: Path) -> None:
    names = [
        record(tmp_path, "use_a", {"sd_model_checkpoint": "a"}),
        record(tmp_path, "one", {}, "a"),
        record(tmp_path, "use_b", {"sd_model_checkpoint": "b"}),
        record(tmp_path, "stray", {}, "a"),
        record(tmp_path, "own", {"override_settings": {"sd_model_checkpoint": "a"}}, "a"),
        record(tmp_path, "failed", {}),
        record(tmp_path, "unknown", {}, "c"),
    ]
    (tmp_path / "order.txt").write_text("\n".join(names))
    assert in_order(tmp_path) == ["use_a", "one", "stray", "use_b", "own", "failed", "unknown"]


def found(case: str, state: str = "ok", note: str = "max 1 mean 0.010") -> dict[str, Any]:
    return {"case": case, "state": state, "note": note, "seconds": 1.0}


@pytest.mark.parametrize(
    ("row", "met"),
    [
        (found("basic"), True),
        (found("basic", "FAIL", "max 9 mean 0.600"), False),
        (found("xl_sampler_dpm_adaptive", "FAIL", "max 9 mean 0.600"), True),
        (found("xl_sampler_dpm_adaptive", "FAIL", "max 90 mean 9.000"), False),
        (found("basic", "ok", "max 1 mean 0.010; infotext differs: ..."), False),
        (found("error", "differs", "status 200, recorded 500"), False),
    ],
)
def test_a_case_is_met_by_pictures_and_text(row: dict[str, Any], met: bool) -> None:
    assert good(as_row(row)) == met


def test_the_page_counts_every_family_by_itself() -> None:
    rows = [as_row(found(name)) for name in ("basic", "xl_basic", "v2_basic")]
    rows.append(as_row(found("xl_other", "FAIL", "max 77 mean 7.000")))
    text = page(rows, [], {"xl_other": "on purpose"}, 1.0, 1)
    assert "| Stable Diffusion 1 | 1 | 1 (100.0 %) | 1 | 0.010 |" in text
    assert "| Stable Diffusion XL | 2 | 1 (50.0 %) | 1 | 0.010 |" in text
    assert "| xl_other | max 77 mean 7.000 | on purpose |" in text
    assert [line for line in text.splitlines() if line.endswith(": all cases")] == [
        f"## {FAMILIES[prefix]}: all cases" for prefix in ("", "v2_", "xl_")
    ]

"""`make parity`: every recorded request of the original program, sent to Darkroom and compared, written to
docs/parity.md.

The recordings lie beside the repository. Their own runner does the comparing, over checkpoints that their own scripts
rebuild, once, into a cache folder (4 GB).
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from darkroom.bench import machine
from tests.e2e.serving import Json, Pixels, Server, pixels, serving
from tests.recordings import RECORDED, RECORDED_LARGE, NoRoomError, in_order, models_folder

ROOT = Path(__file__).parents[1]
NOTES = Path(__file__).parent / "parity_notes.toml"
PAGE = ROOT / "docs/parity.md"
RUNNER = RECORDED / "run_cases.py"
CHAOTIC: Mapping[str, float] = MappingProxyType(
    {"sampler_dpm_adaptive": 5.0, "xl_sampler_dpm_adaptive": 5.0, "v2_sampler_dpm_adaptive": 5.0}
)
"""Cases that the original does not repeat itself: mean difference allowed there."""

FAMILIES: Mapping[str, str] = MappingProxyType(
    {
        "": "Stable Diffusion 1",
        "v2_": "Stable Diffusion 2, v-prediction",
        "xl_": "Stable Diffusion XL",
        "xr_": "Stable Diffusion XL with its refiner",
        "xv_": "Stable Diffusion XL, v-prediction",
        "xi_": "Stable Diffusion XL, inpainting",
    }
)
"""What the cases are about, by how their names begin."""

COMPANY = ("basic", "sampler_heun", "sampler_dpmpp_2m_sde_heun", "prompt_and_batch2", "img2img_sampler_euler_a")
"""Cases over which exact mode, default mode and bf16 are compared."""

_DIFFERENCE = re.compile(r"max (\d+) mean ([\d.]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One recorded case: whether it is met, and how far its pictures are off; None where it has none."""

    case: str
    met: bool
    largest: int | None
    mean: float | None
    text_differs: bool
    seconds: float
    note: str

    @property
    def family(self) -> str:
        """What the case is about."""
        known = (name for prefix, name in FAMILIES.items() if prefix and self.case.startswith(prefix))
        return next(known, FAMILIES[""])


def main() -> None:
    """Compare, write, and fail if something is off that nobody has explained."""
    wanted = arguments()
    files = {recordings: models_of(recordings) for recordings in wanted.recordings}
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        rows = [row for one, models in files.items() for row in replay(wanted, one, models, Path(folder))]
        seconds = time.perf_counter() - begin
        whole = not (wanted.only or wanted.url)
        modes = compare_modes(wanted, files[RECORDED], Path(folder)) if whole and RECORDED in files else []
    notes = tomllib.loads(NOTES.read_text())["cases"]
    text = page(rows, modes, notes, seconds, wanted.threads)
    if whole and len(files) > 1:
        PAGE.write_text(text)
        print(f"written to {PAGE}")
    else:
        print(text)
    unexplained = [row.case for row in rows if not good(row) and row.case not in notes]
    sys.exit(f"not met and not explained: {' '.join(unexplained)}" if unexplained else 0)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.parity", description=__doc__)
    parser.add_argument(
        "--only",
        default="",
        help="cases whose names begin like this; with it, with --url or --recordings the page is printed",
    )
    parser.add_argument(
        "--recordings", type=Path, action="append", help="the folder of some recordings; both of the repository's"
    )
    parser.add_argument("--url", default="", help="a server in fp32 that runs already over their models")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    wanted = parser.parse_args()
    wanted.recordings = [path.resolve() for path in wanted.recordings or (RECORDED, RECORDED_LARGE)]
    return wanted


def models_of(recordings: Path) -> Path:
    """The folder of their models; the end of the program where there is none."""
    if not (recordings / "cases").is_dir():
        sys.exit(f"There are no recordings in {recordings}; --recordings names their folder.")
    try:
        return models_folder(recordings)
    except NoRoomError as error:
        sys.exit(str(error))


@contextmanager
def server(wanted: argparse.Namespace, recordings: Path, models: Path, folder: Path, *flags: str) -> Iterator[Server]:
    """Darkroom over the recordings' models and styles, with a data folder of its own."""
    data = Path(tempfile.mkdtemp(dir=folder))
    shutil.copy(recordings / "styles.csv", data)
    with serving(data, "--models-dir", str(models), "--threads", str(wanted.threads), *flags) as running:
        yield running


def replay(wanted: argparse.Namespace, recordings: Path, models: Path, folder: Path) -> list[Row]:
    """Have the recordings' own runner send their cases and compare the answers."""
    result = folder / f"{recordings.name}.json"
    names = [name for name in in_order(recordings / "cases") if name.startswith(wanted.only)]
    if not names:
        return []
    command = [sys.executable, str(RUNNER), "--cases", str(listed(recordings / "cases", names, folder))]
    command += ["--json", str(result)]
    if wanted.url:
        subprocess.run([*command, wanted.url], check=False)
    else:
        with server(wanted, recordings, models, folder, "--precision", "fp32") as running:
            subprocess.run([*command, running.url], check=False)
    return [as_row(found) for found in json.loads(result.read_text())]


def listed(cases: Path, names: Sequence[str], folder: Path) -> Path:
    """A folder of the cases with these names in this order, as the runner reads them."""
    links = Path(tempfile.mkdtemp(dir=folder))
    for path in cases.iterdir():
        if path.name != "order.txt":
            (links / path.name).symlink_to(path)
    (links / "order.txt").write_text("\n".join(names))
    return links


def as_row(found: Json) -> Row:
    """One line of the runner's result."""
    difference = _DIFFERENCE.search(found["note"])
    mean = float(difference[2]) if difference else None
    tolerated = mean is not None and mean <= CHAOTIC.get(found["case"], -1)
    return Row(
        case=found["case"],
        met=found["state"] == "ok" or tolerated,
        largest=int(difference[1]) if difference else None,
        mean=mean,
        text_differs="infotext differs" in found["note"],
        seconds=found["seconds"],
        note=found["note"],
    )


def good(row: Row) -> bool:
    """Whether pictures and text are the original's."""
    return row.met and not row.text_differs


# Exact mode, default mode and number formats.


@dataclass(frozen=True, slots=True, kw_only=True)
class Mode:
    """How far one case's pictures come out apart, in 8-bit levels: (largest, mean) per comparison."""

    case: str
    in_company: tuple[int, float]
    exact_in_company: tuple[int, float]
    exact_after_restart: tuple[int, float]
    bf16: tuple[int, float]


def compare_modes(wanted: argparse.Namespace, models: Path, folder: Path) -> list[Mode]:
    """The same requests alone and in company, in either mode, and in bf16."""
    requests = [json.loads((RECORDED / f"cases/{case}.json").read_text()) for case in COMPANY]
    with server(wanted, RECORDED, models, folder, "--precision", "fp32") as running:
        alone, together = apart(running, requests), crowd(running, requests)
    with server(wanted, RECORDED, models, folder, "--precision", "fp32", "--exact") as running:
        exact, exact_together = apart(running, requests), crowd(running, requests)
    with server(wanted, RECORDED, models, folder, "--precision", "fp32", "--exact") as running:
        again = apart(running, requests)
    with server(wanted, RECORDED, models, folder, "--precision", "bf16") as running:
        bf16 = apart(running, requests)
    return [
        Mode(
            case=case,
            in_company=difference(alone[n], together[n]),
            exact_in_company=difference(exact[n], exact_together[n]),
            exact_after_restart=difference(exact[n], again[n]),
            bf16=difference(alone[n], bf16[n]),
        )
        for n, case in enumerate(COMPANY)
    ]


def apart(running: Server, requests: Sequence[Json]) -> list[list[Pixels]]:
    """Every request's pictures, one request after the other."""
    return [send(running, request) for request in requests]


def crowd(running: Server, requests: Sequence[Json]) -> list[list[Pixels]]:
    """Every request's pictures, all requests at once and each of them twice."""
    with ThreadPoolExecutor(2 * len(requests)) as pool:
        found = list(pool.map(lambda request: send(running, request), [*requests, *requests]))
    return found[: len(requests)]


def send(running: Server, request: Json) -> list[Pixels]:
    """One request's pictures."""
    return [pixels(image) for image in running.post(request["path"], request["body"])["images"]]


def difference(one: Sequence[Pixels], other: Sequence[Pixels]) -> tuple[int, float]:
    """The largest and the mean difference over all pictures, in 8-bit levels."""
    found = [np.abs(a - b) for a, b in zip(one, other, strict=True)]
    return max(int(levels.max()) for levels in found), max(float(levels.mean()) for levels in found)


# The page.


def page(rows: Sequence[Row], modes: Sequence[Mode], notes: dict[str, Any], seconds: float, threads: int) -> str:
    """Everything as Markdown."""
    families = {name: [row for row in rows if row.family == name] for name in FAMILIES.values()}
    found = {name: same for name, same in families.items() if same}
    cases = (line for name, same in found.items() for line in _cases(name, same))
    return "\n".join(
        [*_summary(rows, seconds, threads), *_families(found), *_unmet(rows, notes), *_modes(modes), *cases]
    )


def _summary(rows: Sequence[Row], seconds: float, threads: int) -> Iterator[str]:
    met, drawn = sum(map(good, rows)), [row for row in rows if row.largest is not None]
    yield "# Parity with stable-diffusion-webui 1.10.1"
    yield ""
    yield (
        "Requests that were recorded from the original program, on a CPU in fp32, sent again to Darkroom in fp32. A "
        "case is met if no pixel differs by more than 2 levels of 255 and the mean difference is below 0.1, and if the "
        "generation text is the same, character for character, apart from the version. An error is met by an error. "
        "Of other answers the keys are compared. Every case is sent behind the request that selects the checkpoint "
        "which its answer names. `make parity` writes this page."
    )
    yield ""
    yield f"- **{met} of {len(rows)} cases met ({100 * met / max(len(rows), 1):.1f} %)**"
    yield f"- pictures that are equal in every pixel: {sum(row.largest == 0 for row in drawn)} of {len(drawn)} cases"
    yield f"- seconds for all of them: {seconds:.0f}, the start of the server included"
    yield f"- measured {datetime.now().astimezone():%Y-%m-%d %H:%M}"
    yield from (f"- {name}: {value}" for name, value in machine.describe(threads).items())
    yield ""


def _families(families: Mapping[str, Sequence[Row]]) -> Iterator[str]:
    yield from ("## By family", "", "| family | cases | met | largest | highest mean |", "|---|---|---|---|---|")
    for name, rows in families.items():
        drawn = [row for row in rows if good(row) and row.case not in CHAOTIC]
        largest = max((row.largest for row in drawn if row.largest is not None), default=0)
        mean = max((row.mean for row in drawn if row.mean is not None), default=0.0)
        met = sum(map(good, rows))
        yield f"| {name} | {len(rows)} | {met} ({100 * met / len(rows):.1f} %) | {largest} | {mean:.3f} |"
    yield ""
    yield "Largest and mean difference are those of the cases met, without the sampler that does not repeat itself."
    yield ""


def _unmet(rows: Sequence[Row], notes: dict[str, Any]) -> Iterator[str]:
    unmet = [row for row in rows if not good(row)]
    if unmet:
        yield from ("## Not met", "", "| case | what differs | why |", "|---|---|---|")
        yield from (f"| {row.case} | {cell(row.note)} | {notes.get(row.case, '')} |" for row in unmet)
        yield ""


def _modes(modes: Sequence[Mode]) -> Iterator[str]:
    if not modes:
        return
    yield "## Exact mode and the default"
    yield ""
    yield (
        "A request that shares its forward passes with others may differ in low-order bits, because processors "
        "compute larger batches in another order; with `--exact` it does not. Differences in levels of 255, largest "
        "and mean; company is every request of the table sent twice, all at once."
    )
    yield ""
    yield "| case | default: in company | exact: in company | exact: after a restart | default: bf16 for fp32 |"
    yield "|---|---|---|---|---|"
    for mode in modes:
        pairs = (mode.in_company, mode.exact_in_company, mode.exact_after_restart, mode.bf16)
        yield f"| {mode.case} | {' | '.join(f'{largest}, {mean:.4f}' for largest, mean in pairs)} |"
    yield ""


def _cases(family: str, rows: Iterable[Row]) -> Iterator[str]:
    yield from (
        f"## {family}: all cases",
        "",
        "| case | met | largest | mean | text | seconds |",
        "|---|---|---|---|---|---|",
    )
    for row in rows:
        largest = "" if row.largest is None else str(row.largest)
        mean = "" if row.mean is None else f"{row.mean:.3f}"
        text = "differs" if row.text_differs else "same" if row.mean is not None else ""
        limit = f" (mean up to {CHAOTIC[row.case]:.0f} allowed)" if row.case in CHAOTIC else ""
        met = "yes" if good(row) else "no"
        yield f"| {row.case}{limit} | {met} | {largest} | {mean} | {text} | {row.seconds:.2f} |"
    yield ""


def cell(text: str) -> str:
    """A text that fits into a table."""
    return text.replace("|", "\\|").replace("\n", " ")[:300]


if __name__ == "__main__":
    main()

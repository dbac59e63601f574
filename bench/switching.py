"""`python -m bench.switching`: what a change of weights takes, measured against copying as many bytes.

Two checkpoints take turns, with memory for one of them (a cold switch reads a file) and for both (a warm one finds
everything in place); then two adapters do. Every time is divided by that of copying the same bytes from one place in
memory to another that has been used before. The last line compares resident memory after five and after fifty cold
switches.

Without `--checkpoint` a checkpoint of Stable Diffusion 1's size with random weights is written to a temporary folder.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from shutil import copy
from statistics import median
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from darkroom.engine.allocator import keep_freed_memory, return_freed_memory
from darkroom.nets import layout
from darkroom.nets.adapters import AdapterFile
from darkroom.nets.checkpoint import UNET, VAE
from darkroom.nets.libraries import CLIPTextConfig, CLIPTextModel
from darkroom.nets.merging import Share
from darkroom.nets.network import Network, Variant
from darkroom.nets.precision import choose_dtype
from darkroom.nets.store import Store
from darkroom.nets.unet import build_unet
from darkroom.nets.vae import build_vae

CPU = torch.device("cpu")
TEXT = "cond_stage_model.transformer.text_model."
RANK = 16
EARLY, LATE = 5, 50
"""Switches after which resident memory is compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Switching:
    """What was measured: bytes, and medians of seconds. `resident` is by number of switches, `threads` the setting."""

    threads: int
    nbytes: int
    copy_s: float
    cold_s: float
    warm_s: float
    adapter_nbytes: int
    adapter_copy_s: float
    adapter_s: float
    resident: Mapping[int, int]

    @property
    def growth(self) -> float:
        """By which share of itself resident memory grew between the early and the late look."""
        return self.resident[LATE] / self.resident[EARLY] - 1

    def rows(self) -> list[tuple[str, str]]:
        """What to print: a name and a figure."""
        early, late = (f"{self.resident[count] / 1e6:.0f} MB" for count in (EARLY, LATE))
        return [
            (f"copying a checkpoint's {self.nbytes / 1e6:.0f} MB in memory", f"{self.copy_s:.3f} s"),
            ("cold switch to another checkpoint", f"{self.cold_s:.3f} s, {self.cold_s / self.copy_s:.2f} copies"),
            ("warm switch", f"{1e6 * self.warm_s:.0f} us, {self.warm_s / self.copy_s:.5f} copies"),
            (f"copying an adapter's {self.adapter_nbytes / 1e6:.0f} MB", f"{self.adapter_copy_s:.3f} s"),
            ("adapter switch", f"{self.adapter_s:.3f} s, {self.adapter_s / self.adapter_copy_s:.2f} copies"),
            (f"resident after {EARLY} and {LATE} cold switches", f"{early}, {late}: {100 * self.growth:+.2f} %"),
        ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.switching", description=__doc__)
    parser.add_argument("--checkpoint", type=Path, help="a single file; its YAML may lie beside it")
    parser.add_argument("--rounds", type=int, default=7, help="switches of either kind that are timed")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    wanted = parser.parse_args()
    torch.set_num_threads(wanted.threads)
    with tempfile.TemporaryDirectory() as folder:
        pair = pair_of(wanted.checkpoint, Path(folder))
        return_freed_memory()  # what writing them took
        keep_freed_memory()
        found = measure(pair, wanted.rounds)
    if wanted.json:
        print(json.dumps(asdict(found)))
        return
    for name, value in found.rows():
        print(f"{name:50} {value}")


def measured_apart(threads: int) -> Switching:
    """The same in a process of its own, so that nothing else is in its memory."""
    command = [sys.executable, "-m", "bench.switching", "--json", "--threads", str(threads)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return Switching(**{**found, "resident": {int(count): size for count, size in found["resident"].items()}})


def pair_of(checkpoint: Path | None, folder: Path) -> list[tuple[str, str | None]]:
    """Two checkpoints alike in the folder, with their YAML if there is one."""
    first, second = folder / "a.safetensors", folder / "b.safetensors"
    config = checkpoint.with_suffix(".yaml") if checkpoint else None
    if checkpoint:
        copy(checkpoint, first)
    else:
        write_full_size(first)
    copy(first, second)
    return [(str(path), str(config) if config and config.is_file() else None) for path in (first, second)]


@torch.inference_mode()
def measure(pair: Sequence[tuple[str, str | None]], rounds: int) -> Switching:
    """Cold and warm switches between two checkpoints, switches of adapters in one, and memory over time."""
    dtype = choose_dtype("auto", CPU)
    tight = Store(CPU, dtype, 1)
    for one in pair:
        tight.get(*one)
    cold_s = in_turn(tight.get, pair, rounds)
    nbytes = tight.nbytes
    resident = resident_after(tight, pair)
    tight.clear()
    roomy = Store(CPU, dtype, 4 * nbytes)
    for one in pair:
        roomy.get(*one)
    warm_s = in_turn(roomy.get, pair, rounds)
    adapter_nbytes, adapter_s = adapter_switches(roomy.get(*pair[0]), pair[0][0], rounds)
    roomy.clear()
    return Switching(
        threads=torch.get_num_threads(),
        nbytes=nbytes,
        copy_s=copy_s(nbytes),
        cold_s=cold_s,
        warm_s=warm_s,
        adapter_nbytes=adapter_nbytes,
        adapter_copy_s=copy_s(adapter_nbytes),
        adapter_s=adapter_s,
        resident=resident,
    )


def in_turn(switch: Callable[..., object], things: Sequence[tuple[Any, ...]], rounds: int) -> float:
    """The median of seconds that it takes to switch to one thing after the other."""
    return median(seconds(partial(switch, *things[count % len(things)])) for count in range(rounds))


def adapter_switches(network: Network, checkpoint: str, rounds: int) -> tuple[int, float]:
    """Two adapters of every matrix of the denoiser take turns: the bytes of the weights that change, and seconds."""
    plain = network.nbytes
    shares = [Share(key=seed, file=random_adapter(checkpoint, seed), strength=1.0) for seed in (1, 2)]

    def change(share: Share) -> None:
        network.variant = Variant(unet=(share,))
        network.merge("denoiser")

    change(shares[1])
    return network.nbytes - plain, in_turn(change, [(share,) for share in shares], rounds)


def resident_after(store: Store, pair: Sequence[tuple[str, str | None]]) -> dict[int, int]:
    """Resident memory after few and after many cold switches."""
    found = {}
    for count in range(1, LATE + 1):
        store.get(*pair[count % 2])
        if count in (EARLY, LATE):
            found[count] = resident_bytes()
    return found


def resident_bytes() -> int:
    """What the kernel counts as this process's own memory; pages of mapped files are not."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))


def copy_s(nbytes: int, rounds: int = 5) -> float:
    """How long copying so many bytes takes, from memory to memory."""
    source, target = torch.ones(nbytes, dtype=torch.uint8), torch.ones(nbytes, dtype=torch.uint8)
    return median(seconds(lambda: target.copy_(source)) for _ in range(rounds))


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def random_adapter(checkpoint: str, seed: int) -> AdapterFile:
    """A LoRA of every matrix in the denoiser."""
    torch.manual_seed(seed)
    with safe_open(checkpoint, framework="pt") as file:
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118  not a mapping
    layers: dict[str, dict[str, Tensor]] = {}
    for name, shape in shapes.items():
        if name.startswith(UNET) and name.endswith(".weight") and len(shape) == 2:
            layer = "lora_unet_" + name.removeprefix(UNET).removesuffix(".weight").replace(".", "_")
            up, down = torch.randn(shape[0], RANK) * 0.01, torch.randn(RANK, shape[1]) * 0.01
            layers[layer] = {"lora_up.weight": up, "lora_down.weight": down}
    return AdapterFile(layers, {})


def write_full_size(path: Path) -> None:
    """A checkpoint of Stable Diffusion 1's shapes in fp16, of random weights."""
    torch.manual_seed(0)
    save_file({name: torch.randn(shape).half() * 0.02 for name, shape in full_size_shapes()}, path)


def full_size_shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every tensor's name in the file, and its shape."""
    widths = (320, 640, 1280, 1280)
    unet = build_unet(
        {
            "block_out_channels": widths,
            "layers_per_block": 2,
            "cross_attention_dim": 768,
            "attention_head_dim": (8,) * 4,
        }
    )
    levels = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    vae = build_vae({"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 4, **levels})
    with torch.device("meta"):
        text = CLIPTextModel(CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_attention_heads=12))
    behind_attention = {f"output_blocks.{number}.2.conv.weight" for number in (5, 8)}
    unet_name, vae_name = layout.unet_source(behind_attention, 2), layout.vae_source(4)
    for name, value in unet.state_dict().items():
        yield UNET + unet_name(name), tuple(value.shape)
    for name, value in vae.state_dict().items():
        yield VAE + vae_name(name), tuple(value.shape)
    for name, value in text.state_dict().items():
        yield TEXT + name, tuple(value.shape)


if __name__ == "__main__":
    main()

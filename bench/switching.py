"""`python -m bench.switching`: what a change of weights takes, measured against copying as many bytes.

Two checkpoints take turns, with memory for one of them (a cold switch reads a file) and for both (a warm one finds
everything in place); then two adapters do. Every time is divided by that of copying the same bytes from one place in
memory to another that has been used before. The last line compares resident memory after five and after fifty cold
switches.

Without `--checkpoint` a checkpoint of Stable Diffusion 1's size with random weights is written to a temporary folder.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import copy
from statistics import median

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from darkroom.engine.allocator import keep_freed_memory
from darkroom.nets import layout
from darkroom.nets.adapters import AdapterFile
from darkroom.nets.checkpoint import UNET, VAE
from darkroom.nets.libraries import CLIPTextConfig, CLIPTextModel
from darkroom.nets.merging import Share
from darkroom.nets.network import Variant
from darkroom.nets.precision import choose_dtype
from darkroom.nets.store import Store
from darkroom.nets.unet import build_unet
from darkroom.nets.vae import build_vae

CPU = torch.device("cpu")
TEXT = "cond_stage_model.transformer.text_model."
RANK = 16
EARLY, LATE = 5, 50
"""Switches after which resident memory is compared."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.switching", description=__doc__)
    parser.add_argument("--checkpoint", type=Path, help="a single file; its YAML may lie beside it")
    parser.add_argument("--rounds", type=int, default=7, help="switches of either kind that are timed")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    wanted = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(wanted.threads)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(wanted.checkpoint or write_full_size(Path(folder) / "full.safetensors"), wanted.rounds)
    for name, value in found.items():
        print(f"{name:42} {value:10.4g}")


@torch.inference_mode()
def measure(checkpoint: Path, rounds: int) -> dict[str, float]:
    """All figures by name; times are medians, in units of the copy's."""
    with tempfile.TemporaryDirectory(dir=checkpoint.parent) as folder:
        pair = [str(copy(checkpoint, Path(folder) / f"{name}.safetensors")) for name in "ab"]
        config = checkpoint.with_suffix(".yaml")
        return switches(pair, str(config) if config.is_file() else None, rounds)


def switches(pair: list[str], config: str | None, rounds: int) -> dict[str, float]:
    """Cold and warm switches between two checkpoints, switches of adapters in one, and memory over time."""
    store = Store(CPU, choose_dtype("auto", CPU), 1)
    for name in pair:
        store.get(name, config)
    cold = [seconds(lambda name=name: store.get(name, config)) for name in pair * rounds][:rounds]
    nbytes = store.nbytes
    memory = resident_after(store, pair, config)
    store.clear()
    copying = copy_s(nbytes)
    roomy = Store(CPU, choose_dtype("auto", CPU), 4 * nbytes)
    for name in pair:
        roomy.get(name, config)
    warm = [seconds(lambda name=name: roomy.get(name, config)) for name in pair * rounds][:rounds]
    return {
        "checkpoint in memory, MB": nbytes / 1e6,
        "copy of as many bytes, s": copying,
        "cold switch, s": median(cold),
        "cold switch / copy": median(cold) / copying,
        "warm switch, s": median(warm),
        "warm switch / copy": median(warm) / copying,
        **adapter_switches(roomy, pair[0], config, rounds),
        **memory,
    }


def adapter_switches(store: Store, name: str, config: str | None, rounds: int) -> dict[str, float]:
    """Two adapters of every matrix of the denoiser take turns; the bytes are those of the weights that they change."""
    network = store.get(name, config)
    plain = network.nbytes
    variants = [Variant(unet=(Share(key=key, file=random_adapter(name, key), strength=1.0),)) for key in (1, 2)]

    def change(variant: Variant) -> None:
        network.variant = variant
        network.merge("denoiser")

    change(variants[0])
    nbytes = network.nbytes - plain
    times = [seconds(lambda variant=variant: change(variant)) for variant in (variants[::-1] * rounds)[:rounds]]
    back = seconds(lambda: change(Variant()))
    copying = copy_s(nbytes)
    return {
        "weights changed by an adapter, MB": nbytes / 1e6,
        "adapter switch, s": median(times),
        "adapter switch / copy": median(times) / copying,
        "taking an adapter out, s": back,
    }


def resident_after(store: Store, pair: list[str], config: str | None) -> dict[str, float]:
    """Resident memory after few and after many cold switches."""
    found = {}
    for count in range(1, LATE + 1):
        store.get(pair[count % 2], config)
        if count in (EARLY, LATE):
            found[f"resident after {count} switches, MB"] = resident_bytes() / 1e6
    early, late = found.values()
    return {**found, "growth, per cent": 100 * (late / early - 1)}


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


def write_full_size(path: Path) -> Path:
    """A checkpoint of Stable Diffusion 1's shapes in fp16, of random weights."""
    torch.manual_seed(0)
    save_file({name: torch.randn(shape).half() * 0.02 for name, shape in full_size_shapes()}, path)
    return path


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
        text = CLIPTextModel(CLIPTextConfig())
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

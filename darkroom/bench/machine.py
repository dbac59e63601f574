"""The machine and the versions that a measurement belongs to, and what the machine itself can do at the time."""

import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

PACKAGES = (
    "darkroom", "torch", "diffusers", "transformers", "safetensors", "fastapi", "uvicorn",
    "stable-diffusion-cpp-python",
)  # fmt: skip


def describe(threads: int, device: str = "cpu") -> dict[str, str]:
    """Processor, device, thread count, and versions of what is measured."""
    features = [name for name in ("amx_bf16", "avx512_bf16", "avx512f", "avx2") if name in cpu_flags()]
    return {
        "processor": processor(),
        "features": " ".join(features),
        "cores": str(len(os.sched_getaffinity(0))),
        "threads": str(threads),
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "load before": f"{os.getloadavg()[0]:.2f}",
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def processor() -> str:
    """The processor's name as Linux tells it."""
    return next(iter(_cpuinfo("model name")), platform.machine())


def cpu_flags() -> frozenset[str]:
    """The processor's features as Linux names them."""
    return frozenset(next(iter(_cpuinfo("flags")), "").split())


def _cpuinfo(name: str) -> list[str]:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return [line.split(":", 1)[1].strip() for line in lines if line.startswith(name)]


def matmul_gflops(dtype: torch.dtype, device: str, rounds: int = 8) -> float:
    """The best of some square matrix products, in 10^9 operations per second."""
    size = 8192 if device == "cuda" else 2048
    a, b = (torch.randn(size, size).to(device, dtype) for _ in range(2))
    return 2 * size**3 / _best(lambda: a @ b, device, rounds) / 1e9


def copy_gb_per_s(device: str, nbytes: int = 1 << 29) -> float:
    """The best of some copies within the device's memory, in 10^9 bytes copied per second."""
    a, b = (torch.ones(nbytes, dtype=torch.uint8, device=device) for _ in range(2))
    return nbytes / _best(lambda: b.copy_(a), device, 6) / 1e9


def _best(work: Callable[[], object], device: str, rounds: int) -> float:
    times = []
    for _ in range(rounds + 1):
        begin = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
    return min(times[1:])


def resident_bytes(pid: int | str = "self") -> int:
    """What the kernel counts as a process's own memory; pages of mapped files are not."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))

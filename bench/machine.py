"""The machine and the versions that a measurement belongs to."""

import os
import platform
import time
from importlib.metadata import version
from pathlib import Path

import torch

PACKAGES = ("darkroom", "torch", "diffusers", "transformers", "fastapi", "uvicorn")


def describe(threads: int) -> dict[str, str]:
    """Processor, thread count, and versions of what was measured."""
    features = [name for name in ("amx_bf16", "avx512_bf16", "avx512f", "avx2") if name in cpu_flags()]
    return {
        "processor": processor(),
        "features": " ".join(features),
        "cores": str(len(os.sched_getaffinity(0))),
        "threads": str(threads),
        "load before": f"{os.getloadavg()[0]:.2f}",
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
    }


def processor() -> str:
    """The processor's name as Linux tells it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def cpu_flags() -> frozenset[str]:
    """The processor's features as Linux names them."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    flags = [line.split(":", 1)[1].split() for line in lines if line.startswith("flags")]
    return frozenset(flags[0]) if flags else frozenset()


def matmul_gflops(dtype: torch.dtype, size: int = 1536, rounds: int = 6) -> float:
    """The best of some square matrix products, in 10^9 operations per second."""
    a, b = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
    a @ b
    best = float("inf")
    for _ in range(rounds):
        begin = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - begin)
    return 2 * size**3 / best / 1e9

"""The kernels of our own that networks compute by on a processor, all together."""

from dataclasses import dataclass
from pathlib import Path

from darkroom.nets.native_attention import Kernel, find_kernel
from darkroom.nets.native_norms import NormKernel, find_norm_kernel
from darkroom.nets.native_products import ProductKernel, find_product_kernel


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernels:
    """None where torch's own does the work."""

    attention: Kernel | None = None
    norm: NormKernel | None = None
    product: ProductKernel | None = None


def find_kernels(folder: Path) -> Kernels:
    """Those that this machine can have, compiled into a folder unless they lie there."""
    return Kernels(attention=find_kernel(folder), norm=find_norm_kernel(folder), product=find_product_kernel(folder))

"""Numbers on their way to a GPU and pictures on their way back. Knows tensors alone.

From pageable memory a copy to a GPU waits for all that the GPU still has to do; from page-locked memory it does not,
and what was copied from stays until the copy is done (torch's allocator sees to that). So nothing here waits on the way
there. On a processor all of it is what torch does anyway.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def sent(numbers: Sequence[float] | Tensor, device: torch.device) -> Tensor:
    """Numbers, or a tensor of the processor's, as float32 on a device."""
    x = torch.as_tensor(numbers, dtype=torch.float32)
    if device.type != "cuda" or x.device.type == "cuda":
        return x.to(device)
    return x.pin_memory().to(device, non_blocking=True)


def fetched(x: Tensor) -> Tensor:
    """A tensor in main memory, with all of its numbers there."""
    if x.device.type != "cuda":
        return x.cpu()
    passing = torch.empty(x.shape, dtype=x.dtype, pin_memory=True)
    passing.copy_(x, non_blocking=True)
    torch.cuda.current_stream(x.device).synchronize()
    return passing.clone()  # what is kept of a job must not hold page-locked memory

"""What torch reads from the environment when it comes in. Knows names of variables, and not torch."""

import os
from collections.abc import Mapping
from typing import Final

DEFAULTS: Final[Mapping[str, str]] = {
    # torch's threads sleep while they wait for each other. By default they spin, after each operation; where another
    # program has one of their cores, each operation then takes as long as that one's turn: an evaluation of the
    # embedded model 0.9 s instead of 0.016 s, on two cores of which one was busy. On an idle machine very small
    # networks lose a third or more by it: 0.016 to 0.029 s instead of 0.012 s.
    "OMP_WAIT_POLICY": "passive",
    # oneDNN compiles a kernel for each layer, size of picture and number of rows, and keeps 1024 of them by default,
    # which is thirty sizes of batches. Of sixty that came in turn, none was kept, and each evaluation of the embedded
    # model took 1.8 times as long; the heap was torn by it. These many need 0.3 GB where they are all in use.
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "4096",
}


def prepare_environment() -> None:
    """Set what suits the engine, unless the environment says otherwise. To be called before torch comes in."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)

"""How torch's threads wait for each other. Knows the environment variable of OpenMP, and not torch."""

import os

_POLICY = "OMP_WAIT_POLICY"


def wait_asleep() -> None:
    """Have torch's threads sleep while they wait for each other, unless the environment says otherwise. To be called
    before torch comes in.

    By default they spin, after each operation. Where another program has one of their cores, each operation then takes
    as long as that one's turn: an evaluation of the embedded model 0.9 s instead of 0.016 s, on two cores of which one
    was busy. On an idle machine very small networks lose a third or more by it: 0.016 to 0.029 s instead of 0.012 s.
    """
    os.environ.setdefault(_POLICY, "passive")

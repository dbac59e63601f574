"""From a picture's latent up to the noise that a deterministic sampler would have made it from."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from darkroom.sampling.steps import Eval, Steps


def inverted_euler(x: Tensor, sigmas: Sequence[float], *, adjusted: bool = False) -> Steps:
    """Euler's method run upward: Song et al. 2021, arXiv:2010.02502, section 4.3, in the variables of Karras et al.

    `sigmas` ascend from 0. The result has a standard deviation of about 1: noise as a sampler is given it. Each step is
    taken with the slope at its end, or, `adjusted`, with that at its beginning; the first one then has none.
    """
    for low, high in pairwise(sigmas):
        level = low if adjusted else high
        if level > 0:
            x0 = yield Eval(x, level)
            x = x + (x - x0) / level * (high - low)
    return x / sigmas[-1] if adjusted else x / x.std()

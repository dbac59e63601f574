"""Whole jobs as straight code: each program makes one picture of a job by asking the engine its questions."""

import torch

from darkroom.jobs.img2img import img2img
from darkroom.jobs.ops import Program
from darkroom.jobs.spec import JobSpec
from darkroom.jobs.txt2img import txt2img


def program(spec: JobSpec, index: int, device: torch.device) -> Program:
    """The program that makes picture `index` of the job, with its latents on `device`."""
    match spec.kind:
        case "txt2img":
            return txt2img(spec, index, device)
        case "img2img":
            return img2img(spec, index, device)

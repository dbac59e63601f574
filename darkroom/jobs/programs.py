"""Whole jobs as straight code: each program makes one picture of a job by asking the engine its questions."""

import numpy as np
import torch

from darkroom.jobs.img2img import img2img
from darkroom.jobs.ops import Aside, Program, RestoreFaces
from darkroom.jobs.spec import FaceRestoration, JobSpec, Model
from darkroom.jobs.txt2img import txt2img

BEFORE_FACES = "-before-face-restoration"


def program(spec: JobSpec, index: int, device: torch.device) -> Program:
    """The program that makes picture `index` of the job, with its latents on `device`."""
    drawing = _drawing(spec, index, device)
    return with_faces_restored(drawing, spec.model, spec.faces) if spec.faces else drawing


def with_faces_restored(drawing: Program, model: Model, restoration: FaceRestoration) -> Program:
    """The picture with its faces restored; a fourth channel stays as it is."""
    drawn = yield from drawing
    if restoration.keep:
        yield Aside(BEFORE_FACES, drawn[..., :3])
    restored = yield RestoreFaces(model=model, picture=drawn[..., :3], restoration=restoration)
    return np.concatenate([restored, drawn[..., 3:]], axis=-1)


def _drawing(spec: JobSpec, index: int, device: torch.device) -> Program:
    match spec.kind:
        case "txt2img":
            return txt2img(spec, index, device)
        case "img2img":
            return img2img(spec, index, device)

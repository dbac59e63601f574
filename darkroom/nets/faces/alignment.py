"""Cuts a face out of a picture, upright and at the size that restorers are trained on, and lays it back.

Knows geometry and pixels; knows no network and no detector.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from darkroom.nets.faces.detection import Face, Levels

SIDE = 512
LEFT_EYE, RIGHT_EYE = (193.0, 240.0), (319.0, 240.0)
"""Where the eyes are in the pictures of FFHQ at 512x512 (Karras et al. 2019, arXiv:1812.04948), which restorers are
trained on: the mean over the data set.
"""

_MARGIN = 16
_FEATHER = 0.25
"""Pixels at the border of the aligned face that are left alone, and the share of the way to its middle over which the
restored face sets in.
"""

Transform = NDArray[np.float64]
"""`[2, 3]`: from points of the picture to points of the aligned face."""


def transform_of(face: Face) -> Transform:
    """The turn, scale and shift that bring the eyes where they belong: a similarity, given by two points."""
    (x0, y0), (x1, y1) = face.left_eye, face.right_eye
    here, there = complex(x1 - x0, y1 - y0), complex(RIGHT_EYE[0] - LEFT_EYE[0], RIGHT_EYE[1] - LEFT_EYE[1])
    turn = there / here
    shift = complex(*LEFT_EYE) - turn * complex(x0, y0)
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])


def cut_out(picture: Levels, transform: Transform) -> Levels:
    """The aligned face `[512, 512, 3]`; what lies outside the picture is grey."""
    face = cv2.warpAffine(
        np.ascontiguousarray(picture), transform, (SIDE, SIDE), flags=cv2.INTER_LINEAR, borderValue=(135, 133, 132)
    )
    return np.asarray(face, dtype=np.uint8)


def lay_back(picture: Levels, before: Levels, after: Levels, transform: Transform) -> Levels:
    """The picture with what a restorer changed from `before` to `after`, two aligned faces, under a soft mask.

    The change is what is brought back, not the face: where a restorer changes nothing, no pixel loses sharpness on its
    way there and back.
    """
    left, top, right, bottom = _box(transform, picture.shape[1], picture.shape[0])
    if left >= right or top >= bottom:
        return picture
    change = (after.astype(np.float32) - before) * soft_mask()[..., None]
    scale = float(np.hypot(transform[0, 0], transform[1, 0]))
    if scale > 1:  # where the face is smaller in the picture, its pixels are averaged and not sampled
        change = np.asarray(cv2.GaussianBlur(change, (0, 0), 0.5 * np.sqrt(scale * scale - 1)), dtype=np.float32)
    from_box = transform.copy()
    from_box[:, 2] += transform[:, :2] @ (left, top)
    laid = cv2.warpAffine(
        change,
        from_box,
        (right - left, bottom - top),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderValue=(0, 0, 0),
    )
    result = picture.copy()
    part = result[top:bottom, left:right]
    part[:] = np.clip(part + np.round(laid), 0, 255)
    return result


def _box(transform: Transform, width: int, height: int) -> tuple[int, int, int, int]:
    """The part of a picture that an aligned face covers: left, top, right, bottom."""
    corners = np.array([(0, 0), (SIDE, 0), (0, SIDE), (SIDE, SIDE)], dtype=np.float64)
    places = np.linalg.solve(transform[:, :2], (corners - transform[:, 2]).T).T
    low, high = np.floor(places.min(axis=0)), np.ceil(places.max(axis=0))
    return max(int(low[0]), 0), max(int(low[1]), 0), min(int(high[0]), width), min(int(high[1]), height)


def soft_mask() -> NDArray[np.float32]:
    """`[512, 512]`: 1 over the face, falling to 0 before the border, with round corners."""
    middle = (SIDE - 1) / 2
    from_middle = np.abs(np.arange(SIDE) - middle) / (middle - _MARGIN)
    distance = np.cbrt(from_middle[:, None] ** 3 + from_middle[None] ** 3)
    ramp = np.clip((1 - distance) / _FEATHER, 0, 1)
    return np.asarray(ramp * ramp * (3 - 2 * ramp), dtype=np.float32)

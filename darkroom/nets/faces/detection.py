"""Finds frontal faces with the cascades that OpenCV brings along: no weights of their own are needed.

Viola and Jones 2001 (CVPR); eyes inside a face by a second cascade. Knows nothing of restoring.
"""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from cv2.data import haarcascades
from numpy.typing import NDArray

Levels = NDArray[np.uint8]
Point = tuple[float, float]

SEARCHED_SIDE = 640
"""A larger picture is reduced to this shorter side: a face worth restoring is still large there."""

SMALLEST_FACE = 24
SURE = 12
"""Overlapping windows that hold a face; four make a candidate."""

MIN_EYE_DISTANCE = 5.0
"""Pixels of the picture; what is smaller is no face that could be restored."""

# Of the box that the face cascade draws: where eyes are when they are not seen, and where they may be.
_EYES: tuple[Point, Point] = ((0.31, 0.38), (0.69, 0.38))
_EYE_REACH = 0.12


@dataclass(frozen=True, slots=True, kw_only=True)
class Face:
    """A face by its eyes, in pixels of the picture: the one at its left and the one at its right."""

    left_eye: Point
    right_eye: Point

    @property
    def eye_distance(self) -> float:
        """Pixels between the eyes."""
        return float(np.hypot(self.right_eye[0] - self.left_eye[0], self.right_eye[1] - self.left_eye[1]))


class FaceDetector:
    """The two cascades, read once. Not for several threads at once."""

    __slots__ = ("_eyes", "_faces")

    def __init__(self) -> None:
        folder = Path(haarcascades)
        self._faces = cv2.CascadeClassifier(str(folder / "haarcascade_frontalface_alt2.xml"))
        self._eyes = cv2.CascadeClassifier(str(folder / "haarcascade_eye_tree_eyeglasses.xml"))

    def find(self, picture: Levels) -> list[Face]:
        """The faces of a picture `[H, W, 3]`, the largest first."""
        scale = max(1.0, min(picture.shape[:2]) / SEARCHED_SIDE)
        grey = cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY)
        size = (round(grey.shape[1] / scale), round(grey.shape[0] / scale))
        searched = np.asarray(cv2.equalizeHist(cv2.resize(grey, size, interpolation=cv2.INTER_AREA)), dtype=np.uint8)
        smallest = (SMALLEST_FACE, SMALLEST_FACE)
        boxes, votes = self._faces.detectMultiScale2(searched, scaleFactor=1.1, minNeighbors=4, minSize=smallest)
        faces = [
            self._face(searched, tuple(map(int, box)), scale, sure=count >= SURE)
            for box, count in zip(boxes, votes, strict=True)
        ]
        kept = [face for face in faces if face and face.eye_distance >= MIN_EYE_DISTANCE]
        return sorted(kept, key=lambda face: -face.eye_distance)

    def _face(self, grey: Levels, box: tuple[int, ...], scale: float, *, sure: bool) -> Face | None:
        """The face in a box; None where it has no eyes and is not sure either: houses have faces too."""
        left, top, width, height = box
        eyes = self._eyes.detectMultiScale(grey[top : top + height, left : left + width], 1.05, 2)
        seen = [(float(x + w / 2), float(y + h / 2)) for x, y, w, h in eyes]
        expected = [(x * width, y * height) for x, y in _EYES]
        found = [_nearest(eye, seen, _EYE_REACH * width) for eye in expected]
        if None in found and not sure:
            return None
        # One eye alone would turn the face.
        first, second = expected if None in found else filter(None, found)
        return Face(
            left_eye=((left + first[0]) * scale, (top + first[1]) * scale),
            right_eye=((left + second[0]) * scale, (top + second[1]) * scale),
        )


def _nearest(expected: Point, seen: list[Point], reach: float) -> Point | None:
    """What was seen nearest to where it is expected, within `reach` pixels."""
    near = [(float(np.hypot(x - expected[0], y - expected[1])), (x, y)) for x, y in seen]
    distance, point = min(near, default=(reach, expected))
    return point if distance < reach else None

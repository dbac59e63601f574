"""Faces: found where they are, brought upright, and laid back without a trace where nothing was changed."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFilter

from darkroom.nets.faces.alignment import LEFT_EYE, RIGHT_EYE, SIDE, cut_out, lay_back, soft_mask, transform_of
from darkroom.nets.faces.detection import Face, FaceDetector, Levels

SKIN, DARK = (225, 185, 160), (50, 30, 25)

faces = st.builds(
    lambda x, y, distance, angle: Face(
        left_eye=(x, y), right_eye=(x + distance * math.cos(angle), y + distance * math.sin(angle))
    ),
    st.floats(-50, 250),
    st.floats(-50, 250),
    st.floats(8, 300),
    st.floats(-math.pi, math.pi),
)


def noise(width: int = 200, height: int = 160) -> Levels:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def drawn_face(side: int = 320, x: int = 160, y: int = 170, r: int = 90) -> Levels:
    """A plain face whose eyes are at `x -+ r / 3` and `y - r / 5`."""
    picture = Image.new("RGB", (side, side), (90, 110, 130))
    pen = ImageDraw.Draw(picture)

    def oval(dx: float, dy: float, rx: float, ry: float, fill: tuple[int, int, int]) -> None:
        pen.ellipse((x + (dx - rx) * r, y + (dy - ry) * r, x + (dx + rx) * r, y + (dy + ry) * r), fill=fill)

    oval(0, 0, 0.8, 1.1, SKIN)
    pen.pieslice((x - 0.85 * r, y - 1.25 * r, x + 0.85 * r, y + 0.3 * r), 180, 360, fill=DARK)
    oval(0, -0.07, 0.7, 0.67, SKIN)
    for sign in (-1, 1):
        oval(sign * 0.33, -0.2, 0.22, 0.13, (150, 110, 95))
        oval(sign * 0.33, -0.2, 0.17, 0.09, (240, 240, 240))
        oval(sign * 0.33, -0.2, 0.08, 0.09, DARK)
        oval(sign * 0.33, -0.41, 0.2, 0.05, DARK)
    oval(0, 0.25, 0.12, 0.05, (190, 140, 120))
    oval(0, 0.58, 0.3, 0.08, (160, 70, 70))
    return np.asarray(picture.filter(ImageFilter.GaussianBlur(r / 45)))


@pytest.mark.parametrize("scale", [1, 3])
def test_a_face_is_found_by_its_eyes(scale: int) -> None:
    picture = np.asarray(Image.fromarray(drawn_face()).resize((320 * scale, 320 * scale)))
    [face] = FaceDetector().find(picture)
    expected = np.array([(160 - 30, 152), (160 + 30, 152)]) * scale
    np.testing.assert_allclose([face.left_eye, face.right_eye], expected, atol=6 * scale)


def test_where_there_is_no_face_none_is_found() -> None:
    assert FaceDetector().find(np.full((300, 300, 3), 128, dtype=np.uint8)) == []
    assert FaceDetector().find(noise(300, 300)) == []


@given(face=faces)
def test_the_eyes_come_to_their_places_without_distortion(face: Face) -> None:
    transform = transform_of(face)
    for eye, place in ((face.left_eye, LEFT_EYE), (face.right_eye, RIGHT_EYE)):
        np.testing.assert_allclose(transform @ (*eye, 1), place, atol=1e-6)
    turn = transform[:, :2]
    np.testing.assert_allclose(turn @ turn.T, np.eye(2) * np.linalg.det(turn), atol=1e-6 * np.linalg.det(turn))


@settings(deadline=None, max_examples=25)
@given(face=faces)
def test_a_restorer_that_changes_nothing_leaves_the_picture_as_it_was(face: Face) -> None:
    picture, transform = noise(), transform_of(face)
    aligned = cut_out(picture, transform)
    np.testing.assert_array_equal(lay_back(picture, aligned, aligned, transform), picture)


@settings(deadline=None, max_examples=25)
@given(face=faces)
def test_nothing_changes_outside_the_face(face: Face) -> None:
    picture, transform = noise(), transform_of(face)
    before = np.zeros((SIDE, SIDE, 3), dtype=np.uint8)
    laid = lay_back(picture, before, before + 255, transform)
    y, x = np.mgrid[0 : picture.shape[0], 0 : picture.shape[1]]
    places = np.stack([x, y, np.ones_like(x)], axis=-1) @ transform.T
    outside = ((places < 0) | (places > SIDE)).any(axis=-1)
    np.testing.assert_array_equal(laid[outside], picture[outside])


def test_what_a_restorer_brightens_is_brighter_where_the_face_is() -> None:
    picture = drawn_face()
    face = Face(left_eye=(130, 152), right_eye=(190, 152))
    transform = transform_of(face)
    before = cut_out(picture, transform)
    after = np.clip(before.astype(int) + 20, 0, 255).astype(np.uint8)
    gain = lay_back(picture, before, after, transform).astype(int) - picture
    np.testing.assert_allclose(gain[175, 160], 20, atol=1)
    assert gain.min() >= 0


def test_the_mask_is_whole_in_the_middle_and_nothing_at_the_border() -> None:
    mask = soft_mask()
    assert mask[SIDE // 2, SIDE // 2] == 1
    assert mask[:8].max() == mask[:, -8:].max() == 0
    assert np.abs(np.diff(mask, axis=0)).max() < 0.05

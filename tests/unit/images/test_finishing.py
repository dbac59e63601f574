"""What becomes of a picture between the engine and the encoder."""

import numpy as np
from PIL import Image

from darkroom.images.codecs import Pixels
from darkroom.images.masks import STRETCH, Box
from darkroom.images.overlay import Finishing, cover_mask, make_overlay

SIZE = 64


def noise(seed: int = 0, width: int = SIZE, height: int = SIZE) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def boxed(box: tuple[int, int, int, int], width: int = SIZE, height: int = SIZE) -> Image.Image:
    mask = Image.new("L", (width, height))
    mask.paste(255, box)
    return mask


def covered(levels: Pixels, drawn: Pixels) -> Pixels:
    return np.dstack([drawn, levels.repeat(8, axis=0).repeat(8, axis=1)])


def test_the_mask_of_the_overlay_comes_along_in_grey() -> None:
    levels = np.asarray(boxed((8, 8, 40, 40)))
    done = Finishing(mask=levels).apply(noise(), 0)
    assert done.mask is not None
    assert np.array_equal(done.mask, np.dstack([levels] * 3))
    assert done.composite is None


def test_a_composite_shows_what_was_made_and_is_clear_elsewhere() -> None:
    drawn = noise()
    done = Finishing(mask=np.asarray(boxed((8, 8, 40, 40))), composite=True).apply(drawn, 0)
    assert done.composite is not None
    assert np.array_equal(done.composite[8:40, 8:40, :3], drawn[8:40, 8:40])
    assert (done.composite[8:40, 8:40, 3] == 255).all()
    assert done.composite[..., 3].sum() == 32 * 32 * 255


def test_a_composite_of_a_region_is_as_large_as_the_whole() -> None:
    picture, mask = Image.fromarray(noise(1, 100, 80)), boxed((30, 20, 50, 40), 100, 80)
    done = Finishing(
        overlays=(make_overlay(picture, mask, STRETCH),),
        mask=np.asarray(mask),
        paste_to=Box(20, 10, 60, 50),
        composite=True,
    ).apply(np.full((SIZE, SIZE, 3), 7, dtype=np.uint8), 0)
    assert done.composite is not None
    assert done.composite.shape == (80, 100, 4)
    assert (done.composite[20:40, 30:50] == (7, 7, 7, 255)).all()
    assert not done.composite[:20].any()


def test_corrected_colours_leave_the_untouched_pixels_alone() -> None:
    picture, target = Image.fromarray(noise(1)), noise(2)
    mask = boxed((16, 16, 32, 32))
    finishing = Finishing(overlays=(make_overlay(picture, mask, STRETCH),), targets=(target,), uncorrected=True)
    done = finishing.apply(np.full((SIZE, SIZE, 3), 90, dtype=np.uint8), 0)
    outside = np.asarray(mask) == 0
    assert done.uncorrected is not None
    assert np.array_equal(done.picture[outside], np.asarray(picture)[outside])
    assert np.array_equal(done.uncorrected[outside], np.asarray(picture)[outside])
    assert (done.uncorrected[20, 20] == 90).all()


def test_targets_are_dealt_out_over_a_batch() -> None:
    grey = np.repeat(noise(4)[..., :1], 3, axis=2)
    red, blue = (np.zeros((8, 8, 3), dtype=np.uint8) + np.array(c, dtype=np.uint8) for c in ((200, 9, 9), (9, 9, 200)))
    finishing = Finishing(targets=(red, blue))
    means = [finishing.apply(grey, index).picture.mean(axis=(0, 1)) for index in range(3)]
    assert means[0][0] > means[0][2]
    assert means[1][2] > means[1][0]
    assert np.array_equal(means[2], means[0])


def test_a_picture_that_brings_its_own_cover_shows_the_old_one_where_it_is_thin() -> None:
    old, drawn = noise(1), np.full((SIZE, SIZE, 3), 7, dtype=np.uint8)
    levels = np.zeros((8, 8), dtype=np.uint8)
    levels[:, :4] = 255
    finishing = Finishing(mask=np.zeros((SIZE, SIZE), dtype=np.uint8), sources=(old,))
    done = finishing.apply(covered(levels, drawn), 0)
    # Enlarging the cover rings a little.
    assert np.abs(done.picture[:, :12].astype(int) - 7).max() <= 5
    assert np.abs(done.picture[:, -12:].astype(int) - old[:, -12:]).max() <= 5
    assert done.mask is not None
    assert np.array_equal(done.mask[..., 0], np.asarray(cover_mask(covered(levels, drawn), (SIZE, SIZE), None)))


def test_a_cover_of_a_region_lies_where_the_region_was() -> None:
    levels = np.full((8, 8), 255, dtype=np.uint8)
    mask = np.asarray(cover_mask(covered(levels, noise()), (100, 80), Box(20, 10, 60, 50)))
    assert mask.shape == (80, 100)
    assert (mask[10:50, 20:60] == 255).all()
    assert mask.astype(int).sum() == 40 * 40 * 255

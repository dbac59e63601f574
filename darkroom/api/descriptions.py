"""Has the engine describe a picture, and words what it says. Knows the options and no network."""

import re
from typing import get_args

import numpy as np
from anyio import to_thread
from PIL import Image

from darkroom.api.context import Context
from darkroom.images.codecs import to_pixels
from darkroom.images.masks import FILL, resize
from darkroom.jobs.describing import Description, InTags, InWords
from darkroom.jobs.spec import Picture
from darkroom.options.values import OptionValues
from darkroom.scripts.plan import Describer

DESCRIBERS: tuple[Describer, ...] = get_args(Describer)

_TAGGED_SIDE = 512
"""Pixels of the square that DeepDanbooru looks at."""

_SPECIAL = re.compile(r"([\\()])")
_RATING = "rating:"


async def describe(
    picture: Image.Image, describer: Describer, context: Context, options: OptionValues
) -> tuple[str, Description]:
    """What a network says of an RGB picture, worded and as it is. Raises MissingNetwork, BadModelFile."""
    engine = context.engine
    async with context.chores.doing("interrogate", "", context.settings.max_queue):
        if describer == "clip":
            found = await engine.describe(to_pixels(picture), words_question(options))
            return in_words(found, options), found
        fitted = await to_thread.run_sync(_fitted, picture, limiter=context.workers)
        found = await engine.describe(fitted, tags_question(options))
        return in_tags(found, options), found


def _fitted(picture: Image.Image) -> Picture:
    return np.asarray(resize(picture, FILL, _TAGGED_SIDE, _TAGGED_SIDE), dtype=np.uint8)


def words_question(options: OptionValues) -> InWords:
    """What is asked for a sentence."""
    return InWords(
        beams=options.interrogate_clip_num_beams,
        shortest=options.interrogate_clip_min_length,
        longest=options.interrogate_clip_max_length,
        lines=max(options.interrogate_clip_dict_limit, 0),
        left_out=options.interrogate_clip_skip_categories,
        keep=options.interrogate_keep_models_in_memory,
    )


def tags_question(options: OptionValues) -> InTags:
    """What is asked for tags."""
    return InTags(
        threshold=options.interrogate_deepbooru_score_threshold, keep=options.interrogate_keep_models_in_memory
    )


def in_words(description: Description, options: OptionValues) -> str:
    """The sentence, and behind it the texts that fit."""
    ranked = options.interrogate_return_ranks
    texts = (f"({text}:{share:.3f})" if ranked else text for text, share in description.texts)
    return ", ".join([description.sentence, *texts])


def in_tags(description: Description, options: OptionValues) -> str:
    """The tags. A1111: without those of the rating; sorted before they are written with blanks and backslashes, and
    left out by their names with underscores.
    """
    left_out = {tag.strip().replace(" ", "_") for tag in options.deepbooru_filter_tags.split(",")}
    kept = [(tag, share) for tag, share in description.texts if not tag.startswith(_RATING) and tag not in left_out]
    kept.sort(key=lambda entry: entry[0] if options.deepbooru_sort_alpha else -entry[1])
    return ", ".join(_written(tag, share, options) for tag, share in kept)


def _written(tag: str, share: float, options: OptionValues) -> str:
    text = tag.replace("_", " ") if options.deepbooru_use_spaces else tag
    text = _SPECIAL.sub(r"\\\1", text) if options.deepbooru_escape else text
    return f"({text}:{share:.3f})" if options.interrogate_return_ranks else text

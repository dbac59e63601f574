"""The describing networks of one device: loaded when somebody asks, and kept or not as the question says. Owned by the
device thread alone.

A description is a generator too: it yields between its parts, so that jobs have their turn there.
"""

from collections import OrderedDict
from collections.abc import Generator
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from darkroom.jobs.describing import Description, InTags, InWords
from darkroom.jobs.spec import Picture
from darkroom.nets.describers.blip import Captioner, load_captioner
from darkroom.nets.describers.clip import (
    BATCH,
    Category,
    Ranker,
    best,
    find_ranker,
    load_ranker,
    read_categories,
)
from darkroom.nets.describers.danbooru import Tagger, load_tagger

CATEGORIES = "interrogate"
KEPT_LISTS = 16
LONGEST_KEPT = 20_000
"""Lines of a list whose encodings are kept: of so many they are 60 megabytes."""

Describing = Generator[None, None, Description]


class Describers:
    """Looks for networks in the folder of models, and for lists of texts in `interrogate` in it or beside it.

    What CLIP makes of a list is kept, also when the networks are not: it takes longer than everything about a picture.
    """

    def __init__(self, models: Path, device: torch.device, *, half: bool) -> None:
        self._models = models
        self._device = device
        self._dtype = torch.float16 if half and device.type == "cuda" else torch.float32
        self._captioner: Captioner | None = None
        self._ranker: Ranker | None = None
        self._tagger: Tagger | None = None
        self._texts: OrderedDict[tuple[object, ...], Tensor] = OrderedDict()

    def describe(self, picture: Picture, question: InWords | InTags) -> Describing:
        """Answer a question, part by part. Raises MissingNetwork, BadModelFile."""
        try:
            if isinstance(question, InWords):
                return (yield from self._in_words(picture, question))
            return (yield from self._in_tags(picture, question))
        finally:
            if not question.keep:
                self._drop()

    def clear(self) -> None:
        """Drop everything."""
        self._drop()
        self._texts.clear()

    def _drop(self) -> None:
        self._captioner = self._ranker = self._tagger = None

    def _in_words(self, picture: Picture, question: InWords) -> Describing:
        captioner = self._captioner = self._captioner or load_captioner(self._models, self._device, self._dtype)
        yield
        image = Image.fromarray(picture)
        sentence = captioner.caption(image, beams=question.beams, shortest=question.shortest, longest=question.longest)
        yield
        folders = (self._models / CATEGORIES, self._models.absolute().parent / CATEGORIES)
        categories = read_categories(folders, question.left_out, question.lines)
        path = find_ranker(self._models)
        if categories and path is None:
            warning = f"the lists of {CATEGORIES} are not used: there is no CLIP model in {self._models / 'CLIP'}"
            return Description(sentence=sentence, warnings=(warning,))
        texts = (yield from self._compared(image, categories, path)) if path else []
        return Description(sentence=sentence, texts=tuple(texts))

    def _compared(
        self, image: Image.Image, categories: list[Category], path: Path
    ) -> Generator[None, None, list[tuple[str, float]]]:
        """The texts that fit best, and their shares."""
        found: list[tuple[str, float]] = []
        if categories:
            ranker = self._ranker = self._ranker or load_ranker(path, self._device, self._dtype)
            yield
            seen = ranker.encode_picture(image)
            state = path.stat()
            for category in categories:
                key = (path, state.st_size, state.st_mtime_ns, category.lines)
                texts = yield from self._encoded(ranker, category, key)
                found += best(seen, texts, category)
        return found

    def _encoded(self, ranker: Ranker, category: Category, key: tuple[object, ...]) -> Generator[None, None, Tensor]:
        """What CLIP makes of a list."""
        known = self._texts.pop(key, None)
        if known is None:
            parts = []
            for first in range(0, len(category.lines), BATCH):
                parts.append(ranker.encode_texts(category.lines[first : first + BATCH]))
                yield
            known = torch.cat(parts)
        if len(category.lines) <= LONGEST_KEPT:
            self._texts[key] = known
        while len(self._texts) > KEPT_LISTS:
            self._texts.popitem(last=False)
        return known

    def _in_tags(self, picture: Picture, question: InTags) -> Describing:
        tagger = self._tagger = self._tagger or load_tagger(self._models, self._device, self._dtype)
        yield
        pixels = torch.from_numpy(picture.astype("float32") / 255).movedim(-1, 0)
        likely = zip(tagger.tags, tagger.likelihoods(pixels), strict=True)
        return Description(texts=tuple((tag, share) for tag, share in likely if share >= question.threshold))

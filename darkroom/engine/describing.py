"""The describing networks of one device: loaded when somebody asks, and kept or not as the question says. Owned by the
device thread alone.
"""

from pathlib import Path

import torch
from PIL import Image

from darkroom.jobs.describing import Description, InTags, InWords
from darkroom.jobs.spec import Picture
from darkroom.nets.describers.blip import Captioner, load_captioner
from darkroom.nets.describers.clip import Category, Ranker, find_ranker, load_ranker, read_categories
from darkroom.nets.describers.danbooru import Tagger, load_tagger

CATEGORIES = "interrogate"


class Describers:
    """Looks for networks in the folder of models, and for lists of texts in `interrogate` in it or beside it."""

    def __init__(self, models: Path, device: torch.device, *, half: bool) -> None:
        self._models = models
        self._device = device
        self._dtype = torch.float16 if half and device.type == "cuda" else torch.float32
        self._captioner: Captioner | None = None
        self._ranker: Ranker | None = None
        self._tagger: Tagger | None = None

    def describe(self, picture: Picture, question: InWords | InTags) -> Description:
        """Answer a question. Raises MissingNetwork, BadModelFile."""
        try:
            return (
                self._in_words(picture, question) if isinstance(question, InWords) else self._in_tags(picture, question)
            )
        finally:
            if not question.keep:
                self.clear()

    def clear(self) -> None:
        """Drop the networks."""
        self._captioner = self._ranker = self._tagger = None

    def _in_words(self, picture: Picture, question: InWords) -> Description:
        self._captioner = self._captioner or load_captioner(self._models, self._device, self._dtype)
        image = Image.fromarray(picture)
        sentence = self._captioner.caption(
            image, beams=question.beams, shortest=question.shortest, longest=question.longest
        )
        folders = (self._models / CATEGORIES, self._models.absolute().parent / CATEGORIES)
        categories = read_categories(folders, question.left_out, question.lines)
        warning = self._prepare(categories)
        texts = tuple(self._ranker.best(image, categories)) if self._ranker and categories else ()
        return Description(sentence=sentence, texts=texts, warnings=(warning,) if warning else ())

    def _prepare(self, categories: list[Category]) -> str:
        """Load what compares texts with pictures, where there are texts; a warning where that cannot be."""
        if not categories or self._ranker:
            return ""
        path = find_ranker(self._models)
        if path is None:
            return f"the lists of {CATEGORIES} are not used: there is no CLIP model in {self._models / 'CLIP'}"
        self._ranker = load_ranker(path, self._device, self._dtype)
        return ""

    def _in_tags(self, picture: Picture, question: InTags) -> Description:
        self._tagger = self._tagger or load_tagger(self._models, self._device, self._dtype)
        pixels = torch.from_numpy(picture.astype("float32") / 255).movedim(-1, 0)
        likely = zip(self._tagger.tags, self._tagger.likelihoods(pixels), strict=True)
        return Description(texts=tuple((tag, share) for tag, share in likely if share >= question.threshold))

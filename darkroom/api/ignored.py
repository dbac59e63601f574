"""Which fields of a request have no effect yet: they are accepted and named, never dropped silently."""

from collections.abc import Iterator, Mapping

from darkroom.api.models import Generation, Img2Img
from darkroom.api.networks import KNOWN_WORDS
from darkroom.api.soft_inpainting import TITLE as SOFT_INPAINTING
from darkroom.prompt.grammar import cut_networks

_NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "override_settings_restore_afterwards": (None, True),
}
"""The values that ask for nothing."""


def ignored_fields(wire: Generation) -> Iterator[str]:
    """The fields of a request that ask for something that Darkroom cannot do yet."""
    for name, neutral in _NEUTRAL.items():
        if name in type(wire).model_fields and getattr(wire, name) not in neutral:
            yield name
    yield from _ignored_tags(wire)
    for title, script in getattr(wire, "alwayson_scripts", {}).items():
        known = isinstance(wire, Img2Img) and title.lower() == SOFT_INPAINTING.lower()
        if isinstance(script, dict) and script.get("args") and not known:
            yield f"alwayson_scripts.{title}"


def _ignored_tags(wire: Generation) -> Iterator[str]:
    """The tags of extra networks that nobody knows."""
    if not wire.disable_extra_networks:
        for tag in cut_networks(wire.prompt or "")[1]:
            if tag.word not in KNOWN_WORDS:
                yield f"prompt <{':'.join((tag.word, *tag.items))}>"

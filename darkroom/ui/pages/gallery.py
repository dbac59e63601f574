"""The page Gallery: every picture that was made here. See `assets/gallery.js`."""

from darkroom.ui.parts.own_element import own_element
from darkroom.ui.shell import Shell


def build(shell: Shell) -> None:
    """Its element, inside its tab."""
    del shell
    own_element("gallery")

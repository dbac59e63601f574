"""The page API: how programs do what these pages do. See `assets/api.js`."""

from darkroom.ui.parts.own_element import own_element
from darkroom.ui.shell import Shell


def build(shell: Shell) -> None:
    """Its element, inside its tab."""
    del shell
    own_element("api")

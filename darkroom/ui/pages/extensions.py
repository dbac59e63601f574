"""The page Extensions: what is installed and what it adds. See `assets/extensions.js`."""

from darkroom.ui.parts.own_element import own_element
from darkroom.ui.shell import Shell


def build(shell: Shell) -> None:
    """Its element, inside its tab."""
    del shell
    own_element("extensions")

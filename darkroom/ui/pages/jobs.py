"""The page Jobs: what waits, what is at work, what has ended. See `assets/jobs.js`."""

from darkroom.ui.parts.own_element import own_element
from darkroom.ui.shell import Shell


def build(shell: Shell) -> None:
    """Its element, inside its tab."""
    del shell
    own_element("jobs")

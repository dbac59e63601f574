"""What may go wrong with a download."""

from darkroom.errors import DarkroomError


class PullError(DarkroomError):
    """A model cannot be downloaded; the message says what to do about it."""


class InterruptedPullError(PullError):
    """The transfer broke off; what has arrived is kept."""

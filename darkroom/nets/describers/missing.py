"""What is said where a describing network has no file. No torch."""

from pathlib import Path

from darkroom.errors import DarkroomError


class MissingNetwork(DarkroomError):
    """A describing network that this installation does not have."""

    http_status = 404
    code = "not_installed"

    def __init__(self, model: str, wanted: str, place: Path) -> None:
        super().__init__(f"model: {model!r} needs {wanted}, and {place} is not there")

"""Every error that Darkroom raises on purpose, each with its HTTP status and a stable code.

DarkroomError                       500  internal
├── BadRequest                      422  bad_request       a field of a request is wrong: says field, value, what is
allowed
│   ├── LimitExceeded               422  limit_exceeded    a number above a configured limit
│   ├── BadImage                    422  bad_image         a picture that cannot or must not be decoded
│   ├── UnknownName                 404  unknown_name      a model, sampler or job that does not exist
│   └── NotInstalled                404  not_installed     a network that is listed and whose file is missing
├── NotStrict                       422  not_strict        --strict: something that would only have drawn a warning
├── BodyTooLarge                    413  body_too_large    a request's body is longer than the operator allows
├── Frozen                          403  frozen            an option that the operator lets nobody change
├── Unauthorized                    401  unauthorized
├── Forbidden                       403  forbidden         a web page that may not use this server
│   └── MissingScope                403  missing_scope     a user or a key that may not do that
├── ComeAgain                       429  busy              not now: `Retry-After` says after how many seconds
│   ├── Busy                        429  busy              the queue is full
│   ├── OverLimit                   429  over_limit        a user or a key has done as much as is allowed for now
│   └── TooManyAttempts             429  too_many_attempts too many wrong passwords from one address
├── BadModelFile                    500  bad_model_file    a file in the models folder that cannot be used
│   ├── MissingPart                 404  not_installed     a network that belongs to it lies nowhere
│   └── NoRoom                      507  no_room           the disk has no room for what must be written to use it
├── NotANumberError             500  not_a_number      a network's answer is no number in the format it computes in
├── OutOfDeviceMemory               503  out_of_memory     one image does not fit the device, even alone
└── JobFailed                       500  job_failed        a job stopped on an unexpected exception; the log has the
rest
"""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import ClassVar


class DarkroomError(Exception):
    """Base of the tree; `str()` of it may be shown to a client."""

    http_status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"


class BadRequest(DarkroomError):
    """A request that cannot be served as it stands."""

    http_status = 422
    code = "bad_request"

    def __init__(self, field: str, value: object, allowed: str) -> None:
        shown = repr(value)
        self.field = field
        self.value = shown if len(shown) <= 80 else shown[:77] + "..."
        self.allowed = allowed
        super().__init__(f"{field}: {self.value} is not allowed; {allowed}")


class LimitExceeded(BadRequest):
    """A number above a limit that the operator configured."""

    code = "limit_exceeded"


class BadImage(BadRequest):
    """A picture that cannot be decoded, or would not be safe to decode."""

    code = "bad_image"


class UnknownName(BadRequest):
    """A name that is not in a list; the message names the near misses."""

    http_status = 404
    code = "unknown_name"

    def __init__(self, field: str, value: str, known: Sequence[str]) -> None:
        near = get_close_matches(value, known, n=3, cutoff=0.4) or list(known[:5])
        super().__init__(field, value, "known: " + ", ".join(near) if near else "there is none yet")


class NotInstalled(BadRequest):
    """A network that has a name here and no file; says where that should be."""

    http_status = 404
    code = "not_installed"


class NotStrict(DarkroomError):
    """A request that is served with a warning, unless the operator wants none such (`--strict`)."""

    http_status = 422
    code = "not_strict"


class BodyTooLarge(DarkroomError):
    """A request's body that is longer than the operator allows."""

    http_status = 413
    code = "body_too_large"

    def __init__(self, max_bytes: int) -> None:
        super().__init__(f"the body is longer than {max_bytes} bytes; the operator can allow more: --max-body-bytes")


class Frozen(DarkroomError):
    """An option that the operator lets nobody change."""

    http_status = 403
    code = "frozen"


class Unauthorized(DarkroomError):
    """Wrong or missing credentials."""

    http_status = 401
    code = "unauthorized"


class Forbidden(DarkroomError):
    """A request that a web page of somebody else's makes, or one under a name that this server does not go by."""

    http_status = 403
    code = "forbidden"


class MissingScope(Forbidden):
    """A user or a key that may do other things."""

    code = "missing_scope"


class ComeAgain(DarkroomError):
    """Not now; the same request may succeed after `retry_after_s` seconds."""

    http_status = 429
    code = "busy"

    def __init__(self, message: str, *, retry_after_s: int = 1) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message)


class Busy(ComeAgain):
    """The queue is full."""


class OverLimit(ComeAgain):
    """A user or a key has done as much as is allowed for now."""

    code = "over_limit"


class TooManyAttempts(ComeAgain):
    """Too many wrong passwords from one address."""

    code = "too_many_attempts"


class BadModelFile(DarkroomError):
    """A model file that is damaged, of an unknown kind, or not safe to open."""

    code = "bad_model_file"


class MissingPart(BadModelFile):
    """A checkpoint that is published without one of its networks, whose own file is nowhere to be found."""

    http_status = 404
    code = "not_installed"


class NoRoom(BadModelFile):
    """A file that cannot be used before there is more room on the disk."""

    http_status = 507
    code = "no_room"


class NotANumberError(DarkroomError):
    """A network gave something that is not a number."""

    code = "not_a_number"

    def __init__(self, network: str, number_format: object) -> None:
        super().__init__(
            f"{network} gave values that are no numbers in {number_format}; the file may be damaged, or need another"
            " precision (--precision), or the check can be switched off (--disable-nan-check)"
        )


class OutOfDeviceMemory(DarkroomError):
    """The device has too little memory even for a single evaluation of this request."""

    http_status = 503
    code = "out_of_memory"


class JobFailed(DarkroomError):
    """A job stopped on an unexpected exception."""

    code = "job_failed"

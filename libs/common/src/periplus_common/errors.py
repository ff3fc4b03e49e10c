"""The kinds of errors. `status` maps them to gRPC, and `bus.delivery` to acks, naks and dead letters.

PeriplusError
├── Invalid          the request can never succeed as written
├── TooLarge         the request is larger than the limit of its RPC
├── NotFound         what the request refers to does not exist
├── Conflict         it exists already, and differs
├── Refused          the system is not in a state to do this
├── Unauthenticated  the caller sent no valid token
└── Unavailable      a dependency does not answer; the same request may succeed later
"""


class PeriplusError(Exception):
    """An error that the caller can act on.

    `field` is the path of the offending field, `reason` a constant for programs (`REQUEST_ID_REUSED`), and
    `fix` the command or the change that removes the cause. Each may be empty.
    """

    def __init__(self, message: str, *, field: str = "", reason: str = "", fix: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.reason = reason
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


class Invalid(PeriplusError):
    """The request can never succeed as written."""


class TooLarge(Invalid):
    """The request is larger than the limit of its RPC."""


class NotFound(PeriplusError):
    """What the request refers to does not exist."""


class Conflict(PeriplusError):
    """It exists already, and differs."""


class Refused(PeriplusError):
    """The system is not in a state to do this."""


class Unauthenticated(PeriplusError):
    """The caller sent no valid token."""


class Unavailable(PeriplusError):
    """A dependency does not answer; the same request may succeed later."""

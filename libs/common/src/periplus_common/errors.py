"""What can go wrong, said once. Each transport maps these kinds in one table.

PeriplusError
├── Invalid          the request can never succeed as written
├── NotFound         the thing asked for is not recorded
├── Conflict         the thing exists already, and differs
├── Refused          the system is not in a state to do this
├── Unauthenticated  nobody knows who asks
└── Unavailable      a dependency is away; the same request may succeed later
"""


class PeriplusError(Exception):
    """Something the caller can act on.

    `field` is the path of the offending field, `reason` a constant for programs (`REQUEST_ID_REUSED`), and
    `fix` the command or the change that helps. Each may be empty.
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


class NotFound(PeriplusError):
    """The thing asked for is not recorded."""


class Conflict(PeriplusError):
    """The thing exists already, and differs."""


class Refused(PeriplusError):
    """The system is not in a state to do this."""


class Unauthenticated(PeriplusError):
    """The caller did not show a token that is known here."""


class Unavailable(PeriplusError):
    """A dependency is away; the same request may succeed later."""

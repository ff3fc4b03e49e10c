"""Refusals and failures of the API, with the codes and HTTP statuses that Argo gives them."""

from dataclasses import dataclass

STATUS = {2: 500, 3: 400, 4: 504, 5: 404, 6: 409, 7: 403, 12: 501, 13: 500, 16: 401}


@dataclass(frozen=True)
class Fault(Exception):
    """An answer that is not a success: a gRPC code, as Argo uses it, and what to tell the caller."""

    code: int
    message: str

    @property
    def status(self) -> int:
        """The HTTP status that goes with the code."""
        return STATUS[self.code]

    def __str__(self) -> str:
        """What is told to the caller."""
        return self.message


def invalid(message: str) -> Fault:
    """The request or the manifest is wrong."""
    return Fault(3, message)


def missing(message: str) -> Fault:
    """There is no such thing."""
    return Fault(5, message)


def exists(message: str) -> Fault:
    """There is such a thing already."""
    return Fault(6, message)


def internal(message: str) -> Fault:
    """It could not be done; Argo answers so for an action that does not fit the state."""
    return Fault(13, message)

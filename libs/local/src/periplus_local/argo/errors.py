"""Errors of the API, with the gRPC codes and HTTP statuses that Argo gives them."""

from dataclasses import dataclass

UNKNOWN, INVALID_ARGUMENT, DEADLINE_EXCEEDED, NOT_FOUND, ALREADY_EXISTS = 2, 3, 4, 5, 6
PERMISSION_DENIED, UNIMPLEMENTED, INTERNAL, UNAUTHENTICATED = 7, 12, 13, 16
HTTP_STATUS = {
    UNKNOWN: 500,
    INVALID_ARGUMENT: 400,
    DEADLINE_EXCEEDED: 504,
    NOT_FOUND: 404,
    ALREADY_EXISTS: 409,
    PERMISSION_DENIED: 403,
    UNIMPLEMENTED: 501,
    INTERNAL: 500,
    UNAUTHENTICATED: 401,
}


@dataclass(eq=False)  # not frozen: contextlib sets the traceback of an error that passes through it
class ArgoError(Exception):
    """A refusal or failure as Argo reports it: a gRPC code and a message.

    Inside the controller it is how a step fails to start; its message becomes the node's.
    """

    code: int
    message: str

    @property
    def http_status(self) -> int:
        """The HTTP status that goes with the code."""
        return HTTP_STATUS[self.code]

    def __str__(self) -> str:
        """The message."""
        return self.message


def invalid_argument(message: str) -> ArgoError:
    """The request or the manifest is wrong."""
    return ArgoError(INVALID_ARGUMENT, message)


def not_found(message: str) -> ArgoError:
    """The object does not exist."""
    return ArgoError(NOT_FOUND, message)


def already_exists(message: str) -> ArgoError:
    """An object of that name exists."""
    return ArgoError(ALREADY_EXISTS, message)


def internal(message: str) -> ArgoError:
    """The action failed; Argo also answers so for an action that does not fit the workflow's state."""
    return ArgoError(INTERNAL, message)

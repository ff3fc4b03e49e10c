"""The token that callers must send, in a file that only its owner can read."""

import os
import re
import secrets
import stat
from pathlib import Path

TOKEN = re.compile(r"[!-~]{16,512}")
PERMISSIONS_FOR_OTHERS = 0o077


class TokenError(Exception):
    """The file cannot hold the token; the message names the file, the reason, and the fix."""


def read_or_create(path: Path) -> str:
    """The token in the file; a new one, written there with mode 0600, if there is no such file.

    Raises TokenError for a file that others can read, that holds no token, or that cannot be read or made.
    """
    try:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return _read(path)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            token = secrets.token_urlsafe(32)
            file.write(token)
        return token
    except OSError as error:
        raise TokenError(f"the token file {path}: {error.strerror}; name another one") from error


def _read(path: Path) -> str:
    # Not blocking: a pipe without a writer would be waited for.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise TokenError(f"the token file {path} is not a file; name another one")
        if status.st_uid != os.geteuid():
            raise TokenError(f"the token file {path} belongs to user {status.st_uid}; name one of your own")
        if status.st_mode & PERMISSIONS_FOR_OTHERS:
            mode = stat.S_IMODE(status.st_mode)
            raise TokenError(f"the token file {path} is open to others (mode {mode:04o}): chmod 600 {path}")
        text = file.read(4096).decode("latin-1").strip()
    if not TOKEN.fullmatch(text):
        raise TokenError(
            f"the token file {path} holds no token: 16 to 512 letters, digits and signs on one line; "
            "remove it and a new one is written"
        )
    return text

"""sprig's encodings, sums, random texts and paths."""

from __future__ import annotations

import base64
import hashlib
import posixpath
import secrets
import string
import uuid
import zlib
from typing import Any

from periplus_manifest.errors import ExpressionError

from .budget import Budget
from .function import TEXT, WHOLE, Table, declare

TABLE: Table = {}


@declare(TABLE, "b64enc", TEXT)
def _b64enc(budget: Budget, text: str) -> str:
    return budget.text(base64.b64encode(text.encode()).decode())


@declare(TABLE, "b64dec", TEXT)
def _b64dec(budget: Budget, text: str) -> str:
    try:
        return budget.text(
            base64.b64decode(text.replace("\n", "").replace("\r", ""), validate=True).decode(errors="replace")
        )
    except ValueError:
        raise ExpressionError("", f"not base64: {text[:60]!r}") from None


@declare(TABLE, "b32enc", TEXT)
def _b32enc(budget: Budget, text: str) -> str:
    return budget.text(base64.b32encode(text.encode()).decode())


@declare(TABLE, "b32dec", TEXT)
def _b32dec(budget: Budget, text: str) -> str:
    try:
        return budget.text(base64.b32decode(text).decode(errors="replace"))
    except ValueError:
        raise ExpressionError("", f"not base32: {text[:60]!r}") from None


@declare(TABLE, "sha1sum", TEXT)
def _sha1sum(_: Budget, text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


@declare(TABLE, "sha256sum", TEXT)
def _sha256sum(_: Budget, text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@declare(TABLE, "sha512sum", TEXT)
def _sha512sum(_: Budget, text: str) -> str:
    return hashlib.sha512(text.encode()).hexdigest()


@declare(TABLE, "adler32sum", TEXT)
def _adler32sum(_: Budget, text: str) -> str:
    return str(zlib.adler32(text.encode()))


@declare(TABLE, "uuidv4")
def _uuidv4(_: Budget) -> str:
    return str(uuid.uuid4())


def _random(name: str, alphabet: str) -> None:
    @declare(TABLE, name, WHOLE)
    def _(budget: Budget, count: int) -> str:
        budget.room(max(count, 0))
        budget.step(max(count, 0))
        return "".join(secrets.choice(alphabet) for _ in range(count))


_random("randAlphaNum", string.ascii_letters + string.digits)
_random("randAlpha", string.ascii_letters)
_random("randNumeric", string.digits)
_random("randAscii", "".join(map(chr, range(32, 127))))


@declare(TABLE, "base", TEXT)
def _base(_: Budget, path: str) -> str:
    return posixpath.basename(path.rstrip("/")) or ("/" if path else ".")


@declare(TABLE, "dir", TEXT)
def _dir(_: Budget, path: str) -> str:
    return _cleaned(posixpath.dirname(path))


@declare(TABLE, "clean", TEXT)
def _clean(_: Budget, path: str) -> str:
    return _cleaned(path)


def _cleaned(path: str) -> str:
    cleaned = posixpath.normpath(path) if path else "."
    return cleaned[1:] if cleaned.startswith("//") else cleaned


@declare(TABLE, "ext", TEXT)
def _ext(_: Budget, path: str) -> str:
    name = path[path.rfind("/") + 1 :]
    return name[name.rfind(".") :] if "." in name else ""


@declare(TABLE, "isAbs", TEXT)
def _is_abs(_: Budget, path: str) -> bool:
    return path.startswith("/")


@declare(TABLE, "fail", TEXT)
def _fail(_: Budget, message: str) -> Any:
    raise ExpressionError("", message)

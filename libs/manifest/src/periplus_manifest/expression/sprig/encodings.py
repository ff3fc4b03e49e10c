"""sprig's encodings, checksums and random texts, and fail."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
import string
import uuid
import zlib
from collections.abc import Callable
from typing import Any

from periplus_manifest.errors import ExpressionError
from periplus_manifest.expression.budget import Budget
from periplus_manifest.expression.function import TEXT, WHOLE, Table, declare

TABLE: Table = {}


@declare(TABLE, "b64enc", TEXT)
def _b64enc(budget: Budget, text: str) -> str:
    return budget.text(base64.b64encode(text.encode()).decode())


@declare(TABLE, "b64dec", TEXT)
def _b64dec(budget: Budget, text: str) -> str:
    return _decoded(budget, 64, base64.b64decode, text)


_BAD = {64: re.compile(r"[^A-Za-z0-9+/\r\n]"), 32: re.compile(r"[^A-Z2-7\r\n]")}


def _decoded(budget: Budget, digits: int, decode: Callable[[bytes], bytes], text: str) -> str:
    """Decode; as in sprig, what cannot be decoded gives the words of the error and no error."""
    raw = text.translate({10: None, 13: None}).encode()
    plain = raw.rstrip(b"=")
    if (bad := _BAD[digits].search(text.rstrip("=\r\n"))) is None:
        try:
            return budget.text(decode(raw).decode(errors="replace"))
        except ValueError:
            # What is left over after the last whole group does not make a byte.
            group = {64: 4, 32: 8}[digits]
            offset = len(plain) if len(raw) > len(plain) else len(plain) - len(plain) % group
            return f"illegal base{digits} data at input byte {offset}"
    return f"illegal base{digits} data at input byte {len(text[: bad.start()].encode())}"


@declare(TABLE, "b32enc", TEXT)
def _b32enc(budget: Budget, text: str) -> str:
    return budget.text(base64.b32encode(text.encode()).decode())


@declare(TABLE, "b32dec", TEXT)
def _b32dec(budget: Budget, text: str) -> str:
    return _decoded(budget, 32, base64.b32decode, text)


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


@declare(TABLE, "uuidv4", is_volatile=True)
def _uuidv4(_: Budget) -> str:
    return str(uuid.uuid4())


def _random(name: str, alphabet: str) -> None:
    @declare(TABLE, name, WHOLE, is_volatile=True)
    def _(budget: Budget, count: int) -> str:
        budget.allocate(max(count, 0))
        budget.step(max(count, 0))
        return "".join(secrets.choice(alphabet) for _ in range(count))


_random("randAlphaNum", string.ascii_letters + string.digits)
_random("randAlpha", string.ascii_letters)
_random("randNumeric", string.digits)
_random("randAscii", "".join(map(chr, range(32, 127))))


@declare(TABLE, "randBytes", WHOLE, is_volatile=True)
def _rand_bytes(budget: Budget, count: int) -> str:
    budget.allocate(max(count, 0))
    return base64.b64encode(secrets.token_bytes(max(count, 0))).decode()


@declare(TABLE, "shuffle", TEXT, is_volatile=True)
def _shuffle(budget: Budget, text: str) -> str:
    budget.step(len(text))
    return "".join(secrets.SystemRandom().sample(text, len(text)))


@declare(TABLE, "fail", TEXT)
def _fail(_: Budget, message: str) -> Any:
    raise ExpressionError("", message)

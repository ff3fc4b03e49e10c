"""Page tokens: a place in an answer, sealed together with the question it belongs to."""

import base64
import hashlib
import hmac
import json
from collections.abc import Sequence

from periplus_common.errors import Invalid

_SEAL = 16  # bytes


class Pages:
    """Makes and reads page tokens. Nobody without the secret can make one."""

    def __init__(self, secret: str) -> None:
        self._key = hashlib.sha256(b"periplus lineage pages\0" + secret.encode()).digest()

    def token(self, question: Sequence[object], place: Sequence[object]) -> str:
        """A token for a place in the answer to `question`; both hold JSON values."""
        body = json.dumps(place, ensure_ascii=False, separators=(",", ":")).encode()
        return base64.urlsafe_b64encode(self._seal(question, body) + body).decode().rstrip("=")

    def place(self, question: Sequence[object], token: str) -> list[object]:
        """The place that a token names. Raises `Invalid` unless it was made for this very question."""
        try:
            sealed = base64.urlsafe_b64decode(token.encode() + b"=" * (-len(token) % 4))
        except ValueError:
            sealed = b""
        seal, body = sealed[:_SEAL], sealed[_SEAL:]
        if not hmac.compare_digest(seal, self._seal(question, body)):
            raise Invalid(
                "not a token of this question",
                field="page_token",
                reason="PAGE_TOKEN_INVALID",
                fix="ask for the first page again, with an empty page_token",
            )
        place: list[object] = json.loads(body)
        return place

    def _seal(self, question: Sequence[object], body: bytes) -> bytes:
        asked = json.dumps(question, ensure_ascii=False, separators=(",", ":")).encode()
        return hmac.digest(self._key, asked + b"\0" + body, "sha256")[:_SEAL]

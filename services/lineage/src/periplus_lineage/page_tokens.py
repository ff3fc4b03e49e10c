"""Page tokens: a position in a list, signed together with the query that it belongs to."""

import base64
import hashlib
import hmac
import json
from collections.abc import Sequence

from periplus_common.errors import Invalid

_SIGNATURE_BYTES = 16


class PageTokens:
    """Issues and reads page tokens. Only holders of the secret can issue one."""

    def __init__(self, secret: str) -> None:
        self._key = hashlib.sha256(b"periplus lineage pages\0" + secret.encode()).digest()

    def issue(self, query: Sequence[object], position: Sequence[object]) -> str:
        """A token for a position in the answer to `query`. Both are JSON values."""
        body = json.dumps(position, ensure_ascii=False, separators=(",", ":")).encode()
        return base64.urlsafe_b64encode(self._sign(query, body) + body).decode().rstrip("=")

    def read(self, query: Sequence[object], token: str) -> list[object]:
        """The position in a token. Raises `Invalid` unless the token was issued for the same query."""
        try:
            signed = base64.urlsafe_b64decode(token.encode() + b"=" * (-len(token) % 4))
        except ValueError:
            signed = b""
        signature, body = signed[:_SIGNATURE_BYTES], signed[_SIGNATURE_BYTES:]
        if not hmac.compare_digest(signature, self._sign(query, body)):
            raise Invalid(
                "is not a token of this query",
                field="page_token",
                reason="PAGE_TOKEN_INVALID",
                fix="request the first page, with an empty page_token",
            )
        position: list[object] = json.loads(body)
        return position

    def _sign(self, query: Sequence[object], body: bytes) -> bytes:
        text = json.dumps(query, ensure_ascii=False, separators=(",", ":")).encode()
        return hmac.digest(self._key, text + b"\0" + body, "sha256")[:_SIGNATURE_BYTES]

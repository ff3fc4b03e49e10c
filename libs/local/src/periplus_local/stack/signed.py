"""The few signed S3 requests that the stack itself makes, without the weight of a client library."""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import http.client

_REGION = "us-east-1"
_NOTHING = hashlib.sha256(b"").hexdigest()


def request(method: str, endpoint: str, path: str, access_key: str, secret_key: str) -> int:
    """Send a request without a body, signed by AWS Signature Version 4, and return its status.

    `endpoint` is host:port over plain HTTP; `path` has no query and nothing to escape. Raises
    OSError and http.client.HTTPException.
    """
    now = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%SZ")
    headers = {"host": endpoint, "x-amz-content-sha256": _NOTHING, "x-amz-date": now}
    names = ";".join(headers)
    lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
    canonical = f"{method}\n{path}\n\n{lines}\n{names}\n{_NOTHING}"
    scope = f"{now[:8]}/{_REGION}/s3/aws4_request"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    key = f"AWS4{secret_key}".encode()
    for word in scope.split("/"):
        key = hmac.digest(key, word.encode(), "sha256")
    signature = hmac.digest(key, f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{digest}".encode(), "sha256").hex()
    headers["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={access_key}/{scope}, SignedHeaders={names}, Signature={signature}"
    )
    connection = http.client.HTTPConnection(endpoint, timeout=5)
    try:
        connection.request(method, path, headers=headers)
        return connection.getresponse().status
    finally:
        connection.close()

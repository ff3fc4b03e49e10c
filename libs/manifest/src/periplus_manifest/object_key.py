"""Which texts are keys of objects in every S3 store: some stores read others as another key than the one that was checked."""

from __future__ import annotations

MAX_KEY_BYTES = 1024
"""The limit of S3."""


def malformed_reason(key: str) -> str:
    r"""Why a text is no key; empty if it is one. A slash may end it, as that of a folder.

    SeaweedFS reads `a//b`, `/a/b` and `a\b` as `a/b`; others resolve `..` as in a path.
    """
    if not key:
        return "is empty"
    if len(key.encode("utf-8", "surrogatepass")) > MAX_KEY_BYTES:
        return f"has more than {MAX_KEY_BYTES} bytes"
    if "\\" in key or "\0" in key:
        return "has a backslash or a NUL character"
    parts = key.removesuffix("/").split("/")
    if "" in parts or "." in parts or ".." in parts:
        return "begins with a slash, or has a part that is empty, . or .."
    return ""

"""Failures that pass by themselves: what the retry policy OnTransientError tries again."""

import re

# What stores, servers and the network say when they are away or overloaded; upper and lower case are the same.
PASSING = (
    "client rate limiter wait returned an error",
    "connection aborted",
    "connection closed by foreign host",
    "connection refused",
    "connection reset by peer",
    "connection timed out",
    "etcdserver: leader changed",
    "etcdserver: request timed out",
    "etcdserver: too many requests",
    "error when reading response body",
    "http2: client connection lost",
    "http2: server sent goaway",
    "i/o timeout",
    "invalid connection",
    "read timed out",
    "request did not complete within requested timeout",
    "slowdown",
    "tls handshake timeout",
    "unexpected eof",
)


def is_transient(message: str, pattern: "re.Pattern[str] | None") -> bool:
    """Whether a node's message tells of such a failure; `pattern` finds those that are so on this machine."""
    said = message.lower()
    return any(text in said for text in PASSING) or bool(pattern and pattern.search(message))

"""TLS of clients, which send nothing before the server has proven who it is."""

import ssl
from typing import Any


def context(ca_file: str) -> ssl.SSLContext:
    """Verifies a server's certificate and name by the authorities in a PEM file; by the system's if it is empty.

    Raises OSError for a file that can not be read, and ssl.SSLError for one that has no certificate.
    """
    return ssl.create_default_context(cafile=ca_file or None)


def is_used(nats_url: str, ca_file: str) -> bool:
    """Whether a connection to NATS has TLS: for tls://, and wherever authorities are named."""
    return bool(ca_file) or nats_url.startswith("tls://")


def nats_options(url: str, ca_file: str) -> dict[str, Any]:
    """nats-py's options for a connection with TLS, if it has TLS.

    The handshake comes first: else nats-py sends the password in plain text to a server that does not ask for TLS.
    """
    if not is_used(url, ca_file):
        return {}
    return {"tls": context(ca_file), "tls_handshake_first": True}

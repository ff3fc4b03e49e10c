"""A certificate that is known only to the processes of one home, for mutual TLS between them."""

from __future__ import annotations

import datetime as dt
import ipaddress
from typing import TYPE_CHECKING

from periplus_local.stack.home import write_private
from periplus_local.stack.ports import LOOPBACK

if TYPE_CHECKING:
    from pathlib import Path

_YEARS = 20


def ensure(certificate: Path, key: Path) -> None:
    """Write a self-signed certificate and its key, if either is missing.

    It is its own authority: whoever holds the key may connect, and nobody else.
    """
    if certificate.exists() and key.exists():
        return
    # Imported here: a home needs it once, and it costs a fifth of a second.
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "periplus")])
    now = dt.datetime.now(dt.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=2))
        .not_valid_after(now + dt.timedelta(days=365 * _YEARS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(LOOPBACK))]),
            critical=False,
        )
        .sign(private, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    pkcs8, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    write_private(key, private.private_bytes(pem, pkcs8, plain).decode())
    write_private(certificate, signed.public_bytes(pem).decode())

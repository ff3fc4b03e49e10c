"""`python -m periplus_local.certificate`: print a new private key, and a certificate that is its own authority.

A program of its own, outside the stack's package, because who makes one does so once and would hold the library
(12 MiB) for as long as it lives.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import sys

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

_YEARS = 20


def pair() -> tuple[bytes, bytes]:
    """A private key and the self-signed certificate of 127.0.0.1 with it, as PEM.

    Whoever holds the key may connect where the certificate is asked for, and nobody else.
    """
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
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(private, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    pkcs8, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return private.private_bytes(pem, pkcs8, plain), signed.public_bytes(pem)


if __name__ == "__main__":
    sys.stdout.buffer.write(b"".join(pair()))

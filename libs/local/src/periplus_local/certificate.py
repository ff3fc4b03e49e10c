"""`python -m periplus_local.certificate`: print a new private key and a self-signed certificate.

A program of its own, because a certificate is made once, and the supervisor would have the library
(12 MiB) in memory until it ends. Outside the stack's package, whose import takes longer than the work.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import sys

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

_VALID_YEARS = 20
_USAGE = x509.KeyUsage(
    digital_signature=True, key_cert_sign=True,
    content_commitment=False, key_encipherment=False, data_encipherment=False, key_agreement=False,
    crl_sign=False, encipher_only=False, decipher_only=False,
)  # fmt: skip


def pair() -> tuple[bytes, bytes]:
    """A private key and the self-signed certificate of 127.0.0.1 with it, as PEM.

    A server that accepts this certificate's authority alone accepts connections of clients with this key alone.
    """
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "periplus")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=2))
        .not_valid_after(now + dt.timedelta(days=365 * _VALID_YEARS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_USAGE, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(private.public_key()), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(private, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    pkcs8, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return private.private_bytes(pem, pkcs8, plain), certificate.public_bytes(pem)


if __name__ == "__main__":
    sys.stdout.buffer.write(b"".join(pair()))

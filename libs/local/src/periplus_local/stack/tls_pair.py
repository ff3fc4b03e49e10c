"""The key and the certificate of a home, by which clients tell its servers from those of others on the same ports."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from periplus_local.stack.home import write_private

if TYPE_CHECKING:
    from pathlib import Path

    from periplus_local.stack.home import Home


@dataclass(frozen=True)
class TlsPair:
    """Files in PEM. The certificate is its own authority; only processes of this home can read the key."""

    certificate: Path
    key: Path


def tls_pair(home: Home) -> TlsPair:
    """The home's, made at the first call. The home must exist."""
    found = TlsPair(home.secrets / "tls.crt", home.secrets / "tls.key")
    if not (found.certificate.exists() and found.key.exists()):
        program = [sys.executable, "-m", "periplus_local.certificate"]
        pair = subprocess.check_output(program, text=True)  # noqa: S603 - our own module
        private, begin, public = pair.partition("-----BEGIN CERTIFICATE-----")
        write_private(found.key, private)
        write_private(found.certificate, begin + public)
    return found

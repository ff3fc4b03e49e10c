"""The process of the local Argo, in the whole stack or alone."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from periplus_common.unix_socket import PREFIX
from periplus_local.stack import seal
from periplus_local.stack.health import answering
from periplus_local.stack.ports import LOOPBACK
from periplus_local.stack.process import ProcessSpec

if TYPE_CHECKING:
    from periplus_local.stack.bucket import Bucket
    from periplus_local.stack.home import Home


@dataclass(frozen=True)
class Argo:
    """Where it serves its REST API, and the file with the token that callers must send."""

    at: Path | int
    """The path of a Unix socket, or a port."""
    token_file: Path

    @property
    def address(self) -> str:
        """unix:/path, or host and port."""
        return f"{LOOPBACK}:{self.at}" if isinstance(self.at, int) else f"{PREFIX}{self.at}"

    @property
    def url(self) -> str:
        """The URL of its REST API; unix:/path for a socket."""
        return f"http://{self.address}" if isinstance(self.at, int) else self.address

    @property
    def token(self) -> str:
        """The token. Raises FileNotFoundError where the file does not exist yet."""
        return self.token_file.read_text(encoding="ascii").strip()


def _hidden_by_user() -> list[Path]:
    """The folders of $PERIPLUS_HIDDEN, separated as those of $PATH: what steps do not see, such as ~/.ssh."""
    listed = os.environ.get("PERIPLUS_HIDDEN", "").split(os.pathsep)
    return [Path(folder).expanduser().absolute() for folder in listed if folder]


def spec(
    home: Home, argo: Argo, bucket: Bucket, stops_before: tuple[str, ...] = (), key_format: str = ""
) -> ProcessSpec:
    """The local Argo with its state in the home and artifacts in the bucket, where `key_format` says or as in Argo."""
    return ProcessSpec(
        name="argo",
        command=(sys.executable, "-m", "periplus_local.argo"),
        directory=home.data / "argo",
        stops_before=stops_before,
        env={
            "ARGO_HOME": str(home.data / "argo"),
            "ARGO_PORT" if isinstance(argo.at, int) else "ARGO_SOCKET": str(argo.at),
            "ARGO_TOKEN_FILE": str(argo.token_file),
            "ARGO_HIDDEN": os.pathsep.join(map(str, (home.path, *seal.state_folders(), *_hidden_by_user()))),
            "ARGO_HIDDEN_LIST": str(seal.home_list()),
            "ARGO_SLOTS": str(os.cpu_count() or 1),
            **bucket.connection("ARGO_"),
            **({"ARGO_KEY_FORMAT": key_format} if key_format else {}),
        },
        secrets=bucket.keys("ARGO_"),
        ready=partial(answering, argo.address, "/api/v1/version", argo.token),
        address=argo.address,
        stop_timeout_seconds=15.0,
    )

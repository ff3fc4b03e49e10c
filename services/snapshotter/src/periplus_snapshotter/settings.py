"""The snapshotter's settings, read from `SNAPSHOTTER_…`."""

from typing import Annotated

from pydantic import Field, field_validator
from pydantic_settings import NoDecode

from periplus_common.retention import KeepFor
from periplus_common.settings import ObjectStoreSettings


class Settings(ObjectStoreSettings, frozen=True, env_prefix="SNAPSHOTTER_"):
    """Frozen and read once."""

    lockfile_processes: int = Field(default=2, ge=1, le=64)
    """How many lockfiles are parsed at the same time; each takes up to 512 MiB and one core for up to 5 s."""
    keep_snapshots: KeepFor = None
    """How long a snapshot is kept after it was last taken, with its objects; by default for ever, as lineage refers to it.
    Not less than lineage keeps runs."""

    registries: Annotated[tuple[str, ...], NoDecode] = ("docker.io", "ghcr.io", "quay.io")
    """Registries that are asked for the digests that tags point to; no other host is. Separated by commas, with the port
    where images' names have one."""
    private_registries: Annotated[tuple[str, ...], NoDecode] = ()
    """Further ones, which may have private, link-local or loopback addresses."""
    plain_registries: Annotated[tuple[str, ...], NoDecode] = ()
    """Those of both lists that are spoken to without TLS."""
    registry_token_hosts: Annotated[tuple[str, ...], NoDecode] = ()
    """Hosts of token servers that are not on their registry's own host, each as `registry=host`."""
    registry_blob_hosts: Annotated[tuple[str, ...], NoDecode] = ()
    """Hosts that a registry may redirect to for a layer, besides those of Docker Hub, ghcr and quay."""
    registry_docker_config: str = ""
    """A Docker config (`config.json`, or a pull secret's `.dockerconfigjson`) with credentials for registries; empty: none."""
    registry_ca_file: str = ""
    """Authorities (PEM) besides the system's that may have signed the registries' certificates."""
    registry_seconds: float = Field(default=5.0, gt=0, le=8)
    """The time for all images of a plan; one without an answer by then is not pinned."""
    registry_keep_seconds: float = Field(default=0.0, ge=0, le=3600)
    """How long a tag's digest is used again before its registry is asked anew; a tag that is moved meanwhile is not noticed."""
    check_tags_seconds: int = Field(default=0, ge=0)
    """How often the tags of images that were resolved in the last 30 days are looked up, to publish `ImageMoved` for one that
    points elsewhere; 0: never."""
    read_images: bool = False
    """Whether the packages of each image that is resolved are read by themselves, which downloads its layers once; else when
    they are asked for (`periplus images packages`)."""
    image_mebibytes: int = Field(default=16_384, ge=1)
    """The packages of a larger image are not read; the size is that in the registry."""
    image_platform: str = Field(default="linux/amd64", pattern="^[a-z0-9]+/[a-z0-9]+(/[a-z0-9.]+)?$")
    """The platform of steps: of an image for several, the one whose packages are read."""

    @field_validator(
        "registries",
        "private_registries",
        "plain_registries",
        "registry_token_hosts",
        "registry_blob_hosts",
        mode="before",
    )
    @classmethod
    def _split(cls, value: object) -> object:
        return (
            tuple(p.strip().lower() for p in value.split(",") if p.strip())
            if isinstance(value, str)
            else value
        )

    @field_validator("registry_token_hosts")
    @classmethod
    def _pairs(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for pair in value:
            registry, _, host = pair.partition("=")
            if not registry or not host or "/" in pair:
                raise ValueError(f"{pair!r} is not registry=host")
        return value

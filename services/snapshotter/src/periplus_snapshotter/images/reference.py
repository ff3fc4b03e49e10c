"""Names of images, as Docker and Kubernetes read them (the grammar of distribution/reference)."""

import re
from dataclasses import dataclass

from periplus_common.errors import Invalid

MAX_IMAGE_CHARACTERS = 512
DOCKER_HUB = "docker.io"
_DOCKER_HUB_NAMES = (DOCKER_HUB, "index.docker.io", "registry-1.docker.io")

_COMPONENT = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
_REGISTRY = re.compile(r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?(?::[0-9]{1,5})?", re.IGNORECASE)
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class ImageReference:
    """Where an image is: `registry` is a host, with a port if the name has one; `digest` is empty if the name has none."""

    registry: str
    repository: str
    tag: str
    digest: str = ""


def is_digest(text: str) -> bool:
    """Whether a text is a sha256 digest (OCI)."""
    return _DIGEST.fullmatch(text) is not None


def parse(image: str) -> ImageReference:
    """The parts of an image's name; those of Docker Hub in full. Raises `Invalid`."""
    if len(image) > MAX_IMAGE_CHARACTERS:
        raise Invalid(f"an image's name has at most {MAX_IMAGE_CHARACTERS} characters")
    rest, at, digest = image.partition("@")
    first, slash, path = rest.partition("/")
    # Only a first part that can not be a folder of Docker Hub is a host.
    registry, path = (first, path) if slash and _is_host(first) else (DOCKER_HUB, rest)
    path, colon, tag = path.partition(":")
    registry = registry.lower()
    if registry in _DOCKER_HUB_NAMES:
        registry, path = DOCKER_HUB, path if "/" in path else f"library/{path}"
    if (
        not _REGISTRY.fullmatch(registry)
        or not _REPOSITORY.fullmatch(path)
        or (colon and not _TAG.fullmatch(tag))
        or (at and not is_digest(digest))
    ):
        raise Invalid(f"{image!r} is no name of an image: [registry/]name[:tag][@sha256:…]")
    return ImageReference(registry, path, tag or "latest", digest)


def pinned(image: str, digest: str) -> str:
    """The same image by its digest, in the words of its name: `python:3.11` is `python@sha256:…`."""
    name = image.partition("@")[0]
    folder, slash, last = name.rpartition("/")
    return f"{folder}{slash}{last.partition(':')[0]}@{digest}"


def _is_host(part: str) -> bool:
    return "." in part or ":" in part or part == "localhost" or part != part.lower()

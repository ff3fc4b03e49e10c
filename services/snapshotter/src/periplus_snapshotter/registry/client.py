"""The HTTP API of registries: digests of tags, and manifests by digest.

Only hosts that the settings name are asked. A redirect is followed for layers alone, once, to a host that is known to store
them, without credentials. Credentials go to the registry that they are for and to its own token server, which is on the same host
unless the settings name another.
"""

import asyncio
import json
import re
import ssl
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from time import monotonic
from urllib.parse import urlencode, urlsplit

import httpcore

from periplus_common.errors import Invalid, NotFound, PeriplusError, Refused, Unavailable
from periplus_snapshotter.images import manifest as manifests
from periplus_snapshotter.images.manifest import ACCEPTED_TYPES, MAX_MANIFEST_BYTES, Manifest
from periplus_snapshotter.images.reference import DOCKER_HUB, ImageReference, is_digest
from periplus_snapshotter.registry.credentials import DockerConfig
from periplus_snapshotter.registry.network import CheckedNetwork

MAX_TOKEN_BYTES = 64 << 10
_API_HOSTS = {DOCKER_HUB: "registry-1.docker.io"}
_TOKEN_HOSTS = {DOCKER_HUB: "auth.docker.io", "registry.gitlab.com": "gitlab.com"}
_BLOB_HOSTS = (
    "production.cloudflare.docker.com",
    "production.cloudfront.docker.com",
    "docker-images-prod.6aa30f8b08e16409b46e0173d6de2f56.r2.cloudflarestorage.com",
    "pkg-containers.githubusercontent.com",
    "cdn.quay.io",
    "cdn01.quay.io",
    "cdn02.quay.io",
    "cdn03.quay.io",
)
"""Where Docker Hub, ghcr and quay store layers."""
_CHALLENGE_FIELD = re.compile(r'([a-zA-Z]+)="([^"]*)"')
_MAX_CHALLENGE_CHARACTERS = 4096
_TOKEN_SECONDS = 60
"""The least that a token is valid without an `expires_in` (distribution-spec)."""
_MAX_TOKENS = 1000


@dataclass(frozen=True)
class RegistryAccess:
    """Which registries are asked, and how.

    `private` may have addresses that are not public; `plain` are spoken to without TLS; both are a part of `allowed`.
    `token_hosts` are hosts of token servers by registry, besides the registry's own; `blob_hosts` are hosts that may store
    layers, besides those that are known. `at_once` is how many requests one registry gets at a time, `stall` the longest time
    without a byte of a layer.
    """

    allowed: frozenset[str] = frozenset()
    private: frozenset[str] = frozenset()
    plain: frozenset[str] = frozenset()
    token_hosts: Mapping[str, str] = field(default_factory=dict)
    blob_hosts: frozenset[str] = frozenset()
    docker_config: str = ""
    ca_file: str = ""
    connect_timeout: timedelta = timedelta(seconds=2)
    request_timeout: timedelta = timedelta(seconds=5)
    stall: timedelta = timedelta(seconds=30)
    at_once: int = 4


@dataclass(frozen=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


class RegistryClient:
    """Implements `Registries`."""

    def __init__(self, pool: httpcore.AsyncConnectionPool, access: RegistryAccess) -> None:
        self._pool = pool
        self._access = access
        self._config = DockerConfig(access.docker_config)
        self._authorizations: dict[tuple[str, str], tuple[float, str]] = {}
        self._slots: dict[str, asyncio.Semaphore] = {}

    async def find_digest(self, reference: ImageReference) -> str:
        """The digest that a tag points to: what a HEAD request says, which costs nothing of a pull limit; if it says
        nothing, that of the manifest's bytes.
        """
        answer = await self._ask(reference, "HEAD", reference.tag)
        found = answer.headers.get("docker-content-digest", "")
        if is_digest(found):
            return found
        return manifests.digest_of((await self._ask(reference, "GET", reference.tag)).body)

    async def get_manifest(self, reference: ImageReference, digest: str) -> Manifest:
        return manifests.read((await self._ask(reference, "GET", digest)).body, digest)

    async def read_blob(self, reference: ImageReference, digest: str) -> AsyncIterator[bytes]:
        """The bytes of a layer, in pieces, unchecked. Raises `PeriplusError`."""
        registry, key = reference.registry, (reference.registry, reference.repository)
        self._check_allowed(registry)
        url = f"{self._base(registry)}/v2/{reference.repository}/blobs/{digest}"
        authorization = self._authorizations.get(key, (0.0, ""))[1]
        timeouts = dict.fromkeys(("connect", "read", "write", "pool"), self._access.stall.total_seconds())
        for _ in range(3):  # for a token, and for a redirect
            headers = {"Host": urlsplit(url).netloc, "User-Agent": "periplus-snapshotter"}
            if authorization:
                headers["Authorization"] = authorization
            with _errors(url):
                async with self._pool.stream(
                    "GET", url, headers=list(headers.items()), extensions={"timeout": timeouts}
                ) as response:
                    found = _decoded(response.headers)
                    if response.status == 200:
                        async for chunk in response.aiter_stream():
                            yield chunk
                        return
            if response.status == 401 and not authorization:
                authorization = await self._authorize(reference, found.get("www-authenticate", ""))
            elif 300 <= response.status < 400:
                url, authorization = self._blob_url(registry, found.get("location", "")), ""
            else:
                raise _refusal(reference, digest, _Answer(response.status, found, b""))
        raise Unavailable(f"the registry {registry} does not give the layer {digest}")

    def _blob_url(self, registry: str, location: str) -> str:
        """The address that a layer is redirected to, if it is one that may be asked. Raises `Refused`."""
        base = urlsplit(self._base(registry))
        try:
            url = urlsplit(location)
            is_plain = location.isascii() and location.isprintable() and not {"\\", " "} & set(location)
            is_own = (url.scheme, url.netloc) == (base.scheme, base.netloc)
        except ValueError:
            is_plain = is_own = False
        known = (*_BLOB_HOSTS, *self._access.blob_hosts)
        if not is_plain or not (is_own or (url.scheme == "https" and url.netloc in known)):
            raise Refused(
                f"the registry {registry} redirects a layer to {location[:200]!r}, which may not be asked",
                reason="BLOB_HOST_NOT_ALLOWED",
                fix="if it is right, add its host to SNAPSHOTTER_REGISTRY_BLOB_HOSTS",
            )
        return location

    async def _ask(self, reference: ImageReference, method: str, tag: str) -> _Answer:
        """The answer for a manifest, with a token if the registry wants one. Raises `PeriplusError`."""
        registry, key = reference.registry, (reference.registry, reference.repository)
        self._check_allowed(registry)
        url = f"{self._base(registry)}/v2/{reference.repository}/manifests/{tag}"
        headers = {"Accept": ", ".join(ACCEPTED_TYPES)}
        until, authorization = self._authorizations.get(key, (0.0, ""))
        if monotonic() < until:
            headers["Authorization"] = authorization
        async with self._slots.setdefault(registry, asyncio.Semaphore(self._access.at_once)):
            answer = await self._send(method, url, headers, MAX_MANIFEST_BYTES)
            if answer.status == 401:
                headers["Authorization"] = await self._authorize(
                    reference, answer.headers.get("www-authenticate", "")
                )
                answer = await self._send(method, url, headers, MAX_MANIFEST_BYTES)
        if answer.status != 200:
            self._authorizations.pop(key, None)
            raise _refusal(reference, tag, answer)
        return answer

    def _check_allowed(self, registry: str) -> None:
        if registry not in self._access.allowed:
            raise Refused(
                f"the registry {registry} is none of those that may be asked",
                reason="REGISTRY_NOT_ALLOWED",
                fix=f"add {registry} to SNAPSHOTTER_REGISTRIES, or to SNAPSHOTTER_PRIVATE_REGISTRIES if its address is "
                "not public",
            )

    def _base(self, registry: str) -> str:
        scheme = "http" if registry in self._access.plain else "https"
        return f"{scheme}://{_API_HOSTS.get(registry, registry)}"

    async def _authorize(self, reference: ImageReference, challenge: str) -> str:
        """The value of an Authorization header that satisfies a challenge."""
        registry, repository = reference.registry, reference.repository
        credentials = await asyncio.to_thread(self._config.find, registry, repository)
        scheme, _, parameters = challenge[:_MAX_CHALLENGE_CHARACTERS].partition(" ")
        if scheme.lower() == "basic" and credentials is not None:
            self._keep((registry, repository), credentials.authorization, _TOKEN_SECONDS)
            return credentials.authorization
        if scheme.lower() != "bearer":
            raise _no_credentials(reference)
        fields = {name.lower(): value for name, value in _CHALLENGE_FIELD.findall(parameters)}
        # Our own scope: a registry that asks for another would get a token for it.
        query = {"service": fields.get("service", ""), "scope": f"repository:{repository}:pull"}
        url = f"{self._realm(registry, fields.get('realm', ''))}?{urlencode(query)}"
        headers = {"Authorization": credentials.authorization} if credentials else {}
        answer = await self._send("GET", url, headers, MAX_TOKEN_BYTES)
        if answer.status in (401, 403):
            raise _no_credentials(reference)
        token, seconds = _token(answer, registry)
        self._keep((registry, repository), f"Bearer {token}", seconds)
        return f"Bearer {token}"

    def _keep(self, key: tuple[str, str], authorization: str, seconds: float) -> None:
        if len(self._authorizations) >= _MAX_TOKENS:
            self._authorizations.clear()
        self._authorizations[key] = (monotonic() + seconds, authorization)

    def _realm(self, registry: str, realm: str) -> str:
        """The address of the token server, if it is one that may have the registry's credentials. Raises `Refused`."""
        base = urlsplit(self._base(registry))
        try:
            url = urlsplit(realm)
            host = url.netloc.lower()
            is_plain = realm.isascii() and realm.isprintable() and "\\" not in realm and " " not in realm
            is_own = (url.scheme, _with_port(url.scheme, host)) == (
                base.scheme,
                _with_port(base.scheme, base.netloc),
            )
        except ValueError:
            is_plain = is_own = False
        known = (self._access.token_hosts.get(registry), _TOKEN_HOSTS.get(registry))
        if not is_plain or not (is_own or (url.scheme == "https" and host in known)):
            raise Refused(
                f"the registry {registry} names {realm[:200]!r} as its token server, which is not its own",
                reason="TOKEN_SERVER_NOT_ALLOWED",
                fix=f"if it is right, add {registry}=<its host> to SNAPSHOTTER_REGISTRY_TOKEN_HOSTS",
            )
        return f"{url.scheme}://{host}{url.path or '/'}"

    async def _send(self, method: str, url: str, headers: Mapping[str, str], max_bytes: int) -> _Answer:
        """An answer of at most `max_bytes`. Raises `Unavailable`, `Invalid`."""
        seconds = self._access.request_timeout.total_seconds()
        sent = {
            "Host": urlsplit(url).netloc,
            "User-Agent": "periplus-snapshotter",
            "Accept-Encoding": "identity",
            **headers,
        }
        with _errors(url):
            async with (
                asyncio.timeout(seconds),
                self._pool.stream(method, url, headers=list(sent.items())) as response,
            ):
                found = _decoded(response.headers)
                body = b""
                async for chunk in response.aiter_stream():
                    body += chunk
                    if len(body) > max_bytes:
                        raise Invalid(f"{_host(url)} answers with more than {max_bytes} bytes")
        return _Answer(response.status, found, body)


@asynccontextmanager
async def connect(access: RegistryAccess) -> AsyncIterator[RegistryClient]:
    """A client of the registries. Nothing is sent yet."""
    context = ssl.create_default_context()
    if access.ca_file:
        context.load_verify_locations(access.ca_file)
    hosts = frozenset(
        _with_port("http" if host in access.plain else "https", host) for host in access.private
    )
    async with httpcore.AsyncConnectionPool(
        ssl_context=context,
        max_connections=100,
        max_keepalive_connections=10,
        keepalive_expiry=30,
        network_backend=CheckedNetwork(hosts, access.connect_timeout),
    ) as pool:
        yield RegistryClient(pool, access)


@contextmanager
def _errors(url: str) -> Iterator[None]:
    """Raise `Unavailable` for what goes wrong with a request."""
    try:
        yield
    except TimeoutError as error:
        raise Unavailable(f"{_host(url)} did not answer in time") from error
    except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, UnicodeError) as error:
        raise Unavailable(f"{_host(url)} can not be asked: {error or type(error).__name__}") from error


def _decoded(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    return {name.decode().lower(): value.decode(errors="replace") for name, value in headers}


def _with_port(scheme: str, host: str) -> str:
    """A host with its port. Raises `ValueError` for what is none."""
    name, colon, port = host.partition(":")
    if not name or "@" in host or (colon and not port.isdigit()):
        raise ValueError(host)
    return f"{name}:{port or {'http': 80, 'https': 443}.get(scheme, 0)}"


def _host(url: str) -> str:
    return urlsplit(url).netloc


def _token(answer: _Answer, registry: str) -> tuple[str, float]:
    """The token of a token server's answer, and how long to use it. Raises `Unavailable`."""
    try:
        document = json.loads(answer.body) if answer.status == 200 else {}
        token = document.get("token") or document.get("access_token")
        seconds = float(document.get("expires_in") or _TOKEN_SECONDS)
    except (ValueError, TypeError, AttributeError, RecursionError):
        token, seconds = None, 0.0
    # A token becomes a part of a header.
    if not isinstance(token, str) or not token.isascii() or not token.isprintable():
        raise Unavailable(f"the token server of {registry} answers {answer.status} without a token")
    return token, min(max(seconds * 0.8, 0.0), 300.0)


def _no_credentials(reference: ImageReference) -> PeriplusError:
    return Refused(
        f"the registry {reference.registry} lets us not read {reference.repository}",
        reason="REGISTRY_CREDENTIALS",
        fix=f"add credentials for {reference.registry} to the file that SNAPSHOTTER_REGISTRY_DOCKER_CONFIG names",
    )


def _refusal(reference: ImageReference, tag: str, answer: _Answer) -> PeriplusError:
    """The error for an answer that is no manifest."""
    if answer.status in (401, 403):
        return _no_credentials(reference)
    if answer.status == 404:
        return NotFound(f"the registry {reference.registry} has no {reference.repository}:{tag}")
    if 300 <= answer.status < 400:
        return Refused(f"the registry {reference.registry} answers with a redirect, which is not followed")
    return Unavailable(f"the registry {reference.registry} answers {answer.status}")

"""Secrets and ConfigMaps, through the API of Kubernetes: versions of the data that steps get. No value leaves this module."""

import asyncio
import base64
import hmac
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import quote

import httpx

from periplus_common import digest
from periplus_dispatcher.domain import ABSENT, ConfigObject, ConfigRef, ConfigVersion, Json
from periplus_dispatcher.kubernetes import TooLargeError, read_body

NOT_ALLOWED = "which the dispatcher may not read: give its role the verb get for {resource} (deploy/k8s/argo/config.yaml)"
_RESOURCES = {"Secret": "secrets", "ConfigMap": "configmaps"}
MAX_NAME_CHARACTERS = 253
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
T = TypeVar("T")
_METADATA_ONLY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"


@dataclass(frozen=True)
class ConfigBounds:
    """How much is read for one plan, or when a step ends: objects, bytes of one of them, at a time, and all within seconds."""

    objects: int = 100
    size_bytes: int = 4 << 20
    concurrent: int = 8
    seconds: float = 5.0


@dataclass(frozen=True)
class _Data:
    """The data of a config object by key, and its resource version; None and empty if it does not exist."""

    values: Mapping[str, bytes] | None
    resource_version: str = ""


class KubernetesConfig:
    """Implements `ConfigObjects` for one namespace. Needs the verb get.

    `key` is a secret of this deployment: from a plain digest a short secret could be guessed.
    """

    def __init__(
        self, session: httpx.AsyncClient, namespace: str, key: bytes, bounds: ConfigBounds | None = None
    ) -> None:
        self._session = session
        self._namespace = namespace
        self._key = key
        self._bounds = bounds or ConfigBounds()

    async def versions(self, refs: Sequence[ConfigRef]) -> dict[ConfigRef, ConfigVersion]:
        by_object: dict[ConfigObject, list[ConfigRef]] = {}
        for ref in refs:
            by_object.setdefault(ref.object, []).append(ref)

        def of(found: ConfigObject, data: _Data) -> dict[ConfigRef, ConfigVersion]:
            return {ref: self._version(ref, data) for ref in by_object[found]}

        read = await self._read_all(by_object, "application/json", of)
        return {
            ref: found[ref] if not isinstance(found := read[ref.object], str) else ConfigVersion(reason=found)
            for ref in refs
        }

    async def resource_versions(self, objects: Iterable[ConfigObject]) -> dict[str, str]:
        read = await self._read_all(set(objects), _METADATA_ONLY, lambda _, data: [data.resource_version])
        return {found.id: each[0] for found, each in read.items() if not isinstance(each, str)}

    def _version(self, ref: ConfigRef, read: _Data) -> ConfigVersion:
        values = read.values
        is_absent = values is None or (ref.key and ref.key not in values)
        if is_absent and not ref.is_optional:
            return ConfigVersion(
                reason="which does not exist" if values is None else f"which has no key {ref.key}"
            )
        if values is None or is_absent:
            return ConfigVersion(ABSENT, read.resource_version)
        data = {
            key: value
            for key, value in values.items()
            if (key == ref.key if ref.key else key not in ref.without)
        }
        text = digest.canonical(["config", self._namespace, ref.object.kind, ref.object.name, data])
        version = f"hmac-sha256:{hmac.digest(self._key, text, 'sha256').hex()}"
        return ConfigVersion(version, read.resource_version)

    async def _read_all(
        self, objects: Iterable[ConfigObject], accept: str, take: Callable[[ConfigObject, _Data], T]
    ) -> dict[ConfigObject, T | str]:
        """What `take` makes of the data of each object; or why it could not be read, as the end of a sentence about it."""
        listed, most = sorted(objects), self._bounds.objects
        found: dict[ConfigObject, T | str] = {
            each: f"which Kubernetes did not give in {self._bounds.seconds:g} s"
            if position < most
            else f"which is not read: a plan reads at most {most} Secrets and ConfigMaps"
            for position, each in enumerate(listed)
        }
        limit = asyncio.Semaphore(self._bounds.concurrent)

        async def read(each: ConfigObject) -> None:
            async with limit:
                data = await self._read(each, accept)
                found[each] = data if isinstance(data, str) else take(each, data)

        with suppress(TimeoutError):  # what was not read by then says so
            async with asyncio.timeout(self._bounds.seconds), asyncio.TaskGroup() as tasks:
                for each in listed[:most]:
                    tasks.create_task(read(each))
        return found

    async def _read(self, found: ConfigObject, accept: str) -> _Data | str:
        if len(found.name) > MAX_NAME_CHARACTERS or not _NAME.fullmatch(found.name):
            return "whose name is not one that Kubernetes takes"
        resource = _RESOURCES[found.kind]
        path = f"api/v1/namespaces/{quote(self._namespace, safe='')}/{resource}/{found.name}"
        try:
            async with self._session.stream("GET", path, headers={"Accept": accept}) as response:
                if response.status_code in (httpx.codes.FORBIDDEN, httpx.codes.UNAUTHORIZED):
                    return NOT_ALLOWED.format(resource=resource)
                if response.status_code == httpx.codes.NOT_FOUND:
                    return _Data(None)
                if not response.is_success:
                    return f"which can not be read: Kubernetes answers {response.status_code}"
                body = await read_body(response, self._bounds.size_bytes)
            return _data(json.loads(body), is_secret=found.kind == "Secret")
        except TooLargeError:
            return f"which has more than {self._bounds.size_bytes} bytes"
        except (httpx.HTTPError, OSError) as error:
            return f"which can not be read: {type(error).__name__}"
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
            return "which can not be read: Kubernetes answers something else"


def _data(answer: Json, *, is_secret: bool) -> _Data:
    """Raises ValueError, TypeError, AttributeError or KeyError for an answer that is no object of Kubernetes."""
    texts, encoded = (answer.get("data") or {}), (answer.get("binaryData") or {})
    values = {
        key: base64.b64decode(value, validate=True) if is_secret else value.encode()
        for key, value in texts.items()
    }
    values |= {key: base64.b64decode(value, validate=True) for key, value in encoded.items()}
    version = answer["metadata"]["resourceVersion"]
    if not isinstance(version, str) or not version:
        raise ValueError("an object has a resource version")
    return _Data(values, version)

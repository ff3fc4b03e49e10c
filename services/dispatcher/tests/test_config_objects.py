"""Versions of the data of Secrets and ConfigMaps: an HMAC of exactly what a step gets, and the reason where there is none."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from kubernetes_api import METADATA_ONLY, KubernetesApi, kubernetes_api

from periplus_dispatcher import kubernetes
from periplus_dispatcher.config_objects import ABSENT, ConfigBounds, KubernetesConfig
from periplus_dispatcher.domain import ConfigObject, ConfigRef, ConfigVersion

KEY = b"k" * 32
SECRET = ConfigObject("Secret", "db")
TOKEN = ConfigRef(SECRET, "token")
ALL = ConfigRef(SECRET)


@pytest.fixture
def api() -> Iterator[KubernetesApi]:
    with kubernetes_api() as running:
        yield running


@asynccontextmanager
async def config(
    api: KubernetesApi, key: bytes = KEY, bounds: ConfigBounds | None = None
) -> AsyncIterator[KubernetesConfig]:
    async with kubernetes.connect(api.url) as session:
        assert session is not None
        yield KubernetesConfig(session, "argo", key, bounds)


async def version(api: KubernetesApi, ref: ConfigRef, key: bytes = KEY) -> ConfigVersion:
    async with config(api, key) as found:
        return (await found.versions([ref]))[ref]


async def test_a_version_tells_contents_apart_and_comes_back_with_its_content(api: KubernetesApi) -> None:
    versions = []
    for value in ("one", "two", "one"):
        api.write("db", token=value)
        found = await version(api, TOKEN)
        assert found.reason == ""
        assert found.resource_version == str(1000 + api.writes)
        versions.append(found.version)
    assert versions[0] == versions[2] != versions[1]
    assert all(each.startswith("hmac-sha256:") and len(each) == 76 for each in versions)


async def test_an_unrelated_key_changes_only_the_version_of_all_keys(api: KubernetesApi) -> None:
    api.write("db", token="one", other="x")
    refs = [TOKEN, ALL, ConfigRef(SECRET, without=("other",))]
    async with config(api) as found:
        first = await found.versions(refs)
        api.write("db", token="one", other="y")
        second = await found.versions(refs)
    same = {ref for ref in refs if first[ref].version == second[ref].version}
    assert same == {TOKEN, ConfigRef(SECRET, without=("other",))}


async def test_versions_depend_on_the_deployments_key_the_name_and_the_kind(api: KubernetesApi) -> None:
    for kind in ("Secret", "ConfigMap"):
        for name in ("db", "other"):
            api.write(name, kind, token="one")
    objects = [ConfigObject(kind, name) for kind in ("Secret", "ConfigMap") for name in ("db", "other")]
    found = {(await version(api, ConfigRef(each, "token"))).version for each in objects}
    found.add((await version(api, TOKEN, b"another key of 32 bytes or more!")).version)
    assert len(found) == 5


async def test_binary_data_of_a_config_map_is_data(api: KubernetesApi) -> None:
    api.write("c", "ConfigMap", a="text")
    stored = api.objects["/api/v1/namespaces/argo/configmaps/c"]
    found = set()
    for encoded in ("AAE=", "AAI="):
        stored["binaryData"] = {"b": encoded}
        found.add((await version(api, ConfigRef(ConfigObject("ConfigMap", "c"), "b"))).version)
    assert len(found) == 2


async def test_what_is_absent_is_a_version_where_it_is_optional_and_else_a_reason(api: KubernetesApi) -> None:
    optional = [ConfigRef(SECRET, "token", is_optional=True), ConfigRef(SECRET, is_optional=True)]
    for ref in optional:
        assert await version(api, ref) == ConfigVersion(ABSENT, "")
    assert await version(api, TOKEN) == ConfigVersion(reason="which does not exist")
    api.write("db", other="x")
    assert await version(api, optional[0]) == ConfigVersion(ABSENT, "1001")
    assert await version(api, TOKEN) == ConfigVersion(reason="which has no key token")
    empty = ConfigObject("ConfigMap", "empty")
    api.write("empty", "ConfigMap")
    assert (await version(api, ConfigRef(empty, is_optional=True))).version not in ("", ABSENT)


async def test_each_object_is_read_once(api: KubernetesApi) -> None:
    api.write("db", token="one", other="x")
    async with config(api) as found:
        await found.versions([TOKEN, ALL, ConfigRef(SECRET, "other"), ConfigRef(ConfigObject("Secret", "b"))])
    assert sorted(api.paths) == ["/api/v1/namespaces/argo/secrets/b", "/api/v1/namespaces/argo/secrets/db"]


async def test_resource_versions_are_read_without_values(api: KubernetesApi) -> None:
    api.write("db", token="one")
    gone = ConfigObject("ConfigMap", "gone")
    async with config(api) as found:
        assert await found.resource_versions([SECRET, gone]) == {"Secret/db": "1001", "ConfigMap/gone": ""}
    assert {accept for _, accept in api.requests} == {METADATA_ONLY}
    api.status = 403
    async with config(api) as found:
        assert await found.resource_versions([SECRET]) == {}


@pytest.mark.parametrize("status", [401, 403])
async def test_without_the_right_to_read_the_reason_says_which_one_to_give(
    api: KubernetesApi, status: int
) -> None:
    api.write("db", token="one")
    api.status = status
    reason = (await version(api, TOKEN)).reason
    assert reason == (
        "which the dispatcher may not read: give its role the verb get for secrets (deploy/k8s/argo/config.yaml)"
    )


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b'{"data": []}', b'{"data": {"token": "!"}, "metadata": {"resourceVersion": "1"}}',
     b'{"data": {"token": 1}, "metadata": {"resourceVersion": "1"}}', b'{"data": {}, "metadata": {"resourceVersion": 1}}',
     b'{"data": {}, "metadata": {}}', b"[" * 100_000],
)  # fmt: skip
async def test_an_answer_that_is_no_object_is_a_reason(api: KubernetesApi, body: bytes) -> None:
    api.write("db", token="one")
    api.body = body
    assert (await version(api, TOKEN)).reason == "which can not be read: Kubernetes answers something else"


async def test_what_is_large_slow_or_too_much_is_not_read_and_the_reason_says_so(api: KubernetesApi) -> None:
    objects = [ConfigObject("Secret", f"s{number}") for number in range(4)]
    refs = [ConfigRef(each) for each in objects]
    for each in objects:
        api.write(each.name, token="x" * 10_000)
    async with config(api, bounds=ConfigBounds(objects=3, size_bytes=5000)) as found:
        reasons = [each.reason for each in (await found.versions(refs)).values()]
    assert reasons == ["which has more than 5000 bytes"] * 3 + [
        "which is not read: a plan reads at most 3 Secrets and ConfigMaps"
    ]
    api.delay_seconds = 20.0
    async with config(api, bounds=ConfigBounds(seconds=0.2)) as found:
        reasons = [each.reason for each in (await found.versions(refs)).values()]
    assert reasons == ["which Kubernetes did not give in 0.2 s"] * 4
    api.delay_seconds = 0.0
    api.status = 500
    assert (await version(api, TOKEN)).reason == "which can not be read: Kubernetes answers 500"


async def test_a_kubernetes_that_is_away_is_a_reason() -> None:
    async with kubernetes.connect("http://127.0.0.1:1") as session:
        assert session is not None
        found = await KubernetesConfig(session, "argo", KEY).versions([TOKEN])
    assert found[TOKEN].reason == "which can not be read: ConnectError"


@pytest.mark.parametrize("name", ["..", "a/b", "", "A", "a?x=1", "a" * 254, "a..b", "é"])
async def test_a_name_that_kubernetes_would_refuse_is_not_asked_for(api: KubernetesApi, name: str) -> None:
    found = await version(api, ConfigRef(ConfigObject("Secret", name), "k", is_optional=True))
    assert found.reason == "whose name is not one that Kubernetes takes"
    assert api.requests == []


async def test_no_value_is_in_what_is_given(api: KubernetesApi) -> None:
    api.write("db", token="canary-value")
    async with config(api) as found:
        versions = await found.versions([TOKEN, ALL])
        assert "canary-value" not in repr((versions, found))
        assert "canary-value" not in json.dumps([each.version for each in versions.values()])

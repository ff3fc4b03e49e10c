"""The settings that the stack gives to the services."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from periplus_local.stack import embedded, services
from periplus_local.stack.cluster import Cluster
from periplus_local.stack.home import Home


@pytest.mark.parametrize("name", embedded.SERVICES)
def test_a_service_gets_every_setting_that_it_requires_and_none_that_it_does_not_have(
    name: str, tmp_path: Path
) -> None:
    home = Home(tmp_path / "home")
    home.create()
    given = services.environment(embedded.embedded(home), services.assign(home), name)
    fields = import_module(f"periplus_{name}.settings").Settings.model_fields
    prefix = f"{name.upper()}_"
    assert set(given) <= {f"{prefix}{field.upper()}" for field in fields}
    assert set(given) >= {f"{prefix}{field.upper()}" for field, info in fields.items() if info.is_required()}


@pytest.mark.parametrize(
    ("name", "has_keys"), [("cache", True), ("snapshotter", True), ("dispatcher", False), ("lineage", False)]
)
def test_only_services_that_read_or_write_objects_get_the_keys_of_the_store(
    name: str, has_keys: bool, tmp_path: Path
) -> None:
    home = Home(tmp_path / "home")
    home.create()
    servers = embedded.embedded(home)
    given = services.environment(servers, services.assign(home), name)
    assert (servers.s3.secret_key in given.values()) == has_keys


def test_the_dispatcher_knows_that_only_the_local_argo_runs_steps_as_processes(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.create()
    servers = embedded.embedded(home)
    elsewhere = Cluster.from_environment(
        dict.fromkeys(
            ("ARGO_SERVER", "ARGO_NAMESPACE", "S3_ENDPOINT", "S3_ACCESS_KEY", "S3_SECRET_KEY", "S3_BUCKET"),
            "http://x:1",
        )
        | {"DISPATCHER_IMMUTABLE_IMAGE_PREFIXES": "registry/ml/"}
    )
    local = services.environment(servers, services.assign(home), "dispatcher")
    cluster = services.environment(servers, services.assign(home, elsewhere), "dispatcher")
    assert local["DISPATCHER_STEPS_ARE_PROCESSES"] == "true"
    assert "DISPATCHER_IMMUTABLE_IMAGE_PREFIXES" not in local
    assert "DISPATCHER_STEPS_ARE_PROCESSES" not in cluster
    assert cluster["DISPATCHER_IMMUTABLE_IMAGE_PREFIXES"] == "registry/ml/"

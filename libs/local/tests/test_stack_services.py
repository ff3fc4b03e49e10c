"""The settings that the stack gives to the services."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from periplus_local.stack import embedded, services
from periplus_local.stack.cluster import Cluster
from periplus_local.stack.home import Home
from periplus_local.stack.process import ProcessSpec
from periplus_local.stack.running_process import environment


@pytest.mark.parametrize("name", embedded.SERVICES)
def test_a_service_gets_every_setting_that_it_requires_and_none_that_it_does_not_have(
    name: str, tmp_path: Path
) -> None:
    home = Home(tmp_path / "home")
    home.create()
    servers, found = embedded.embedded(home), services.assign(home)
    given = {**services.environment(servers, found, name), **services.secrets(servers, found, name)}
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
    given = services.secrets(servers, services.assign(home), name)
    assert (name in servers.s3.identities) == has_keys
    assert {*servers.s3.identities.get(name, ())} <= {*given.values()}
    assert servers.s3.secret_key not in given.values()


def test_the_dispatcher_knows_that_only_the_local_argo_runs_steps_as_processes(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.create()
    servers = embedded.embedded(home)
    elsewhere = Cluster.from_environment(
        dict.fromkeys(
            ("ARGO_SERVER", "ARGO_NAMESPACE", "S3_ENDPOINT", "S3_ACCESS_KEY", "S3_SECRET_KEY", "S3_BUCKET"),
            "http://x:1",
        )
    )
    local = services.environment(servers, services.assign(home), "dispatcher")
    cluster = services.environment(servers, services.assign(home, elsewhere), "dispatcher")
    assert local["DISPATCHER_STEPS_ARE_PROCESSES"] == "true"
    assert "DISPATCHER_STEPS_ARE_PROCESSES" not in cluster
    assert local["DISPATCHER_WRITABLE_KEYS"] == "*"
    assert "DISPATCHER_WRITABLE_KEYS" not in cluster


def test_a_service_gets_the_settings_that_its_user_chose_but_not_those_that_the_stack_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GATE_SECONDS", "WRITABLE_KEYS", "TOKEN", "GRPC_ADDRESS", "STEPS_ARE_PROCESSES"):
        monkeypatch.setenv(f"DISPATCHER_{name}", "7")
    home = Home(tmp_path / "home")
    home.create()
    servers = embedded.embedded(home)
    found = services.assign(home)
    given = services.environment(servers, found, "dispatcher")
    assert (given["DISPATCHER_GATE_SECONDS"], given["DISPATCHER_WRITABLE_KEYS"]) == ("7", "7")
    assert "7" not in (given["DISPATCHER_GRPC_ADDRESS"], given["DISPATCHER_STEPS_ARE_PROCESSES"])
    assert "DISPATCHER_TOKEN" not in given
    assert "DISPATCHER_GATE_SECONDS" not in services.environment(servers, found, "cache")


def test_no_secret_of_the_home_is_in_the_environment_or_the_arguments_of_a_process(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.create()
    servers, found = embedded.embedded(home), services.assign(home)
    specs = [*embedded.specs(home, servers), *services.specs(home, servers, found)]
    secrets = [path.read_text() for path in home.secrets.iterdir()]
    assert len(secrets) > 10
    for spec in specs:
        shown = "\n".join((*spec.command, *environment(spec).values()))
        assert not [secret for secret in secrets if secret in shown], spec.name


def test_a_secret_can_not_be_put_where_other_processes_read_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cache: CACHE_TOKEN must not be"):
        ProcessSpec("cache", ("cache",), tmp_path, env={"X": "hunter2"}, secrets={"CACHE_TOKEN": "hunter2"})


def test_the_key_of_the_versions_of_secrets_outlives_a_start_as_entries_have_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path / "home")
    home.create()
    servers = embedded.embedded(home)

    def key() -> str:
        return services.secrets(servers, services.assign(home), "dispatcher")["DISPATCHER_CONFIG_VERSION_KEY"]

    first = key()
    assert len(first) >= 32
    assert key() == first
    monkeypatch.setenv("DISPATCHER_CONFIG_VERSION_KEY", "a team's own key of 32 characters")
    assert key() == "a team's own key of 32 characters"

"""The settings that the stack gives to the services."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from periplus_local.stack import embedded, services
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

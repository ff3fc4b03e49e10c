"""Every RPC of every service declares its permission, and every call needs the whole token."""

import importlib
from pathlib import Path

import pytest

import periplus
from periplus_common import auth
from periplus_common.errors import Unauthenticated


def services():
    """Every service of every contract."""
    for root in map(Path, periplus.__path__):
        for file in root.glob("*/v1/*_pb2.py"):
            name = ".".join(("periplus", *file.relative_to(root).with_suffix("").parts))
            yield from importlib.import_module(name).DESCRIPTOR.services_by_name.values()


def test_every_rpc_declares_a_permission():
    found = {f"{s.full_name}/{name}": what for s in services() for name, what in auth.permissions(s).items()}
    assert len(found) > 10
    assert {s.full_name.split(".")[1] for s in services()} >= {
        "cache",
        "dispatcher",
        "lineage",
        "snapshotter",
    }
    for name, permission in found.items():
        resource, _, verb = permission.partition(".")
        assert resource.isidentifier(), name
        assert verb.isidentifier(), name


def test_no_rpc_streams_its_request_as_its_token_would_not_be_checked():
    assert [m.full_name for s in services() for m in s.methods if m.client_streaming] == []


def test_the_token_is_accepted_as_text_and_as_bytes():
    for credentials in ("Bearer secret", b"Bearer secret"):
        auth.check([("x", "y"), ("authorization", credentials)], "secret")


@pytest.mark.parametrize(
    "credentials", ["Bearer secre", "Bearer secrets", "bearer secret", "Bearer é", b"\xff"]
)
def test_a_token_that_differs_by_little_is_refused(credentials: str | bytes):
    with pytest.raises(Unauthenticated) as caught:
        auth.check([("authorization", credentials)], "secret")
    assert caught.value.reason == "TOKEN_INVALID"

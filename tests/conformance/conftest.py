"""The Argo that the recordings are held against: a local one on a real S3 store, or ARGO_SERVER."""

import os
from collections.abc import Iterator

import pytest
from minio import Minio

from periplus_local.argo.testing import Client, Serving

from .stores import BUCKET, Store, settings, store
from .theirs import their_store, theirs


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with store(tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture(scope="session")
def client(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Client]:
    if "ARGO_SERVER" in os.environ:
        yield theirs()
        return
    s3 = request.getfixturevalue("s3")
    with Serving(settings(tmp_path_factory.mktemp("argo"), s3)) as local:
        yield local


@pytest.fixture(scope="session")
def held(request: pytest.FixtureRequest) -> tuple[Minio, str] | None:
    """The store of the client's Argo and the bucket in it; None when nobody has named that of a real one."""
    if "ARGO_SERVER" in os.environ:
        return their_store()
    return request.getfixturevalue("s3").minio, BUCKET

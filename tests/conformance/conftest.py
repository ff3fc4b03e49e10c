"""The Argo that the recordings are held against: a local one on a real S3 store, or ARGO_SERVER."""

import os
from collections.abc import Iterator

import pytest
from minio import Minio

from periplus_local.argo.testing import ArgoThread, Client

from .real_argo import real_argo, real_repository
from .s3_store import BUCKET, S3Store, argo_settings, s3_store


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Store]:
    with s3_store(tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture(scope="session")
def client(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Client]:
    if "ARGO_SERVER" in os.environ:
        yield real_argo()
        return
    s3 = request.getfixturevalue("s3")
    with ArgoThread(argo_settings(tmp_path_factory.mktemp("argo"), s3)) as local:
        yield local


@pytest.fixture(scope="session")
def repository(request: pytest.FixtureRequest) -> tuple[Minio, str] | None:
    """The artifact repository of the client's Argo and its bucket; None for a real Argo without S3_ENDPOINT."""
    if "ARGO_SERVER" in os.environ:
        return real_repository()
    return request.getfixturevalue("s3").minio, BUCKET

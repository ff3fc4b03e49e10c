"""Settings as the environment gives them."""

import pytest

from periplus_dispatcher.settings import Settings

REQUIRED = {
    "POSTGRES_DSN": "postgres://", "NATS_URL": "nats://", "GRPC_ADDRESS": "127.0.0.1:0", "TOKEN": "t", "S3_ENDPOINT": "s3:9000",
    "S3_BUCKET": "b", "ARGO_URL": "http://argo", "ARGO_NAMESPACE": "n", "CACHE_ADDRESS": "c:1", "SNAPSHOTTER_ADDRESS": "s:1",
}  # fmt: skip


def settings(monkeypatch: pytest.MonkeyPatch, **more: str) -> Settings:
    for name, value in (REQUIRED | more).items():
        monkeypatch.setenv(f"DISPATCHER_{name}", value)
    return Settings()


def test_by_default_argo_runs_images_and_no_prefix_is_immutable(monkeypatch: pytest.MonkeyPatch) -> None:
    found = settings(monkeypatch)
    assert (found.steps_are_processes, found.immutable_image_prefixes) == (False, ())


def test_prefixes_of_images_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    found = settings(
        monkeypatch, IMMUTABLE_IMAGE_PREFIXES=" registry/ml/ ,base:,", STEPS_ARE_PROCESSES="true"
    )
    assert found.steps_are_processes
    assert found.immutable_image_prefixes == ("registry/ml/", "base:"), (
        "an empty prefix would be every image's"
    )
    assert settings(monkeypatch, IMMUTABLE_IMAGE_PREFIXES="").immutable_image_prefixes == ()

"""Settings as the environment gives them."""

import pytest
from pydantic import ValidationError

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


WEBHOOK = {
    "WEBHOOK_ADDRESS": "0.0.0.0:9443", "WEBHOOK_TOKEN": "sixteen-or-more-of-them", "WEBHOOK_CERT_FILE": "/tls.crt",
    "WEBHOOK_KEY_FILE": "/tls.key", "OBSERVE": "ml=digits",
}  # fmt: skip


def test_the_webhook_is_off_unless_it_has_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings(monkeypatch).webhook_address == ""
    assert settings(monkeypatch, **WEBHOOK).webhook_address == "0.0.0.0:9443"


@pytest.mark.parametrize(
    ("name", "value"),
    [("WEBHOOK_TOKEN", "short"), ("WEBHOOK_TOKEN", "with/a/slash/in/it"), ("WEBHOOK_TOKEN", ""), ("WEBHOOK_CERT_FILE", ""),
     ("WEBHOOK_KEY_FILE", ""), ("WEBHOOK_ADDRESS", "9443"), ("WEBHOOK_ADDRESS", "host:"), ("OBSERVE", "")],
)  # fmt: skip
def test_a_webhook_that_could_not_be_asked_or_trusted_is_refused_at_the_start(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    with pytest.raises(ValidationError, match="webhook_address"):
        settings(monkeypatch, **(WEBHOOK | {name: value}))


def test_a_key_of_versions_that_could_be_guessed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="has less than 32 characters"):
        settings(monkeypatch, CONFIG_VERSION_KEY="short")
    assert settings(monkeypatch, CONFIG_VERSION_KEY="").config_version_key.get_secret_value() == ""
    assert settings(monkeypatch, CONFIG_VERSION_KEY="k" * 32).config_version_key

"""deploy/k8s: what kubectl makes of it is valid, gives each service what it reads, and no more rights than it uses."""

import json
import os
import re
import shutil
import subprocess
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from periplus_common.streams import StreamSettings

ROOT = Path(__file__).parents[2]
K8S = ROOT / "deploy" / "k8s"
SERVICES = ("dispatcher", "cache", "snapshotter", "lineage")
OVERLAYS = ("overlays/dev", "overlays/prod")
Json = dict[str, Any]

needs_kubectl = pytest.mark.skipif(not shutil.which("kubectl"), reason="needs kubectl, for its kustomize")


def rendered(folder: str | Path) -> list[Json]:
    done = subprocess.run(
        ["kubectl", "kustomize", str(K8S / folder)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


@pytest.fixture
def with_webhook(tmp_path: Path) -> list[Json]:
    """The prod overlay with what the README adds to it for the webhook."""
    (added,) = re.findall(r"```yaml\n(components:.*?)```", (K8S / "README.md").read_text(), re.DOTALL)
    to_k8s = os.path.relpath(K8S, tmp_path)
    head = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nnamespace: periplus\n"
    text = f"{head}resources: [{to_k8s}/overlays/prod]\n{added.replace('../..', to_k8s)}"
    (tmp_path / "kustomization.yaml").write_text(text)
    return rendered(str(tmp_path))


def pods(objects: list[Json]) -> dict[str, Json]:
    """The specs of pods, by kind and name of what makes them."""
    kinds = ("Deployment", "StatefulSet", "Job")
    return {
        f"{each['kind']}/{each['metadata']['name']}": each["spec"]["template"]["spec"]
        for each in objects
        if each["kind"] in kinds
    }


def variables(path: Path) -> dict[str, str]:
    lines = (line for line in path.read_text().splitlines() if line and not line.startswith("#"))
    return dict(line.split("=", 1) for line in lines)


def fields(service: str) -> tuple[set[str], set[str]]:
    """The variables that a service reads, and those that it requires."""
    model = StreamSettings if service == "streams" else import_module(f"periplus_{service}.settings").Settings
    prefix = f"{service.upper()}_"
    found = {f"{prefix}{name.upper()}": info.is_required() for name, info in model.model_fields.items()}
    return set(found), {name for name, required in found.items() if required}


def secrets_of_readme() -> dict[str, set[str]]:
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", (K8S / "README.md").read_text(), re.MULTILINE)
    return {name: set(re.findall(r"`([A-Z0-9_]+)`", keys)) for name, keys in rows}


@pytest.mark.parametrize("service", [*SERVICES, "streams"])
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_each_service_gets_every_setting_that_it_requires_and_none_that_it_does_not_have(
    overlay: str, service: str
) -> None:
    given = set(variables(K8S / overlay / "settings" / f"{service}.env"))
    if service != "streams":
        given |= {f"{service.upper()}_GRPC_ADDRESS"}
    secrets = secrets_of_readme()[service]
    if overlay == "overlays/dev":
        assert set(variables(K8S / overlay / "secrets" / f"{service}.env")) == secrets
    known, required = fields(service)
    assert given | secrets <= known
    assert given | secrets >= required
    assert not given & secrets


@needs_kubectl
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_pod_is_restricted_and_only_the_dispatcher_has_a_token_for_kubernetes(overlay: str) -> None:
    objects = rendered(overlay)
    for name, pod in pods(objects).items():
        assert pod["securityContext"]["runAsNonRoot"], name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in pod["containers"]:
            own = container["securityContext"]
            assert own["readOnlyRootFilesystem"], name
            assert own["allowPrivilegeEscalation"] is False, name
            assert own["capabilities"] == {"drop": ["ALL"]}, name
            assert container["resources"]["limits"]["memory"], name
            assert ":" in container["image"], name
    accounts = {
        o["metadata"]["name"]: o["automountServiceAccountToken"]
        for o in objects
        if o["kind"] == "ServiceAccount"
    }
    assert accounts == {service: service == "dispatcher" for service in SERVICES}
    jobs = [pod for name, pod in pods(objects).items() if not name.startswith("Deployment")]
    assert not any(pod.get("automountServiceAccountToken", True) for pod in jobs)


@needs_kubectl
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_secret_is_in_the_environment_of_a_service(overlay: str) -> None:
    objects = rendered(overlay)
    secret = {key for keys in secrets_of_readme().values() for key in keys}
    for name, pod in pods(objects).items():
        if name.startswith("StatefulSet"):
            continue  # of dev's servers, whose images read nothing else
        for container in pod["containers"]:
            assert not {each["name"] for each in container.get("env", ())} & secret, name
            assert all("secretRef" not in source for source in container.get("envFrom", ())), name
    for each in objects:
        if each["kind"] == "ConfigMap":
            assert not set(each["data"]) & secret, each["metadata"]["name"]


@needs_kubectl
def test_the_jobs_run_what_the_images_have_and_every_service_is_migrated() -> None:
    found = pods(rendered("overlays/dev"))
    migrated = {f"Job/migrate-{service}" for service in SERVICES}
    assert {name for name in found if name.startswith("Job")} == {*migrated, "Job/streams"}
    for service in SERVICES:
        (container,) = found[f"Job/migrate-{service}"]["containers"]
        assert (container["image"], container["args"]) == (f"periplus-{service}:latest", ["migrate"])
    assert found["Job/streams"]["containers"][0]["command"] == ["python", "-m", "periplus_common.streams"]


@needs_kubectl
@pytest.mark.parametrize("folder", [*OVERLAYS, "argo"])
def test_every_object_is_valid(folder: str) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    for each in rendered(folder):
        kubernetes_validate.validate(each, "1.34", strict=True)


@needs_kubectl
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_pod_has_variables_of_the_services_around_it(overlay: str) -> None:
    """A Service "s3" would set S3_PORT to a URL, which SeaweedFS reads as its port."""
    pods = [
        each["spec"]["template"]["spec"] for each in rendered(overlay) if "template" in each.get("spec", {})
    ]
    assert len(pods) > len(SERVICES)
    assert all(pod["enableServiceLinks"] is False for pod in pods)


@needs_kubectl
def test_the_webhook_of_the_readme_fails_open_and_is_asked_for_workflows_that_opt_in(
    with_webhook: list[Json],
) -> None:
    found = {(each["kind"], each["metadata"]["name"]): each for each in with_webhook}
    configuration = found["MutatingWebhookConfiguration", "periplus"]
    assert configuration["metadata"]["annotations"] == {
        "cert-manager.io/inject-ca-from": "periplus/dispatcher-webhook"
    }
    for each in configuration["webhooks"]:
        assert (each["failurePolicy"], each["timeoutSeconds"], each["sideEffects"]) == ("Ignore", 2, "None")
        assert each["rules"] == [
            {
                "apiGroups": ["argoproj.io"], "apiVersions": ["v1alpha1"], "operations": ["CREATE"],
                "resources": ["workflows"], "scope": "Namespaced",
            }
        ]  # fmt: skip
        assert "periplus.dev/rewrite" in json.dumps([each["namespaceSelector"], each["objectSelector"]])
        assert "periplus.dev/rewritten" in each["matchConditions"][0]["expression"]
        service = each["clientConfig"]["service"]
        assert service["path"] == "/mutate/replace-it-by-a-secret-of-yours"
        assert (service["name"], service["namespace"]) == ("dispatcher-webhook", "periplus")
    (port,) = found["Service", "dispatcher-webhook"]["spec"]["ports"]
    pod = found["Deployment", "dispatcher"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert {"name": "webhook", "containerPort": 9443} in container["ports"]
    assert (port["port"], port["targetPort"]) == (443, "webhook")
    assert found["Certificate", "dispatcher-webhook"]["spec"]["secretName"] == "dispatcher-webhook-tls"


@needs_kubectl
def test_the_dispatcher_reads_the_settings_and_the_secrets_of_the_webhook(with_webhook: list[Json]) -> None:
    pod = pods(with_webhook)["Deployment/dispatcher"]
    (container,) = pod["containers"]
    given = {each["name"]: each["value"] for each in container["env"]}
    known, _ = fields("dispatcher")
    assert {name for name in given if name.startswith("DISPATCHER_")} <= known
    assert given["DISPATCHER_WEBHOOK_ADDRESS"] == "0.0.0.0:9443"
    volumes = {each["name"]: each for each in pod["volumes"]}
    assert volumes["secrets"].keys() == {"name", "projected"}
    sources = [each["secret"]["name"] for each in volumes["secrets"]["projected"]["sources"]]
    (secret,) = (o for o in with_webhook if o["kind"] == "Secret")
    assert sources == ["dispatcher", secret["metadata"]["name"]]
    assert set(secret["data"]) == {"DISPATCHER_WEBHOOK_TOKEN"} <= known
    assert given["DISPATCHER_WEBHOOK_CERT_FILE"] == "/run/secrets/webhook/tls.crt"
    assert container["securityContext"]["readOnlyRootFilesystem"]


@needs_kubectl
def test_the_objects_of_the_webhook_are_valid(with_webhook: list[Json]) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    for each in with_webhook:
        if not each["apiVersion"].startswith("cert-manager.io/"):  # a kind of its own
            kubernetes_validate.validate(each, "1.34", strict=True)


@needs_kubectl
def test_the_dispatcher_may_read_secrets_and_config_maps_only_where_a_team_chooses_so(tmp_path: Path) -> None:
    def readers(folder: Path) -> list[Json]:
        roles = [each for each in rendered(folder) if each["kind"] in ("Role", "ClusterRole")]
        return [rule for role in roles for rule in role["rules"] if "secrets" in rule["resources"]]

    assert readers(K8S / "argo") == []
    chosen = tmp_path / "argo"
    shutil.copytree(K8S / "argo", chosen)
    listed = (chosen / "kustomization.yaml").read_text()
    (chosen / "kustomization.yaml").write_text(listed.replace("# - ", "- "))
    assert readers(chosen) == [{"apiGroups": [""], "resources": ["secrets", "configmaps"], "verbs": ["get"]}]
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    for each in rendered(chosen):
        kubernetes_validate.validate(each, "1.34", strict=True)


@needs_kubectl
def test_the_dispatcher_may_change_templates_only_where_a_team_chooses_so(tmp_path: Path) -> None:
    def writers(folder: Path) -> list[Json]:
        roles = [each for each in rendered(folder) if each["kind"] in ("Role", "ClusterRole")]
        rules = [rule for role in roles for rule in role["rules"] if "update" in rule["verbs"]]
        return [rule for rule in rules if rule["resources"] != ["workflows"]]

    assert writers(K8S / "argo") == []
    chosen = tmp_path / "argo"
    shutil.copytree(K8S / "argo", chosen)
    listed = (chosen / "kustomization.yaml").read_text().replace("# - adopt.yaml", "- adopt.yaml")
    (chosen / "kustomization.yaml").write_text(listed)
    assert writers(chosen) == [
        {
            "apiGroups": ["argoproj.io"], "resources": ["workflowtemplates", "cronworkflows"],
            "verbs": ["get", "update"],
        }
    ]  # fmt: skip


def test_the_paths_in_the_readme_exist() -> None:
    named = re.findall(r"deploy/k8s/[\w/]+", (K8S / "README.md").read_text())
    assert named
    assert all((ROOT / path / "kustomization.yaml").is_file() for path in named)

"""Parameters, artifacts and times in a node of a Workflow's status."""

from collections.abc import Collection, Container, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from periplus_common import digest
from periplus_dispatcher.domain import RAW_CONTENT, Json
from periplus_dispatcher.manifest import discovered
from periplus_model.queries import ArtifactSource, Raw, Unknown
from periplus_model.steps import Artifact, Inputs, ObjectRef, Outputs


@dataclass(frozen=True)
class ArtifactRepository:
    """The default artifact repository: an ObjectRef in it has a key only."""

    endpoint: str
    bucket: str


MAX_ETAG_CHARACTERS = 256


class NodeReader:
    """Reads the nodes of one Workflow, which has an artifact repository of its own or the default one."""

    def __init__(self, status: Json, default: ArtifactRepository) -> None:
        s3 = ((status.get("artifactRepositoryRef") or {}).get("artifactRepository") or {}).get("s3") or {}
        self._repository = ArtifactRepository(s3.get("endpoint", ""), s3.get("bucket", ""))
        self._default = default

    def inputs(self, node: Json) -> Inputs:
        return Inputs(
            {p["name"]: p.get("value", "") for p in field_list(node, "inputs", "parameters")},
            tuple(self._artifacts(field_list(node, "inputs", "artifacts"), _etags(node, "inputs"))),
        )

    def outputs(self, node: Json, declared: Collection[str] | None) -> Outputs:
        """Only the `declared` artifacts, unless None: Argo adds an archive of logs."""
        outputs = node.get("outputs") or {}
        exit_code = outputs.get("exitCode")
        artifacts = self._artifacts(outputs.get("artifacts") or (), _etags(node, "outputs"))
        return Outputs(
            {
                p["name"]: p["value"]
                for p in outputs.get("parameters") or ()
                if p.get("value") is not None and p["name"] != discovered.OUTPUT
            },
            tuple(a for a in artifacts if declared is None or a.name in declared),
            outputs.get("result"),
            int(exit_code) if exit_code not in (None, "") else None,
        )

    def report(self, node: Json) -> str | None:
        """What the step reported of its discovered inputs; None if its template does not say that it reports."""
        for parameter in field_list(node, "outputs", "parameters"):
            if parameter["name"] == discovered.OUTPUT:
                return str(parameter.get("value") or "")
        return None

    def source(self, artifact: Json) -> ArtifactSource:
        """An artifact as the source of an input."""
        if "raw" in artifact:
            return Raw(artifact["raw"].get("data", ""))
        if "s3" in artifact:
            return self._object(artifact["s3"])
        return Unknown(f"the artifact {artifact['name']}")

    def _artifacts(self, found: Any, etags: Json) -> Iterator[Artifact]:
        for artifact in found:
            if "s3" in artifact:
                etag = str(etags.get(artifact["name"]) or "")[:MAX_ETAG_CHARACTERS]
                yield Artifact(artifact["name"], self._object(artifact["s3"]), etag=etag)
            elif "raw" in artifact:
                content = artifact["raw"].get("data", "").encode()
                yield Artifact(
                    artifact["name"],
                    RAW_CONTENT,
                    digest=digest.of_bytes(content),
                    size_bytes=len(content),
                )

    def _object(self, s3: Json) -> ObjectRef:
        bucket = s3.get("bucket") or self._repository.bucket
        endpoint = s3.get("endpoint") or self._repository.endpoint
        if bucket in ("", self._default.bucket) and endpoint in ("", self._default.endpoint):
            return ObjectRef(s3["key"])
        return ObjectRef(s3["key"], bucket, endpoint)


def _etags(node: Json, kind: str) -> Json:
    """The ETags of the versions that the step of a node read or wrote, by the names of its artifacts: only the local Argo says them."""
    found = (node.get("etags") or {}).get(kind)
    return found if isinstance(found, dict) else {}


def template_name(node: Json, templates: Container[str]) -> str:
    """The name of a node's template in `templates`; one of a WorkflowTemplate has the key that Argo stores it under."""
    reference = node.get("templateRef") or {}
    if reference:
        scope = "cluster" if reference.get("clusterScope") else "namespaced"
        return f"{scope}/{reference.get('name', '')}/{reference.get('template', '')}"
    name = node.get("templateName") or ""
    scoped = f"{node.get('templateScope', '')}/{name}"
    return scoped if scoped in templates else name


def is_retry_attempt(node: Json) -> bool:
    return bool((node.get("nodeFlag") or {}).get("retried"))


def field_list(node: Json, *path: str) -> list[Json]:
    """The list at a path of fields; empty if a field is absent."""
    value: Any = node
    for key in path:
        value = value.get(key) or {}
    return value or []


def parse_time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None

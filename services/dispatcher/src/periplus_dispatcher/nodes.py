"""What Argo writes into a node: parameters, artifacts and times, as the domain has them."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from periplus_common import digest
from periplus_dispatcher.domain import Artifact, Inputs, Object, Outputs, Raw, Source, Unknown

Json = dict[str, Any]


@dataclass(frozen=True)
class Store:
    """The default artifact store: a place in it is named by its key alone."""

    endpoint: str
    bucket: str


class Reading:
    """Reads the nodes of one Workflow, whose artifacts lie where its repository says."""

    def __init__(self, status: Json, store: Store) -> None:
        s3 = ((status.get("artifactRepositoryRef") or {}).get("artifactRepository") or {}).get("s3") or {}
        self._repository = Object("", s3.get("bucket", ""), s3.get("endpoint", ""))
        self._store = store

    def inputs(self, node: Json) -> Inputs:
        """What a node was given."""
        parameters = {p["name"]: p.get("value", "") for p in listed(node, "inputs", "parameters")}
        return Inputs(parameters, tuple(self.artifacts(listed(node, "inputs", "artifacts"))))

    def outputs(self, node: Json, declared: Collection[str] | None) -> Outputs:
        outputs = node.get("outputs") or {}
        code = outputs.get("exitCode")
        artifacts = self.artifacts(outputs.get("artifacts") or ())
        return Outputs(
            {
                p["name"]: p.get("value", "")
                for p in outputs.get("parameters") or ()
                if p.get("value") is not None
            },
            # An archive of logs is kept beside what the template declares.
            tuple(a for a in artifacts if declared is None or a.name in declared),
            outputs.get("result"),
            int(code) if code not in (None, "") else None,
        )

    def artifacts(self, found: Any) -> Iterator[Artifact]:
        for artifact in found:
            if "s3" in artifact:
                yield Artifact(artifact["name"], self._object(artifact["s3"]))
            elif "raw" in artifact:
                content = artifact["raw"].get("data", "").encode()
                yield Artifact(artifact["name"], Object("raw"), digest.of_bytes(content), len(content))

    def source(self, artifact: Json) -> Source:
        if "raw" in artifact:
            return Raw(artifact["raw"].get("data", ""))
        return (
            self._object(artifact["s3"]) if "s3" in artifact else Unknown(f"the artifact {artifact['name']}")
        )

    def _object(self, s3: Json) -> Object:
        bucket = s3.get("bucket") or self._repository.bucket
        endpoint = s3.get("endpoint") or self._repository.endpoint
        ours = bucket in ("", self._store.bucket) and endpoint in ("", self._store.endpoint)
        return Object(s3["key"]) if ours else Object(s3["key"], bucket, endpoint)


def retried(node: Json) -> bool:
    return bool((node.get("nodeFlag") or {}).get("retried"))


def listed(node: Json, *path: str) -> list[Json]:
    value: Any = node
    for key in path:
        value = value.get(key) or {}
    return value or []


def time_of(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None

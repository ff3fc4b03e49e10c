"""The WorkflowTemplates and CronWorkflows of a namespace, through Argo's own API."""

from urllib.parse import quote

from periplus_common.errors import Conflict, NotFound
from periplus_dispatcher.argo.connection import ArgoError, Connection, errors
from periplus_dispatcher.domain import Json

_OBJECTS = {
    "WorkflowTemplate": ("workflow-templates", "template"),
    "CronWorkflow": ("cron-workflows", "cronWorkflow"),
}
"""Path of a kind, and the field of a request that has an object of it."""


class ArgoTemplates:
    """Fields that Argo's own types do not have are lost: where the Kubernetes API is given, `KubernetesWorkflows` is used."""

    def __init__(self, connection: Connection, namespace: str) -> None:
        self._connection = connection
        self._namespace = namespace

    async def read(self, kind: str, name: str) -> Json | None:
        path, _ = _OBJECTS[kind]
        try:
            with errors():
                return await self._connection.request(
                    "GET", f"{path}/{self._namespace}/{quote(name, safe='')}"
                )
        except NotFound:
            return None

    async def replace(self, kind: str, found: Json) -> None:
        path, field = _OBJECTS[kind]
        name = found["metadata"]["name"]
        with errors():
            try:
                await self._connection.request(
                    "PUT",
                    f"{path}/{self._namespace}/{quote(name, safe='')}",
                    json={"name": name, "namespace": self._namespace, field: found},
                )
            except ArgoError as error:
                # Argo has no code of its own for it.
                if "the object has been modified" in error.message:
                    raise Conflict(f"{kind} {name} was changed meanwhile", fix="run it again") from error
                raise

"""Which field of a manifest holds what: the shape that Argo decodes, as far as it is decided by."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from periplus_manifest.errors import ManifestError, join
from periplus_manifest.gotext import kind

# "text", "bool", "int", "int or text", "value" (text, number or boolean), "map" and "any" are what they say.
# "quantity" is what Kubernetes takes for one. "[X]" is a list of X, "{X}" a map from any key to X, and a name in capitals is a shape of this table.
SHAPES: dict[str, dict[str, str]] = {
    "Manifest": {"apiVersion": "text", "kind": "text", "metadata": "Metadata", "spec": "map"},
    "Metadata": {
        "name": "text", "generateName": "text", "namespace": "text", "labels": "{text}", "annotations": "{text}",
    },
    "Spec": {
        "entrypoint": "text", "onExit": "text", "templates": "[Template]", "arguments": "Arguments",
        "hooks": "{Hook}", "workflowTemplateRef": "WorkflowTemplateRef", "templateDefaults": "Template",
        "serviceAccountName": "text", "parallelism": "int", "activeDeadlineSeconds": "int", "priority": "int",
        "suspend": "bool", "shutdown": "text", "retryStrategy": "Retry", "workflowMetadata": "WorkflowMetadata",
        "podGC": "PodGC", "ttlStrategy": "TtlStrategy", "synchronization": "Synchronization", "nodeSelector": "{text}",
        "volumes": "[Volume]", "volumeClaimTemplates": "[map]", "podSpecPatch": "text", "archiveLogs": "bool",
        "artifactRepositoryRef": "map", "automountServiceAccountToken": "bool", "hostNetwork": "bool",
        "imagePullSecrets": "[map]", "affinity": "map", "tolerations": "[map]", "securityContext": "map",
        "metrics": "map", "artifactGC": "map", "dnsPolicy": "text", "executor": "map", "schedulerName": "text",
        "podResources": "PodResources",
    },
    "CronSpec": {
        "workflowSpec": "Spec", "schedule": "text", "schedules": "[text]", "timezone": "text", "suspend": "bool",
        "concurrencyPolicy": "text", "startingDeadlineSeconds": "int", "workflowMetadata": "WorkflowMetadata",
        "successfulJobsHistoryLimit": "int", "failedJobsHistoryLimit": "int", "when": "text",
    },
    "WorkflowMetadata": {"labels": "{text}", "annotations": "{text}", "labelsFrom": "{map}"},
    "PodGC": {"strategy": "text", "labelSelector": "map", "deleteDelayDuration": "text"},
    "WorkflowTemplateRef": {"name": "text", "clusterScope": "bool"},
    "Template": {
        "name": "text", "inputs": "Inputs", "outputs": "Outputs", "container": "Container", "script": "Script",
        "steps": "[[Step]]", "dag": "Dag", "suspend": "Suspend", "resource": "Resource", "data": "map",
        "http": "map", "plugin": "map", "containerSet": "ContainerSet", "activeDeadlineSeconds": "int or text",
        "parallelism": "int", "failFast": "bool", "timeout": "text", "daemon": "bool", "retryStrategy": "Retry",
        "metadata": "Metadata", "memoize": "Memoize", "synchronization": "Synchronization", "metrics": "Metrics",
        "volumes": "[Volume]", "initContainers": "[Container]", "sidecars": "[Container]", "nodeSelector": "{text}",
        "podSpecPatch": "text", "archiveLocation": "map", "tolerations": "[map]", "affinity": "map",
        "serviceAccountName": "text", "schedulerName": "text", "executor": "map", "hostAliases": "[map]",
        "podResources": "PodResources", "resourceClaims": "[map]",
    },
    "PodResources": {"claims": "[map]", "limits": "{quantity}", "requests": "{quantity}"},
    "Metrics": {"prometheus": "[Metric]"},
    "Metric": {
        "name": "text", "help": "text", "when": "text", "labels": "[Label]", "gauge": "Gauge", "counter": "Gauge",
        "histogram": "Gauge",
    },
    "Label": {"key": "text", "value": "text"},
    "Gauge": {"value": "text", "realtime": "bool", "operation": "text"},
    "Container": {
        "name": "text", "image": "text", "command": "[text]", "args": "[text]", "workingDir": "text",
        "env": "[Variable]", "envFrom": "[map]", "resources": "Resources", "volumeMounts": "[VolumeMount]",
        "imagePullPolicy": "text", "ports": "[map]", "securityContext": "map",
    },
    "Variable": {"name": "text", "value": "text", "valueFrom": "VariableSource"},
    "VolumeMount": {"name": "text", "mountPath": "text", "subPath": "text", "readOnly": "bool"},
    "ContainerSet": {"containers": "[ContainerNode]", "volumeMounts": "[VolumeMount]", "retryStrategy": "map"},
    "Resource": {
        "action": "text", "manifest": "text", "manifestFrom": "map", "successCondition": "text",
        "failureCondition": "text", "mergeStrategy": "text", "setOwnerReference": "bool", "flags": "[text]",
    },
    "Suspend": {"duration": "text"},
    "Dag": {"tasks": "[Task]", "target": "text", "failFast": "bool"},
    "Step": {
        "name": "text", "template": "text", "templateRef": "TemplateRef", "inline": "Template", "when": "text",
        "arguments": "Arguments", "withItems": "[any]", "withParam": "text", "withSequence": "Sequence",
        "continueOn": "ContinueOn", "onExit": "text", "hooks": "{Hook}",
    },
    "ContinueOn": {"error": "bool", "failed": "bool"},
    "Hook": {"template": "text", "templateRef": "TemplateRef", "arguments": "Arguments", "expression": "text"},
    "TemplateRef": {"name": "text", "template": "text", "clusterScope": "bool"},
    "Sequence": {"count": "int or text", "start": "int or text", "end": "int or text", "format": "text"},
    "Retry": {
        "limit": "int or text", "retryPolicy": "text", "expression": "text", "backoff": "Backoff", "affinity": "map",
    },
    "Backoff": {"duration": "text", "factor": "int or text", "maxDuration": "text", "cap": "text"},
    "Arguments": {"parameters": "[Parameter]", "artifacts": "[Artifact]"},
    "Inputs": {"parameters": "[Parameter]", "artifacts": "[Artifact]"},
    "Outputs": {"parameters": "[Parameter]", "artifacts": "[Artifact]", "result": "text", "exitCode": "text"},
    "Parameter": {
        "name": "text", "value": "value", "default": "value", "valueFrom": "ValueFrom", "enum": "[value]",
        "globalName": "text", "description": "value",
    },
    "ValueFrom": {
        "path": "text", "jsonPath": "text", "jqFilter": "text", "parameter": "text", "expression": "text",
        "event": "text", "default": "value", "supplied": "map", "configMapKeyRef": "Selector",
    },
    "Artifact": {
        "name": "text", "path": "text", "from": "text", "fromExpression": "text", "optional": "bool",
        "globalName": "text", "mode": "int", "archive": "map", "subPath": "text", "archiveLogs": "bool",
        "recurseMode": "bool", "deleted": "bool", "s3": "Bucket", "raw": "Raw", "git": "Git", "http": "Http",
        "artifactory": "Artifactory", "hdfs": "Hdfs", "oss": "Bucket", "gcs": "Bucket", "azure": "Azure",
        "plugin": "map",
        "artifactGC": "map",
    },
    "TtlStrategy": {
        "secondsAfterCompletion": "int", "secondsAfterSuccess": "int", "secondsAfterFailure": "int",
    },
    "Synchronization": {
        "mutex": "Mutex", "mutexes": "[Mutex]", "semaphore": "Semaphore", "semaphores": "[Semaphore]",
    },
    "Mutex": {"name": "text", "namespace": "text", "database": "bool"},
    "Semaphore": {"configMapKeyRef": "Selector", "namespace": "text", "database": "map"},
    "Selector": {"name": "text", "key": "text", "optional": "bool"},
    "Memoize": {"key": "text", "maxAge": "text", "cache": "Cache"},
    "Cache": {"configMap": "Selector"},
    "Volume": {"name": "text", "emptyDir": "map", "configMap": "map", "secret": "map", "persistentVolumeClaim": "map"},
    "Resources": {"limits": "{quantity}", "requests": "{quantity}", "claims": "[map]"},
    "VariableSource": {
        "secretKeyRef": "Selector", "configMapKeyRef": "Selector", "fieldRef": "map", "resourceFieldRef": "map",
    },
    "Bucket": {
        "key": "text", "bucket": "text", "endpoint": "text", "region": "text", "insecure": "bool",
        "accessKeySecret": "Selector", "secretKeySecret": "Selector", "serviceAccountKeySecret": "Selector",
        "useSDKCreds": "bool", "roleARN": "text",
    },
    "Raw": {"data": "text"},
    "Git": {
        "repo": "text", "revision": "text", "branch": "text", "depth": "int", "singleBranch": "bool",
        "usernameSecret": "Selector", "passwordSecret": "Selector", "sshPrivateKeySecret": "Selector",
    },
    "Http": {"url": "text", "headers": "[Header]", "auth": "map"},
    "Header": {"name": "text", "value": "text"},
    "Artifactory": {"url": "text", "usernameSecret": "Selector", "passwordSecret": "Selector"},
    "Hdfs": {"path": "text", "addresses": "[text]", "hdfsUser": "text", "force": "bool"},
    "Azure": {"endpoint": "text", "container": "text", "blob": "text", "accountKeySecret": "Selector"},
}  # fmt: skip
SHAPES["Task"] = {**SHAPES["Step"], "depends": "text", "dependencies": "[text]"}
SHAPES["Script"] = {**SHAPES["Container"], "source": "text"}
SHAPES["ContainerNode"] = {**SHAPES["Container"], "dependencies": "[text]"}

# The only one of these shapes for which Argo refuses a field that it does not know.
_CLOSED = "Step"

_QUANTITY = re.compile(r"[+-]?[0-9.]{1,64}(?:[eE][-+]?[0-9]{1,9}|[numkMGTPE]|[KMGTPE]i)?", re.ASCII)

_PLAIN: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "text": ("a text", lambda value: isinstance(value, str)),
    "bool": ("true or false", lambda value: isinstance(value, bool)),
    "int": ("a whole number", lambda value: isinstance(value, int) and not isinstance(value, bool)),
    "int or text": (
        "a whole number or a text",
        lambda value: isinstance(value, (str, int)) and not isinstance(value, bool),
    ),
    "value": ("a text, a number or a boolean", lambda value: isinstance(value, (str, int, float))),
    "quantity": ("a quantity such as 500m or 1Gi", lambda value: _QUANTITY.fullmatch(str(value)) is not None),
    "map": ("a map", lambda value: isinstance(value, dict)),
}


def check(value: Any, shape: str, path: str) -> None:
    """Raise ManifestError at the first field that holds something else than it may; null is as good as absent."""
    if value is None or shape == "any":
        return
    if shape in _PLAIN:
        what, fits = _PLAIN[shape]
        if not fits(value):
            hint = "; put it in quotes" if shape == "text" and isinstance(value, (int, float)) else ""
            raise ManifestError(path, f"must be {what}, not {kind(value)}{hint}")
    elif shape[0] == "[":
        _list(value, shape[1:-1], path)
    elif not isinstance(value, dict):
        raise ManifestError(path, f"must be a map, not {kind(value)}")
    elif shape[0] == "{":
        for key, item in value.items():
            check(item, shape[1:-1], join(path, key))
    else:
        _fields(value, shape, path)


def _list(value: Any, shape: str, path: str) -> None:
    if not isinstance(value, list):
        raise ManifestError(path, f"must be a list, not {kind(value)}")
    for index, item in enumerate(value):
        if item is None and shape != "any":
            raise ManifestError(f"{path}[{index}]", "must not be null")
        check(item, shape, f"{path}[{index}]")


def _fields(value: dict[str, Any], shape: str, path: str) -> None:
    fields = SHAPES[shape]
    for key, item in value.items():
        if (inner := fields.get(key)) is not None:
            check(item, inner, join(path, key))
        elif shape == _CLOSED:
            raise ManifestError(join(path, key), "a step has no such field")

"""The fields of a manifest: which are supported, which are ignored, which are refused.

Each table is of one kind of object. It maps a supported field to the kind of its content ("x[]" for a list of x),
or to None where the content is not checked here. A field that is in no table is refused by name.
"""

Table = dict[str, "str | None"]

NO_CLUSTER = "there is no cluster here"
REFUSED: dict[str, dict[str, str]] = {
    "workflow": {"status": "a new workflow has none"},
    "spec": {
        "executorPlugins": NO_CLUSTER,
        "volumeClaimTemplates": "volumes of a cluster do not exist here",
    },
    "template": {
        "containerSet": "several containers in one step cannot run here",
        "data": "this kind of template does not run here",
        "http": "this kind of template does not run here",
        "plugin": "this kind of template does not run here",
        "resource": NO_CLUSTER,
        "daemon": "a step that goes on in the background cannot run here",
        "sidecars": "several containers in one step cannot run here",
        "initContainers": "several containers in one step cannot run here",
    },
    "synchronization": {"semaphores": "their limits are objects of a cluster"},
    "valueFrom": {
        "configMapKeyRef": NO_CLUSTER,
        "event": "events do not exist here",
        "jqFilter": "it belongs to resource templates",
    },
    "env": {"valueFrom": "values of a cluster's objects do not exist here"},
    "artifact": dict.fromkeys(
        ("git", "http", "artifactory", "hdfs", "oss", "gcs", "azure", "plugin"),
        "only S3 and raw artifacts are supported here",
    ),
}

WORKFLOW: Table = {"apiVersion": None, "kind": None, "metadata": None, "spec": "spec"}
SPEC: Table = {
    "activeDeadlineSeconds": None,
    "arguments": "arguments",
    "entrypoint": None,
    "hooks": "hooks",
    "onExit": None,
    "parallelism": None,
    "priority": None,
    "retryStrategy": "retryStrategy",
    "serviceAccountName": None,
    "shutdown": None,
    "suspend": None,
    "synchronization": "synchronization",
    "templateDefaults": "template",
    "volumes": "volume[]",
    "templates": "template[]",
    "workflowMetadata": None,
    "workflowTemplateRef": "workflowTemplateRef",
}
SPEC_IGNORED = frozenset(
    [
        "affinity",
        "archiveLogs",
        "artifactGC",
        "artifactRepositoryRef",
        "automountServiceAccountToken",
        "dnsConfig",
        "dnsPolicy",
        "executor",
        "hostAliases",
        "hostNetwork",
        "imagePullSecrets",
        "metrics",
        "nodeSelector",
        "podDisruptionBudget",
        "podGC",
        "podMetadata",
        "podPriorityClassName",
        "podResources",
        "podSpecPatch",
        "resourceClaims",
        "schedulerName",
        "securityContext",
        "tolerations",
        "ttlStrategy",
        "volumeClaimGC",
    ]
)
TEMPLATE: Table = {
    "activeDeadlineSeconds": None,
    "annotations": None,
    "container": "container",
    "dag": "dag",
    "failFast": None,
    "inputs": "inputs",
    "metadata": None,
    "name": None,
    "outputs": "outputs",
    "parallelism": None,
    "retryStrategy": "retryStrategy",
    "script": "script",
    "serviceAccountName": None,
    "steps": "steps",
    "suspend": "suspend",
    "synchronization": "synchronization",
    "timeout": None,
    "volumes": "volume[]",
}
TEMPLATE_IGNORED = frozenset(
    [
        "affinity",
        "archiveLocation",
        "automountServiceAccountToken",
        "executor",
        "hostAliases",
        "memoize",
        "metrics",
        "nodeSelector",
        "pendingTimeout",
        "podResources",
        "podSpecPatch",
        "priorityClassName",
        "resourceClaims",
        "schedulerName",
        "securityContext",
        "tolerations",
    ]
)
CONTAINER: Table = {
    "args": None,
    "command": None,
    "env": "env[]",
    "image": None,
    "name": None,
    "volumeMounts": None,
    "workingDir": None,
}
CONTAINER_IGNORED = frozenset(
    [
        "imagePullPolicy",
        "lifecycle",
        "livenessProbe",
        "mirrorVolumeMounts",
        "ports",
        "readinessProbe",
        "resizePolicy",
        "resources",
        "restartPolicy",
        "securityContext",
        "startupProbe",
        "stdin",
        "stdinOnce",
        "terminationMessagePath",
        "terminationMessagePolicy",
        "tty",
    ]
)
STEP: Table = {
    "arguments": "arguments",
    "continueOn": "continueOn",
    "hooks": "hooks",
    "inline": "template",
    "name": None,
    "onExit": None,
    "template": None,
    "templateRef": "templateRef",
    "when": None,
    "withItems": None,
    "withParam": None,
    "withSequence": "withSequence",
}
PARAMETERS: Table = {"parameters": "parameter[]", "artifacts": "artifact[]"}
SUPPORTED: dict[str, Table] = {
    "arguments": PARAMETERS,
    "artifact": dict.fromkeys(
        [
            "archive",
            "from",
            "fromExpression",
            "globalName",
            "mode",
            "name",
            "optional",
            "path",
            "raw",
            "recurseMode",
            "s3",
            "subPath",
        ]
    ),
    "backoff": dict.fromkeys(("cap", "duration", "factor", "maxDuration")),
    "container": CONTAINER,
    "continueOn": dict.fromkeys(("error", "failed")),
    "dag": {"failFast": None, "target": None, "tasks": "task[]"},
    "env": {"name": None, "value": None},
    "hook": {"arguments": "arguments", "expression": None, "template": None, "templateRef": "templateRef"},
    "inputs": PARAMETERS,
    "outputs": {**PARAMETERS, "exitCode": None, "result": None},
    "parameter": {
        **dict.fromkeys(("default", "description", "enum", "globalName", "name", "value")),
        "valueFrom": "valueFrom",
    },
    "retryStrategy": {**dict.fromkeys(("expression", "limit", "retryPolicy")), "backoff": "backoff"},
    "script": {**CONTAINER, "source": None},
    "spec": SPEC,
    "step": STEP,
    "suspend": {"duration": None},
    "synchronization": {"mutexes": None},
    "task": {**STEP, "dependencies": None, "depends": None},
    "template": TEMPLATE,
    "templateRef": dict.fromkeys(("clusterScope", "name", "template")),
    "valueFrom": dict.fromkeys(("default", "expression", "jsonPath", "parameter", "path", "supplied")),
    "volume": dict.fromkeys(("emptyDir", "name")),
    "withSequence": dict.fromkeys(("count", "end", "format", "start")),
    "workflow": WORKFLOW,
    "workflowTemplateRef": dict.fromkeys(("clusterScope", "name")),
}
IGNORED: dict[str, frozenset[str]] = {
    "artifact": frozenset({"artifactGC", "archiveLogs", "deleted"}),
    "container": CONTAINER_IGNORED,
    "script": CONTAINER_IGNORED,
    "retryStrategy": frozenset({"affinity"}),
    "spec": SPEC_IGNORED,
    "template": TEMPLATE_IGNORED,
}
# Ignored as long as no step mounts them; runnable.check_processes refuses the mount.
IGNORED["volume"] = frozenset([
    "awsElasticBlockStore", "azureDisk", "azureFile", "cephfs", "cinder", "configMap", "csi", "downwardAPI",
    "ephemeral", "fc", "flexVolume", "flocker", "gcePersistentDisk", "gitRepo", "glusterfs", "hostPath", "image",
    "iscsi", "nfs", "persistentVolumeClaim", "photonPersistentDisk", "portworxVolume", "projected", "quobyte",
    "rbd", "scaleIO", "secret", "storageos", "vsphereVolume",
])  # fmt: skip
REFUSED["container"] = {
    "volumeDevices": NO_CLUSTER,
    "envFrom": NO_CLUSTER,
}
REFUSED["script"] = REFUSED["container"]

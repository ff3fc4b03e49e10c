"""The settings of this service, read once from the environment."""

import re
from datetime import timedelta
from typing import Annotated, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from periplus_common.retention import KeepFor
from periplus_common.settings import ArtifactRepositorySettings
from periplus_dispatcher.admission import Validation
from periplus_dispatcher.manifest.images import ImagePolicy
from periplus_dispatcher.observed.namespaces import Observation, parse_namespaces

MIN_KEY_CHARACTERS = 32


class Settings(ArtifactRepositorySettings):
    """Variables begin with DISPATCHER_."""

    model_config = SettingsConfigDict(env_prefix="DISPATCHER_")

    argo_url: str
    """Argo's REST API: http://… or https://…, or "unix:" and the path of a socket."""
    argo_ca_file: str = ""
    """The authorities (PEM) that may have signed the certificate of an https URL; empty: the system's."""
    argo_insecure_skip_verify: bool = False
    """Believe any certificate of an https server, as Argo's own flag of this name: the certificate that Argo's server makes for itself names no host and is new at each start. Whoever answers in its place gets the token."""
    argo_token: SecretStr = SecretStr("")
    """What Argo's server asks for: `Bearer …`; empty: nothing."""
    argo_token_file: str = ""
    """A file with a token, without `Bearer`, that is read for each request instead: a pod's own is replaced every hour."""
    argo_namespace: str
    cache_address: str
    """Host and port of the cache, or "unix:" and the path of a socket."""
    snapshotter_address: str
    """The same of the snapshotter."""
    lineage_address: str = ""
    """The same of lineage, which has the inputs and outputs of runs; empty: no run is reproduced."""

    argo_demands_references: bool = False
    """Whether the controller of Argo has `workflowRestrictions.templateReferencing`, so that it takes only workflows with `workflowTemplateRef`: these are submitted as they are, and none of their steps is cached."""

    steps_are_processes: bool = False
    """Whether Argo runs steps as processes of its machine instead of their images, as the local Argo does."""
    immutable_image_prefixes: Annotated[tuple[str, ...], NoDecode] = ()
    """Images whose names begin so never change under their tags. Separated by commas."""
    node_platforms: Annotated[tuple[str, ...], NoDecode] = ()
    """The platforms of the cluster's nodes, such as `linux/amd64,linux/arm64`. With several, a step whose pod chooses none (`nodeSelector` or required affinity on `kubernetes.io/arch`) is not cached. Empty: they are taken for one."""
    image_policy: ImagePolicy = ImagePolicy.PIN
    """`pin`: images by tag are resolved by the snapshotter, and named by digest in the workflow that is submitted; `check`:
    it is submitted as it is, and a step is cached only if its pod ran what the tag pointed to; `off`: they are not resolved,
    and their steps are not cached."""
    kubernetes_url: str = ""
    """The API of Argo's Kubernetes, `https://kubernetes.default.svc` in its pods. By it gates that are open at once are answered with one request (verbs get and patch of `workflows.argoproj.io`), and the images of pods are read (list of pods, also in observed namespaces), which `check` needs. Empty: neither."""
    kubernetes_token_file: str = "/var/run/secrets/kubernetes.io/serviceaccount/token"  # noqa: S105 - a path
    """The token for it, read at each request; empty: none."""
    kubernetes_ca_file: str = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"
    """The authorities (PEM) that may have signed its certificate; empty: the system's."""

    argo_config_map: str = ""
    """The ConfigMap of Argo's controller, as `namespace/name`, if it has `workflowDefaults`: what they add to every step is then part of the keys (verb get of it through the Kubernetes API). Empty: it has none, or they change no result."""
    config_version_key: SecretStr = SecretStr("")
    """A secret of 32 characters or more that only the dispatcher has. With it and the Kubernetes API, steps that get data of Secrets and ConfigMaps are cached: their keys have an HMAC of that data by this secret (verb get of `secrets` and `configmaps`). With another one, all of these steps run again. Empty: they are not cached."""

    readable_keys: Annotated[tuple[str, ...], NoDecode] = ()
    """Objects besides the project's own that manifests of every project may read: keys, prefixes that end in a slash, `s3://bucket/…`, or `*` for all that belong to no project. Separated by commas."""
    writable_keys: Annotated[tuple[str, ...], NoDecode] = ()
    """The same for objects that they may read and write."""

    observe: str = ""
    """Namespaces whose Workflows are observed though others submitted them, each with the project of their runs: `ml=digits,etl=tables`. Further projects that a Workflow's label `periplus.dev/project` may name: `ml=digits|vision`. Empty: none."""
    observe_label: str = ""
    """Only Workflows with this label are observed, `periplus.dev/observe=true`; empty: all of those namespaces."""
    observe_recorded_projects: Annotated[tuple[str, ...], NoDecode] = ()
    """Projects whose cache records the results of observed steps. Whoever may change Workflows there can then choose what the project's runs are served. Separated by commas."""

    keep_runs: KeepFor = timedelta(days=365)
    """Days that a finished run is kept, or `forever`; not less than the two below. So long its request id gives the same run."""
    keep_published: KeepFor = timedelta(days=30)
    """Days that the rows which say what was published of a finished run are kept, or `forever`."""
    keep_gate_answers: KeepFor = timedelta(days=30)
    """Days that answers to the gates of a finished run are kept, or `forever`."""

    webhook_address: str = ""
    """Where to serve the admission webhook by HTTPS, host and port: it rewrites the Workflows that others create in the namespaces that are observed. Empty: it is not served."""
    webhook_token: SecretStr = SecretStr("")
    """The last part of the path that Kubernetes asks, `/mutate/<token>`: 16 letters, digits, `-` and `_` or more. Answers have cached outputs in them."""
    webhook_cert_file: str = ""
    """The certificate of the webhook with its chain (PEM). It is read anew when it changes."""
    webhook_key_file: str = ""
    """The key of the certificate (PEM)."""
    webhook_seconds: float = Field(default=1.5, gt=0, le=30)
    """A Workflow runs as it is if the cache was not asked about it in this time. Less than `timeoutSeconds` of the webhook's configuration."""
    webhook_validate: Validation = Validation.WARN
    """A Workflow that Argo would end with an error as it is written: `warn`: is created with a warning; `refuse`: is not created; `off`: is created."""

    gate_seconds: int = Field(default=60, ge=1, le=86_400)
    """A gate without an answer ends after this time, and its step runs."""
    wait_seconds: int = Field(default=86_400, ge=1, le=604_800)
    """A step that another run makes waits for its result for at most this time, and then runs."""
    cache_seconds: float = Field(default=5.0, gt=0)
    """The steps run if the cache does not answer in this time."""

    @model_validator(mode="after")
    def _has_pods(self) -> Self:
        if self.image_policy is ImagePolicy.CHECK and not self.kubernetes_url:
            raise ValueError("image_policy: check needs kubernetes_url")
        return self

    @model_validator(mode="after")
    def _check_webhook(self) -> Self:
        if not self.webhook_address:
            return self
        if not re.fullmatch(r"[-\w]{16,}", self.webhook_token.get_secret_value(), re.ASCII):
            raise ValueError("webhook_address: needs webhook_token, 16 letters, digits, - and _ or more")
        if not self.webhook_cert_file or not self.webhook_key_file:
            raise ValueError("webhook_address: needs webhook_cert_file and webhook_key_file")
        if not re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]]+):\d{1,5}", self.webhook_address):
            raise ValueError("webhook_address: is not host and port")
        if not self.observe:
            raise ValueError(
                "webhook_address: needs observe, as only Workflows that are observed are rewritten"
            )
        return self

    @model_validator(mode="after")
    def _check_argo_config_map(self) -> Self:
        if not self.argo_config_map:
            return self
        if not re.fullmatch(r"[-a-z0-9.]+/[-a-z0-9.]+", self.argo_config_map):
            raise ValueError("argo_config_map: is not namespace/name")
        if not self.kubernetes_url:
            raise ValueError("argo_config_map: needs kubernetes_url")
        return self

    @field_validator("config_version_key")
    @classmethod
    def _is_long(cls, value: SecretStr) -> SecretStr:
        if 0 < len(value.get_secret_value()) < MIN_KEY_CHARACTERS:
            raise ValueError(f"has less than {MIN_KEY_CHARACTERS} characters")
        return value

    @property
    def observation(self) -> Observation:
        """What is observed."""
        namespaces = parse_namespaces(self.observe)
        return Observation(
            {found.name: found for found in namespaces},
            self.observe_label,
            frozenset(self.observe_recorded_projects),
        )

    @model_validator(mode="after")
    def _check_observation(self) -> Self:
        observed = {project for found in self.observation.namespaces.values() for project in found.projects}
        if missing := self.observation.recorded_projects - observed:
            raise ValueError(
                f"observe_recorded_projects: no namespace is observed for {', '.join(sorted(missing))}"
            )
        return self

    @field_validator(
        "immutable_image_prefixes",
        "node_platforms",
        "readable_keys",
        "writable_keys",
        "observe_recorded_projects",
        mode="before",
    )
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(p.strip() for p in value.split(",") if p.strip()) if isinstance(value, str) else value

"""The service on one page: what is opened, what is wired to what, in order."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

from periplus.dispatcher.v1.dispatcher_pb2_grpc import add_DispatcherServiceServicer_to_server
from periplus_common import bus, outbox, postgres, retention, rpc
from periplus_common.bus import Broker
from periplus_dispatcher import events, kubernetes
from periplus_dispatcher.admission import Admission, WithoutSnapshots
from periplus_dispatcher.adoption import Adoption
from periplus_dispatcher.argo import client as argo
from periplus_dispatcher.clients import CacheClient, LineageClient, SnapshotterClient
from periplus_dispatcher.config_objects import KubernetesConfig
from periplus_dispatcher.follow.follower import Follower, FollowerTimings
from periplus_dispatcher.follow.nodes import ArtifactRepository
from periplus_dispatcher.kubernetes import KubernetesWorkflows
from periplus_dispatcher.manifest.locations import SharedKeys
from periplus_dispatcher.manifest.uncacheable import ADMITTED, OBSERVED, StepEnvironment
from periplus_dispatcher.observed.observer import Observer
from periplus_dispatcher.planner import Planner
from periplus_dispatcher.pods import KubernetesPods
from periplus_dispatcher.ports import ConfigObjects, Snapshotter, Templates
from periplus_dispatcher.reproduce.reproducer import Reproducer
from periplus_dispatcher.reproduce.rollback import Rollbacks
from periplus_dispatcher.rpc import SERVICE_NAME, DispatcherServicer
from periplus_dispatcher.service import Dispatcher
from periplus_dispatcher.settings import Settings
from periplus_dispatcher.store import PostgresRuns, retentions
from periplus_dispatcher.template_adoption import TemplateAdoption
from periplus_dispatcher.webhook import server as webhook
from periplus_dispatcher.workflow_defaults import KubernetesDefaults


@asynccontextmanager
async def app(settings: Settings) -> AsyncIterator[int]:
    """The dispatcher, for as long as the block is open. Yields the port that it serves on."""
    dsn, token = settings.postgres_dsn.get_secret_value(), settings.token.get_secret_value()
    broker = Broker(settings.nats_url.get_secret_value(), ca_file=settings.nats_ca_file)
    events.declare(broker)
    async with (
        postgres.database(dsn) as database,
        bus.consuming(broker),
        outbox.relaying(dsn, broker, "DISPATCHER"),
        retention.enforcing(
            dsn, retentions(settings.keep_runs, settings.keep_published, settings.keep_gate_answers)
        ),
        rpc.channel(settings.cache_address, token) as cache_channel,
        rpc.channel(settings.snapshotter_address, token) as snapshotter_channel,
        _lineage(settings, token) as lineage,
        kubernetes.connect(
            settings.kubernetes_url,
            token_file=settings.kubernetes_token_file,
            ca_file=settings.kubernetes_ca_file,
        ) as cluster,
        argo.connect(
            settings.argo_url,
            settings.argo_token.get_secret_value(),
            settings.argo_namespace,
            ca_file=settings.argo_ca_file,
            insecure_skip_verify=settings.argo_insecure_skip_verify,
            token_file=settings.argo_token_file,
            kubernetes=KubernetesWorkflows(cluster, settings.argo_namespace) if cluster else None,
        ) as workflows,
        asyncio.TaskGroup() as tasks,
    ):
        runs = PostgresRuns(database)
        cache = CacheClient(cache_channel, timedelta(seconds=settings.cache_seconds))
        environment = StepEnvironment(
            runs_images=not settings.steps_are_processes,
            immutable_image_prefixes=settings.immutable_image_prefixes,
            node_platforms=settings.node_platforms,
        )
        shared = SharedKeys(
            settings.s3_endpoint, settings.s3_bucket, settings.readable_keys, settings.writable_keys
        )
        snapshotter = SnapshotterClient(snapshotter_channel)
        version_key = settings.config_version_key.get_secret_value().encode()
        config = (
            KubernetesConfig(cluster, settings.argo_namespace, version_key)
            if cluster and version_key
            else None
        )

        defaults = (
            KubernetesDefaults(cluster, settings.argo_config_map)
            if cluster and settings.argo_config_map
            else None
        )

        def planner(
            snapshots: Snapshotter, templates: Templates, config: ConfigObjects | None = None
        ) -> Planner:
            return Planner(
                cache,
                snapshots,
                templates,
                environment if templates is workflows else replace(environment, without_version=ADMITTED),
                shared,
                image_policy=settings.image_policy,
                argo_demands_references=settings.argo_demands_references,
                config=config,
                defaults=defaults,
            )

        gate_timeout = timedelta(seconds=settings.gate_seconds)
        wait_timeout = timedelta(seconds=settings.wait_seconds)
        repository = ArtifactRepository(settings.s3_endpoint, settings.s3_bucket)
        dispatcher = Dispatcher(
            runs,
            workflows,
            planner(snapshotter, workflows, config),
            repository,
            gate_timeout,
            wait_timeout,
        )
        reproducer = Reproducer(
            dispatcher, runs, lineage, cache, snapshotter, environment, settings.argo_namespace
        )
        rollbacks = Rollbacks(runs, lineage, cache, snapshotter, workflows.templates())
        observation = settings.observation
        observed = {name: workflows.in_namespace(name) for name in observation.namespaces}
        observer = Observer(
            observed,
            observation,
            runs,
            replace(environment, without_version=OBSERVED, images_are_seen=bool(cluster)),
        )
        follower = Follower(
            dispatcher.launch,
            runs,
            workflows,
            cache,
            repository,
            observer,
            FollowerTimings(),
            KubernetesPods(cluster) if cluster else None,
            config,
            steps_are_processes=settings.steps_are_processes,
            leases=cache,
        )
        following = tasks.create_task(follower.follow())
        # A step whose image is known only when its pod was seen has no key at a gate.
        at_gates = replace(environment, without_version=OBSERVED)
        stored = {name: each.templates() for name, each in observed.items()}
        templates = TemplateAdoption(stored, observation, at_gates, gate_timeout)
        servicer = partial(
            add_DispatcherServiceServicer_to_server,
            DispatcherServicer(dispatcher, Adoption(observer, follower), templates, reproducer, rollbacks),
        )
        admission = Admission(
            {name: planner(WithoutSnapshots(snapshotter), each) for name, each in observed.items()},
            observation,
            validation=settings.webhook_validate,
            budget=timedelta(seconds=settings.webhook_seconds),
            gate_timeout=gate_timeout,
        )
        async with (
            _webhook(settings, admission),
            rpc.serving(settings.grpc_address, token, servicer, names=[SERVICE_NAME]) as port,
        ):
            yield port
        following.cancel()


def _webhook(settings: Settings, admission: Admission) -> AbstractAsyncContextManager[int | None]:
    if not settings.webhook_address:
        return nullcontext()
    certificate = Path(settings.webhook_cert_file), Path(settings.webhook_key_file)
    token = settings.webhook_token.get_secret_value()
    return webhook.serving(admission, settings.webhook_address, token, certificate)


@asynccontextmanager
async def _lineage(settings: Settings, token: str) -> AsyncIterator[LineageClient | None]:
    if not settings.lineage_address:
        yield None
        return
    async with rpc.channel(settings.lineage_address, token) as channel:
        yield LineageClient(channel)

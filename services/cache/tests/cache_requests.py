"""Requests to resolve, and a fixture that records steps."""

import json
from datetime import timedelta

import pytest

from periplus_cache.resolve.request import ResolveRequest
from periplus_cache.service import Cache
from periplus_model.queries import Literal, StepQuery, StepVerdict
from periplus_model.steps import CacheMode, CachePolicy, StepTemplate, Verdict

HIT, MISS, UNKNOWN, UNCACHEABLE = Verdict.HIT, Verdict.MISS, Verdict.UNKNOWN, Verdict.UNCACHEABLE


def template(
    name: str = "a", policy: CachePolicy | None = None, uncacheable_reason: str = ""
) -> StepTemplate:
    return StepTemplate(name, json.dumps({"does": name}), policy or CachePolicy(), uncacheable_reason)


def step(id_: str, template_: str = "a", *, items=None, artifacts=None, **parameters) -> StepQuery:
    return StepQuery(
        id_, template_, {name: _text(value) for name, value in parameters.items()}, artifacts or {}, items
    )


def _text(value):
    return (Literal(value),) if isinstance(value, str) else value if isinstance(value, tuple) else (value,)


def resolve_request(
    *steps: StepQuery, project: str = "p", run_mode: CacheMode | None = None, **templates: StepTemplate
) -> ResolveRequest:
    names = {query.template for query in steps}
    return ResolveRequest(
        project, {name: templates.get(name) or template(name) for name in names}, steps, run_mode
    )


@pytest.fixture
def recorded(cache, finished, clock):
    """Records that a step succeeded, a minute ago unless `at` is given."""

    async def record(name="a", parameters=None, outputs=None, *, run="r1", step="", at=None, **more):
        await cache.record(
            finished(
                run,
                step or f"main.{name}",
                document={"does": name},
                name=name,
                parameters=parameters or {},
                output_parameters=outputs or {},
                at=at or clock.now - timedelta(minutes=1),
                **more,
            )
        )

    return record


async def verdicts(cache: Cache, request: ResolveRequest) -> dict[str, StepVerdict]:
    return {verdict.id: verdict for verdict in await cache.resolve(request)}

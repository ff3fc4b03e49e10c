"""Plans to ask about, and what records that steps were done."""

import json
from datetime import timedelta

import pytest

from periplus_cache.domain import Policy, Template, Verdict
from periplus_cache.plan import Literal, Plan, StepQuery, StepVerdict
from periplus_cache.service import Cache

HIT, MISS, UNKNOWN, UNCACHEABLE = Verdict.HIT, Verdict.MISS, Verdict.UNKNOWN, Verdict.UNCACHEABLE


def template(kind: str = "a", policy: Policy = Policy(), uncacheable: str = "") -> Template:  # noqa: B008
    return Template(kind, json.dumps({"does": kind}), policy, uncacheable)


def step(id_: str, kind: str = "a", *, items=None, artifacts=(), **parameters) -> StepQuery:
    return StepQuery(
        id_, kind, tuple((name, _text(value)) for name, value in parameters.items()), tuple(artifacts), items
    )


def _text(value):
    return (Literal(value),) if isinstance(value, str) else value if isinstance(value, tuple) else (value,)


def plan(*steps: StepQuery, project: str = "p", **templates: Template) -> Plan:
    kinds = {query.template for query in steps}
    return Plan(project, {kind: templates.get(kind) or template(kind) for kind in kinds}, steps)


@pytest.fixture
def did(cache, train, clock):
    """Records that a step was done, a minute ago unless something else is said."""

    async def record(kind="a", parameters=None, gave=None, *, run="r1", step="", at=None, **more):
        await cache.record(
            train(
                run, step or f"main.{kind}", document={"does": kind}, name=kind, parameters=parameters or {}, gave=gave or {},
                at=at or clock.now - timedelta(minutes=1), **more,
            )
        )  # fmt: skip

    return record


async def verdicts(cache: Cache, asked: Plan) -> dict[str, StepVerdict]:
    return {verdict.id: verdict for verdict in await cache.resolve(asked)}

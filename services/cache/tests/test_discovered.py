"""An entry with discovered inputs is a hit only where each of them is the same now; there are several entries for one key."""

from datetime import timedelta

from cache_service import LATER, Service, literal, parameters, query, service, template, timestamp

from periplus.cache.v1 import cache_pb2 as pb
from periplus.types.v1 import step_pb2 as types

__all__ = ["service"]
OLD, NEW = "a" * 32, "b" * 32


async def resolve(service: Service, index: dict[str, str], value: str = "1") -> pb.StepVerdict:
    request = pb.ResolveStepsRequest(
        project=service.project,
        templates={"t": template("t")},
        steps=[query("s", "t", x=literal(value))],
        code_index=index,
    )
    return (await service.stub.ResolveSteps(request)).verdicts[0]


async def publish(service: Service, run: str, discovered: dict[str, str], output: str, minutes: int) -> None:
    at = timestamp(LATER + timedelta(minutes=minutes))
    await service.publish(
        service.finished(
            "main.s", "t", run, finished_at=at, started_at=at,
            inputs=types.Inputs(parameters=parameters(x="1"), discovered=discovered),
            outputs=types.Outputs(parameters=parameters(y=output)),
        )
    )  # fmt: skip


async def test_an_entry_is_served_where_its_discovered_inputs_are_the_same(service: Service) -> None:
    await publish(service, "r1", {"models.py:tree": OLD, "models.py:": OLD}, "one", 0)
    await publish(service, "r2", {"models.py:tree": NEW, "models.py:": OLD}, "two", 1)
    await service.until_listed(2)
    old = await resolve(service, {"models.py:": OLD, "models.py:tree": OLD, "more": NEW})
    new = await resolve(service, {"models.py:": OLD, "models.py:tree": NEW, "more": NEW})
    assert [each.verdict for each in (old, new)] == [types.VERDICT_HIT] * 2
    assert [each.outputs.parameters[0].value for each in (old, new)] == ["one", "two"]
    assert old.fingerprint != new.fingerprint
    entry = (
        await service.stub.GetEntry(pb.GetEntryRequest(project=service.project, fingerprint=old.fingerprint))
    ).entry
    assert '"discovered": {' in entry.key

    changed = await resolve(service, {"models.py:": OLD, "models.py:tree": "c" * 32})
    assert changed.verdict == types.VERDICT_MISS
    assert "did the same, but it used models.py:tree, which is not the same now" in changed.reason
    assert (await resolve(service, {})).verdict == types.VERDICT_MISS
    other = await resolve(service, {"models.py:": OLD, "models.py:tree": OLD}, "2")
    assert other.verdict == types.VERDICT_MISS

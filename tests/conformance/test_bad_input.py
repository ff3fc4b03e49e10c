"""Manifests with one broken value and malformed requests are accepted or refused; the server goes on."""

import copy
import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from periplus_local.argo.testing import Client, Refusal

MANIFESTS = sorted((Path(__file__).parent / "recordings" / "manifests").glob("*.yaml"))
JUNK = [
    None, 0, -1, 1.5, True, "", [], {}, "x", ["x"], {"a": 1}, [[]], [None], "{{", "}}", "{{=", "{{=1+}}",
    "{{inputs.parameters.none}}", "\x00", "é" * 50, {"name": "x"}, [{"name": 1}], "1 ==", "a && (", "{{item}}",
]  # fmt: skip


def paths_within(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values within a manifest."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = [path] if path else []
    for key, inner in items:
        found += paths_within(inner, (*path, key))
    return found


def broken(manifest: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """The manifest with one value replaced or removed."""
    changed = copy.deepcopy(manifest)
    *parents, last = chance.choice(paths_within(changed))
    holder: Any = changed
    for key in parents:
        holder = holder[key]
    if chance.random() < 0.25:
        del holder[last]
    else:
        holder[last] = copy.deepcopy(chance.choice(JUNK))
    return changed


@pytest.mark.parametrize("seed", range(6))
def test_a_broken_manifest_is_accepted_or_refused_with_a_reason(client: Client, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(60):
        manifest = broken(yaml.safe_load(chance.choice(MANIFESTS).read_text()), chance)
        refused = refusal_of(client, manifest)
        assert refused is None or (refused.status, '"code":2' in refused.body) == (500, True), manifest


def refusal_of(client: Client, manifest: dict[str, Any]) -> Refusal | None:
    """How the manifest is refused; None when it is accepted."""
    try:
        client.call("POST", f"workflows/{client.namespace}/lint", {"workflow": manifest})
    except Refusal as refusal:
        return refusal
    return None


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "set", {"nodeFieldSelector": 3, "phase": {}}),
        ("PUT", "set", {"nodeFieldSelector": "id", "phase": "Succeeded"}),
        ("PUT", "set", {"nodeFieldSelector": "id=x", "outputParameters": "[1]"}),
        ("PUT", "set", {"nodeFieldSelector": "id=x", "outputParameters": "{"}),
        ("PUT", "retry", {"parameters": 3}),
        ("PUT", "resubmit", {"parameters": ["no-equals"]}),
        ("PUT", "nothing", {}),
        ("POST", "set", {}),
    ],
)
def test_a_malformed_action_is_refused(client: Client, method: str, path: str, body: Any) -> None:
    gate = {"name": "main", "suspend": {}}
    name = client.create(
        {"metadata": {"generateName": "b-"}, "spec": {"entrypoint": "main", "templates": [gate]}}
    )
    client.until(name, lambda w: (w.get("status") or {}).get("nodes"))
    with pytest.raises(Refusal) as refusal:
        client.call(method, f"workflows/{client.namespace}/{name}/{path}", body)
    assert refusal.value.status in {400, 404, 405, 500, 501}
    assert "could not answer" not in refusal.value.body
    client.do(name, "terminate")

"""Watches: many at once receive every end, and all streams end cleanly with the server."""

import json
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from periplus_local.argo.samples import OK, dag, sh, start, task
from periplus_local.argo.settings import ArgoSettings
from periplus_local.argo.testing import COMPLETED, ArgoThread, local_argo, phases_of

EVENTS = "workflow-events/argo"


def test_streams_end_cleanly_when_the_server_stops() -> None:
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="argo-") as home:
        with ArgoThread(ArgoSettings(home=Path(home), grace_seconds=0.1)) as argo:
            name = start(argo, sh("main", "echo up; sleep 60"))
            argo.until(name, lambda w: phases_of(w).get("$") == "Running")
            paths = [EVENTS, f"workflows/argo/{name}/log?logOptions.follow=true"]
            streams = [argo.open("GET", path) for path in paths]
            assert all(stream.readline() for stream in streams)
        for stream in streams:
            stream.read()  # raises where it is cut off


def test_five_watches_of_two_hundred_workflows_receive_every_end_with_all_nodes() -> None:
    with local_argo(slots=4) as argo, ThreadPoolExecutor(5) as pool:
        streams = [argo.open("GET", EVENTS, seconds=120) for _ in range(5)]
        futures = [pool.submit(ends, stream, 200) for stream in streams]
        tasks = [task("a", when="1 == 2"), task("b", depends="a", when="1 == 2")]
        last = [task("c", depends="b", **({"when": "1 == 2"} if at % 20 else {})) for at in range(200)]
        names = {start(argo, dag(*tasks, each), OK) for each in last}
        for each in futures:
            ended = each.result(120)
            assert set(ended) == names
            assert {body["status"]["phase"] for body in ended.values()} == {"Succeeded"}
            assert all(len(phases_of(body)) == 4 for body in ended.values())


def ends(stream: Iterable[bytes], count: int) -> dict[str, dict]:
    """The workflows that ended, by name, until `count` have ended."""
    found: dict[str, dict] = {}
    for line in stream:
        if line.startswith(b"data: "):
            body = json.loads(line[6:])["result"]["object"]
            if (body["metadata"].get("labels") or {}).get(COMPLETED) == "true":
                found[body["metadata"]["name"]] = body
        if len(found) == count:
            break
    return found

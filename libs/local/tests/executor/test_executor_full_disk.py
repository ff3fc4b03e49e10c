"""A step that meets a full disk ends in error, and later ones run."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import asyncio, json, sys
from pathlib import Path
from periplus_local.argo.executor.job import Job
from periplus_local.argo.executor.process_executor import ProcessExecutor
from periplus_local.argo.executor.settings import ExecutorSettings
from periplus_local.argo.executor.artifact_repository import S3Config

async def main():
    home = Path(sys.argv[1])
    results = {}
    async with ProcessExecutor(home / "pods", S3Config("127.0.0.1:9", "a", "b", "bucket"), ExecutorSettings(slots=1)) as executor:
        async def run(name, line, **more):
            main = {"command": ["sh", "-c"], "args": [line]}
            job = Job(name, "wf", name, {"container": main, **more}, "wf/x")
            done = await executor.run(job)
            results[name] = [done.phase, done.message]
        fill = "head -c 9000000 /dev/zero > /tmp/x;"
        await run("fills", fill + " exit 1")
        await run("prints", fill + " echo more; true")
        out = {"artifacts": [{"name": "a", "path": "/tmp/x"}]}
        await run("packs", "head -c 700000 /dev/urandom > /tmp/x", outputs=out)
        try:
            (home / "other").write_bytes(bytes(9_000_000))
        except OSError:
            pass
        await run("starts", "true")
        (home / "other").unlink()
        await run("after", "true")
    print(json.dumps(results))

asyncio.run(main())
"""


def test_a_step_that_meets_a_full_disk_ends_in_error_and_later_ones_run(tmp_path: Path) -> None:
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("needs unshare")
    script = 'mount -t tmpfs -o size=1m small "$1" && exec "$2" -c "$3" "$1"'
    ran = subprocess.run(
        [unshare, "--map-root-user", "--mount", "sh", "-c", script, "sh", tmp_path, sys.executable, PROGRAM],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if "unshare" in ran.stderr or "mount:" in ran.stderr:
        pytest.skip(ran.stderr)
    assert ran.returncode == 0, ran.stderr
    results = json.loads(ran.stdout)
    assert results["fills"] == ["Failed", "main: Error (exit code 1)"]
    full = "no space left on device"
    for name in ("prints", "packs", "starts"):
        assert results[name][0] == "Error"
        assert full in results[name][1].lower()
    assert results["after"] == ["Succeeded", ""]

"""SDK pipelines in images that have nothing of Periplus: on the real Argo that ARGO_SERVER names, or else on the local one."""

import json
import os
from typing import Any

import pytest
from cluster import Argo
from stack import ROOT, Stack

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

DIGITS = ROOT / "examples" / "digits" / "pipeline.py"
TRAININGS = [f"train({number})" for number in range(6)]


@pytest.fixture(scope="module")
def science_image() -> str:
    """An image with Python 3.11, numpy and scikit-learn; on the local Argo any, as it runs none."""
    if "ARGO_SERVER" in os.environ and "PERIPLUS_TEST_SCIENCE_IMAGE" not in os.environ:
        pytest.skip("PERIPLUS_TEST_SCIENCE_IMAGE is not set")
    return os.environ.get("PERIPLUS_TEST_SCIENCE_IMAGE", "python:3.11")


def run_digits(cluster: Stack, image: str, *parameters: str) -> dict[str, Any]:
    options = [option for parameter in parameters for option in ("-p", parameter)]
    done = cluster.periplus("run", str(DIGITS), "--image", image, *options, "-o", "json")
    document = json.loads(done.stdout)
    assert document["phase"] == "SUCCEEDED", document["message"]
    cluster.wait_for_cache(cluster.wait_for_run(document["run"]))
    return dict(document)


def test_digits_run_cold_then_warm_without_a_pod_then_only_what_a_parameter_changes(
    cluster: Stack, argo: Argo, science_image: str
) -> None:
    cold = run_digits(cluster, science_image)
    pods = ["evaluate", "features", "ingest", "register", "settings", *TRAININGS]
    assert [name.split("(")[0] for name in argo.pods(cold["run"])] == [
        name.split("(")[0] for name in sorted(pods)
    ]
    assert cold["steps_cached"] == 0
    (accuracy,) = cold["outputs"]["parameters"]
    assert float(accuracy["value"]) > 0.9

    warm = run_digits(cluster, science_image)
    assert (warm["steps_run"], warm["steps_cached"]) == (0, 11)
    assert argo.workflow(warm["run"]) is None
    assert warm["outputs"] == cold["outputs"]

    changed = run_digits(cluster, science_image, "gamma=[0.01, 0.02]")
    ran = {step["path"] for step in changed["steps"] if step["phase"].endswith("SUCCEEDED")}
    assert ran >= {"settings", "evaluate", "train(1)", "train(3)", "train(5)"}
    assert not ran & {"ingest", "features", "train(0)", "train(2)", "train(4)"}

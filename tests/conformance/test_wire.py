"""Requests that cannot be done are answered as a real Argo answered them: status, code, and message by meaning."""

import os

import pytest

from periplus_local.argo.testing import Client

from .wire import Case, answer, cases, differences


@pytest.mark.parametrize("case", cases(), ids=lambda case: case["told"].replace(" ", "-"))
def test_what_cannot_be_done_is_answered_as_argo_does(client: Client, case: Case) -> None:
    expected = case["answer"]
    if "here" in case and "ARGO_SERVER" not in os.environ:
        assert case["here"]["why"]
        expected = case["here"]
    assert differences(case, answer(client, case), expected) == []

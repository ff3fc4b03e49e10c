"""Requests that fail are answered as the real Argo answered them: status, code, and the meaning of the message."""

import os

import pytest

from periplus_local.argo.testing import Client

from .wire import Case, answer, cases, differences


@pytest.mark.parametrize("case", cases(), ids=lambda case: case["case"].replace(" ", "-"))
def test_a_request_that_fails_is_answered_as_argo_does(client: Client, case: Case) -> None:
    expected = case["answer"]
    if "local" in case and "ARGO_SERVER" not in os.environ:
        assert case["local"]["why"]
        expected = case["local"]
    assert differences(case, answer(client, case), expected) == []

"""Messages of a real Argo 4.1.2 about failed steps, with what to do."""

import pytest

from periplus_dispatcher.follow.failures import explained


@pytest.mark.parametrize(
    ("message", "explanation"),
    [
        (
            'main: Error (exit code 64): failed to find name in PATH: exec: "python3": executable file not found in $PATH',
            " (the image has no Python: name another one)",
        ),
        (
            "init: Error (exit code 64): artifact periplus-code failed to load: The specified key does not exist.",
            " (the code of the pipeline is not in the artifact repository: `periplus run` of its file stores it)",
        ),
        ("init: Error (exit code 64): artifact data failed to load: The specified key does not exist.", ""),
        ("init: Error (exit code 64): artifact periplus-code failed to load: Access Denied", ""),
        ('failed to find name in PATH: exec: "pythonista": executable file not found in $PATH', ""),
        ("main: Error (exit code 1)", ""),
        ("", ""),
    ],
)
def test_a_message_is_followed_by_what_to_do_where_it_is_known(message, explanation):
    assert explained(message) == message + explanation


def test_a_message_that_a_step_left_can_be_stored():
    assert (
        explained("main: Error (exit code 1): a\0b")
        == "main: Error (exit code 1): a\N{REPLACEMENT CHARACTER}b"
    )
    assert len(explained("x" * 100_000)) == 10_000

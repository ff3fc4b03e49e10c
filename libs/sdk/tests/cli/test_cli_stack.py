"""`periplus up`, `down` and `doctor` without a running stack, and on a home that another process uses."""

from periplus_local.stack import Home, lock


def test_a_doctor_without_a_stack_names_the_fix_and_exits_with_1(periplus, clean_environment, tmp_path):
    result = periplus("doctor", "--home", str(tmp_path / "home"))
    assert result.code == 1
    stack = next(row for row in result.out.splitlines() if " stack " in row)
    assert stack.startswith("BAD")
    assert "periplus up" in stack
    document = periplus("doctor", "--home", str(tmp_path / "home"), "-o", "json").document
    assert document["ok"] is False
    assert {"subject": "stack", "ok": False, "detail": "not running", "fix": "periplus up"} in document[
        "findings"
    ]


def test_down_without_a_running_stack_succeeds(periplus, clean_environment, tmp_path):
    home = str(tmp_path / "home")
    result = periplus("down", "--home", home)
    assert (result.code, result.out) == (0, "nothing was running\n")
    assert periplus("down", "--home", home, "-o", "json").document == {"stopped": None}


def test_up_on_a_home_in_use_names_the_process_and_exits_with_6(periplus, clean_environment, tmp_path):
    home = Home(tmp_path / "home")
    home.create()
    with lock.held(home):
        for command in (["up"], ["up", "--detach"]):
            result = periplus(*command, "--home", str(home.path))
            assert result.code == 6
            assert "is held by process" in result.err
            assert f"  fix:   periplus down --home {home.path}\n" in result.err


def test_up_in_a_home_that_cannot_be_created_exits_with_2(periplus, clean_environment, tmp_path):
    (tmp_path / "file").write_text("")
    result = periplus("up", "--home", str(tmp_path / "file" / "home"))
    assert result.code == 2
    assert "file/home" in result.err
    assert "Traceback" not in result.err

"""`periplus up`, `down` and `doctor` where nothing runs, and where somebody else holds the home."""

from periplus_local.stack import Home, lock


def test_a_doctor_without_a_stack_names_the_fix_and_exits_with_1(periplus, clean_environment, tmp_path):
    said = periplus("doctor", "--home", str(tmp_path / "home"))
    assert said.code == 1
    stack = next(row for row in said.out.splitlines() if " stack " in row)
    assert stack.startswith("BAD")
    assert "periplus up" in stack
    document = periplus("doctor", "--home", str(tmp_path / "home"), "-o", "json").document
    assert document["ok"] is False
    assert {"subject": "stack", "ok": False, "detail": "not running", "fix": "periplus up"} in document[
        "findings"
    ]


def test_down_where_nothing_runs_is_done_already(periplus, clean_environment, tmp_path):
    home = str(tmp_path / "home")
    said = periplus("down", "--home", home)
    assert (said.code, said.out) == (0, "nothing was running\n")
    assert periplus("down", "--home", home, "-o", "json").document == {"stopped": None}


def test_up_on_a_home_that_somebody_holds_says_who_and_exits_with_6(periplus, clean_environment, tmp_path):
    home = Home(tmp_path / "home")
    home.create()
    with lock.held(home):
        for command in (["up"], ["up", "--detach"]):
            said = periplus(*command, "--home", str(home.path))
            assert said.code == 6
            assert "is held by process" in said.err
            assert f"  fix:   periplus down --home {home.path}\n" in said.err


def test_up_in_a_home_that_can_not_be_made_exits_with_2(periplus, clean_environment, tmp_path):
    (tmp_path / "file").write_text("")
    said = periplus("up", "--home", str(tmp_path / "file" / "home"))
    assert said.code == 2
    assert "file/home" in said.err
    assert "Traceback" not in said.err

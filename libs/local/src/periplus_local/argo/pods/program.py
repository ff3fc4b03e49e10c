"""What a template says to run: the words, the environment and the folder to run it in."""

import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from periplus_local.argo.pods.job import Job, PodError
from periplus_local.argo.pods.view import SCRIPT, TMP, WORKDIR, View

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
REFERENCE = re.compile(r"\$(?:\$|\(([^)]*)\))")


@dataclass(frozen=True)
class Program:
    """One command line, ready to be executed."""

    argv: list[str]
    env: dict[str, str]
    cwd: str
    source: str | None


def body(template: dict[str, Any]) -> dict[str, Any]:
    """The container or the script of a template."""
    for kind in ("container", "script"):
        if isinstance(template.get(kind), dict):
            return dict(template[kind])
    raise PodError("template has neither container nor script")


def working_dir(template: dict[str, Any]) -> str:
    """The folder that a step starts in, by its own name for it."""
    return str(body(template).get("workingDir") or WORKDIR)


def program(job: Job, view: View, rewrite: Callable[[str], str]) -> Program:
    """The program of a job in its view; raises PodError when the template names no command."""
    main = body(job.template)
    command = [str(word) for word in main.get("command") or []]
    if not command:
        raise PodError(
            "template has no command: images are not used on this machine, so the command that "
            "the image would run must be written in the template"
        )
    words = command + [str(word) for word in main.get("args") or []]
    own: dict[str, str] = {}
    for entry in main.get("env") or []:
        own[str(entry["name"])] = rewrite(expand(_text(entry.get("value")), own))
    argv = [rewrite(expand(word, own)) for word in words]
    source = None
    if "script" in job.template:
        source = rewrite(str(main.get("source") or ""))
        argv.append(view.seen(SCRIPT))
    return Program(argv, {**environment(job, view), **own}, view.seen(working_dir(job.template)), source)


def environment(job: Job, view: View) -> dict[str, str]:
    """What every step finds in its environment, before its own variables."""
    binaries = Path(sys.executable).parent
    return {
        "PATH": f"{binaries}:{os.environ.get('PATH') or DEFAULT_PATH}",
        "HOME": os.environ.get("HOME") or str(Path.home()),
        "LANG": os.environ.get("LANG") or "C.UTF-8",
        "TMPDIR": view.seen(TMP),
        "HOSTNAME": job.pod_name,
        "ARGO_CONTAINER_NAME": "main",
        "ARGO_NODE_ID": job.id,
    }


def expand(text: str, env: dict[str, str]) -> str:
    """Replace `$(NAME)` by a variable of the template, as Kubernetes does.

    Unknown names stay as they are, and `$$` is one `$`.
    """

    def value(match: re.Match[str]) -> str:
        name = match[1]
        return "$" if name is None else env.get(name, match[0])

    return REFERENCE.sub(value, text)


def _text(value: object) -> str:
    return "" if value is None else str(value)

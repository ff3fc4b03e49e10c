"""The program that a template says to run: its command line, its environment and its working folder."""

import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from periplus_local.argo.executor.filesystem import SCRIPT, TMP, WORKDIR, StepFilesystem
from periplus_local.argo.executor.job import Job, PodError

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
REFERENCE = re.compile(r"\$(?:\$|\(([^)]*)\))")
# A path starts a word, follows a quote or an operator, or is glued to a one-letter option.
BEFORE_PATH = r"(?:(?<![\w.\-~})\]/*?$%+@\\])|(?<=\s-[A-Za-z])|(?<=^-[A-Za-z])|(?<=file://))"
AFTER_PATH = r"(?=/|[^\w.\-]|\.?$|\.\s)"


@dataclass(frozen=True)
class Program:
    """One command line, ready to be executed; `source` is that of a script template."""

    argv: list[str]
    env: dict[str, str]
    cwd: str
    source: str | None


def container_of(template: dict[str, Any]) -> dict[str, Any]:
    """The container or the script of a template; raises PodError when it has neither."""
    for kind in ("container", "script"):
        if isinstance(template.get(kind), dict):
            return dict(template[kind])
    raise PodError("template has neither container nor script")


def working_dir(template: dict[str, Any]) -> str:
    """The folder that a step starts in, as the step names it."""
    return str(container_of(template).get("workingDir") or WORKDIR)


def program_of(job: Job, filesystem: StepFilesystem, rewrite: Callable[[str], str]) -> Program:
    """The program of a job in its file system; `rewrite` is applied to each text that may hold a path.

    Raises PodError when the template names no command.
    """
    main = container_of(job.template)
    command = [str(word) for word in main.get("command") or []]
    if not command:
        raise PodError(
            "template has no command: images are not used on this machine, so the command that "
            "the image would run must be written in the template"
        )
    words = command + [str(word) for word in main.get("args") or []]
    env: dict[str, str] = {}
    for entry in main.get("env") or []:
        env[str(entry["name"])] = rewrite(expand(_text(entry.get("value")), env))
    argv = [rewrite(expand(word, env)) for word in words]
    source = None
    if "script" in job.template:
        source = rewrite(str(main.get("source") or ""))
        argv.append(filesystem.step_path(SCRIPT))
    cwd = filesystem.step_path(working_dir(job.template))
    return Program(argv, {**base_environment(job, filesystem), **env}, cwd, source)


def base_environment(job: Job, filesystem: StepFilesystem) -> dict[str, str]:
    """The environment of every step, before the variables of its template."""
    binaries = Path(sys.executable).parent
    return {
        "PATH": f"{binaries}:{os.environ.get('PATH') or DEFAULT_PATH}",
        "HOME": os.environ.get("HOME") or str(Path.home()),
        "LANG": os.environ.get("LANG") or "C.UTF-8",
        "TMPDIR": filesystem.step_path(TMP),
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


def path_rewriter(filesystem: StepFilesystem) -> Callable[[str], str]:
    """A function that replaces each private path in a text by its host path, for where no namespaces work."""
    moved = {path: to for path, to in filesystem.areas.items() if path != to}
    longest_first = sorted(filesystem.areas, key=len, reverse=True)
    pattern = re.compile(BEFORE_PATH + "(" + "|".join(map(re.escape, longest_first)) + ")" + AFTER_PATH)
    return lambda text: pattern.sub(lambda match: moved.get(match[1], match[1]), text)


def _text(value: object) -> str:
    return "" if value is None else str(value)

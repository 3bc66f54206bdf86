"""What this machine offers to pools, and what it lacks."""

from __future__ import annotations

import os
import platform
import sys
from typing import NamedTuple

from . import _core
from ._report import size


class Diagnosis(NamedTuple):
    """What the machine offers, and its problems with their remedies."""

    facts: list[tuple[str, str]]
    problems: list[str]

    def __str__(self) -> str:
        lines = [f"{name:<12}{text}" for name, text in self.facts]
        lines += [f"problem     {problem}" for problem in self.problems] or ["no problem found"]
        return "\n".join(lines)


def doctor() -> Diagnosis:
    """Returns what this machine offers to pools, and what it lacks."""
    found = _core.machine()
    cores, files, limit = found["cores"], found["files"], found["open_files"]
    facts = [
        ("python", f"{platform.python_version()} ({sys.executable or 'unknown program'})"),
        ("invokerpool", _core.__version__),
        ("cores", f"{cores} usable, {found['online']} online"),
        ("open files", f"{files} of {limit}"),
    ]
    problems = []
    if found["available"] is not None:
        facts.append(("memory", f"{size(found['available'])} available of {size(found['memory'])}"))
        if found["available"] < 256 << 20:
            problems.append("little memory is available; end other programs, or use fewer workers")
    if found["quota"] is not None:
        facts.append(("quota", f"{found['quota']:.2f} cores (cgroup)"))
    if not sys.executable or not os.access(sys.executable, os.X_OK):
        problems.append("sys.executable is no program, so workers cannot start; set it to the path of a Python")
    if limit is not None and files is not None and files + cores * found["files_per_worker"] > limit:
        problems.append(f"{limit} open files are too few for {cores} workers; raise the limit with `ulimit -n`")
    if sys.platform != "linux":
        problems.append("this package is tested on Linux only")
    return Diagnosis(facts, problems)

"""The effective settings of a pool, and the origin of each: code overrides the environment, which overrides the default."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NamedTuple

EXECUTOR = "INVOKER_EXECUTOR"
WORKERS = "INVOKER_WORKERS"
PROGRESS = "INVOKER_PROGRESS"
LEVEL = "INVOKER_LEVEL"

EXECUTORS = ("processes", "threads", "inline")
RENDERS = ("auto", "bar", "lines", "json", "none")


class Setting(NamedTuple):
    """A setting."""

    name: str
    value: Any
    origin: str
    """`code`, `default`, or the name of an environment variable."""


class Settings(tuple[Setting, ...]):
    """The effective settings of a pool."""

    def __getattr__(self, name: str) -> Any:
        for setting in self:
            if setting.name == name:
                return setting.value
        raise AttributeError(name)

    def __str__(self) -> str:
        rows = [("setting", "value", "origin"), *((s.name, str(s.value), s.origin) for s in self)]
        return "\n".join(f"{name:<14} {value:<18} {origin}" for name, value, origin in rows)


def level() -> int:
    """How many pools enclose this process."""
    text = os.environ.get(LEVEL, "0")
    return int(text) if text.isdigit() else 0


def _executor(text: str) -> str:
    if text not in EXECUTORS:
        raise ValueError(f"use one of {', '.join(EXECUTORS)}")
    return text


def _workers(text: str) -> int | str:
    levels = [word.strip() for word in text.split(",")]
    for word in levels:
        if word != "all" and not (word.isascii() and word.isdigit() and int(word) > 0):
            raise ValueError("use `all`, or whole numbers from 1 by nesting level, such as `4,2`")
    here = level()
    word = levels[here] if here < len(levels) else "1"
    return word if word == "all" else int(word)


def _render(text: str) -> str:
    if text not in RENDERS:
        raise ValueError(f"use one of {', '.join(RENDERS)}")
    return text


def _one(name: str, given: Any, variable: str, parse: Callable[[str], Any], default: Any) -> Setting:
    text = os.environ.get(variable)
    found = None
    if text is not None:
        try:
            found = parse(text)
        except ValueError as error:
            # Also if code overrides it: a mistake should not hide.
            raise ValueError(f"{variable}={text!r} is no value of this variable; {error}, or remove it") from None
    if given is not None:
        return Setting(name, given, "code")
    if text is not None:
        return Setting(name, found, variable)
    return Setting(name, default, "default")


def resolve(given: dict[str, Any], defaults: dict[str, Any]) -> Settings:
    """Returns the settings of a pool. `given` has what code has set, None for what it has not."""
    found = [
        _one("executor", given.pop("executor"), EXECUTOR, _executor, "processes"),
        _one("workers", given.pop("workers"), WORKERS, _workers, "all"),
        _one("progress", None, PROGRESS, _render, "auto"),
    ]
    if found[0].value not in EXECUTORS:
        raise ValueError(f"executor={found[0].value!r} is unknown; use one of {', '.join(EXECUTORS)}")
    for name, value in given.items():
        default = value == defaults[name] if not callable(value) else False
        found.append(Setting(name, value, "default" if default else "code"))
    return Settings(found)

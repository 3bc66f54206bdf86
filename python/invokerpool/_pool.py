"""The pool."""

from __future__ import annotations

import atexit
import logging
import os
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

from . import _core, _image, _pickle
from ._futures import Submitter, TaskFuture
from ._logs import Logs, deliver, levels

# Workers import the extension before they know the leader's path.
_SERVE = "import sys; sys.path[:] = {path!r}; from invokerpool._core import serve; serve()"

_NO_MODEL: Any = object()

_open: weakref.WeakSet[Pool] = weakref.WeakSet()


def _close_all() -> None:
    _core.interpreter_ends()
    for pool in list(_open):
        # A daemon thread that waits for a future goes on waiting: an exception would only be printed.
        pool._submitter.stop(complete=False)
        pool._core.kill()


atexit.register(_close_all)
# A forked copy of a pool does nothing.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_open.clear)


def _bytes(size: int | str | None, name: str) -> int | None:
    """Returns a number of bytes: 4096, "4KiB", "2 GB"."""
    if size is None or isinstance(size, int):
        return size
    units = {"": 1, "b": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40}
    units |= {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
    digits = size.strip().rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
    unit = size.strip()[len(digits) :].lower()
    try:
        return int(float(digits) * units[unit])
    except (ValueError, KeyError):
        raise ValueError(f'{name}={size!r} is no size; write a number of bytes, or text such as "512MiB"') from None


def _levels(logs: Logs) -> dict[str, int]:
    """The levels of a worker's loggers."""
    found = levels()
    if logs.level is not None:
        found[""] = logging._checkLevel(logs.level)  # type: ignore[attr-defined]
    return found


def _program() -> tuple[str, list[str]]:
    """Returns the program of workers and its arguments."""
    program = sys.executable
    if not program:
        raise RuntimeError("sys.executable is empty, so there is no program that workers could run; set it to the path of a Python")
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    return program, [*flags, "-c", _SERVE.format(path=sys.path)]


class Pool:
    """Worker processes that run `op(model, task)` and share one copy of the model."""

    def __init__(
        self,
        model: Any = _NO_MODEL,
        op: Callable[..., Any] | None = None,
        *,
        state: Callable[..., Any] | None = None,
        workers: int | Literal["all"] = "all",
        writable: bool = True,
        deadline: float | None = None,
        retries: int = 0,
        recycle_after: int | None = None,
        recycle_above: int | str | None = None,
        memory_limit: int | str | None = None,
        max_output: int | str | None = None,
        threads: int | Literal["share", "unlimited"] = "share",
        env: dict[str, str | None] | None = None,
        logs: Logs | None = Logs(),
        start_timeout: float = 60.0,
        stdout: Literal["inherit", "null", "capture"] = "inherit",
        stderr: Literal["inherit", "null", "capture"] = "inherit",
    ) -> None:
        if op is None:
            raise TypeError("a pool needs an op: Pool(model, op), or Pool(op=op) without a model")
        has_model = model is not _NO_MODEL
        shared: _image.Image | None = model if isinstance(model, _image.Image) else None
        if has_model and shared is None:
            shared = _image.share(model)
        program, arguments = _program()
        options = {
            "program": program,
            "arguments": arguments,
            "workers": str(workers),
            "threads": str(threads),
            "env": list((env or {}).items()),
            "start_timeout": float(start_timeout),
            "deadline": deadline,
            "retries": retries,
            "recycle_after": recycle_after,
            "recycle_above": _bytes(recycle_above, "recycle_above"),
            "memory_limit": _bytes(memory_limit, "memory_limit"),
            "max_output": _bytes(max_output, "max_output"),
            "log_ring": _bytes((logs or Logs()).ring, "logs.ring"),
            "stdout": stdout,
            "stderr": stderr,
        }
        settings = {
            "path": list(sys.path),
            "argv": list(sys.argv),
            "writable": writable,
            "deadline": deadline,
            "code": _pickle.dumps((op, state)),
            "levels": None if logs is None else _levels(logs),
        }
        self._core = _core.CorePool(options, settings, shared and shared._core, deliver)
        self._submitter = Submitter(self._core)
        _open.add(self)

    def map(
        self,
        tasks: Iterable[Any],
        *,
        errors: Literal["raise", "return"] = "raise",
        max_in_flight: int | None = None,
    ) -> Iterator[Any]:
        """Returns an iterator over the outputs, in the order of the tasks.

        Tasks are read as workers have room for them, so `tasks` may be infinite. An exception of the op is raised where its output would
        come, and the iteration can go on after it; with `errors="return"` it is the output. `max_in_flight` bounds the tasks that
        were read and whose outputs were not returned.
        """
        return self._map(tasks, True, errors, max_in_flight)

    def map_unordered(
        self,
        tasks: Iterable[Any],
        *,
        errors: Literal["raise", "return"] = "raise",
        max_in_flight: int | None = None,
    ) -> Iterator[Any]:
        """Does the same as `map`, but returns outputs as they complete."""
        return self._map(tasks, False, errors, max_in_flight)

    def _map(self, tasks: Iterable[Any], ordered: bool, errors: str, max_in_flight: int | None) -> _core.Outputs:
        if errors not in ("raise", "return"):
            raise ValueError(f'errors={errors!r} is unknown; use "raise" or "return"')
        return self._core.map(
            iter(tasks), ordered=ordered, return_errors=errors == "return", max_in_flight=max_in_flight
        )

    def submit(self, task: Any) -> TaskFuture[Any]:
        """Submits one task, and returns its future: of `concurrent.futures`, with `kill`. `asyncio.wrap_future` awaits it."""
        future: TaskFuture[Any] = TaskFuture()
        self._submitter.submit(task, future)
        return future

    def resize(self, workers: int | Literal["all"]) -> None:
        """Changes the number of workers, also while maps run. No task is lost."""
        self._core.resize(str(workers))

    @property
    def pids(self) -> list[int]:
        """The process ids of the workers that are alive."""
        return [pid for _, pid in self._core.pids()]

    def log_counts(self) -> dict[str, Any]:
        """What became of the workers' log records: `emitted`, `delivered` and `dropped`, each for debug, info, warning and error."""
        return self._core.log_counts()

    def shutdown(self, timeout: float = 60.0) -> None:
        """Lets the workers finish what was submitted, and ends them; after `timeout` seconds they are killed."""
        self._core.shutdown(timeout)
        self._submitter.stop()

    def kill(self) -> None:
        """Kills the workers. Tasks that were not done fail with `PoolClosed`."""
        self._core.kill()
        self._submitter.stop()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if kind is None:
            self.shutdown()
        else:
            self.kill()

"""What a worker does before its first task, and at its end. Called by the extension module."""

from __future__ import annotations

import atexit
import faulthandler
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, NamedTuple


class Worker(NamedTuple):
    """The worker in which the caller runs."""

    index: int
    """Its position in the pool, from 0. A replacement has the same."""
    count: int
    """The number of workers."""
    generation: int
    """How many processes this worker had before."""


_here: Worker | None = None


def worker() -> Worker | None:
    """Returns the worker in which the caller runs; None in the leader."""
    return _here


def start(settings: dict[str, Any], identity: tuple[int, int, int], sink: Any) -> tuple[Callable[..., Any], list[Any], Callable[[], None], tuple[float, int, int] | None]:
    """Returns the op, what it is called with before each task, and what is called at the end."""
    global _here
    _here = Worker(*identity)
    sys.path[:] = settings["path"]
    sys.argv[:] = settings["argv"]
    # Ctrl-C is the leader's; an op that interrupts itself gets Python's exception.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if not faulthandler.is_enabled():
        faulthandler.enable()
    from . import _core, _image, _pickle

    if sink is not None and settings["levels"] is not None:
        from . import _logs

        _logs.install(sink, settings["levels"])

    op, make_state = _pickle.loads(settings["code"])
    first = []
    if (handle := settings["image"]) is not None:
        image = _image.Image(_core.CoreImage.attach(handle))
        first.append(image.unpickle(writable=settings["writable"]))
    if make_state is not None:
        first.append(make_state(*first))
    return op, first, finish, _stacks(settings["deadline"])


def _stacks(deadline: float | None) -> tuple[float, int, int] | None:
    """Prepares what shows the stacks at a deadline: its seconds, a file in memory, and the signal that makes them appear there."""
    if deadline is None or sys.platform != "linux":
        return None
    file = os.memfd_create("invokerpool stacks")
    number = signal.SIGRTMAX - 6
    faulthandler.register(number, file=file, all_threads=True)
    return deadline, file, number


def finish() -> None:
    """Runs what the interpreter runs at its end: functions of `atexit`, and the output that is buffered."""
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            pass



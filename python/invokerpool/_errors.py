"""The exceptions of pools and tasks."""

from __future__ import annotations

from typing import Any


class PoolError(RuntimeError):
    """A pool could not be built, or stopped working."""

    task: int | None = None
    """The position of the task in its input, from 0; None if the error is not that of a task."""

    def __init__(self, message: str = "", **fields: Any) -> None:
        super().__init__(message)
        for name, value in fields.items():
            setattr(self, name, value)

    def __reduce__(self) -> Any:
        fields = {name: value for name, value in self.__dict__.items() if name != "__notes__"}
        return _rebuild, (type(self), self.args, fields)


class StartFailed(PoolError):
    """The workers could not start. The message has the traceback of the worker."""


class PoolClosed(PoolError):
    """The pool was closed before the task was done."""


class PoolForked(PoolError):
    """This process is a forked copy of the pool's process. Build another pool here."""


class PoolInterrupted(PoolError):
    """The pool was interrupted before the task was done."""


class TaskFailed(PoolError):
    """A task has no output, for another reason than an exception of its op."""


class Cancelled(TaskFailed):
    """The task was cancelled."""


class Unpicklable(TaskFailed):
    """The task or its output cannot be pickled or unpickled."""


class WorkerDied(TaskFailed):
    """The worker process ended while it ran the task: it crashed, called `os._exit`, or was killed."""

    worker: int
    """The index of the worker."""
    pid: int
    """Its process id."""
    cause: str
    """How the process ended."""
    signal: int | None
    """The number of the signal that has killed it."""
    exitcode: int | None
    """Its exit status, if it has exited."""
    deaths: int
    """How many workers the task has killed: more than 1 only with `retries`."""
    last_logs: list[str]
    """The last log records of the process, oldest first."""
    last_printed: list[str]
    """The last lines that the process printed, if its output is captured."""


class TimedOut(TaskFailed):
    """The task ran longer than its deadline, and its worker was killed."""

    worker: int
    """The index of the worker."""
    pid: int
    """Its process id."""
    deadline: float
    """The deadline in seconds."""
    stack: str | None
    """The Python stacks of the worker's threads at the deadline, the most recent call first."""
    deaths: int
    """How many workers the task has killed: more than 1 only with `retries`."""
    last_logs: list[str]
    """The last log records of the process, oldest first."""
    last_printed: list[str]
    """The last lines that the process printed, if its output is captured."""


class JournalError(PoolError):
    """A journal cannot be opened or used. The message has the path and the remedy."""


class JournalInUse(JournalError):
    """Another process, or another map, has the journal open."""

    pid: int | None
    """The id of that process, if it is known."""


class JournalDiffers(JournalError):
    """The journal is of another job."""

    what: str
    """What differs: the op, the model, the seed."""
    stored: str
    """Its description in the journal."""
    current: str
    """Its description now."""


class TasksDiffer(JournalError):
    """The input has other tasks than that of the run which wrote the journal."""

    first: int
    """The first task that differs; of small outputs, the first of up to 128 tasks that share a hash."""
    last: int
    """The last task with the same hash."""
    stored: int | None
    """The hash in the journal; None if the input has ended."""
    found: int | None
    """The hash of the input's tasks."""


class JournalDamaged(JournalError):
    """Bytes of the journal have changed since they were written. `Journal.salvage` copies what is intact."""

    offset: int
    """The position of the first damaged block."""


class JournalWriteFailed(JournalError):
    """The journal could not be written, for example because the disk is full. The outputs before that are in it."""

    errno: int | None
    """The number of the system's error."""


class RemoteError(Exception):
    """Stands for an exception of an op that could not be pickled or unpickled. The message has its type and text."""


def _rebuild(kind: type[PoolError], args: tuple[Any, ...], fields: dict[str, Any]) -> PoolError:
    return kind(*args, **fields)


_KINDS: dict[str, type[PoolError]] = {
    kind.__name__: kind
    for kind in (
        PoolError,
        StartFailed,
        PoolClosed,
        PoolForked,
        PoolInterrupted,
        TaskFailed,
        Cancelled,
        Unpicklable,
        WorkerDied,
        TimedOut,
        JournalError,
        JournalInUse,
        JournalDiffers,
        TasksDiffer,
        JournalDamaged,
        JournalWriteFailed,
    )
}


def make(kind: str, message: str, fields: dict[str, Any]) -> PoolError:
    """Makes the exception with this class name. Called by the extension module."""
    return _KINDS[kind](message, **fields)

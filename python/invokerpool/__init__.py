"""Runs millions of small tasks in worker processes that share one large model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._core import __version__ as __version__
    from ._doctor import Diagnosis as Diagnosis
    from ._doctor import doctor as doctor
    from ._errors import Cancelled as Cancelled
    from ._errors import JournalDamaged as JournalDamaged
    from ._errors import JournalDiffers as JournalDiffers
    from ._errors import JournalError as JournalError
    from ._errors import JournalInUse as JournalInUse
    from ._errors import JournalWriteFailed as JournalWriteFailed
    from ._errors import PoolClosed as PoolClosed
    from ._errors import PoolError as PoolError
    from ._errors import PoolForked as PoolForked
    from ._errors import PoolInterrupted as PoolInterrupted
    from ._errors import RemoteError as RemoteError
    from ._errors import StartFailed as StartFailed
    from ._errors import TaskFailed as TaskFailed
    from ._errors import TasksDiffer as TasksDiffer
    from ._errors import TimedOut as TimedOut
    from ._errors import Unpicklable as Unpicklable
    from ._errors import WorkerDied as WorkerDied
    from ._executor import BrokenPool as BrokenPool
    from ._executor import Executor as Executor
    from ._futures import TaskFuture as TaskFuture
    from ._image import Image as Image
    from ._image import empty as empty
    from ._image import load as load
    from ._image import share as share
    from ._journal import Journal as Journal
    from ._journal import Salvaged as Salvaged
    from ._logs import Logs as Logs
    from ._pool import Pool as Pool
    from ._pool import run_isolated as run_isolated
    from ._report import JournalCounts as JournalCounts
    from ._report import Report as Report
    from ._settings import Setting as Setting
    from ._settings import Settings as Settings
    from ._worker import Worker as Worker
    from ._worker import step as step
    from ._worker import worker as worker

# Each name is imported when it is used first: a worker imports this package before anything else, and needs few of them.
_NAMES = {
    "BrokenPool": "_executor",
    "Executor": "_executor",
    "TaskFuture": "_futures",
    "Cancelled": "_errors",
    "Image": "_image",
    "Journal": "_journal",
    "JournalDamaged": "_errors",
    "JournalDiffers": "_errors",
    "JournalError": "_errors",
    "JournalInUse": "_errors",
    "JournalWriteFailed": "_errors",
    "TasksDiffer": "_errors",
    "JournalCounts": "_report",
    "Logs": "_logs",
    "Salvaged": "_journal",
    "Diagnosis": "_doctor",
    "Pool": "_pool",
    "Report": "_report",
    "Setting": "_settings",
    "Settings": "_settings",
    "doctor": "_doctor",
    "empty": "_image",
    "run_isolated": "_pool",
    "PoolClosed": "_errors",
    "PoolError": "_errors",
    "PoolForked": "_errors",
    "PoolInterrupted": "_errors",
    "RemoteError": "_errors",
    "StartFailed": "_errors",
    "TaskFailed": "_errors",
    "TimedOut": "_errors",
    "Unpicklable": "_errors",
    "Worker": "_worker",
    "WorkerDied": "_errors",
    "__version__": "_core",
    "load": "_image",
    "share": "_image",
    "step": "_worker",
    "worker": "_worker",
}

__all__ = [name for name in _NAMES if name != "__version__"]


def __getattr__(name: str) -> Any:
    module = _NAMES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f".{module}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_NAMES])

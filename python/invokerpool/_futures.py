"""Tasks that are submitted one by one."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from . import _core
from ._errors import PoolClosed

T = TypeVar("T")


class TaskFuture(Future[T], Generic[T]):
    """A `concurrent.futures.Future` of a task of a pool."""

    _withdraw: Callable[[], bool] | None = None
    _kill: Callable[[], bool] | None = None
    _running: Callable[[], bool] | None = None

    @classmethod
    def of(cls, other: Future[T]) -> TaskFuture[T]:
        """Returns a future that ends as another one does."""
        future = cls()

        def copy(done: Future[T]) -> None:
            if done.cancelled():
                Future.cancel(future)
                future.set_running_or_notify_cancel()
            elif (error := done.exception()) is not None:
                future.set_exception(error)
            else:
                future.set_result(done.result())

        future._withdraw = other.cancel
        future._running = other.running
        other.add_done_callback(copy)
        return future

    def running(self) -> bool:
        """Returns whether a worker has started the task, and it has not ended. A task that waits in a worker's queue does not run."""
        if self.done() or self._running is None:
            return False
        return self._running() and not self.done()

    def cancel(self) -> bool:
        """Withdraws the task if no worker has started it. Returns whether it is cancelled."""
        return self._cancel(self._withdraw)

    def kill(self) -> bool:
        """Cancels the task. If a worker has started it, that worker is killed and replaced; no other task is lost."""
        return self._cancel(self._kill)

    def _cancel(self, withdraw: Callable[[], bool] | None) -> bool:
        if self.done():
            return self.cancelled()
        if withdraw is None or not withdraw():
            return self.cancelled()
        if self.cancelled():
            return True
        super().cancel()
        # Wakes who waits for several futures.
        self.set_running_or_notify_cancel()
        return True


class Submitter:
    """Makes futures of a pool's tasks."""

    def __init__(self, core: _core.CorePool) -> None:
        self._core = core
        self._completions: _core.Completions | None = None
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._idle = threading.Condition(self._lock)
        self._pending: dict[int, TaskFuture[Any]] = {}

    def submit(self, task: Any, future: TaskFuture[Any]) -> None:
        """Submits a task. An exception of pickling it becomes that of the future."""
        try:
            handle = self._core.submit(task)
        except PoolClosed:
            raise
        except Exception as error:
            future.set_exception(error)
            return
        with self._lock:
            if self._completions is None:
                self._completions = _core.Completions()
            completions = self._completions
            number = next(self._numbers)
            self._pending[number] = future
        future._withdraw = lambda: self._withdrawn(completions, number, False)
        future._kill = lambda: self._withdrawn(completions, number, True)
        future._running = lambda: completions.is_running(number)

        def done(value: Any, error: BaseException | None) -> None:
            self._forget(number)
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(error)

        completions.add(number, handle, done)

    def _withdrawn(self, completions: _core.Completions, number: int, kill: bool) -> bool:
        withdrawn = completions.cancel(number, kill)
        if withdrawn:
            self._forget(number)
        return withdrawn

    def _forget(self, number: int) -> None:
        with self._lock:
            self._pending.pop(number, None)
            if not self._pending:
                self._idle.notify_all()

    def wait_idle(self) -> None:
        """Waits until no task is pending."""
        with self._lock:
            while self._pending:
                self._idle.wait()

    def cancel_pending(self) -> None:
        """Cancels the tasks that no worker has started."""
        with self._lock:
            pending = list(self._pending.values())
        # From the last one on: the first may start at any moment.
        for future in reversed(pending):
            future.cancel()

    def stop(self, *, complete: bool = True) -> None:
        """Ends the thread that completes futures. Those that are pending get the exception of a closed pool, or stay pending."""
        completions = self._completions
        if completions is not None:
            completions.stop(complete)

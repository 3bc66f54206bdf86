"""A pool's op in threads of this process, or in the calling thread: for debuggers, and for interpreters without a global lock."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

from ._errors import PoolClosed
from ._progress import Report


class ThreadCore:
    """What a pool of processes has in the extension module, in threads. Nothing is copied, and nothing isolated."""

    def __init__(self, op: Callable[..., Any], first: list[Any], state: Callable[..., Any] | None, workers: int, inline: bool) -> None:
        self._op, self._first, self._state = op, first, state
        self._local = threading.local()
        self._inline = inline
        self._workers = workers
        self._threads = None if inline else ThreadPoolExecutor(workers, thread_name_prefix="invokerpool")
        self._open = True
        self._counts = {"submitted": 0, "answered": 0}

    def call(self, task: Any) -> Any:
        """Runs one task in the calling thread."""
        arguments = getattr(self._local, "arguments", None)
        if arguments is None:
            arguments = list(self._first)
            if self._state is not None:
                arguments.append(self._state(*self._first))
            self._local.arguments = arguments
        return self._op(*arguments, task)

    def start(self, task: Any) -> Future[Any]:
        """Starts one task."""
        if not self._open:
            raise PoolClosed("the pool was shut down; build another one")
        self._counts["submitted"] += 1
        if self._threads is not None:
            return self._threads.submit(self.call, task)
        future: Future[Any] = Future()
        try:
            future.set_result(self.call(task))
        except Exception as error:
            future.set_exception(error)
        return future

    def map(
        self,
        tasks: Iterator[Any],
        *,
        ordered: bool,
        return_errors: bool,
        max_in_flight: int | None = None,
        progress: Report | None = None,
        seed: int | None = None,
    ) -> Iterator[Any]:
        """Returns an iterator over the outputs."""
        if seed is not None:
            raise ValueError("`seed` needs workers of their own: the generators of this process belong to all threads")
        return _outputs(self, tasks, ordered, return_errors, max_in_flight, progress)

    def settled(self, future: Future[Any], return_errors: bool) -> Any:
        """Returns the output of a task that has ended."""
        self._counts["answered"] += 1
        error = future.exception()
        if error is None:
            return future.result()
        if return_errors:
            return error
        raise error

    def window(self, max_in_flight: int | None) -> int:
        """Returns the number of tasks that are read ahead."""
        return max(1, min(max_in_flight or 1 << 30, 1 if self._inline else 2 * self._workers))

    def shutdown(self, timeout: float) -> None:
        """Waits for the tasks that have started."""
        self._open = False
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=False)

    def kill(self) -> None:
        """Withdraws the tasks that have not started. Threads cannot be killed."""
        self._open = False
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def stats(self) -> dict[str, int]:
        """The counts of tasks."""
        zero = dict.fromkeys(("failed", "resent", "recalled", "retried", "deaths", "recycled", "spawned"), 0)
        return {**zero, **self._counts}


class _outputs(Iterator[Any]):
    def __init__(
        self,
        core: ThreadCore,
        tasks: Iterator[Any],
        ordered: bool,
        return_errors: bool,
        max_in_flight: int | None,
        progress: Report | None,
    ) -> None:
        self._core, self._tasks, self._ordered, self._return_errors = core, tasks, ordered, return_errors
        self._window = core.window(max_in_flight)
        self._running: deque[Future[Any]] = deque()
        self._more = True
        self._error: BaseException | None = None
        self._done = [0, 0]
        self._progress = progress

    def __next__(self) -> Any:
        while self._more and len(self._running) < self._window:
            try:
                self._running.append(self._core.start(next(self._tasks)))
            except StopIteration:
                self._more = False
            except Exception as error:
                self._more, self._error = False, error
        if not self._running:
            self._report(last=True)
            failure, self._error = self._error, None
            if failure is not None:
                raise failure
            raise StopIteration
        if self._ordered:
            future = self._running.popleft()
        else:
            future = next(iter(wait(self._running, return_when=FIRST_COMPLETED).done))
            self._running.remove(future)
        self._done[future.exception() is not None] += 1
        self._report(last=False)
        return self._core.settled(future, self._return_errors)

    def _report(self, last: bool) -> None:
        if self._progress is not None:
            self._progress(self._done[0], self._done[1], last, [])
            if last:
                self._progress = None

    def close(self) -> None:
        """Ends the iteration. Tasks that have not started are withdrawn."""
        self._more = False
        for future in self._running:
            future.cancel()
        self._running.clear()

"""`Executor`: `concurrent.futures` on a pool of this package."""

from __future__ import annotations

import functools
import itertools
import os
import pickle
import threading
import types
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor
from concurrent.futures import Executor as _Executor
from typing import Any, TypeVar

from . import _pickle
from ._errors import PoolClosed, PoolError
from ._futures import TaskFuture
from ._pool import Pool

T = TypeVar("T")

_executors: weakref.WeakSet[Executor] = weakref.WeakSet()


def _at_end() -> None:
    """Waits for the futures of all executors, as those of the standard library do at the end of the interpreter."""
    for executor in list(_executors):
        executor.shutdown(wait=True)


threading._register_atexit(_at_end)  # type: ignore[attr-defined]
# The futures of a forked copy never end.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_executors.clear)


class BrokenPool(BrokenExecutor, PoolError):
    """The workers of an executor could not start."""


class _Calls:
    """The op of an executor's workers: calls a pickled function."""

    def __init__(self, initializer: Callable[..., Any] | None, initargs: tuple[Any, ...]) -> None:
        self.initializer, self.initargs = initializer, initargs

    def start(self) -> dict[bytes, Any]:
        if self.initializer is not None:
            self.initializer(*self.initargs)
        return {}

    @staticmethod
    def call(known: dict[bytes, Any], task: tuple[bytes, tuple[Any, ...], dict[str, Any]]) -> Any:
        data, args, kwargs = task
        function = known.get(data)
        if function is None:
            function = pickle.loads(data)
            # Other callables may have a state, which each call gets anew.
            if isinstance(function, (types.FunctionType, types.BuiltinFunctionType)):
                if len(known) >= 64:
                    known.clear()
                known[data] = function
        return function(*args, **kwargs)


def _chunk(function: Callable[..., Any], tasks: list[tuple[Any, ...]]) -> list[Any]:
    return [function(*task) for task in tasks]


def _flat(chunks: Iterator[list[Any]]) -> Iterator[Any]:
    for chunk in chunks:
        chunk.reverse()
        while chunk:
            yield chunk.pop()


class Executor(_Executor):
    """A `concurrent.futures.Executor` whose tasks are isolated: a worker that dies costs one future.

    It takes lambdas, closures, and functions of scripts and notebooks, and needs no `__main__` guard. The options after `initargs` are
    those of `Pool`. Workers start with the first task.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        initializer: Callable[..., Any] | None = None,
        initargs: tuple[Any, ...] = (),
        **options: Any,
    ) -> None:
        if max_workers is not None and max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        self._workers: Any = "all" if max_workers is None else max_workers
        self._calls = _Calls(initializer, tuple(initargs))
        self._options = options
        self._pool: Pool | None = None
        self._broken: PoolError | None = None
        self._lock = threading.Lock()
        self._shut_down = False
        _executors.add(self)

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> TaskFuture[T]:
        """Submits `fn(*args, **kwargs)`."""
        future: TaskFuture[T] = TaskFuture()
        try:
            data = _pickle.dumps(fn)
        except Exception as error:
            future.set_exception(error)
            return future
        with self._lock:
            if self._shut_down:
                raise RuntimeError("cannot schedule new futures after shutdown")
            pool = self._started()
            submitter = pool._submitter
            assert submitter is not None
            try:
                submitter.submit((data, args, kwargs), future)
            except PoolClosed as error:
                raise RuntimeError("cannot schedule new futures after interpreter shutdown") from error
        return future

    def _started(self) -> Pool:
        if self._broken is not None:
            raise BrokenPool(str(self._broken)) from self._broken
        if self._pool is None:
            try:
                self._pool = Pool(
                    op=_Calls.call, state=self._calls.start, workers=self._workers, executor="processes", **self._options
                )
            except PoolError as error:
                self._broken = error
                raise BrokenPool(str(error)) from error
        return self._pool

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        **more: Any,
    ) -> Iterator[T]:
        """Submits `fn` for each tuple of arguments, and returns an iterator over the results.

        As the contract wants it, the iterables are read at once. `Pool.map` reads them lazily and is faster.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if chunksize == 1:
            return super().map(fn, *iterables, timeout=timeout, **more)
        arguments = zip(*iterables)
        chunks = iter(lambda: list(itertools.islice(arguments, chunksize)), [])
        return _flat(super().map(functools.partial(_chunk, fn), chunks, timeout=timeout, **more))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Ends the workers when the futures are done. No more tasks are accepted."""
        with self._lock:
            self._shut_down = True
            pool = self._pool
        if pool is None:
            return
        if cancel_futures and pool._submitter is not None:
            pool._submitter.cancel_pending()
        if wait:
            self._finish(pool)
        else:
            threading.Thread(target=self._finish, args=(pool,), name="invokerpool shutdown").start()

    def kill(self) -> None:
        """Kills the workers. Futures that are not done fail with `PoolClosed`."""
        with self._lock:
            self._shut_down = True
            pool = self._pool
        if pool is not None:
            pool.kill()

    @staticmethod
    def _finish(pool: Pool) -> None:
        if pool._submitter is not None:
            pool._submitter.wait_idle()
        pool.shutdown()

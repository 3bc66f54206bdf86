"""The pool."""

from __future__ import annotations

import atexit
import logging
import os
import pickle
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal

from . import _core, _image, _pickle, _report, _settings
from ._futures import Submitter, TaskFuture
from ._journal import Journal, options
from ._logs import Logs, deliver, levels
from ._progress import reporter
from ._report import JournalCounts, Report
from ._threads import ThreadCore

# Workers import the extension before they know the leader's path.
_SERVE = "import sys; sys.path[:] = {path!r}; from invokerpool._core import serve; serve()"

_NO_MODEL: Any = object()

_open: weakref.WeakSet[Pool] = weakref.WeakSet()


def _close_all() -> None:
    _core.interpreter_ends()
    for pool in list(_open):
        # A daemon thread that waits for a future goes on waiting: an exception would only be printed.
        if pool._submitter is not None:
            pool._submitter.stop(complete=False)
        pool._core.kill()
        if pool._submitter is not None:
            pool._core.close_journals()


atexit.register(_close_all)


def _forget_all() -> None:
    _open.clear()
    _lazy_pools.clear()


# A forked copy of a pool does nothing.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)


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


def _authkey() -> bytes | None:
    """The key with which workers reach the managers of `multiprocessing` in this process; None if it has none."""
    if "multiprocessing.managers" not in sys.modules:
        return None
    from multiprocessing.process import current_process

    return bytes(current_process().authkey)


def _program() -> tuple[str, list[str]]:
    """Returns the program of workers and its arguments."""
    program = sys.executable
    if not program:
        raise RuntimeError("sys.executable is empty, so there is no program for workers; set it to the path of a Python")
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    return program, [*flags, "-c", _SERVE.format(path=sys.path)]


class Pool:
    """Worker processes that run `op(model, task)` and share one copy of the model.

    >>> import invokerpool as ip
    >>> with ip.Pool({"scale": 2.0}, lambda model, n: model["scale"] * n, workers=2) as pool:
    ...     list(pool.map(range(4)))
    [0.0, 2.0, 4.0, 6.0]

    - `model` is any object that can be pickled, or an `Image`. Its large NumPy arrays lie once in memory that all workers map. Workers may
      write them, and a page that is written becomes the worker's own; with `writable=False` they are read-only. Without a model
      (`Pool(op=op)`), the op is called as `op(task)`.
    - `op` is any function, also a lambda, a closure, or one of a script or notebook. No `__main__` guard is needed.
    - `state` is called once in each worker, with the model if there is one. The op then is called as `op(model, state, task)`.
    - `workers` is a number, or "all" for one for each usable core.
    - `deadline` is the longest time of a task in seconds. A task that runs longer fails with `TimedOut`, and its worker is replaced.
    - `retries` is how often a task is tried again after its worker has died or its deadline has passed.
    - `recycle_after` tasks, or above `recycle_above` bytes of private memory, a worker is replaced. Above `memory_limit` it is killed,
      and its task fails with `WorkerDied`. Sizes are numbers, or text such as "2GiB". (Linux)
    - `seed` seeds `random` and `numpy.random` before each task of a map, by the root and the position of the task: outputs do not
      depend on the number of workers.
    - `threads` is for the numeric libraries of each worker: "share" of the cores, a number, or "unlimited".
    - `logs` is how log records travel to this process's `logging`; None keeps them in the workers.
    - `stdout` and `stderr` of workers are inherited, or "null", or "capture": the last lines then are in the error of a task whose worker
      dies.
    - `executor` is "processes", or "threads" or "inline" to run the op in this process: nothing is isolated then. That is for debuggers,
      and for interpreters without a global lock.

    The environment variables `INVOKER_WORKERS`, `INVOKER_EXECUTOR` and `INVOKER_PROGRESS` apply where code sets nothing.
    """

    def __init__(
        self,
        model: Any = _NO_MODEL,
        op: Callable[..., Any] | None = None,
        *,
        state: Callable[..., Any] | None = None,
        workers: int | Literal["all"] | None = None,
        executor: Literal["processes", "threads", "inline"] | None = None,
        writable: bool = True,
        deadline: float | None = None,
        retries: int = 0,
        recycle_after: int | None = None,
        recycle_above: int | str | None = None,
        memory_limit: int | str | None = None,
        max_output: int | str | None = None,
        seed: int | None = None,
        threads: int | Literal["share", "unlimited"] = "share",
        env: dict[str, str | None] | None = None,
        logs: Logs | None = Logs(),
        start_timeout: float = 60.0,
        stdout: Literal["inherit", "null", "capture"] = "inherit",
        stderr: Literal["inherit", "null", "capture"] = "inherit",
    ) -> None:
        if op is None:
            raise TypeError("a pool needs an op: Pool(model, op), or Pool(op=op) without a model")
        given = {
            "executor": executor,
            "workers": workers,
            "writable": writable,
            "deadline": deadline,
            "retries": retries,
            "recycle_after": recycle_after,
            "recycle_above": _bytes(recycle_above, "recycle_above"),
            "memory_limit": _bytes(memory_limit, "memory_limit"),
            "max_output": _bytes(max_output, "max_output"),
            "seed": seed,
            "threads": threads,
            "start_timeout": start_timeout,
            "stdout": stdout,
            "stderr": stderr,
        }
        defaults = dict.fromkeys(given) | {
            "writable": True,
            "retries": 0,
            "threads": "share",
            "start_timeout": 60.0,
            "stdout": "inherit",
            "stderr": "inherit",
        }
        self.settings = _settings.resolve(dict(given), defaults)
        """The effective settings, with the origin of each."""
        begin = time.monotonic()
        has_model = model is not _NO_MODEL
        self._image: _image.Image | None = None
        self._submitter: Submitter | None = None
        self._closed = False
        self._code = (op, state)
        self._fingerprint: str | None = None
        self._core: Any
        if self.settings.executor != "processes":
            limits = ("deadline", "recycle_after", "recycle_above", "memory_limit")
            for name in limits:
                if given[name] is not None:
                    raise ValueError(f'{name} needs processes; leave it out, or use executor="processes"')
            if isinstance(model, _image.Image):
                model = model.unpickle()
            count = self.settings.workers
            count = _core.machine()["cores"] if count == "all" else count
            inline = self.settings.executor == "inline"
            self._core = ThreadCore(op, [model] if has_model else [], state, count, inline)
        else:
            if has_model:
                self._image = model if isinstance(model, _image.Image) else _image.share(model)
            program, arguments = _program()
            variables = {_settings.LEVEL: str(_settings.level() + 1), **(env or {})}
            options = given | {
                "program": program,
                "arguments": arguments,
                "workers": str(self.settings.workers),
                "threads": str(threads),
                "env": list(variables.items()),
                "start_timeout": float(start_timeout),
                "log_ring": _bytes((logs or Logs()).ring, "logs.ring"),
            }
            image = self._image
            settings = {
                "beside": [[tuple(array) for array in it.arrays] for it in image._beside] if image else [],
                "path": list(sys.path),
                "argv": list(sys.argv),
                "writable": writable,
                "deadline": deadline,
                "code": _pickle.dumps((op, state)),
                "levels": None if logs is None else _levels(logs),
                "authkey": _authkey(),
            }
            segments = [it.segment for it in image._beside] if image else []
            core = _core.CorePool(options, settings, image._core if image else None, segments, deliver)
            self._core = core
            self._submitter = Submitter(core)
        self._began, self._ready = begin, time.monotonic()
        _open.add(self)

    def map(
        self,
        tasks: Iterable[Any],
        *,
        errors: Literal["raise", "return"] = "raise",
        progress: str | bool | None = None,
        max_in_flight: int | None = None,
        journal: Journal | str | os.PathLike[str] | None = None,
    ) -> Iterator[Any]:
        """Returns an iterator over the outputs, in the order of the tasks.

        Tasks are read as workers have room for them, so `tasks` may be infinite. An exception of the op is raised where its output would
        come, and the iteration can go on after it; with `errors="return"` it is the output. `progress` is the label of a progress bar.
        `max_in_flight` bounds the tasks that were read and whose outputs were not returned.

        `journal` is the path of a file with the outputs, or a `Journal`. If the same map is started again, after this process has ended in
        any way, the outputs in the file are returned, in their places, and only the other tasks run.

        >>> import invokerpool as ip
        >>> with ip.Pool(op=lambda n: 10 // n, workers=1) as pool:
        ...     list(pool.map([5, 0, 2], errors="return"))
        [2, ZeroDivisionError('integer division or modulo by zero'), 5]
        """
        return self._map(tasks, True, errors, progress, max_in_flight, journal)

    def map_unordered(
        self,
        tasks: Iterable[Any],
        *,
        errors: Literal["raise", "return"] = "raise",
        progress: str | bool | None = None,
        max_in_flight: int | None = None,
        journal: Journal | str | os.PathLike[str] | None = None,
    ) -> Iterator[Any]:
        """Does the same as `map`, but returns outputs as they complete."""
        return self._map(tasks, False, errors, progress, max_in_flight, journal)

    def _map(
        self,
        tasks: Iterable[Any],
        ordered: bool,
        errors: str,
        progress: str | bool | None,
        max_in_flight: int | None,
        journal: Journal | str | os.PathLike[str] | None,
    ) -> Iterator[Any]:
        if errors not in ("raise", "return"):
            raise ValueError(f'errors={errors!r} is unknown; use "raise" or "return"')
        more = {}
        if journal is not None:
            self._processes("journal")
            is_named = isinstance(journal, Journal) and journal.model is not None
            model = "named" if is_named else self._model_fingerprint()
            more["journal"] = options(journal, self._code, model, self.settings.seed)
        report = reporter(progress, tasks, self.settings.progress)
        outputs: Iterator[Any] = self._core.map(
            iter(tasks),
            **more,
            ordered=ordered,
            return_errors=errors == "return",
            max_in_flight=max_in_flight,
            progress=report,
            seed=self.settings.seed,
        )
        return outputs

    def _model_fingerprint(self) -> str:
        """A hash of the model's contents, which is computed once."""
        if self._fingerprint is None:
            self._fingerprint = "none" if self._image is None else self._image._fingerprint()
        return self._fingerprint

    def submit(self, task: Any) -> TaskFuture[Any]:
        """Submits one task, and returns its future: of `concurrent.futures`, with `kill`. `asyncio.wrap_future` awaits it."""
        if self._submitter is None:
            return TaskFuture.of(self._core.start(task))
        future: TaskFuture[Any] = TaskFuture()
        self._submitter.submit(task, future)
        return future

    def resize(self, workers: int | Literal["all"]) -> None:
        """Changes the number of workers, also while maps run. No task is lost."""
        self._processes("resize").resize(str(workers))

    def interrupt(self, how: Literal["finish", "cancel", "kill"] = "cancel") -> None:
        """Ends the maps of this pool early, from any thread: they take no more tasks. "cancel" also withdraws the tasks that no worker has
        started, and "kill" those that run; these fail with `PoolInterrupted`. The pool runs no tasks afterwards."""
        self._processes("interrupt").interrupt(how)

    @property
    def workers(self) -> int:
        """The number of workers."""
        count: int = self._processes("workers").workers()
        return count

    @property
    def pids(self) -> list[int]:
        """The process ids of the workers that are alive."""
        return [pid for _, pid in self._processes("pids").pids()]

    def log_counts(self) -> dict[str, Any]:
        """What became of the workers' log records: `emitted`, `delivered` and `dropped`, each for debug, info, warning and error."""
        counts: dict[str, Any] = self._processes("log_counts").log_counts()
        return counts

    def snapshot(self) -> str:
        """What the workers are doing now, as text."""
        return str(self._processes("snapshot").snapshot())

    def _processes(self, name: str) -> Any:
        if self._submitter is None:
            here = self.settings.executor
            raise ValueError(f'{name} needs workers that are processes, and this pool has executor="{here}"; use executor="processes"')
        return self._core

    def report(self) -> Report:
        """What the pool has done so far. After the end of the pool, only log records are known."""
        isolated = self._submitter is not None
        return Report(
            tasks=self._core.stats(),
            seconds=time.monotonic() - self._ready,
            start_seconds=self._ready - self._began,
            model_bytes=self._image.nbytes if self._image else 0,
            adopted_bytes=self._image.adopted if self._image else 0,
            memory=self._core.memory() if isolated else [],
            pages=_report.pages(self._core.pids()) if isolated else [],
            logs=self._core.log_counts() if isolated else {},
            settings=self.settings,
            journal=self._journal_counts(),
        )

    def _journal_counts(self) -> JournalCounts | None:
        counts = self._core.journal_counts() if self._submitter is not None else None
        return None if counts is None else JournalCounts(**counts)

    def shutdown(self, timeout: float = 60.0) -> None:
        """Lets the workers finish what was submitted, and ends them; after `timeout` seconds they are killed."""
        self._closed = True
        self._core.shutdown(timeout)
        if self._submitter is not None:
            self._submitter.stop()

    def kill(self) -> None:
        """Kills the workers. Tasks that were not done fail with `PoolClosed`."""
        self._closed = True
        self._core.kill()
        if self._submitter is not None:
            self._submitter.stop()

    @classmethod
    def lazy(cls, model: Any = _NO_MODEL, op: Callable[..., Any] | None = None, **options: Any) -> Pool:
        """Returns a pool that starts when it is used first, in each process to which it is sent: on the nodes of a cluster.

        The model is an image of a file that all nodes see. A process starts one pool for all tasks that bring it.

        >>> import pickle
        >>> import invokerpool as ip
        >>> pool = ip.Pool.lazy(op=abs, workers=1)
        >>> pickle.loads(pickle.dumps(pool)) is pool
        True
        """
        if op is None:
            raise TypeError("a pool needs an op: Pool.lazy(image, op), or Pool.lazy(op=op) without a model")
        if model is not _NO_MODEL and not isinstance(model, _image.Image):
            raise TypeError("the model of a lazy pool is an image of a file: `share(model).save(path)`, then Pool.lazy(load(path), op)")
        options["op"] = op
        return _here(_pickle.dumps((None if model is _NO_MODEL else model, options)))

    def __reduce__(self) -> Any:
        data = self.__dict__.get("_lazy")
        if data is None:
            raise pickle.PicklingError("a pool that runs cannot be pickled; send `Pool.lazy(load(path), op)` to other processes")
        return _here, (data,)

    if not TYPE_CHECKING:

        def __getattr__(self, name):
            # Only a lazy pool lacks attributes: they come when it is built.
            data = self.__dict__.get("_lazy")
            if data is not None and not name.startswith("__"):
                with _lazy_lock:
                    if "_core" not in self.__dict__:
                        image, options = _pickle.loads(data)
                        self.__init__(_NO_MODEL if image is None else image, **options)
                if name in self.__dict__:
                    return self.__dict__[name]
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if kind is None:
            self.shutdown()
        else:
            self.kill()


_lazy_lock = threading.RLock()
_lazy_pools: dict[bytes, Pool] = {}


def _here(data: bytes) -> Pool:
    """Returns this process's lazy pool of a pickle."""
    with _lazy_lock:
        pool = _lazy_pools.get(data)
        if pool is None or pool.__dict__.get("_closed"):
            pool = _lazy_pools[data] = object.__new__(Pool)
            pool.__dict__["_lazy"] = data
        return pool


def run_isolated(function: Callable[..., Any], /, *args: Any, deadline: float | None = None, **kwargs: Any) -> Any:
    """Calls a function in a process of its own, and returns what it returns. A crash is the exception `WorkerDied`.

    >>> import invokerpool as ip
    >>> ip.run_isolated(pow, 2, 10)
    1024
    """
    with Pool(op=lambda call: call[0](*call[1], **call[2]), workers=1, deadline=deadline) as pool:
        (output,) = pool.map([(function, args, kwargs)])
        return output

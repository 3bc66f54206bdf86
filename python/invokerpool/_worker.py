"""What a worker does before its first task, and at its end. Called by the extension module."""

from __future__ import annotations

import atexit
import faulthandler
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Worker:
    """The worker in which the caller runs."""

    index: int
    """Its position in the pool, from 0. A replacement has the same."""
    count: int
    """The number of workers."""
    generation: int
    """How many processes this worker had before."""


_here: Worker | None = None
_steps: Any = None


def worker() -> Worker | None:
    """Returns the worker in which the caller runs; None in the leader."""
    return _here


def step(done: float, total: float) -> None:
    """Tells how much of the running task is done: `done` of `total`, in any unit. The bar of the map moves by that part of the task.

    It costs a fraction of a microsecond, and has no effect outside of a worker process.

    >>> import invokerpool as ip
    >>> def train(epochs):
    ...     for epoch in range(epochs):
    ...         ip.step(epoch, epochs)
    ...     return epochs
    >>> with ip.Pool(op=train, workers=1) as pool:
    ...     list(pool.map([3]))
    [3]
    """
    if _steps is not None and total > 0:
        _steps.set(done / total)


Start = tuple[Callable[..., Any], list[Any], Callable[[], None], Callable[[int], None], tuple[float, int, int] | None]


def start(settings: dict[str, Any], identity: tuple[int, int, int], sink: Any, steps: Any) -> Start:
    """Returns the op, what it is called with before each task, what is called at the end, what seeds a task, and what shows stacks."""
    global _here, _steps
    _here, _steps = Worker(*identity), steps
    sys.path[:] = settings["path"]
    sys.argv[:] = settings["argv"]
    # Ctrl-C is the leader's; an op that interrupts itself gets Python's exception.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if not faulthandler.is_enabled():
        faulthandler.enable()
    if settings["authkey"] is not None:
        from multiprocessing.process import current_process

        current_process().authkey = settings["authkey"]
    from . import _core, _image, _pickle

    if sink is not None and settings["levels"] is not None:
        from . import _logs

        _logs.install(sink, settings["levels"])

    op, make_state = _pickle.loads(settings["code"])
    first = []
    if (handle := settings["image"]) is not None:
        segments = [_core.CoreSegment.attach(handle) for handle in settings["segments"]]
        arrays = [[_image._Array(*array) for array in arrays] for arrays in settings["beside"]]
        beside = [_image._Beside(*it) for it in zip(segments, arrays)]
        image = _image.Image(_core.CoreImage.attach(handle), beside)
        imported = [0]
        before = _private_bytes()
        first.append(image.unpickle(writable=settings["writable"], loads=lambda *args: _loads(imported, *args)))
        _tell_copies(_private_bytes() - before - imported[0], image.nbytes)
    if make_state is not None:
        first.append(make_state(*first))
    return op, first, finish, set_seed, _stacks(settings["deadline"])


def _stacks(deadline: float | None) -> tuple[float, int, int] | None:
    """Prepares what shows the stacks at a deadline: its seconds, a file in memory, and the signal that makes them appear there."""
    if deadline is None or sys.platform != "linux":
        return None
    file = os.memfd_create("invokerpool stacks")
    number = signal.SIGRTMAX - 6
    faulthandler.register(number, file=file, all_threads=True)
    return deadline, file, number


def _loads(imported: list[int], data: bytes, buffers: Any) -> Any:
    """Unpickles a model, and adds the private memory of the modules that it imports to `imported`."""
    import io
    import pickle

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if module in sys.modules:
                return super().find_class(module, name)
            before = _private_bytes()
            found = super().find_class(module, name)
            imported[0] += _private_bytes() - before
            return found

    return Unpickler(io.BytesIO(data), buffers=buffers).load()


def _private_bytes() -> int:
    """The private memory of this process, as far as the system reports it."""
    try:
        with open("/proc/self/status") as status:
            for line in status:
                if line.startswith("RssAnon:"):
                    return int(line.split()[1]) << 10
    except OSError:
        pass
    return 0


def _tell_copies(private: int, shared: int) -> None:
    """Warns if a model that was unpickled is mostly a copy of this worker's own."""
    if _here is not None and _here.index == 0 and private > max(32 << 20, shared // 4):
        import logging

        logging.getLogger("invokerpool").warning(
            "unpickling the model takes %.0f MiB of private memory in each worker; %.0f MiB are shared. Large parts that are no NumPy"
            " arrays, and types that copy or rebuild arrays when they are unpickled, are not shared; `copyreg.pickle` can change how"
            " a type is pickled.",
            private / (1 << 20),
            shared / (1 << 20),
        )


def set_seed(seed: int) -> None:
    """Seeds the global generators of a task."""
    import random

    random.seed(seed)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(seed & 0xFFFF_FFFF)


def finish() -> None:
    """Runs what the interpreter runs at its end: functions of `threading` and `atexit`, and the output that is buffered.

    As the interpreter does, it waits for the threads of executors that ops have left; it waits for no others.
    """
    threading = sys.modules.get("threading")
    # Executors that an op has left end their processes here. Otherwise `multiprocessing` waits for those forever.
    for function in reversed(getattr(threading, "_threading_atexits", [])):
        try:
            function()
        except Exception:
            sys.excepthook(*sys.exc_info())
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            pass

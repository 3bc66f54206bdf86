"""One pool of Python, 2 workers: what it does with the tasks of `cargo xtask bench peers`, told as one line of JSON.

peers.py NAME BYTES: each in a process of its own, so that nobody inherits another one's memory. A pool is a context
manager that gives a function `run(op, tasks, batch)`, an iterator over the outputs.
"""

import json
import os
import signal
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import numpy

WORKERS = 2
LONG = 0.3
GIVE_UP = 30
DONE = "done"

MODEL = None


def null(task):
    return task


def deadly(task):
    if task == 500:
        os.kill(os.getpid(), signal.SIGKILL)
    return task


def touched(model, meeting):
    """Reads a byte of every page, and waits until the memory of all has been measured."""
    total = int(model[::4096].sum(dtype=numpy.int64))
    Path(meeting, str(os.getpid())).touch()
    while not Path(meeting, DONE).exists():
        time.sleep(0.001)
    return total


def read_global(meeting):
    return touched(MODEL, meeting)


def keep(model):
    global MODEL
    MODEL = model


def executor(method):
    """ProcessPoolExecutor; its workers get the model once, when they start."""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    @contextmanager
    def pool(model=None):
        given = {} if model is None else {"initializer": keep, "initargs": (model,)}
        context = multiprocessing.get_context(method)
        with ProcessPoolExecutor(WORKERS, mp_context=context, **given) as workers:
            def run(op, tasks, batch):
                return workers.map(op, tasks, chunksize=batch)
            yield run

    return pool, lambda model: read_global


@contextmanager
def joblib_pool(model=None):
    from joblib import Parallel, delayed
    with Parallel(WORKERS, return_as="generator") as parallel:
        def run(op, tasks, batch):
            parallel.batch_size = batch
            return parallel(delayed(op)(task) for task in tasks)
        yield run


class ReadArgument:
    """joblib maps large arrays among the arguments by itself."""

    def __init__(self, model):
        self.model = model

    def __call__(self, meeting):
        return touched(self.model, meeting)


POOLS = {
    "ProcessPoolExecutor, fork": executor("fork"),
    "ProcessPoolExecutor, spawn": executor("spawn"),
    "joblib": (joblib_pool, ReadArgument),
}


def rate(run, batch):
    count = 64
    while True:
        begun = time.perf_counter()
        total = sum(run(null, range(count), batch))
        seconds = time.perf_counter() - begun
        assert total == count * (count - 1) // 2, total
        if seconds >= LONG:
            return count / seconds
        count *= 2


def memory(pid):
    def kib(path, key):
        for line in Path(f"/proc/{pid}/{path}").read_text().splitlines():
            if line.startswith(key):
                return int(line.split()[1]) * 1024
        return 0
    return kib("smaps_rollup", "Pss:"), kib("status", "VmHWM:")


def killed(pool):
    def given_up(*_):
        raise TimeoutError
    signal.signal(signal.SIGALRM, given_up)
    signal.alarm(GIVE_UP)
    begun = time.perf_counter()
    outputs, said = 0, "goes on"
    try:
        with pool() as run:
            for _ in run(deadly, range(1000), 1):
                outputs += 1
    except TimeoutError:
        said = f"hangs (given up after {GIVE_UP} s)"
    except BaseException as error:
        said = f"{type(error).__name__}, the pool is broken"
    signal.alarm(0)
    return f"{outputs} outputs, {said}", time.perf_counter() - begun


def share(pool, reader, size):
    model = numpy.ones(size, dtype=numpy.uint8)
    with tempfile.TemporaryDirectory() as meeting:
        begun = time.perf_counter()
        with pool(model) as run:
            outputs = run(reader(model), [meeting] * WORKERS, 1)
            # The workers wait to be measured: some pools end theirs as soon as there are no more tasks.
            while len(os.listdir(meeting)) < WORKERS:
                time.sleep(0.001)
            seconds = time.perf_counter() - begun
            sums = [memory(pid) for pid in [os.getpid(), *map(int, os.listdir(meeting))]]
            Path(meeting, DONE).touch()
            assert len(list(outputs)) == WORKERS
    return seconds, sum(pss for pss, _ in sums), sum(peak for _, peak in sums)


def main():
    # A pool that never ends is one that failed.
    signal.alarm(3 * GIVE_UP)
    name, size = sys.argv[1], int(sys.argv[2])
    pool, reader = POOLS[name]
    told = {}
    begun = time.perf_counter()
    with pool() as run:
        assert sum(run(null, range(2), 1)) == 1
        told["start"] = time.perf_counter() - begun
        told["batched"] = max(rate(run, batch) for batch in (256, 4096))
        told["single"] = rate(run, 1)
    if reader:
        told["share"], told["pss"], told["peak"] = share(pool, reader, size)
    # Last: whatever it leaves behind disturbs nobody.
    told["killed"], told["killed_seconds"] = killed(pool)
    print(json.dumps(told), flush=True)
    # Some pools never end after that.
    os._exit(0)


if __name__ == "__main__":
    main()

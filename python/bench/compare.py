"""Measures the package against ProcessPoolExecutor and joblib, in one run, with two workers.

    compare.py [--quick] [ROW ...]

Peers get the best of several chunk sizes; the package has none to choose. Every number is the best of three rounds, in turns.
"""

import argparse
import concurrent.futures
import multiprocessing
import os
import signal
import threading
import time

import joblib
import numpy as np
from joblib.externals.loky import get_reusable_executor

import invokerpool as ip

WORKERS = 2
CHUNKS = (1, 16, 256, 4096)


def null(task):
    return task


def small(task):
    return task, np.arange(10.0)


def large(task):
    return np.arange(100_000.0)


def ours(op):
    with ip.Pool(op=op, workers=WORKERS) as pool:
        yield "", lambda tasks: pool.map(tasks)


def spawned(op):
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(WORKERS, context) as pool:
        for chunk in CHUNKS:
            yield f"chunks of {chunk}", lambda tasks: pool.map(op, tasks, chunksize=chunk)


def loky(op):
    with joblib.Parallel(WORKERS, return_as="generator") as parallel:
        for chunk in CHUNKS:
            parallel.batch_size = chunk
            yield f"chunks of {chunk}", lambda tasks: parallel(joblib.delayed(op)(task) for task in tasks)


POOLS = {"invokerpool": ours, "ProcessPoolExecutor": spawned, "joblib": loky}
ROWS = {"null": (null, 500_000, 10_000), "10 elements": (small, 100_000, 5_000), "100,000 elements": (large, 2_000, 500)}


def best(make, op, count, few):
    """The highest rate of a pool, and its chunks."""
    found = (0.0, "")
    for label, run in make(op):
        # Small chunks are slow: fewer tasks suffice.
        number = few if label.endswith((" of 1", " of 16")) else count
        for _ in run(range(min(number, 1000))):
            pass
        for _ in range(3):
            begin = time.perf_counter()
            seen = sum(1 for _ in run(range(number)))
            assert seen == number
            found = max(found, (number / (time.perf_counter() - begin), label))
    return found


def start(make):
    """The shortest time until each worker has done a task."""
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        for _, run in make(null):
            assert list(run(range(WORKERS))) == [0, 1]
            times.append(time.perf_counter() - begin)
            break
        # Otherwise loky keeps its workers for the next time.
        get_reusable_executor().shutdown(wait=True)
    return min(times)


def interrupted():
    """The longest time from Ctrl-C to the exception, of ten, while a map waits for a task that goes on."""
    longest = 0.0
    for _ in range(10):
        sent = []

        def send():
            sent.append(time.perf_counter())
            os.kill(os.getpid(), signal.SIGINT)

        pool = ip.Pool(op=time.sleep, workers=WORKERS)
        timer = threading.Timer(0.3, send)
        timer.start()
        try:
            next(pool.map([60]))
        except KeyboardInterrupt:
            longest = max(longest, time.perf_counter() - sent[0])
        pool.kill()
    return longest


def wait(model, task):
    time.sleep(task)
    return float(model[:: 4096 // 8].sum())


def proportional(pids):
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            total += next(int(line.split()[1]) for line in file if line.startswith("Pss:"))
    return total << 10


def memory(size):
    """Bytes of workers and leader with a model, beyond those without one, as a multiple of the model."""
    pss = []
    for length in (1, size // 8):
        model = np.ones(length)
        with ip.Pool(model, wait, workers=WORKERS) as pool:
            list(pool.map([0.2] * 2 * WORKERS))
            pss.append(proportional([os.getpid(), *pool.pids]))
        del model
    return (pss[1] - pss[0]) / size


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("rows", nargs="*", help=f"of {', '.join(ROWS)}, start, interrupt, memory")
    given = parser.parse_args()
    for name, (op, count, few) in ROWS.items():
        if given.rows and name not in given.rows:
            continue
        rates = {pool: best(make, op, count // (10 if given.quick else 1), few) for pool, make in POOLS.items()}
        mine = rates["invokerpool"][0]
        for pool, (rate, chunks) in rates.items():
            print(f"{name:18} {pool:20} {rate / 1e3:10.2f} k/s  {mine / rate:6.2f}x  {chunks}", flush=True)
    if not given.rows or "start" in given.rows:
        times = {pool: start(make) for pool, make in POOLS.items()}
        for pool, seconds in times.items():
            print(f"{'start':18} {pool:20} {seconds * 1e3:10.0f} ms   {times['invokerpool'] / seconds:6.2f}x", flush=True)
    if not given.rows or "interrupt" in given.rows:
        print(f"{'interrupt':18} Ctrl-C until KeyboardInterrupt, the longest of ten: {interrupted() * 1e3:.0f} ms", flush=True)
    if not given.rows or "memory" in given.rows:
        print(f"{'memory':18} PSS beyond the interpreters, with the leader's own copy: {memory(256 << 20):.2f} of the model")


if __name__ == "__main__":
    main()

"""The work for every pool: ops of a model and a task."""

import logging
import os
import signal
import sys
import time
from pathlib import Path

import numpy

WORKERS = 2
ITEMS, FACTORS, TOP = 20_000, 64, 10
LOGGER = "flood"
DONE = "done"


def null(_, task):
    return task


def deadly(_, task):
    """Kills its worker at one of the tasks."""
    if task == 500:
        if sys.platform == "win32":
            os._exit(9)
        os.kill(os.getpid(), signal.SIGKILL)
    return task


def made(_, task):
    """Makes an array of a number of bytes, whose first element is a number."""
    size, number = task
    output = numpy.full(size // 4, 0.5, dtype=numpy.float32)
    output[0] = number
    return output


def ranged(_, task):
    """Makes an array of a number of elements, whose first element is a number."""
    elements, number = task
    return numpy.arange(number, number + elements, dtype=numpy.float64)


def echoed(_, task):
    return task


def meet(meeting):
    """Waits for all workers, so that each has one of the tasks."""
    Path(meeting, str(os.getpid())).touch()
    while len(os.listdir(meeting)) < WORKERS:
        time.sleep(0.001)


def touched(model, meeting):
    """Reads a byte of every page, and waits until the memory of all workers has been measured."""
    total = int(model[::4096].sum(dtype=numpy.int64))
    Path(meeting, str(os.getpid())).touch()
    while not Path(meeting, DONE).exists():
        time.sleep(0.001)
    return total


def flood(_, task):
    """Logs records, and returns how many seconds that took."""
    meeting, records = task
    log = logging.getLogger(LOGGER)
    log.setLevel(logging.INFO)
    meet(meeting)
    begun = time.perf_counter()
    for number in range(records):
        log.info("record %d of %d", number, records)
    return time.perf_counter() - begun


def factors(users):
    """The factors of all items, then those of the users.

    Multiples of 1/512 below 1, so that every sum of 64 products is exact in 32 bits, in whatever order it is made: all
    implementations compute the same scores. The numbers are splitmix64 of the index.
    """
    state = (numpy.arange((ITEMS + users) * FACTORS, dtype=numpy.uint64) + 1) * numpy.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> numpy.uint64(30))) * numpy.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> numpy.uint64(27))) * numpy.uint64(0x94D049BB133111EB)
    state ^= state >> numpy.uint64(31)
    values = (state >> numpy.uint64(54)).astype(numpy.float32) / numpy.float32(512) - numpy.float32(1)
    return values.reshape(-1, FACTORS)


def top(model, user):
    """The best items of a user, best first, and their scores: lists, which are quicker to send than small arrays."""
    scores = model[:ITEMS] @ model[ITEMS + user]
    best = numpy.argpartition(scores, -TOP)[-TOP:]
    best = best[numpy.argsort(-scores[best])]
    return best.tolist(), scores[best].tolist()


def checksum(model, outputs):
    """A checksum of the scores and their order, the same for each order of ties. Checks the scores of the items."""
    total = 0
    for user, (best, scores) in enumerate(outputs):
        assert (model[best] @ model[ITEMS + user] == scores).all(), "a score is not its item's"
        whole = (numpy.array(scores) * (1 << 18)).astype(numpy.int64)
        total += int((whole * numpy.arange(1, TOP + 1)).sum())
    return total

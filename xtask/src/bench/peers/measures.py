"""The measures: each takes a pool's class, and reports each number as soon as it is known."""

import json
import logging
import os
import tempfile
import threading
import time
from pathlib import Path

import numpy

import tasks

LONG = 0.3
BATCHES = (64, 512, 4096)
# Sizes of payloads in bytes, and the batches that are tried for them.
PAYLOADS = {
    256: (64, 512, 4096),
    4 << 10: (1, 16, 256),
    32 << 10: (1, 4, 16),
    128 << 10: (1, 4, 16),
    1 << 20: (1, 4),
    8 << 20: (1,),
    64 << 20: (1,),
}
# Elements of arrays, and the batches that are tried for them.
ARRAYS = {10: (1, 64, 512, 4096), 100_000: (1, 4, 16)}
# The most bytes of payloads that are made before they are sent.
PREPARED = 64 << 20
# Seconds after which a pool that does nothing counts as hanging.
GIVE_UP = 20
# Seconds that a pool has to close after that.
CLOSE = 10
# Seconds without another log record after which there are no more.
QUIET = 3
# The pools' own output goes elsewhere.
OUTPUT = os.fdopen(os.dup(1), "w")


def report(**numbers):
    print(json.dumps(numbers), file=OUTPUT, flush=True)


def null(peer, _):
    begun = time.perf_counter()
    with peer(tasks.null) as pool:
        assert sum(pool.run(range(2), 1)) == 1
        report(start=time.perf_counter() - begun)
        report(batched=max(rate(pool, batch) for batch in BATCHES))
        report(single=rate(pool, 1))


def rate(pool, batch):
    count = 64
    while True:
        begun = time.perf_counter()
        total = sum(pool.run(range(count), batch))
        seconds = time.perf_counter() - begun
        assert total == count * (count - 1) // 2, total
        if seconds >= LONG:
            return count / seconds
        count *= 2


def payloads(peer, _):
    """Bytes a second of outputs, and of echoes (counted once), by the size of one."""
    for size, batches in PAYLOADS.items():
        with peer(tasks.made) as pool:
            report(**{f"outputs {size}": max(flow(pool, outputs, size, batch) for batch in batches)})
        with peer(tasks.echoed) as pool:
            report(**{f"echoes {size}": max(flow(pool, echoes, size, batch) for batch in batches)})


def arrays(peer, _):
    """Outputs a second that are arrays, by the number of elements."""
    with peer(tasks.ranged) as pool:
        for elements, batches in ARRAYS.items():
            report(**{f"arrays {elements}": max(array_rate(pool, elements, batch) for batch in batches)})


def array_rate(pool, elements, batch):
    count = max(2 * batch, 8)
    while True:
        begun = time.perf_counter()
        total = sum(int(output[0]) for output in pool.run([(elements, number) for number in range(count)], batch))
        seconds = time.perf_counter() - begun
        assert total == count * (count - 1) // 2, total
        if seconds >= LONG:
            return count / seconds
        count *= 2


def outputs(pool, size, batch, count):
    """Seconds for a number of outputs."""
    begun = time.perf_counter()
    total = sum(int(output[0]) for output in pool.run([(size, number) for number in range(count)], batch))
    assert total == count * (count - 1) // 2, total
    return time.perf_counter() - begun


def echoes(pool, size, batch, count):
    """Seconds for a number of echoes of distinct objects, which exist before."""
    work = [number.to_bytes(8, "little") + bytes(size - 8) for number in range(count)]
    begun = time.perf_counter()
    total = sum(int.from_bytes(output[:8], "little") for output in pool.run(work, batch))
    assert total == count * (count - 1) // 2, total
    return time.perf_counter() - begun


def flow(pool, run, size, batch):
    """Bytes a second, of as many payloads as take long enough, or as there is room for."""
    count = max(2 * batch, 4)
    while True:
        seconds = run(pool, size, batch, count)
        if seconds >= LONG or 2 * count * size > max(PREPARED, 8 * size):
            return count * size / seconds
        count *= 2


def share(peer, size):
    report(model=size, **shared(peer, size))


def interpreters(peer, _):
    """The memory of all processes with a model of one page."""
    report(interpreters=shared(peer, 4096).get("pss"))


def shared(peer, size):
    """The way in which a pool shares a model, the seconds until both workers have read it, and the memory of all processes."""
    # Only the pool keeps the model, and only if it has to.
    pool = peer(tasks.touched, numpy.ones(size, dtype=numpy.uint8))
    with tempfile.TemporaryDirectory() as meeting:
        found = {}
        begun = time.perf_counter()
        with pool:
            found["sharing"] = peer.sharing
            # The workers wait to be measured: some pools end theirs as soon as there are no more tasks.
            watch = threading.Thread(target=look, args=(meeting, begun, found))
            watch.start()
            totals = list(pool.everywhere([meeting] * tasks.WORKERS))
            watch.join()
    assert totals == [size // 4096] * tasks.WORKERS, totals
    return found


def look(meeting, begun, found):
    """Waits for the workers, measures the memory of all processes, and lets the workers finish."""
    while len(os.listdir(meeting)) < tasks.WORKERS:
        time.sleep(0.001)
    found["share"] = time.perf_counter() - begun
    if os.path.exists("/proc/self/smaps_rollup"):
        sums = [memory(pid) for pid in family()]
        found["pss"], found["peak"] = (sum(kind) for kind in zip(*sums))
    Path(meeting, tasks.DONE).touch()


def family():
    """This process, its descendants, and their orphans, which are children of the guard."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                # After the name, which may contain anything: state, parent.
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found, fresh = set(), {os.getppid()}
    while fresh:
        fresh = {pid for pid, parent in parents.items() if parent in fresh}
        found |= fresh
    return found


def memory(pid):
    def kib(path, key):
        for line in Path(f"/proc/{pid}/{path}").read_text().splitlines():
            if line.startswith(key):
                return int(line.split()[1]) * 1024
        return 0

    try:
        return kib("smaps_rollup", "Pss:"), kib("status", "VmHWM:")
    except OSError:
        return 0, 0


def top(peer, users):
    model = tasks.factors(users)
    report(bare=bare(model, users))
    with peer(tasks.top, model) as pool:
        # The workers have started and read the model.
        list(pool.run(range(64), 1))
        begun = time.perf_counter()
        outputs = list(pool.run(range(users), 64))
        report(top=users / (time.perf_counter() - begun))
    assert len(outputs) == users
    report(checksum=str(tasks.checksum(model, outputs)))


def bare(model, users):
    """Ops a second of this process alone."""
    user, begun = 0, time.perf_counter()
    while True:
        tasks.top(model, user % users)
        user += 1
        seconds = time.perf_counter() - begun
        if seconds >= 2 * LONG:
            return user / seconds


class Sink(logging.Handler):
    """Formats records, and writes them nowhere."""

    count = 0

    def emit(self, record):
        self.format(record)
        self.count += 1


def logs(peer, records):
    emitted = tasks.WORKERS * records
    with tempfile.TemporaryDirectory() as meeting, peer(tasks.flood, sink=Sink()) as pool:
        begun = time.perf_counter()
        slower = max(pool.everywhere([(meeting, records)] * tasks.WORKERS))
        count, last = 0, time.perf_counter()
        while count < emitted and time.perf_counter() < last + QUIET:
            now = pool.delivered()
            if now > count:
                count, last = now, time.perf_counter()
            time.sleep(0.01)
        report(logged=slower, arrived=last - begun, delivered=count, emitted=emitted)
    # A listener that is left does not matter.
    os._exit(0)


def killed(peer, _):
    outputs = errors = 0

    def finish(outcome, seconds):
        failed = f", {errors} error(s)" if errors else ""
        report(killed=f"{outputs} outputs{failed}, {outcome}", killed_seconds=seconds)

    def given_up():
        finish(f"hangs (given up after {GIVE_UP} s)", GIVE_UP)
        os._exit(0)

    alarm = threading.Timer(GIVE_UP, given_up)
    with peer(tasks.deadly) as pool:
        alarm.start()
        begun, outcome = time.perf_counter(), ""
        try:
            for output in pool.each(range(1000)):
                if isinstance(output, BaseException):
                    errors, outcome = errors + 1, type(output).__name__
                else:
                    outputs += 1
        except BaseException as error:
            outcome = type(error).__name__
        seconds = time.perf_counter() - begun
        # The next tasks show it, within the same time limit.
        try:
            goes_on = sum(pool.run(range(2), 1)) == 1
        except BaseException:
            goes_on = False
        alarm.cancel()
        finish(f"{outcome}; {'goes on' if goes_on else 'the pool is broken'}", seconds)
        # Some never close after that.
        alarm = threading.Timer(CLOSE, os._exit, [0])
        alarm.daemon = True
        alarm.start()
    report(closed=True)

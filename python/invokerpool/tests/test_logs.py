"""Log records of workers."""

import logging
import os
import sys
import time

import pytest

import invokerpool as ip


@pytest.fixture
def records():
    """The records that reach a handler of the root logger, at level DEBUG."""
    found = []

    class Keep(logging.Handler):
        def emit(self, record):
            found.append(record)

    root, handler = logging.getLogger(), Keep()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield found
    root.setLevel(level)
    root.removeHandler(handler)


def of(records, name):
    return [record for record in records if record.name == name]


def test_records_arrive_with_their_attributes(records):
    def op(task):
        log = logging.getLogger("app.op")
        log.info("task %d of %s", task, "many", extra={"user": 7, "thing": object})
        try:
            1 / 0
        except ZeroDivisionError:
            log.exception("failed")
        log.debug("details", stack_info=True)
        return os.getpid()

    with ip.Pool(op=op, workers=1) as pool:
        (pid,) = pool.map([3])
    info, error, debug = of(records, "app.op")
    assert (info.levelno, info.getMessage(), info.user) == (logging.INFO, "task 3 of many", 7)
    assert "object" in info.thing and info.worker == 0 and info.process == pid
    # cloudpickle keeps the lines of a function and not its file.
    assert info.funcName == "op" and info.lineno > 0
    assert abs(info.created - time.time()) < 60
    assert error.levelno == logging.ERROR and "ZeroDivisionError" in error.exc_text
    assert "ZeroDivisionError" in logging.Formatter("%(message)s").format(error)
    assert "Stack" in debug.stack_info


def test_levels_of_the_leader_apply_in_workers(records):
    logging.getLogger("quiet").setLevel(logging.ERROR)

    def op(task):
        logging.getLogger("quiet").warning("no")
        logging.getLogger("quiet").error("yes")
        logging.getLogger("other").debug("no")
        logging.getLogger("other").info("yes")

    with ip.Pool(op=op, workers=1, logs=ip.Logs(level="INFO")) as pool:
        list(pool.map([1]))
        counts = pool.log_counts()
    assert [r.getMessage() for r in of(records, "quiet") + of(records, "other")] == ["yes", "yes"]
    assert sum(counts["emitted"]) == 2


def test_the_last_records_are_in_the_error(records):
    def op(task):
        logging.warning("about to fail at %s", task)
        os._exit(1)

    with ip.Pool(op=op, workers=1) as pool:
        (error,) = pool.map([5], errors="return")
    assert error.last_logs == ["WARNING root: about to fail at 5"]
    assert [record.getMessage() for record in of(records, "root")] == ["about to fail at 5"]


def test_every_record_is_delivered_or_counted(records):
    per_worker, every = 20_000, 1_000

    def op(task):
        for n in range(per_worker):
            if n % every == 0:
                logging.warning("warning %d", n)
            else:
                logging.info("record %d", n)

    with ip.Pool(op=op, workers=2) as pool:
        list(pool.map([1, 2]))
    counts = pool.log_counts()
    debug, info, warning, error = zip(counts["emitted"], counts["delivered"], counts["dropped"])
    assert (debug, error) == ((0, 0, 0), (0, 0, 0))
    assert warning == (2 * per_worker // every, 2 * per_worker // every, 0)
    assert info[0] == 2 * per_worker - warning[0] == info[1] + info[2]
    assert counts["waiting"] == 0
    assert len(of(records, "root")) == info[1] + warning[1]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_flood_is_counted_and_its_memory_bounded():
    per_worker, every, seen = 100_000, 1_000, [0, 0]

    class Count(logging.Handler):
        def emit(self, record):
            seen[record.levelno >= logging.WARNING] += 1

    def op(task):
        log = logging.getLogger("flood")
        for n in range(per_worker):
            log.log(logging.INFO if n % every else logging.WARNING, "record %d of %d", n, per_worker)

    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    log, handler = logging.getLogger("flood"), Count()
    log.propagate = False
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        with ip.Pool(op=op, workers=2) as pool:
            before = resident()
            list(pool.map([1, 2]))
            grown = resident() - before
            sizes = [resident for _, resident, _ in pool.report().memory]
    finally:
        log.removeHandler(handler)
    _, info, warning, _ = zip(*(pool.log_counts()[key] for key in ("emitted", "delivered", "dropped")))
    assert warning == (200, 200, 0) and seen[1] == 200
    assert info[0] == 2 * per_worker - 200 == info[1] + info[2] and seen[0] == info[1]
    # The records would take about 100 MiB as objects.
    assert grown < 32 << 20 and all(size < 256 << 20 for size in sizes)


def test_a_handler_that_fails_costs_its_record_only(records, capsys):
    class Broken(logging.Handler):
        def emit(self, record):
            if record.getMessage() == "1":
                raise OSError("disk full")

    handler = Broken()
    logging.getLogger("app").addHandler(handler)
    try:
        with ip.Pool(op=lambda n: logging.getLogger("app").info(n), workers=1) as pool:
            list(pool.map(range(3)))
    finally:
        logging.getLogger("app").removeHandler(handler)
    assert "disk full" in capsys.readouterr().err
    assert [record.getMessage() for record in of(records, "app")] == ["0", "2"]


def test_without_logs_workers_keep_their_own():
    with ip.Pool(op=lambda task: len(logging.getLogger().handlers), workers=1, logs=None) as pool:
        assert list(pool.map([1])) == [0]

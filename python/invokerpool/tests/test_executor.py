"""Futures of pools, and the executor."""

import asyncio
import concurrent.futures
import os
import threading
import time

import pytest

import invokerpool as ip


@pytest.fixture(scope="module")
def executor():
    with ip.Executor(2) as executor:
        yield executor


def test_submit_passes_arguments(executor):
    assert executor.submit(pow, 2, 8).result() == 256
    assert executor.submit(int, "ff", base=16).result() == 255
    assert executor.submit(lambda *a, **k: (a, k), 1, self=2, fn=3).result() == ((1,), {"self": 2, "fn": 3})


def test_map_keeps_the_order(executor):
    assert list(executor.map(pow, range(10), range(10))) == [n**n for n in range(10)]
    assert list(executor.map(lambda n: n + 1, range(1000), chunksize=64)) == list(range(1, 1001))
    with pytest.raises(ValueError):
        executor.map(abs, [1], chunksize=0)
    assert next(executor.map(divmod, [5, 1], [3, 0])) == (1, 2)
    with pytest.raises(ZeroDivisionError):
        list(executor.map(divmod, [5, 1], [3, 0]))


def test_map_times_out(executor):
    results = []
    with pytest.raises(TimeoutError):
        for result in executor.map(time.sleep, [0, 0, 5], timeout=1):
            results.append(result)
    assert results == [None, None]


def test_a_dead_worker_costs_one_future(executor):
    futures = [executor.submit(abs, -n) for n in range(10)]
    dead = executor.submit(os._exit, 7)
    later = [executor.submit(abs, -n) for n in range(10)]
    assert [future.result() for future in futures + later] == [*range(10), *range(10)]
    assert isinstance(dead.exception(), ip.WorkerDied)


def test_a_future_can_be_cancelled_before_it_runs():
    with ip.Executor(1) as executor:
        first = executor.submit(time.sleep, 0.5)
        waiting = [executor.submit(time.sleep, 0) for _ in range(50)]
        assert waiting[-1].cancel()
        assert waiting[-1].cancelled()
        assert waiting[-1].cancel()
        with pytest.raises(concurrent.futures.CancelledError):
            waiting[-1].result()
        done, pending = concurrent.futures.wait(waiting, timeout=30)
        assert len(done) == 50 and not pending
        assert first.result() is None
        assert not first.cancel()


def test_running_is_known_and_then_it_is_too_late_to_cancel(tmp_path):
    def wait(path):
        while not os.path.exists(path):
            time.sleep(0.005)
        return path

    path = str(tmp_path / "released")
    with ip.Pool(op=wait, workers=1) as pool:
        first, second = pool.submit(path), pool.submit(path)
        while not first.running():
            time.sleep(0.005)
        assert not first.cancel() and first.running() and not first.done()
        assert not second.running()
        assert second.cancel() and not second.running()
        open(path, "w").close()
        assert first.result(60) == path
        assert not first.running() and not first.cancel()
    with ip.Pool(op=abs, executor="inline") as pool:
        future = pool.submit(-1)
        assert not future.running() and future.result() == 1


def test_a_running_future_can_be_killed():
    with ip.Pool(op=time.sleep, workers=1) as pool:
        future = pool.submit(60)
        time.sleep(0.3)
        assert not future.cancel()
        assert future.kill()
        assert future.cancelled()
        assert pool.submit(0).result(30) is None


def test_as_completed_and_callbacks(executor):
    called = []
    futures = [executor.submit(time.sleep, n / 50) for n in range(5)]
    for future in futures:
        future.add_done_callback(called.append)
    assert set(concurrent.futures.as_completed(futures, timeout=30)) == set(futures)
    assert set(called) == set(futures)


def test_futures_can_be_awaited(executor):
    async def run():
        loop = asyncio.get_running_loop()
        one = asyncio.wrap_future(executor.submit(abs, -1))
        two = loop.run_in_executor(executor, abs, -2)
        return await asyncio.gather(one, two)

    assert asyncio.run(run()) == [1, 2]


def test_what_cannot_be_pickled_is_the_futures_error(executor):
    lock = threading.Lock()
    assert isinstance(executor.submit(abs, lock).exception(), TypeError)
    assert isinstance(executor.submit(lambda: lock).exception(), TypeError)


def test_shutdown_waits_for_futures():
    executor = ip.Executor(2)
    futures = [executor.submit(time.sleep, 0.05) for _ in range(10)]
    executor.shutdown()
    assert all(future.done() for future in futures)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(abs, 1)
    executor.shutdown()


def test_shutdown_without_waiting_finishes_the_futures():
    executor = ip.Executor(1)
    futures = [executor.submit(time.sleep, 0.1) for _ in range(3)]
    executor.shutdown(wait=False)
    assert not futures[-1].done()
    assert [future.result(30) for future in futures] == [None] * 3


def test_shutdown_can_cancel_futures():
    executor = ip.Executor(1)
    futures = [executor.submit(time.sleep, 0.05) for _ in range(200)]
    executor.shutdown(cancel_futures=True)
    assert all(future.done() for future in futures)
    assert futures[-1].cancelled()


def test_an_initializer_runs_once_in_each_worker():
    def initialize(value):
        os.environ["INITIALIZED"] = value

    with ip.Executor(2, initializer=initialize, initargs=("yes",)) as executor:
        assert executor.submit(os.getenv, "INITIALIZED").result() == "yes"
    assert "INITIALIZED" not in os.environ


def test_a_failing_initializer_breaks_the_executor():
    def fail():
        raise OSError("no licence")

    executor = ip.Executor(1, initializer=fail)
    for _ in range(2):
        with pytest.raises(concurrent.futures.BrokenExecutor, match="no licence"):
            executor.submit(abs, 1)
    executor.shutdown()


def test_a_killed_pool_fails_its_futures():
    pool = ip.Pool(op=time.sleep, workers=1)
    futures = [pool.submit(60) for _ in range(5)]
    pool.kill()
    for future in futures:
        assert isinstance(future.exception(30), ip.PoolError)
    with pytest.raises(ip.PoolClosed):
        pool.submit(1)

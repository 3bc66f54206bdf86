"""Pools with ordered maps: models, tasks, outputs, errors."""

import itertools
import operator
import os
import signal
import sys
import threading
import time

import numpy as np
import pytest

import invokerpool as ip


@pytest.fixture(scope="module")
def pool():
    """A pool that calls its tasks."""
    with ip.Pool(op=lambda task: task(), workers=2) as pool:
        yield pool


def one(pool, task):
    (output,) = pool.map([task])
    return output


class Model:
    def __init__(self, n=100_000):
        self.values = np.arange(n, dtype="f8")
        self.table = self.values.reshape(100, -1).T
        self.name = "model"


def marking():
    marks = [0] * 100_000

    def mark():
        while True:
            marks.append(-1)
            time.sleep(0.001)

    threading.Thread(target=mark, daemon=True).start()
    return marks


def test_threads_of_an_op_in_c_have_their_turns_while_there_are_tasks():
    # Nothing of this op is bytecode, which would give way to other threads by itself. Without turns, the thread runs once or twice.
    with ip.Pool(op=operator.countOf, state=marking, workers=1) as pool:
        seen, deadline = set(), time.monotonic() + 60
        for count in pool.map(itertools.repeat(-1)):
            seen.add(count)
            if len(seen) > 20 or time.monotonic() > deadline:
                break
        assert len(seen) > 20


def test_tasks_and_outputs_of_all_kinds_of_numbers_keep_their_types():
    numbers = [0, -1, 127, 128, -128, -129, 2**63 - 1, -(2**63), 2**63, -(2**63) - 1, 10**40, True, False, 1.5, 2.0]
    with ip.Pool(op=lambda n: n, workers=2) as pool:
        outputs = list(pool.map(numbers * 100))
    assert outputs == numbers * 100
    assert [type(output) for output in outputs] == [type(n) for n in numbers * 100]


def test_errors_among_many_outputs_come_in_their_places():
    def op(n):
        if n % 101 == 5:
            raise KeyError(n)
        return n if n % 7 else (n, "x" * (n % 50))

    def expected(n):
        return n if n % 7 else (n, "x" * (n % 50))

    with ip.Pool(op=op, workers=2) as pool:
        outputs = pool.map(range(20_000))
        for n in range(20_000):
            if n % 101 == 5:
                with pytest.raises(KeyError) as error:
                    next(outputs)
                assert error.value.args == (n,)
            else:
                assert next(outputs) == expected(n)
        assert next(outputs, None) is None


def test_outputs_come_in_order():
    with ip.Pool(Model(), lambda model, i: model.values[i] * 2, workers=2) as pool:
        assert list(pool.map(range(10_000))) == [2.0 * i for i in range(10_000)]
        assert list(pool.map([])) == []
        # A pool has any number of maps.
        assert list(pool.map([7])) == [14.0]


def test_models_are_shared_and_writes_stay_private():
    def op(model, task):
        before = float(model.values[0])
        model.values[0] = task
        assert model.table.flags.f_contiguous and model.table.shape == (1000, 100)
        base = model.values
        while getattr(base, "base", None) is not None:
            base = base.base
        return before, os.getpid(), type(base).__name__

    model = Model()
    with ip.Pool(model, op, workers=2) as pool:
        seen = list(pool.map(range(1, 101)))
    assert model.values[0] == 0
    assert {name for *_, name in seen} <= {"SharedBytes", "memoryview", "PickleBuffer"}
    by_worker = {}
    for (before, pid, _), task in zip(seen, range(1, 101)):
        assert before == by_worker.get(pid, 0)
        by_worker[pid] = task


def test_read_only_arrays_on_request():
    def write(model, task):
        model.values[0] = task

    with ip.Pool(Model(), write, workers=1, writable=False) as pool:
        with pytest.raises(ValueError, match="read-only"):
            list(pool.map([1]))


def test_pools_without_a_model_and_with_state():
    with ip.Pool(op=abs, workers=1) as pool:
        assert list(pool.map([-1, 2])) == [1, 2]

    def count(state, task):
        state.append(task)
        return len(state)

    with ip.Pool(op=count, state=list, workers=1) as pool:
        assert list(pool.map("abc")) == [1, 2, 3]
    with ip.Pool(Model(), lambda model, state, task: state + task, state=lambda model: len(model.name), workers=1) as pool:
        assert list(pool.map([1, 2])) == [6, 7]


def test_an_exception_is_raised_with_the_workers_traceback(pool):
    def failing():
        raise KeyError("lost")

    with pytest.raises(KeyError, match="lost") as caught:
        one(pool, failing)
    (note,) = caught.value.__notes__
    assert "In a worker:" in note and "in failing" in note and "KeyError" in note
    assert one(pool, lambda: 5) == 5


def test_errors_can_be_outputs(pool):
    def task(n):
        def run():
            if n % 2:
                raise ValueError(n)
            return n

        return run

    outputs = list(pool.map([task(n) for n in range(6)], errors="return"))
    assert outputs[::2] == [0, 2, 4]
    assert [(type(error), error.args) for error in outputs[1::2]] == [(ValueError, (n,)) for n in (1, 3, 5)]


def test_a_map_goes_on_after_an_error(pool):
    def fail():
        raise ValueError

    outputs = pool.map([lambda: 1, fail, lambda: 3])
    assert next(outputs) == 1
    with pytest.raises(ValueError):
        next(outputs)
    assert next(outputs) == 3
    with pytest.raises(StopIteration):
        next(outputs)


class Odd(Exception):
    def __init__(self, one, two):
        super().__init__("odd")


def test_exceptions_that_cannot_be_pickled_are_told(pool):
    class Local(Exception):
        pass

    def local():
        raise Local(lambda: None)

    error = one(pool, lambda: None) or next(pool.map([local], errors="return"))
    assert type(error).__name__ == "Local"

    def odd():
        raise Odd(1, 2)

    error = next(pool.map([odd], errors="return"))
    assert isinstance(error, ip.RemoteError) and "Odd: odd" in str(error)

    def generator():
        return (n for n in range(3))

    error = next(pool.map([generator], errors="return"))
    assert isinstance(error, TypeError)
    assert any("output of the task cannot be pickled" in note for note in error.__notes__)


def test_tasks_that_cannot_be_pickled_fail_alone(pool):
    outputs = list(pool.map([lambda: 1, (n for n in range(3)), lambda: 3], errors="return"))
    assert outputs[0] == 1 and outputs[2] == 3
    assert isinstance(outputs[1], TypeError) and "pickle" in str(outputs[1])


def test_a_killed_worker_costs_one_task(pool):
    def kill():
        os.kill(os.getpid(), signal.SIGKILL)

    outputs = list(pool.map([lambda: 1] * 500 + [kill] + [lambda: 1] * 499, errors="return"))
    assert len(outputs) == 1000
    errors = [(n, output) for n, output in enumerate(outputs) if output != 1]
    ((at, error),) = errors
    assert at == 500 and isinstance(error, ip.WorkerDied)
    assert (error.task, error.signal, error.exitcode, error.deaths) == (500, signal.SIGKILL, None, 1)
    assert "SIGKILL" in error.cause and "SIGKILL" in str(error)


def test_a_worker_that_exits_costs_one_task(pool):
    outputs = list(pool.map([lambda: 1, lambda: os._exit(3), lambda: 3], errors="return"))
    assert (outputs[0], outputs[2]) == (1, 3)
    assert isinstance(outputs[1], ip.WorkerDied) and outputs[1].exitcode == 3


def test_system_exit_is_an_error_of_the_task(pool):
    def leave():
        raise SystemExit(4)

    (error,) = pool.map([leave], errors="return")
    assert isinstance(error, SystemExit) and error.code == 4


def test_a_late_task_times_out_alone():
    def waits_long(seconds):
        time.sleep(seconds)
        return seconds

    with ip.Pool(op=waits_long, workers=2, deadline=0.5) as pool:
        outputs = list(pool.map([0, 60, 0.01, 0], errors="return"))
    assert (outputs[0], outputs[2:]) == (0, [0.01, 0])
    assert isinstance(outputs[1], ip.TimedOut)
    assert (outputs[1].task, outputs[1].deadline) == (1, 0.5)
    if sys.platform == "linux":
        assert "in waits_long" in outputs[1].stack


def test_retries_run_the_task_again(tmp_path):
    flag = tmp_path / "flag"

    def once(task):
        if not flag.exists():
            flag.touch()
            os._exit(1)
        return task

    with ip.Pool(op=once, workers=1, retries=1) as pool:
        assert list(pool.map([7])) == [7]


def test_inputs_are_read_lazily(pool):
    taken = []

    def tasks():
        n = 0
        while True:
            taken.append(n)
            yield lambda: 0
            n += 1

    outputs = pool.map(tasks(), max_in_flight=10)
    assert [next(outputs) for _ in range(100)] == [0] * 100
    assert 100 <= len(taken) <= 111
    outputs.close()
    with pytest.raises(StopIteration):
        next(outputs)


def test_an_error_of_the_input_comes_after_the_outputs_before_it(pool):
    def tasks():
        yield lambda: 1
        yield lambda: 2
        raise LookupError("no more")

    outputs = pool.map(tasks())
    assert [next(outputs), next(outputs)] == [1, 2]
    with pytest.raises(LookupError, match="no more"):
        next(outputs)
    assert list(outputs) == []


def test_an_input_cannot_ask_for_the_outputs(pool):
    def tasks():
        yield lambda: 1
        next(outputs)

    outputs = pool.map(tasks())
    with pytest.raises(ValueError, match="cannot ask"):
        list(outputs)


def test_classes_of_this_process_come_back_as_themselves(pool):
    class Local:
        def __init__(self, n):
            self.n = n

    local = one(pool, lambda: Local(3))
    assert type(local) is Local and local.n == 3


def test_large_outputs_and_tasks(pool):
    array = np.arange(1_000_000, dtype="f8")
    assert (one(pool, lambda: array * 2) == array * 2).all()
    with ip.Pool(op=lambda task: (task[::-1], task.sum()), workers=1) as sums:
        backwards, total = one(sums, array)
    assert (backwards == array[::-1]).all() and total == array.sum()


def test_a_closed_pool_refuses():
    pool = ip.Pool(op=abs, workers=1)
    outputs = pool.map([time.sleep])
    pool.shutdown()
    with pytest.raises(ip.PoolClosed):
        pool.map([1])
    with pytest.raises(Exception):
        list(outputs)
    pool.shutdown()


def test_a_worker_that_cannot_start_is_reported_with_its_traceback():
    def broken():
        raise OSError("no index here")

    with pytest.raises(ip.StartFailed, match="no index here"):
        ip.Pool(op=lambda state, task: task, state=broken, workers=1)


def test_sizes_are_parsed():
    with pytest.raises(ValueError, match="memory_limit"):
        ip.Pool(op=abs, memory_limit="many")
    with ip.Pool(op=lambda task: len(bytearray(task)), workers=1, memory_limit="300MiB") as pool:

        def hold(task):
            data = bytearray(task)
            time.sleep(5)
            return len(data)

    with ip.Pool(op=hold, workers=1, memory_limit="300MiB") as pool:
        (error,) = pool.map([600 << 20], errors="return")
        assert isinstance(error, ip.WorkerDied) and "memory" in error.cause


def test_unordered_outputs_come_as_they_complete():
    with ip.Pool(op=lambda seconds: time.sleep(seconds) or seconds, workers=2) as pool:
        assert list(pool.map_unordered([0.5, 0.0, 0.1])) == [0.0, 0.1, 0.5]


def test_a_pool_is_interrupted():
    with ip.Pool(op=time.sleep, workers=1) as pool:
        outputs = pool.map([0, 60, 60], errors="return")
        assert next(outputs) is None
        pool.interrupt("kill")
        rest = list(outputs)
        assert rest and all(isinstance(error, ip.PoolInterrupted) for error in rest)


def test_a_pool_is_resized():
    with ip.Pool(op=abs, workers=1) as pool:
        assert len(pool.pids) == 1
        pool.resize(2)
        assert list(pool.map(range(100))) == list(range(100))
        end = time.monotonic() + 30
        while len(pool.pids) < 2 and time.monotonic() < end:
            time.sleep(0.01)
        assert len(pool.pids) == 2 == pool.workers

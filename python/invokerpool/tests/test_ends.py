"""Ends of programs: Ctrl-C, forks, the interpreter's end in each phase. Nothing is left behind, and nothing hangs."""

import json
import os
import signal
import sys
import threading
import time

import pytest

import invokerpool as ip
from invokerpool.tests import programs

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

INTERRUPTED = """
import json, os, sys, threading, time
import invokerpool as ip
kind = sys.argv[1]
def say(**more):
    print(json.dumps(more), flush=True)
try:
    if kind == "start":
        say(pids=[])
        ip.Pool(op=abs, state=lambda: time.sleep(60), workers=2)
    with ip.Pool(op=time.sleep, workers=2) as pool:
        say(pids=pool.pids)
        if kind == "map":
            list(pool.map([0, 60, 60, 60]))
        elif kind == "unordered":
            list(pool.map_unordered([60, 60, 60]))
        elif kind == "input":
            def slow():
                yield 0
                time.sleep(60)
            list(pool.map(slow()))
        elif kind == "future":
            pool.submit(60).result()
except KeyboardInterrupt:
    say(threads=[t.name for t in threading.enumerate()])
"""


@linux
@pytest.mark.parametrize("kind", ["start", "map", "unordered", "input", "future"])
def test_ctrl_c_ends_a_wait_and_leaves_nothing(kind):
    before = programs.segments()
    program = programs.start(INTERRUPTED, kind)
    pids = json.loads(program.stdout.readline())["pids"]
    time.sleep(0.3)
    program.send_signal(signal.SIGINT)
    out, err = program.communicate(timeout=30)
    programs.check_clean(err)
    end = json.loads(out.splitlines()[-1])
    assert program.returncode == 0, err
    assert end["threads"] == ["MainThread"]
    assert all(programs.is_gone(pid) for pid in pids)
    assert programs.segments() == before


ENDING = """
import os, sys, threading, time
import invokerpool as ip
how, phase = sys.argv[1:]
pool = ip.Pool(op=lambda seconds: time.sleep(seconds) or seconds, workers=2)
print(*pool.pids, flush=True)
if phase == "idle":
    pass
elif phase == "map":
    outputs = pool.map([0, 60, 60])
    next(outputs)
elif phase == "future":
    future = pool.submit(60)
elif phase == "thread":
    thread = threading.Thread(target=lambda: list(pool.map([60] * 5)), daemon=True)
    thread.start()
    time.sleep(0.2)
elif phase == "waiting":
    future = pool.submit(60)
    thread = threading.Thread(target=future.result, daemon=True)
    thread.start()
    time.sleep(0.2)
elif phase == "executor":
    executor = ip.Executor(1)
    executor.submit(print, "done").result()
elif phase == "closed":
    pool.shutdown()
elif phase == "cycle":
    class Cycle: pass
    cycle = Cycle()
    cycle.pool, cycle.outputs, cycle.self = pool, pool.map([60]), cycle
    del pool
if how == "exit":
    sys.exit(0)
elif how == "raise":
    raise LookupError("the program's own")
elif how == "_exit":
    os._exit(0)
"""


@linux
@pytest.mark.parametrize("how", ["exit", "raise", "_exit"])
@pytest.mark.parametrize("phase", ["idle", "map", "future", "thread", "waiting", "executor", "closed", "cycle"])
def test_a_program_that_ends_leaves_nothing(how, phase):
    before = programs.segments()
    status, out, err = programs.run(ENDING, how, phase)
    assert status == (how == "raise"), err
    programs.check_clean(err)
    if how != "raise":
        assert err == ""
    assert all(programs.is_gone(int(pid)) for pid in out.splitlines()[0].split())
    assert programs.segments() == before


@linux
@pytest.mark.parametrize("phase", ["idle", "map", "future", "thread", "executor", "cycle"])
def test_a_killed_program_leaves_nothing(phase):
    before = programs.segments()
    program = programs.start(ENDING + 'print("there", flush=True)\ntime.sleep(60)', "none", phase)
    pids = program.stdout.readline().split()
    while program.stdout.readline() != "there\n":
        pass
    program.kill()
    program.communicate()
    assert all(programs.is_gone(int(pid)) for pid in pids)
    assert programs.segments() == before


STARTING = """
import os, sys, threading, time
import invokerpool as ip
def state():
    print(os.getpid(), flush=True)
    time.sleep(60)
how = sys.argv[1]
threading.Thread(target=lambda: ip.Pool(op=abs, state=state, workers=1), daemon=True).start()
sys.stdin.readline()
if how == "_exit":
    os._exit(0)
elif how == "raise":
    raise LookupError("the program's own")
"""


@linux
@pytest.mark.parametrize("how", ["exit", "raise", "_exit", "kill"])
def test_a_program_that_ends_while_workers_start_leaves_nothing(how):
    before = programs.segments()
    program = programs.start(STARTING, how)
    pid = int(program.stdout.readline())
    if how == "kill":
        program.kill()
    out, err = program.communicate("go on\n", timeout=60)
    programs.check_clean(err)
    assert program.returncode == {"exit": 0, "raise": 1, "_exit": 0, "kill": -9}[how], err
    assert programs.is_gone(pid)
    assert programs.segments() == before


FORKING = """
import os, sys, time
import invokerpool as ip
how, phase = sys.argv[1:]
pool = ip.Pool(op=lambda n: -n, workers=2)
if phase == "map":
    outputs = pool.map(range(1000))
    assert next(outputs) == 0
elif phase == "future":
    future = pool.submit(1)
elif phase == "executor":
    executor = ip.Executor(1)
    future = executor.submit(abs, -1)
elif phase == "closed":
    pool.shutdown()
child = os.fork()
if child == 0:
    if how == "exit":
        sys.exit(0)
    elif how == "raise":
        raise LookupError("the child's own")
    os._exit(0)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
if phase == "map":
    assert sum(outputs) == -sum(range(1000))
elif phase == "future":
    assert future.result(60) == -1
elif phase == "executor":
    assert future.result(60) == 1
if phase != "closed":
    assert list(pool.map([5])) == [-5]
print(status)
"""


@linux
@pytest.mark.parametrize("how", ["exit", "raise", "_exit"])
@pytest.mark.parametrize("phase", ["idle", "map", "future", "executor", "closed"])
def test_a_forked_child_that_ends_changes_nothing(how, phase):
    status, out, err = programs.run(FORKING, how, phase)
    programs.check_clean(err)
    assert (status, out) == (0, f"{int(how == 'raise')}\n"), err


@linux
def test_a_forked_copy_refuses_and_changes_nothing():
    with ip.Pool(op=abs, workers=2) as pool:
        outputs = pool.map(range(100_000))
        future = pool.submit(-3)
        assert next(outputs) == 0
        child = os.fork()
        if child == 0:
            status = 1
            try:
                errors = list(outputs.__class__ and pool.map([1], errors="return"))
                refused = [type(error) for error in errors] == [ip.PoolForked]
                try:
                    pool.submit(1)
                except (ip.PoolForked, RuntimeError):
                    refused = refused and True
                else:
                    refused = False
                del outputs
                pool.kill()
                del pool
                status = 0 if refused else 2
            finally:
                os._exit(status)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert sum(outputs) == sum(range(100_000))
        assert future.result(10) == 3
        assert pool.submit(-4).result(10) == 4


@linux
def test_a_forked_child_that_ends_normally_ends():
    status, out, err = programs.run(
        """
        import multiprocessing, os, sys
        import invokerpool as ip
        pool = ip.Pool(op=abs, workers=2)
        def child():
            with ip.Pool(op=abs, workers=1) as own:
                assert list(own.map([-1])) == [1]
        process = multiprocessing.get_context("fork").Process(target=child, daemon=True)
        process.start()
        process.join()
        print(process.exitcode, list(pool.map([-2])))
        """
    )
    assert (status, out) == (0, "0 [2]\n"), err
    programs.check_clean(err)


def test_a_pool_in_a_thread():
    results = []

    def run():
        with ip.Pool(op=abs, workers=1) as pool:
            results.append(list(pool.map([-1, -2])))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(60)
    assert results == [[1, 2]]


def test_threads_share_a_pool():
    with ip.Pool(op=lambda n: n * n, workers=2) as pool:
        results = {}

        def run(thread):
            results[thread] = sum(pool.map(range(thread, 2000)))

        threads = [threading.Thread(target=run, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert results == {n: sum(i * i for i in range(n, 2000)) for n in range(4)}


def test_two_threads_take_from_one_map():
    with ip.Pool(op=abs, workers=2) as pool:
        outputs = pool.map(range(20_000))
        parts = [[], []]
        threads = [threading.Thread(target=part.extend, args=(outputs,)) for part in parts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert sorted(parts[0] + parts[1]) == list(range(20_000))


@linux
def test_workers_run_their_atexit_functions(tmp_path):
    target = tmp_path / "ended"

    def op(task):
        import atexit

        atexit.register(lambda: target.write_text("yes"))

    with ip.Pool(op=op, workers=1) as pool:
        list(pool.map([1]))
    assert target.read_text() == "yes"


def terminated():
    import multiprocessing

    process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    process.start()
    process.terminate()
    process.join(20)
    return process.exitcode


@linux
def test_a_process_that_an_op_has_forked_can_be_terminated():
    with ip.Pool(op=lambda function: function(), workers=1) as pool:
        assert list(pool.map([terminated])) == [-signal.SIGTERM]

"""Settings, reports, progress, seeds, threads, and the small functions."""

import io
import os
import random
import sys
import sysconfig
import threading
import time

import numpy as np
import pytest

import invokerpool as ip
from invokerpool.tests import programs


def test_settings_have_an_origin(monkeypatch):
    monkeypatch.setenv("INVOKER_WORKERS", "2,1")
    with ip.Pool(op=abs, retries=1) as pool:
        origins = {setting.name: (setting.value, setting.origin) for setting in pool.settings}
        assert origins["workers"] == (2, "INVOKER_WORKERS")
        assert origins["retries"] == (1, "code")
        assert origins["deadline"] == (None, "default")
        assert len(pool.pids) == 2
        assert "INVOKER_WORKERS" in str(pool.settings)
    with ip.Pool(op=abs, workers=1) as pool:
        assert pool.settings.workers == 1

    def inner(task):
        with ip.Pool(op=abs) as pool:
            return pool.settings.workers, list(pool.map([task]))

    with ip.Pool(op=inner, workers=1) as pool:
        assert list(pool.map([-5])) == [(1, [5])]


def test_a_wrong_variable_is_an_error_also_if_code_overrides_it(monkeypatch):
    for name, value in [("INVOKER_WORKERS", "many"), ("INVOKER_EXECUTOR", "rockets"), ("INVOKER_PROGRESS", "loud")]:
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            with pytest.raises(ValueError, match=f"{name}='{value}'"):
                ip.Pool(op=abs, workers=1, executor="processes")


def test_a_report_has_the_counts():
    with ip.Pool(np.arange(10_000), lambda model, task: 1 // task, workers=1) as pool:
        list(pool.map([1, 0, 1], errors="return"))
        report = pool.report()
    assert report.tasks["answered"] == 3 and report.tasks["spawned"] == 1
    assert report.model_bytes > 80_000 and report.memory[0][0] == 0
    text = str(report)
    assert "3 answered" in text and "workers=1 (code)" in text
    assert "<table>" in report._repr_html_() and "3 answered" in report._repr_html_()


def test_seeds_depend_on_the_task_only():
    def draw(task):
        return random.random(), float(np.random.rand())

    def run(workers, seed):
        with ip.Pool(op=draw, workers=workers, seed=seed) as pool:
            list(pool.map(range(3)))
            return list(pool.map(range(20)))

    one = run(1, 42)
    assert len(set(one)) == 20
    assert run(2, 42) == one
    assert run(1, 43) != one


def test_progress_goes_to_tqdm(monkeypatch):
    tqdm = pytest.importorskip("tqdm.auto")
    out = io.StringIO()
    monkeypatch.setattr(tqdm, "tqdm", lambda **options: __import__("tqdm").tqdm(**options, file=out, mininterval=0))
    with ip.Pool(op=lambda n: 1 // n, workers=1) as pool:
        list(pool.map([1] * 50 + [0], progress="divide", errors="return"))
    text = out.getvalue()
    assert "divide: 100%" in text and "51/51" in text and "failed=1" in text


def test_progress_without_tqdm_is_lines():
    status, out, err = programs.run(
        """
        import os
        os.environ["INVOKER_PROGRESS"] = "lines"
        import invokerpool as ip
        with ip.Pool(op=abs, workers=1) as pool:
            list(pool.map(range(100), progress="absolute"))
        """
    )
    assert status == 0, err
    assert "absolute: 100/100" in err


@pytest.mark.parametrize("executor", ["threads", "inline"])
def test_the_same_job_runs_without_processes(executor):
    def op(model, state, task):
        return model[task], os.getpid(), len(state)

    with ip.Pool({1: "a", 2: "b"}, op, state=lambda model: [0], executor=executor, workers=2) as pool:
        assert list(pool.map([1, 2])) == [("a", os.getpid(), 1), ("b", os.getpid(), 1)]
        assert sorted(output[0] for output in pool.map_unordered([2, 1])) == ["a", "b"]
        (error,) = pool.map([3], errors="return")
        assert isinstance(error, KeyError)
        with pytest.raises(KeyError):
            list(pool.map([3]))
        assert pool.submit(2).result(10)[0] == "b"
        assert pool.report().tasks["answered"] == 6
        with pytest.raises(ValueError, match="processes"):
            pool.resize(3)
    with pytest.raises(ValueError, match="deadline needs processes"):
        ip.Pool(op=abs, executor=executor, deadline=1)


def test_threads_read_their_input_lazily():
    taken = []

    def tasks():
        while True:
            taken.append(1)
            yield 1

    with ip.Pool(op=abs, executor="threads", workers=2) as pool:
        outputs = pool.map(tasks())
        assert [next(outputs) for _ in range(10)] == [1] * 10
        assert len(taken) <= 14
        outputs.close()


def test_a_call_is_isolated():
    assert ip.run_isolated(pow, 2, exp=5) == 32
    with pytest.raises(ip.WorkerDied):
        ip.run_isolated(os._exit, 3)
    with pytest.raises(ip.TimedOut):
        ip.run_isolated(time.sleep, 60, deadline=0.3)


def test_the_doctor_knows_this_machine():
    text = str(ip.doctor())
    assert sys.executable in text and "cores" in text


def test_workers_know_their_place():
    assert ip.worker() is None
    with ip.Pool(op=lambda task: ip.worker(), workers=1) as pool:
        (here,) = pool.map([1])
    assert (here.index, here.count, here.generation) == (0, 1, 0)


def test_a_model_that_copies_itself_is_told(caplog):
    class Copies:
        def __init__(self):
            self.array = np.ones(12_000_000)

        def __setstate__(self, state):
            self.array = state["array"].copy()

    with ip.Pool(Copies(), lambda model, task: float(model.array[task]), workers=1) as pool:
        assert list(pool.map([1])) == [1.0]
    assert any("private memory in each worker" in record.getMessage() for record in caplog.records)


def test_joblib_uses_the_pool():
    joblib = pytest.importorskip("joblib")
    import invokerpool.joblib  # noqa: F401

    with joblib.parallel_config("invokerpool", n_jobs=2):
        assert joblib.Parallel()(joblib.delayed(lambda n: n * n)(n) for n in range(100)) == [n * n for n in range(100)]
        pids = set(joblib.Parallel(batch_size=1)(joblib.delayed(os.getpid)() for _ in range(20)))
        assert os.getpid() not in pids
        with pytest.raises(ZeroDivisionError):
            joblib.Parallel()(joblib.delayed(divmod)(1, n) for n in (1, 0))
        with pytest.raises(ip.WorkerDied):
            joblib.Parallel()(joblib.delayed(os._exit)(n) for n in (1,))
        # And goes on.
        assert joblib.Parallel()(joblib.delayed(abs)(-n) for n in range(10)) == list(range(10))
        generator = joblib.Parallel(return_as="generator")(joblib.delayed(abs)(-n) for n in range(10))
        assert list(generator) == list(range(10))


free_threaded = pytest.mark.skipif(not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="needs a free-threaded interpreter")


@free_threaded
def test_threads_run_at_the_same_time_without_a_global_lock():
    # The extension leaves the lock off.
    assert not sys._is_gil_enabled()
    turns = [0, 0]

    def op(me):
        # Each waits for the other one's steps. Threads with a global lock would need a switch for each.
        for step in range(2000):
            turns[me] = step
            while turns[1 - me] < step:
                pass
        turns[me] = 1 << 30
        return me

    with ip.Pool(op=op, executor="threads", workers=2) as pool:
        assert list(pool.map(range(2))) == [0, 1]


@free_threaded
def test_threads_share_a_pool_and_what_they_send():
    shared = {"list": list(range(50)), "dict": {n: n for n in range(50)}}
    ended, failures = threading.Event(), []

    def change():
        n = 50
        while not ended.is_set():
            shared["list"].append(n)
            shared["dict"][n] = n
            del shared["list"][0], shared["dict"][n - 50]
            n += 1

    def send(pool):
        try:
            for output in pool.map([shared] * 300):
                # Values of any moment, whose parts are whole.
                assert all(type(n) is int for n in output["list"])
                assert all(key == value for key, value in output["dict"].items())
            assert list(pool.map_unordered([1] * 1000)) == [1] * 1000
        except BaseException as error:
            failures.append(error)

    with ip.Pool(op=lambda task: task, workers=2) as pool:
        threads = [threading.Thread(target=send, args=[pool]) for _ in range(3)]
        changing = threading.Thread(target=change)
        for thread in [*threads, changing]:
            thread.start()
        outputs = pool.map(range(5_000))
        # One iterator in several threads returns each output once.
        found = [[], []]
        takers = [threading.Thread(target=lambda into=into: into.extend(outputs)) for into in found]
        for taker in takers:
            taker.start()
        for thread in [*takers, *threads]:
            thread.join()
        ended.set()
        changing.join()
    assert not failures, failures
    assert sorted(found[0] + found[1]) == list(range(5_000))
    assert all(part == sorted(part) for part in found)


def test_steps_of_running_tasks_are_shown(tmp_path):
    from invokerpool import _progress

    path = str(tmp_path / "released")

    def train(parts):
        for done in range(1, parts + 1):
            ip.step(done, 2 * parts)
        while not os.path.exists(path):
            time.sleep(0.005)
        return parts

    seen = []

    def report(done, failed, last, parts):
        seen.append((done, failed, last, parts))
        if parts == [0.5, 0.5]:
            open(path, "w").close()

    with ip.Pool(op=train, workers=2) as pool:
        outputs = pool._core.map(iter([3, 7]), ordered=True, return_errors=False, progress=report)
        assert list(outputs) == [3, 7]
        assert (2, 0, True, []) in seen and os.path.exists(path)
        # A task that has ended has no part.
        again = pool._core.map(iter([0, 0]), ordered=True, return_errors=False, progress=report)
        assert list(again) == [0, 0] and seen[-1] == (2, 0, True, [])
    ip.step(1, 2)

    class Bar:
        n, ended = 0, False

        def update(self, more):
            self.n += more

        def refresh(self):
            pass

        def close(self):
            self.ended = True

    bar = Bar()
    show = _progress._tqdm(bar)
    shown = []
    for done, parts in [(0, [0.0, 0.0]), (0, [0.251, 0.5]), (1, [0.0, 0.0]), (1, [0.0, 0.7])]:
        show(done, 0, False, parts)
        shown.append(bar.n)
    assert shown == [0, 0.75, 1, 1.7]
    show(2, 0, True, [])
    assert bar.n == 2 and bar.ended

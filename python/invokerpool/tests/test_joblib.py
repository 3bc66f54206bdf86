"""The backend of joblib. `joblib_backend.py` runs joblib's own tests."""

import atexit
import os

import pytest

joblib = pytest.importorskip("joblib")

import invokerpool.joblib  # noqa: E402, F401  registers the backend
from invokerpool.examples import grid_search  # noqa: E402


def inner(task):
    return sum(joblib.Parallel(2, backend="invokerpool")(joblib.delayed(abs)(-n) for n in range(task)))


def test_calls_can_be_nested():
    with joblib.parallel_config("invokerpool", n_jobs=2):
        assert joblib.Parallel()(joblib.delayed(inner)(n) for n in (3, 4)) == [3, 6]


def test_a_dead_worker_is_an_error_and_the_next_call_works():
    with joblib.Parallel(2, backend="invokerpool") as parallel:
        with pytest.raises(invokerpool.WorkerDied):
            parallel(joblib.delayed(os._exit)(3) for _ in range(2))
        assert parallel(joblib.delayed(abs)(-n) for n in range(4)) == [0, 1, 2, 3]


def test_managers_of_multiprocessing_are_reached():
    from multiprocessing import Manager

    with Manager() as manager:
        values = manager.list()
        joblib.Parallel(2, backend="invokerpool")(joblib.delayed(values.append)(n) for n in range(4))
        assert sorted(values) == [0, 1, 2, 3]


def make_ready(value):
    os.environ["READY"] = value


def test_an_initializer_and_the_number_of_threads():
    options = {"initializer": make_ready, "initargs": ("yes",), "inner_max_num_threads": 3}
    with joblib.parallel_config("invokerpool", n_jobs=2, **options):
        found = joblib.Parallel()(joblib.delayed(os.getenv)(name) for name in ("READY", "OMP_NUM_THREADS"))
    assert found == ["yes", "3"]


def test_an_executor_that_an_op_has_left_does_not_hold_up_the_end(tmp_path):
    ended = tmp_path / "ended"

    def leave(task):
        atexit.register(ended.touch)
        joblib.Parallel(2, backend="loky")(joblib.delayed(abs)(n) for n in range(2))

    with invokerpool.Pool(op=leave, workers=1) as pool:
        assert list(pool.map([0])) == [None]
    # A worker that is killed does not come that far.
    assert ended.exists()


def test_a_grid_search_equals_that_of_loky():
    pytest.importorskip("sklearn")
    ours, lokys = grid_search.search("invokerpool"), grid_search.search("loky")
    for name, values in lokys.cv_results_.items():
        if "time" not in name:
            assert list(ours.cv_results_[name]) == list(values), name
    assert ours.best_params_ == lokys.best_params_

"""CPython's own tests of executors, of the interpreter that runs these tests, where it has them (3.12 and later; some packages leave them out).

Run: everything in `executor.py`, `test_wait.py` and `test_as_completed.py` that concerns any executor; of `test_shutdown.py` what does
not read the attributes of CPython's own executors; of `test_init.py` the initializer that succeeds; of `test_process_pool.py` the chunks of
`map`; of `test_deadlock.py` each crash, exit and error in each phase of a task, where the error of a broken pool is that of the one task.
Not run:

- `test_interpreter_shutdown`, `test_submit_after_interpreter_shutdown`, `test_hang_gh94440`, `test_hang_gh83386`,
  `test_cancel_futures_wait_false`: they write the name of the executor's class into a program that imports it from `concurrent.futures`;
  `test_ends.py` and `test_executor.py` have the like.
- `test_processes_terminate`, `test_del_shutdown`, `test_shutdown_no_wait` and the like of pools: they read `_processes` and `_call_queue`.
- The initializer that fails: it reads `_broken` and the log of `concurrent.futures`; `test_executor.py` has the like.
- `test_traceback`: it demands the worker's traceback as the cause; here it is a note. `test_ressources_gced_in_workers`, `test_saturation`,
  `test_idle_process_reuse_*`, `test_max_tasks_*`, `test_killed_child`: they read a pool's processes and queues, or pass its own options.
- `test_shutdown_deadlock`, `test_crash_big_data`, `test_gh105829_*`: they demand that a pool breaks, or replace its parts.
- `test_future.py`, `test_thread_pool.py`: they test `Future` itself, and threads.
"""

import multiprocessing

import pytest

pytest.importorskip("test.support", reason="this interpreter has no tests of its own")
executor = pytest.importorskip("test.test_concurrent_futures.executor", reason="this interpreter has other tests")

from concurrent import futures  # noqa: E402
from concurrent.futures.process import BrokenProcessPool  # noqa: E402
from pickle import UnpicklingError  # noqa: E402

from test import support  # noqa: E402
from test.test_concurrent_futures import test_as_completed, test_deadlock, test_init  # noqa: E402
from test.test_concurrent_futures import test_process_pool, test_shutdown, test_wait, util  # noqa: E402

import invokerpool as ip  # noqa: E402

support.use_resources = ["walltime", "cpu"]


class Mixin(util.ExecutorMixin):
    executor_type = ip.Executor
    worker_count = 2

    def create_event(self):
        """Makes an event that other processes can set, for CPython 3.13 and later."""
        manager = multiprocessing.get_context("spawn").Manager()
        self.addCleanup(manager.shutdown)
        return manager.Event()


class TestExecutor(Mixin, executor.ExecutorTest, util.BaseTestCase):
    test_map_chunksize = test_process_pool.ProcessPoolExecutorTest.test_map_chunksize


class TestWait(Mixin, test_wait.WaitTests, util.BaseTestCase):
    pass


class TestAsCompleted(Mixin, test_as_completed.AsCompletedTests, util.BaseTestCase):
    pass


class TestShutdown(Mixin, util.BaseTestCase):
    test_run_after_shutdown = test_shutdown.ExecutorShutdownTest.test_run_after_shutdown
    test_hang_issue12364 = test_shutdown.ExecutorShutdownTest.test_hang_issue12364
    test_cancel_futures = test_shutdown.ExecutorShutdownTest.test_cancel_futures


class TestInitializer(Mixin, test_init.InitializerMixin, util.BaseTestCase):
    pass


PHASES = [
    "test_error_at_task_pickle",
    "test_exit_at_task_unpickle",
    "test_error_at_task_unpickle",
    "test_crash_at_task_unpickle",
    "test_crash_during_func_exec_on_worker",
    "test_exit_during_func_exec_on_worker",
    "test_error_during_func_exec_on_worker",
    "test_crash_during_result_pickle_on_worker",
    "test_exit_during_result_pickle_on_worker",
    "test_error_during_result_pickle_on_worker",
    "test_error_during_result_unpickle_in_result_handler",
    "test_exit_during_result_unpickle_in_result_handler",
]


class TestDeadlock(Mixin, util.BaseTestCase):
    def _check_crash(self, error, function, *args, ignore_stderr=False):
        future = self.executor.submit(function, *args)
        if error is BrokenProcessPool:
            # What this process's unpickling raises is the error of the future.
            in_leader = self._testMethodName.endswith("in_result_handler")
            error = (SystemExit, UnpicklingError) if in_leader else ip.TaskFailed
        try:
            with self.assertRaises(error):
                future.result(timeout=support.LONG_TIMEOUT)
        except futures.TimeoutError:
            self.fail("the future is not done")
        # The executor goes on.
        self.assertEqual(self.executor.submit(pow, 2, 5).result(timeout=support.LONG_TIMEOUT), 32)


for phase in PHASES:
    if hasattr(test_deadlock.ExecutorDeadlockTest, phase):
        setattr(TestDeadlock, phase, getattr(test_deadlock.ExecutorDeadlockTest, phase))

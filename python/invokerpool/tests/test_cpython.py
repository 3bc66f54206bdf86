"""CPython's own tests of executors, of the interpreter that runs these tests, where it has them (3.12 and later; some packages leave them out).

Run: everything in `executor.py`, `test_wait.py` and `test_as_completed.py` that concerns any executor, and of `test_shutdown.py` what does
not read the attributes of CPython's own executors. Not run:

- `test_interpreter_shutdown`, `test_submit_after_interpreter_shutdown`, `test_hang_gh94440`: they write the name of the executor's class
  and its `mp_context` into a program; `test_ends.py` has the like.
- `test_processes_terminate`, `test_del_shutdown`, `test_shutdown_no_wait` and the like of pools: they read `_processes` and `_call_queue`.
- `test_deadlock.py`, `test_process_pool.py`: they demand that a pool breaks when a worker dies, and test its queues and chunks.
"""

import pytest

pytest.importorskip("test.support", reason="this interpreter has no tests of its own")
executor = pytest.importorskip("test.test_concurrent_futures.executor", reason="this interpreter has other tests")

from test import support  # noqa: E402
from test.test_concurrent_futures import test_as_completed, test_shutdown, test_wait, util  # noqa: E402

import invokerpool as ip  # noqa: E402

support.use_resources = ["walltime", "cpu"]


class Mixin(util.ExecutorMixin):
    executor_type = ip.Executor
    worker_count = 2


class TestExecutor(Mixin, executor.ExecutorTest, util.BaseTestCase):
    pass


class TestWait(Mixin, test_wait.WaitTests, util.BaseTestCase):
    pass


class TestAsCompleted(Mixin, test_as_completed.AsCompletedTests, util.BaseTestCase):
    pass


class TestShutdown(Mixin, util.BaseTestCase):
    test_run_after_shutdown = test_shutdown.ExecutorShutdownTest.test_run_after_shutdown
    test_hang_issue12364 = test_shutdown.ExecutorShutdownTest.test_hang_issue12364
    test_cancel_futures = test_shutdown.ExecutorShutdownTest.test_cancel_futures

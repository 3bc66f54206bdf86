"""A backend of joblib: `import invokerpool.joblib`, then `joblib.parallel_config("invokerpool")`."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from joblib import register_parallel_backend
from joblib.parallel import AutoBatchingMixin, ParallelBackendBase, cpu_count

from ._executor import Executor


class InvokerpoolBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]
    """Runs the batches of joblib in isolated workers. A batch whose worker dies is an error of the caller; the workers remain."""

    supports_retrieve_callback = True
    supports_return_generator = True
    supports_timeout = True

    def __init__(self, **options: Any) -> None:
        names = ("nesting_level", "inner_max_num_threads")
        super().__init__(**{name: options.pop(name) for name in names if name in options})
        self._options = options
        self._executor: Executor | None = None

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Returns the number of workers."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None:
            return 1
        return max(cpu_count() + 1 + n_jobs, 1) if n_jobs < 0 else n_jobs

    def configure(self, n_jobs: int = 1, parallel: Any = None, **options: Any) -> int:
        """Starts the workers."""
        self.parallel = parallel
        workers = self.effective_n_jobs(n_jobs)
        threads: int | str = self.inner_max_num_threads or "share"
        known = {name: value for name, value in self._options.items() if value is not None}
        self._executor = Executor(workers, threads=threads, **known)
        return workers

    def submit(self, func: Callable[[], Any], callback: Callable[[Any], None] | None = None) -> Future[Any]:
        """Submits a batch."""
        if self._executor is None:
            raise RuntimeError("the backend was not configured")
        future = self._executor.submit(func)
        if callback is not None:
            future.add_done_callback(callback)
        return future

    # The name before joblib 1.4.
    apply_async = submit

    def retrieve_result_callback(self, future: Future[Any]) -> Any:
        """Returns the outputs of a batch that has ended."""
        return future.result()

    def terminate(self) -> None:
        """Ends the workers."""
        if self._executor is not None:
            self._executor.shutdown()
            self._executor = None
        self.reset_batch_stats()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Kills the workers."""
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.kill()
        if ensure_ready:
            self.configure(n_jobs=self.parallel.n_jobs, parallel=self.parallel)


register_parallel_backend("invokerpool", InvokerpoolBackend)

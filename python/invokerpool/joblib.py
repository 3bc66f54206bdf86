"""A backend of joblib: `import invokerpool.joblib`, then `joblib.parallel_config("invokerpool")`."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from joblib import register_parallel_backend
from joblib.parallel import AutoBatchingMixin, FallbackToBackend, ParallelBackendBase, SequentialBackend, cpu_count

from ._executor import Executor


def _initialize(initializer: Callable[..., Any] | None, initargs: tuple[Any, ...]) -> None:
    """Runs in each worker. That this module is imported there registers the backend for nested calls."""
    if initializer is not None:
        initializer(*initargs)


class InvokerpoolBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]
    """Runs the batches of joblib in isolated workers. A batch whose worker dies is an error of the caller; the workers remain.

    `parallel_config("invokerpool", ...)` takes `initializer`, `initargs`, `inner_max_num_threads`, and the options of `Executor`.
    """

    supports_inner_max_num_threads = True
    supports_retrieve_callback = True
    supports_return_generator = True
    supports_timeout = True

    def __init__(self, **options: Any) -> None:
        names = ("nesting_level", "inner_max_num_threads")
        super().__init__(**{name: options.pop(name) for name in names if name in options})
        self._options = options
        self._workers: Executor | None = None
        self._of_call: dict[str, Any] = {}

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Returns the number of workers."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None:
            return 1
        return max(cpu_count() + 1 + n_jobs, 1) if n_jobs < 0 else n_jobs

    def configure(self, n_jobs: int = 1, parallel: Any = None, **options: Any) -> int:
        """Starts the workers. With one job, joblib calls the functions itself."""
        workers = self.effective_n_jobs(n_jobs)
        if workers == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        self.parallel, self._of_call = parallel, options
        known = {name: value for name, value in self._options.items() if value is not None}
        both = {**known, **options}
        calls = both.get("initializer"), both.get("initargs") or ()
        for name in ("initializer", "initargs"):
            known.pop(name, None)
        # Threads of numeric libraries as with joblib's own processes.
        known["env"] = {**self._prepare_worker_env(n_jobs=workers), **known.get("env", {})}
        known.setdefault("threads", "unlimited")
        self._workers = Executor(workers, initializer=_initialize, initargs=calls, **known)
        return workers

    def submit(self, func: Callable[[], Any], callback: Callable[[Any], None] | None = None) -> Future[Any]:
        """Submits a batch."""
        if self._workers is None:
            raise RuntimeError("the backend has no workers before joblib configures it; use it through joblib.Parallel")
        future = self._workers.submit(func)
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
        if self._workers is not None:
            self._workers.shutdown()
            self._workers = None
        self.reset_batch_stats()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Kills the workers."""
        workers, self._workers = self._workers, None
        if workers is not None:
            workers.kill()
        if ensure_ready:
            self.configure(n_jobs=self.parallel.n_jobs, parallel=self.parallel, **self._of_call)


register_parallel_backend("invokerpool", InvokerpoolBackend)

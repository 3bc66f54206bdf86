"""Pools that start servers: ray, dask.distributed, ipyparallel."""

import logging
import os
import sys
import tempfile

import pool
import tasks
from pool import Pool


class Ray(Pool):
    """ray, with the model in its object store, of which NumPy arrays are views, and batches by hand, as advised."""

    sharing = "ray.put"
    # The number of references in one call.
    WINDOW = 1000

    def __enter__(self):
        # Otherwise its leader prints only one of several similar lines.
        os.environ["RAY_DEDUP_LOGS"] = "0"
        import ray

        self.ray, op = ray, self.op
        size = 0 if self.model is None else self.model.nbytes
        ray.init(
            num_cpus=tasks.WORKERS,
            include_dashboard=False,
            log_to_driver=self.sink is not None,
            logging_level="ERROR",
            object_store_memory=size * 5 // 4 + (256 << 20),
            _temp_dir=tempfile.gettempdir(),
        )

        @ray.remote
        def many(model, chunk):
            return [op(model, task) for task in chunk]

        self.many = many
        self.model = None if self.model is None else ray.put(self.model)
        if self.sink:
            self.capture()
        return self

    def capture(self):
        """Redirects the output of the leader to a file."""
        self.printed = tempfile.TemporaryFile()
        self.kept = os.dup(1)
        for descriptor in (1, 2):
            os.dup2(self.printed.fileno(), descriptor)
        op = self.op

        @self.ray.remote
        def many(model, chunk):
            logging.basicConfig(level=logging.INFO)
            return [op(model, task) for task in chunk]

        self.many = many

    def delivered(self):
        sys.stdout.flush()
        sys.stderr.flush()
        size = os.fstat(self.printed.fileno()).st_size
        return os.pread(self.printed.fileno(), size, 0).count(b":record ")

    def close(self):
        if self.sink:
            os.dup2(self.kept, 1)
        self.ray.shutdown()

    def run(self, work, batch):
        references = [self.many.remote(self.model, chunk) for chunk in pool.chunks(work, batch)]
        for window in pool.chunks(references, self.WINDOW):
            for outputs in self.ray.get(window):
                yield from outputs

    def each(self, work):
        for reference in [self.many.remote(self.model, [task]) for task in work]:
            try:
                yield from self.ray.get(reference)
            except Exception as error:
                yield error


class Outputs:
    """The outputs of a chunk as one object: elements of a list would be serialized one by one, with a header each."""

    def __init__(self, outputs):
        self.outputs = outputs

    def __iter__(self):
        return iter(self.outputs)


def many(chunk, op=None, model=None):
    return Outputs([op(model, task) for task in chunk])


def align(key, dask_worker):
    dask_worker.data[key] = pool.aligned(dask_worker.data[key])


class Dask(Pool):
    """dask.distributed, with futures, the model scattered to both workers, and batches by hand, as advised."""

    sharing = "scatter"

    def __enter__(self):
        import distributed

        logging.getLogger("distributed").setLevel(logging.CRITICAL)
        self.cluster = distributed.LocalCluster(
            n_workers=tasks.WORKERS, threads_per_worker=1, dashboard_address=None, memory_limit=0
        )
        self.client = distributed.Client(self.cluster)
        if self.model is not None:
            self.model = self.client.scatter(self.model, broadcast=True, direct=True)
            self.client.run(align, self.model.key)
        if self.sink:
            log = logging.getLogger(tasks.LOGGER)
            log.setLevel(logging.INFO)
            log.addHandler(self.sink)
            log.propagate = False
            self.client.forward_logging(tasks.LOGGER, logging.INFO)
        return self

    def close(self):
        self.client.close()
        self.cluster.close()

    def run(self, work, batch):
        futures = self.client.map(
            many, list(pool.chunks(work, batch)), op=self.op, model=self.model, pure=False
        )
        return (output for outputs in self.client.gather(futures) for output in outputs)

    def each(self, work):
        futures = self.client.map(many, [[task] for task in work], op=self.op, model=self.model, pure=False)
        return (one if isinstance(one, BaseException) else one.outputs[0] for one in pool.settled(futures))

    def everywhere(self, work):
        addresses = list(self.client.scheduler_info()["workers"])
        futures = [
            self.client.submit(many, [task], op=self.op, model=self.model, workers=[address], pure=False)
            for task, address in zip(work, addresses)
        ]
        return (output for outputs in self.client.gather(futures) for output in outputs)


class Ipyparallel(Pool):
    """ipyparallel, with a load-balanced view of two engines, to which the model was pushed."""

    sharing = "push"

    def __enter__(self):
        import ipyparallel

        # Without a limit an engine gets tasks before it is free. That is faster, but they are lost with the engine.
        limit = 1 if self.op is tasks.deadly else 0
        self.cluster = ipyparallel.Cluster(
            n=tasks.WORKERS, log_level=logging.CRITICAL, controller_args=[f"--TaskScheduler.hwm={limit}"]
        )
        self.client = self.cluster.start_and_connect_sync(activate=False)
        self.client.wait_for_engines(tasks.WORKERS)
        self.engines = self.client[:]
        self.engines.apply_sync(pool.prepare, self.op, self.model)
        self.model = None
        self.view = self.client.load_balanced_view()
        return self

    def close(self):
        self.client.close()
        self.cluster.stop_cluster_sync()

    def run(self, work, batch):
        return iter(self.view.map_async(pool.call, work, chunksize=batch))

    def each(self, work):
        for answer in [self.view.apply_async(pool.call, task) for task in work]:
            try:
                yield answer.get()
            except Exception as error:
                yield error

    def everywhere(self, work):
        if self.sink:
            self.engines.apply_sync(log_to_stderr)
        self.answers = [self.client[engine].apply_async(pool.call, task) for engine, task in enumerate(work)]
        return (answer.get() for answer in self.answers)

    def delivered(self):
        # The output of an engine arrives with the answer.
        return sum(answer.stderr.count(":record ") for answer in self.answers)


def log_to_stderr():
    import logging

    logging.basicConfig(level=logging.INFO, force=True)

"""Pools whose workers are children of their leader, based on `multiprocessing`."""

import logging
import multiprocessing
import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import shared_memory

import numpy

import pool
import tasks
from pool import Pool


class Executor(Pool):
    """The standard library's pool: forked workers inherit the model, spawned ones attach shared memory."""

    method = None

    def __enter__(self):
        context = multiprocessing.get_context(self.method)
        queue = self.listen(context.Queue()) if self.sink else None
        self.workers = ProcessPoolExecutor(tasks.WORKERS, context, *self.preparation(queue))
        return self

    def preparation(self, queue):
        return pool.prepare, (self.op, self.model, queue)

    def close(self):
        self.workers.shutdown()

    def run(self, work, batch):
        return self.workers.map(pool.call, work, chunksize=batch)

    def each(self, work):
        return pool.settled([self.workers.submit(pool.call, task) for task in work])


class Fork(Executor):
    method = "fork"
    sharing = "inherited"


def attach(op, name, dtype, shape, queue):
    global SHARED
    SHARED = shared_memory.SharedMemory(name)
    pool.prepare(op, numpy.ndarray(shape, dtype, SHARED.buf), queue)


class Spawn(Executor):
    method = "spawn"
    sharing = "shared_memory"
    memory = None

    def preparation(self, queue):
        if self.model is None:
            return super().preparation(queue)
        self.memory = shared_memory.SharedMemory(create=True, size=self.model.nbytes)
        numpy.ndarray(self.model.shape, self.model.dtype, self.memory.buf)[:] = self.model
        like, self.model = self.model, None
        return attach, (self.op, self.memory.name, like.dtype, like.shape, queue)

    def close(self):
        super().close()
        if self.memory:
            self.memory.close()
            self.memory.unlink()


class Multiprocessing(Pool):
    """`multiprocessing.Pool`, with forked workers, which inherit the model: the default on Linux before Python 3.14."""

    sharing = "inherited"

    def __enter__(self):
        context = multiprocessing.get_context("fork")
        queue = self.listen(context.Queue()) if self.sink else None
        self.workers = context.Pool(tasks.WORKERS, pool.prepare, (self.op, self.model, queue))
        return self

    def close(self):
        self.workers.close()
        self.workers.join()

    def run(self, work, batch):
        return self.workers.imap(pool.call, work, chunksize=batch)


class ToLeader:
    """An op whose process logs into a queue: joblib has no initializer."""

    def __init__(self, op, queue):
        self.op, self.queue = op, queue

    def __call__(self, model, task):
        pool.to_queue(self.queue)
        return self.op(model, task)


class Joblib(Pool):
    """joblib, with the model in a file that all workers map, as its documentation advises."""

    sharing = "memmap"
    dir = None

    def __enter__(self):
        import joblib

        self.delayed = joblib.delayed
        self.parallel = joblib.Parallel(tasks.WORKERS, return_as="generator").__enter__()
        if self.sink:
            # joblib starts its workers itself: no other queue reaches them.
            self.manager = multiprocessing.Manager()
            self.op = ToLeader(self.op, self.listen(self.manager.Queue()))
        if self.model is not None:
            memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
            self.dir = tempfile.TemporaryDirectory(prefix="joblib_memmapping_folder_", dir=memory)
            path = os.path.join(self.dir.name, "model")
            joblib.dump(self.model, path)
            self.model = joblib.load(path, mmap_mode="r")
        return self

    def close(self):
        from joblib.externals.loky import get_reusable_executor

        self.parallel.__exit__(None, None, None)
        get_reusable_executor().shutdown(wait=True)
        if self.dir:
            self.dir.cleanup()

    def run(self, work, batch):
        self.parallel.batch_size = batch
        return self.parallel(self.delayed(self.op)(self.model, task) for task in work)


class OfShared:
    """An op that takes mpire's shared objects."""

    def __init__(self, op):
        self.op = op

    def __call__(self, shared, *task):
        model, queue = shared
        if queue is not None:
            pool.to_queue(queue)
        # mpire passes the elements of a tuple.
        return self.op(model, task[0] if len(task) == 1 else task)


class Mpire(Pool):
    """mpire, with shared objects, which forked workers inherit."""

    sharing = "shared_objects, fork"

    def __enter__(self):
        from mpire import WorkerPool

        queue = self.listen(multiprocessing.get_context("fork").Queue()) if self.sink else None
        shared = (self.model, queue)
        self.workers = WorkerPool(tasks.WORKERS, shared_objects=shared, start_method="fork", keep_alive=True)
        self.workers.__enter__()
        self.op = OfShared(self.op)
        return self

    def close(self):
        self.workers.stop_and_join()

    def run(self, work, batch):
        # A generator, which dispatches nothing before the first output is requested.
        return self.workers.imap(self.op, work, iterable_len=len(work), chunk_size=batch)


class OneOrMany:
    """An op that takes a range as well: parinvoke has no batches of its own."""

    def __init__(self, op):
        self.op = op

    def __call__(self, model, task):
        if type(task) is range:
            return [self.op(model, each) for each in task]
        return self.op(model, task)


class Parinvoke(Pool):
    """parinvoke, with its own sharing of models and its own logging."""

    sharing = "SharedMemoryManager"

    def __enter__(self):
        from parinvoke import InvokeContext

        if self.sink:
            log = logging.getLogger(tasks.LOGGER)
            log.addHandler(self.sink)
            log.setLevel(logging.INFO)
            log.propagate = False
        self.context = InvokeContext.default().__enter__()
        self.invoker = self.context.invoker(self.model, OneOrMany(self.op), tasks.WORKERS).__enter__()
        self.model = None
        return self

    def close(self):
        self.invoker.__exit__(None, None, None)
        self.context.__exit__(None, None, None)

    def run(self, work, batch):
        if batch == 1:
            return self.invoker.map(work)
        return (output for outputs in self.invoker.map(pool.chunks(work, batch)) for output in outputs)


class Invokerpool(Pool):
    """This project's package for Python. It has no batches: tasks are sent in advance one by one."""

    sharing = "copy-on-write"

    def __enter__(self):
        import invokerpool

        self.invokerpool = invokerpool
        if self.sink:
            log = logging.getLogger(tasks.LOGGER)
            log.addHandler(self.sink)
            log.setLevel(logging.INFO)
            log.propagate = False
        self.workers = invokerpool.Pool(self.model, self.op, workers=tasks.WORKERS)
        self.model = None
        return self

    def close(self):
        self.workers.shutdown()

    def run(self, work, batch):
        return self.workers.map(work)

    def each(self, work):
        return self.workers.map(work, errors="return")


class Torch(Multiprocessing):
    """`torch.multiprocessing`: a pool whose queues share tensors."""

    sharing = "share_memory_()"

    def __enter__(self):
        import torch
        import torch.multiprocessing

        context = torch.multiprocessing.get_context("spawn")
        queue = self.listen(context.Queue()) if self.sink else None
        model = None if self.model is None else torch.from_numpy(self.model).share_memory_()
        self.model = None
        self.workers = context.Pool(tasks.WORKERS, prepare_tensor, (self.op, model, queue))
        return self


def prepare_tensor(op, model, queue):
    pool.prepare(op, None if model is None else model.numpy(), queue)

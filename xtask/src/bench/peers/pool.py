"""The interface of a pool that is measured."""

import logging
import logging.handlers

import numpy

import tasks

# The op and the model of this worker.
OP = MODEL = None


def prepare(op, model, queue=None):
    """Keeps the op and the model for the tasks of this worker."""
    global OP, MODEL
    OP, MODEL = op, aligned(model)
    if queue is not None:
        to_queue(queue)


def aligned(model):
    """Aligns an array that arrived within a message, which NumPy would copy for every product otherwise."""
    return None if model is None else numpy.require(model, requirements="A")


def to_queue(queue):
    """Sends log records to the leader as the logging cookbook recommends."""
    log = logging.getLogger(tasks.LOGGER)
    if not log.handlers:
        log.addHandler(logging.handlers.QueueHandler(queue))
        log.propagate = False


def call(task):
    return OP(MODEL, task)


def chunks(work, size):
    return (work[at : at + size] for at in range(0, len(work), size))


class Pool:
    """A context manager: a pool of `tasks.WORKERS` that runs one op of a model.

    Its `sink`, if there is one, is a handler that gets what the workers log.
    """

    # The way in which it shares a model.
    sharing = ""

    def __init__(self, op, model=None, sink=None):
        self.op, self.model, self.sink = op, model, sink

    def __exit__(self, *_):
        self.close()

    def run(self, work, batch):
        """An iterator over the outputs, in order."""
        raise NotImplementedError

    def each(self, work):
        """The same, one a batch; an exception in place of an output, where the pool knows the failed task."""
        return self.run(work, 1)

    def everywhere(self, work):
        """The same for one task for each worker."""
        return self.run(work, 1)

    def delivered(self):
        """The number of log records that have arrived."""
        return self.sink.count

    def listen(self, queue):
        """Hands records in a queue to the sink, if there is one."""
        if self.sink is None:
            return None
        self.listener = logging.handlers.QueueListener(queue, self.sink)
        self.listener.start()
        return queue


def settled(futures):
    """The outputs of futures, or their errors."""
    for future in futures:
        error = future.exception()
        yield future.result() if error is None else error

//! Progress reporting that costs nothing to the worker.

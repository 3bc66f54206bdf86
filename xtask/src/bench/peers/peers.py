"""Runs one measure of one pool of Python with 2 workers, and prints the numbers as lines of JSON.

peers.py NAME MEASURE NUMBER, under guard.py; each measure has a process of its own, so that none inherits the memory of
another one, or its remains. NUMBER is the size of the model, or the number of users or log records.
"""

import sys

import clusters
import local
import measures

PEERS = {
    "ProcessPoolExecutor, fork": local.Fork,
    "ProcessPoolExecutor, spawn": local.Spawn,
    "multiprocessing.Pool": local.Multiprocessing,
    "joblib": local.Joblib,
    "mpire": local.Mpire,
    "ray": clusters.Ray,
    "dask.distributed": clusters.Dask,
    "ipyparallel": clusters.Ipyparallel,
    "torch.multiprocessing": local.Torch,
    "parinvoke": local.Parinvoke,
    "invokerpool": local.Invokerpool,
}

if __name__ == "__main__":
    name, measure, number = sys.argv[1:]
    getattr(measures, measure)(PEERS[name], int(number))

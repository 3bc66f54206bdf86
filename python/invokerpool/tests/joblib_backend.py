"""A plugin of pytest that runs joblib's own tests of backends with the backend of this package. joblib's wheel has the tests:

    pytest -p invokerpool.tests.joblib_backend --pyargs joblib.test.test_parallel joblib.test.test_memmapping

The backend becomes joblib's default one, and is added to each list of backends that a test is run with. What runs is each case with this
backend, each case that leaves the backend to the default, and each of `NAMING_LOKY`, where this backend stands for loky. Cases of other
backends alone are deselected; `NOT_RUN` has the others, with the reasons.
"""

import pytest

NAME = "invokerpool"

# Tests of any backend whose text names loky: it is replaced while they run.
NAMING_LOKY = {
    "test_nested_loop_with_exception_with_loky",
    "test_parallel_byteorder_corruption",
    "test_parallel_with_interactively_defined_functions_loky",
    "test_threadpool_limitation_in_child_context",
    "test_threadpool_limitation_in_child_loky",
    "test_threadpool_limitation_in_child_override",
    "test_initializer_not_reused",
}

# Of test_memmapping, which otherwise tests joblib's own pools and temporary files.
OF_THE_DEFAULT = {"test_numpy_arrays_use_different_memory", "test_direct_mmap", "test_parallel_memmap2d_as_memmap_1d_base"}

_MEMMAP = "large arguments are not files that workers map, but bytes of a batch; a `Pool` shares a model"
_PROGRAM = "concerns the files of large arguments, in a program that imports joblib alone"
_LOKY = "concerns loky's own executor and names"
NOT_RUN = {
    "test_auto_memmap_on_arrays_from_generator": _MEMMAP,
    "test_memmapping_leaks": _MEMMAP,
    "test_parallel_isolated_temp_folders": _MEMMAP,
    "test_managed_backend_reuse_temp_folder": _MEMMAP,
    "test_child_raises_parent_exits_cleanly": _MEMMAP,
    "test_memmapping_temp_folder_thread_safety": _MEMMAP,
    "test_multithreaded_parallel_termination_resource_tracker_silent": _MEMMAP,
    "test_memmap_returned_as_regular_array": _MEMMAP,
    "test_permission_error_windows_reference_cycle": _PROGRAM,
    "test_permission_error_windows_memmap_sent_to_parent": _PROGRAM,
    "test_many_parallel_calls_on_same_object": _PROGRAM,
    "test_resource_tracker_silent_when_reference_cycles": _PROGRAM,
    "test_backend_hinting_and_constraints": "demands loky for `prefer`",
    "test_initializer_reused": _LOKY,
    "test_loky_reuse_workers": _LOKY,
    "test_parallel_pickling": _LOKY,
    "test_parallel_with_interactively_defined_bound_method_loky": _LOKY,
}
# Pairs of an outer and an inner backend.
_UNKNOWN_IN_LOKY = "loky's workers import joblib only, so they do not know the inner backend"
_OUTER = {"test_nested_loop": ("parent_backend", "child_backend"), "test_backend_nesting_level": ("outer_backend", "inner_backend")}


def not_run(item):
    """The reason why a case is not run; None if it is."""
    name = item.originalname
    if name in _OUTER:
        outer, inner = (item.callspec.params[parameter] for parameter in _OUTER[name])
        if inner == NAME and outer in ("loky", "back_compat_backend"):
            return _UNKNOWN_IN_LOKY
    return NOT_RUN.get(name)


def pytest_configure(config):
    from joblib import parallel

    from invokerpool.joblib import InvokerpoolBackend

    parallel.register_parallel_backend(NAME, InvokerpoolBackend, make_default=True)
    for mark in ("thread_unsafe", "no_cover"):
        config.addinivalue_line("markers", f"{mark}: of joblib")


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc):
    for mark in metafunc.definition.iter_markers("parametrize"):
        values = mark.args[1]
        if isinstance(values, (list, set)) and "loky" in values and NAME not in values:
            values.append(NAME) if isinstance(values, list) else values.add(NAME)


def concerns(item):
    """Whether a case runs with the backend of this package."""
    callspec = getattr(item, "callspec", None)
    found = [value for name, value in callspec.params.items() if "backend" in name] if callspec else []
    if not found and item.module.__name__.endswith("test_memmapping"):
        return item.originalname in OF_THE_DEFAULT
    return not found or any(value is None or value == NAME or type(value).__name__ == "InvokerpoolBackend" for value in found)


def pytest_collection_modifyitems(config, items):
    kept = [item for item in items if concerns(item)]
    config.hook.pytest_deselected(items=[item for item in items if not concerns(item)])
    items[:] = kept
    for item in items:
        if reason := not_run(item):
            item.add_marker(pytest.mark.skip(reason=reason))
        module = item.module
        for name in dir(module):
            text = getattr(module, name)
            if "_SCRIPT_" in name and isinstance(text, str) and "invokerpool" not in text:
                setattr(module, name, "import invokerpool.joblib\n" + text.replace('"loky"', f'"{NAME}"'))


@pytest.fixture(autouse=True)
def _in_place_of_loky(request, monkeypatch):
    if request.node.originalname in NAMING_LOKY:
        from joblib.parallel import BACKENDS

        monkeypatch.setitem(BACKENDS, "loky", BACKENDS[NAME])

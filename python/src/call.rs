//! Calls without a tuple of arguments, which PyO3 makes for the stable interface.
#![allow(unsafe_code, reason = "calls a variadic function of the interpreter")]

use std::ptr::null_mut;

use pyo3::ffi;
use pyo3::prelude::*;

/// Returns `function(one)`.
pub(crate) fn call_one<'py>(
    function: &Bound<'py, PyAny>,
    one: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let null = null_mut::<ffi::PyObject>();
    // SAFETY: the thread is attached, as `function` proves. The arguments are objects that are borrowed during the call, and a null
    // pointer ends them, as the function requires.
    let value = unsafe { ffi::PyObject_CallFunctionObjArgs(function.as_ptr(), one.as_ptr(), null) };
    // SAFETY: the function returns a new reference, or null with an exception set.
    unsafe { Bound::from_owned_ptr_or_err(function.py(), value) }
}

/// Returns `function(one, two)`.
pub(crate) fn call_two<'py>(
    function: &Bound<'py, PyAny>,
    one: &Bound<'py, PyAny>,
    two: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let null = null_mut::<ffi::PyObject>();
    // SAFETY: as in `call_one`.
    let value =
        unsafe { ffi::PyObject_CallFunctionObjArgs(function.as_ptr(), one.as_ptr(), two.as_ptr(), null) };
    // SAFETY: as in `call_one`.
    unsafe { Bound::from_owned_ptr_or_err(function.py(), value) }
}

//! Sets `cfg(Py_GIL_DISABLED)` if the interpreter has no global lock.

fn main() {
    pyo3_build_config::use_pyo3_cfgs();
}

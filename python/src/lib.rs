//! The extension module of the Python package `invokerpool`: a facade over `proc-pool` and `shm-buffers`, beside `invoker`.
//!
//! Two programs import it. The leader builds a [`pool::CorePool`] and iterates [`outputs::Outputs`]; a worker is another Python
//! interpreter, whose first statement calls [`worker::serve`] and never returns. Python code around it chooses options, pickles models
//! and makes exceptions; what happens for each task is here.
//!
//! | module | contents |
//! |---|---|
//! | `pool`, `outputs`, `handles` | the leader's pool, the iterator over its outputs, and tasks that were submitted one by one |
//! | `faults` | the errors of tasks and pools as Python exceptions |
//! | `task` | tasks and outputs on their way, and the leader's codecs |
//! | `worker` | the service in a worker process |
//! | `ending` | waits that respect the end of the interpreter |
//! | `stacks` | the stacks of a task that runs beyond its deadline |
//! | `journal` | the journal of a map |
//! | `bar` | progress without tqdm |
//! | `call` | calls of ops |
//! | `codec` | Python values as bytes |
//! | `logs` | log records of workers |
//! | `image`, `segment`, `memory` | models in shared memory, arrays that are built there, and memory that Python objects view |
//! | `allocator` | whose memory arrays have |

mod allocator;
mod bar;
mod call;
mod codec;
mod ending;
mod faults;
mod handles;
mod image;
mod journal;
mod logs;
mod memory;
mod outputs;
mod pool;
mod segment;
#[cfg(target_os = "linux")]
mod stacks;
mod task;
mod worker;

use pyo3::prelude::*;

#[pymodule(gil_used = false)]
mod _core {
    #[pymodule_export]
    use crate::bar::Bar;
    #[pymodule_export]
    use crate::ending::interpreter_ends;
    #[pymodule_export]
    use crate::handles::{Completions, Handle};
    #[pymodule_export]
    use crate::image::{CoreImage, load_image, write_image};
    #[pymodule_export]
    use crate::journal::{journal_info, journal_salvage};
    #[pymodule_export]
    use crate::logs::LogSink;
    #[pymodule_export]
    use crate::memory::{Memory, SharedBytes, SharedMemory};
    #[pymodule_export]
    use crate::outputs::Outputs;
    #[pymodule_export]
    use crate::pool::{CorePool, machine};
    #[pymodule_export]
    use crate::segment::CoreSegment;
    #[pymodule_export]
    use crate::worker::{Steps, roundtrip, serve};

    use super::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}

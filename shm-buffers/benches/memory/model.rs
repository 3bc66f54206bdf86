//! The model of the benchmarks, a few large arrays, and the times of measures.

use std::time::Instant;

use serde::{Deserialize, Serialize};
use shm_buffers::Buffer;

#[derive(Serialize, Deserialize)]
pub(crate) struct Model {
    pub(crate) name: String,
    pub(crate) arrays: Vec<Buffer<f32>>,
}

impl Model {
    /// Creates a model of `bytes` bytes in `arrays` arrays, without allocating any other memory.
    pub(crate) fn on_heap(bytes: usize, arrays: usize) -> Self {
        let len = bytes / arrays / size_of::<f32>();
        let array = |k: usize| {
            // Not collected from an iterator, which may grow the vector: exactly this much memory is touched.
            let mut array = Vec::with_capacity(len);
            array.extend((0..len).map(|i| (i + k) as f32));
            Buffer::from(array)
        };
        Self {
            name: "bench".to_owned(),
            arrays: (0..arrays).map(array).collect(),
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.arrays.iter().map(|array| size_of_val(&**array)).sum()
    }

    /// Reads one number of each page.
    pub(crate) fn touch(&self) -> f32 {
        let pages = self.arrays.iter().flat_map(|array| array.iter().step_by(512));
        pages.sum()
    }
}

/// Returns the seconds that `work` takes, and its result, so that dropping the result is not measured.
pub(crate) fn timed<R>(work: impl FnOnce() -> R) -> (f64, R) {
    let start = Instant::now();
    let result = work();
    (start.elapsed().as_secs_f64(), result)
}

/// Returns the least time: the one with the least interference of other processes.
pub(crate) fn best(times: impl IntoIterator<Item = f64>) -> f64 {
    times.into_iter().fold(f64::INFINITY, f64::min)
}

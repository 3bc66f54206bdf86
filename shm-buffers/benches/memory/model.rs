//! The model that is shared: a few big arrays.

use std::time::Instant;

use serde::{Deserialize, Serialize};
use shm_buffers::Buffer;

#[derive(Serialize, Deserialize)]
pub(crate) struct Model {
    pub(crate) name: String,
    pub(crate) arrays: Vec<Buffer<f32>>,
}

impl Model {
    /// One of `bytes` bytes in so many arrays; nothing is allocated but them.
    pub(crate) fn on_heap(bytes: usize, arrays: usize) -> Self {
        let len = bytes / arrays / size_of::<f32>();
        let array = |k: usize| {
            // Not through an iterator that may collect in place or grow: exactly this much is touched.
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

    /// Reads one number of every page.
    pub(crate) fn touch(&self) -> f32 {
        let pages = self.arrays.iter().flat_map(|array| array.iter().step_by(512));
        pages.sum()
    }
}

/// Seconds that `work` takes; what it makes is dropped outside of them.
pub(crate) fn timed<R>(work: impl FnOnce() -> R) -> (f64, R) {
    let start = Instant::now();
    let made = work();
    (start.elapsed().as_secs_f64(), made)
}

pub(crate) fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
}

/// What it takes when nobody else is in the way.
pub(crate) fn best(times: impl IntoIterator<Item = f64>) -> f64 {
    times.into_iter().fold(f64::INFINITY, f64::min)
}

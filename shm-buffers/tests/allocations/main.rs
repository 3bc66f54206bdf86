//! The cost of sharing and loading models: a model of very many buffers, and one with memory of Arrow. The allocator counts.
//!
//! A binary of its own, because its allocator counts for the whole process.
#![cfg(not(loom))]
#![allow(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::error::Error;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use shm_buffers::{Backing, Buffer, Image, share};

struct Counting;

static CALLS: AtomicUsize = AtomicUsize::new(0);
static ALLOCATED: AtomicUsize = AtomicUsize::new(0);
static FREED: AtomicUsize = AtomicUsize::new(0);

fn count(bytes: usize) {
    CALLS.fetch_add(1, Relaxed);
    ALLOCATED.fetch_add(bytes, Relaxed);
}

// SAFETY: every call is passed on to the system's allocator, unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller gives the same guarantees.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        FREED.fetch_add(layout.size(), Relaxed);
        // SAFETY: the caller gives the same guarantees, and the memory is the system's.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        FREED.fetch_add(layout.size(), Relaxed);
        // SAFETY: the caller gives the same guarantees, and the memory is the system's.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The cost of an operation.
#[derive(Debug, Clone, Copy)]
struct Cost {
    calls: usize,
    /// Bytes of all calls.
    allocated: usize,
    /// Bytes that are still allocated, by the result of the operation.
    kept: usize,
}

fn cost<R>(run: impl FnOnce() -> R) -> (R, Cost) {
    let now = || (CALLS.load(Relaxed), ALLOCATED.load(Relaxed), FREED.load(Relaxed));
    let before = now();
    let result = run();
    let after = now();
    let allocated = after.1 - before.1;
    let cost = Cost {
        calls: after.0 - before.0,
        allocated,
        kept: allocated.saturating_sub(after.2 - before.2),
    };
    (result, cost)
}

/// Returns the costs of sharing and of loading a model of `count` buffers of 64 bytes.
fn costs(count: usize) -> Result<(Cost, Cost), Box<dyn Error>> {
    let model: Vec<Buffer<u8>> = (0..count).map(|i| vec![i as u8; 64].into()).collect();
    let (image, sharing) = cost(|| share(&model, &Backing::Auto));
    let image = image?;
    let attached = Image::attach(&image.handle()?)?;
    let (loaded, loading) = cost(|| attached.load::<Vec<Buffer<u8>>>());
    let loaded = loaded?;
    assert_eq!(loaded.len(), count);
    assert!(loaded == model);
    Ok((sharing, loading))
}

/// The only test, so that no other thread allocates at the same time.
#[test]
fn sharing_allocates_little() -> Result<(), Box<dyn Error>> {
    many_buffers_cost_little_and_in_proportion()?;
    #[cfg(feature = "arrow")]
    arrow_memory_is_copied_into_the_segment_only()?;
    Ok(())
}

fn many_buffers_cost_little_and_in_proportion() -> Result<(), Box<dyn Error>> {
    const FEW: usize = 50_000;
    const MANY: usize = 4 * FEW;
    let (sharing_few, loading_few) = costs(FEW)?;
    let (sharing, loading) = costs(MANY)?;

    // Nothing is allocated for a buffer: only the model's own vector grows.
    assert!(loading.calls < 20, "{loading:?}");
    assert!(
        loading.calls <= loading_few.calls + 3,
        "{loading_few:?}, {loading:?}"
    );
    assert!(loading.kept <= 64 * MANY, "{loading:?}");

    // Names are made for the first 10,000 buffers, and nothing else for each one.
    assert!(sharing.calls < 20_000, "{sharing:?}");
    assert!(
        sharing.calls <= sharing_few.calls + 200,
        "{sharing_few:?}, {sharing:?}"
    );
    assert!(
        sharing.allocated <= 5 * sharing_few.allocated,
        "{sharing_few:?}, {sharing:?}"
    );
    assert!(sharing.allocated <= 700 * MANY, "{sharing:?}");
    Ok(())
}

#[cfg(feature = "arrow")]
fn arrow_memory_is_copied_into_the_segment_only() -> Result<(), Box<dyn Error>> {
    use std::sync::Arc;

    use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
    use shm_buffers::{SharedRecordBatch, share_move};

    const ROWS: i64 = 500_000;
    /// The least bytes of the columns.
    const BYTES: usize = 2 * 8 * ROWS as usize;
    /// The most bytes for anything else: a schema, arrays, a skeleton.
    const LITTLE: usize = 100_000;
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..ROWS));
    let words: ArrayRef = Arc::new(StringArray::from_iter_values((0..ROWS).map(|n| format!("{n:8}"))));
    let batch = RecordBatch::try_from_iter([("numbers", numbers), ("words", words)])?;

    let (shared, taking) = cost(|| SharedRecordBatch::from(batch));
    assert!(taking.allocated < LITTLE, "{taking:?}");
    let freed = FREED.load(Relaxed);
    let (image, sharing) = cost(|| share_move(shared, &Backing::Auto));
    let image = image?;
    assert!(sharing.allocated < LITTLE, "{sharing:?}");
    let freed = FREED.load(Relaxed) - freed;
    assert!(freed >= BYTES, "only {freed} bytes of {BYTES} were freed");
    let (theirs, loading) = cost(|| image.load::<SharedRecordBatch>());
    let (batch, reading) = cost(|| theirs?.to_batch().map_err(Box::<dyn Error>::from));
    assert_eq!(batch?.num_rows(), ROWS as usize);
    assert!(loading.allocated < LITTLE, "{loading:?}");
    assert!(reading.allocated < LITTLE, "{reading:?}");
    Ok(())
}

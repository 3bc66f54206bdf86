//! Ops from everywhere: libraries, generic code, closures within them. What runs in examples and benchmarks is shown
//! by those: `examples/squares.rs` is run as a test, `benches/pool` has pools itself.

use proc_pool::{Builder, Pool, PoolError, Workers};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::support::{pool, watchdog};

fn one<T, R>(pool: &Pool<T, R>, task: T) -> R {
    pool.map([task]).next().expect("one").expect("no task fails")
}

#[test]
fn functions_of_libraries() {
    let _watchdog = watchdog(60);
    assert_eq!(one(&pool(1, u64::count_ones), 255), 8);
    assert_eq!(one(&pool(1, String::into_bytes), "a".to_owned()), b"a");
    assert_eq!(
        one(&pool(1, std::convert::identity::<Option<i8>>), Some(-3)),
        Some(-3)
    );
    // Of another crate than this one.
    let backing = one(
        &pool(1, |(): ()| format!("{:?}", shm_buffers::Backing::default())),
        (),
    );
    assert_eq!(backing, format!("{:?}", shm_buffers::Backing::default()));
}

/// As a library has it that makes pools for its users' types.
trait Double: Copy + Serialize + DeserializeOwned + 'static {
    fn double(self) -> Self;

    fn pool() -> Result<Pool<Self, Vec<Self>>, PoolError> {
        let builder = Builder::new().workers(Workers::Count(1));
        builder.build_op(|it: Self| vec![it, it.double()])
    }
}

impl Double for u8 {
    fn double(self) -> Self {
        self * 2
    }
}

impl Double for f64 {
    fn double(self) -> Self {
        self + self
    }
}

/// The same closure for two types is two ops.
#[test]
fn closures_of_generic_code() {
    let _watchdog = watchdog(60);
    assert_eq!(one(&u8::pool().expect("it starts"), 3), [3, 6]);
    assert_eq!(one(&f64::pool().expect("it starts"), 0.5), [0.5, 1.0]);
}

//! A C function that crashes on one input and hangs on another. Those two tasks fail, each with its cause; all others have
//! outputs, and the inputs of the failed ones come back.
//!
//! `cargo run -p proc-pool --example crashing_c`
#![allow(
    unsafe_code,
    reason = "calls C functions, one of them with a null pointer on purpose"
)]

use std::ffi::{CString, c_char, c_uint};
use std::time::Duration;

use proc_pool::{Builder, ExitCause, Fault};

unsafe extern "C" {
    fn getenv(name: *const c_char) -> *const c_char;
    fn strlen(text: *const c_char) -> usize;
    fn sleep(seconds: c_uint) -> c_uint;
}

/// Returns the length of a variable's value: with a bug that many C programs have, and slowly for one variable.
fn length(name: CString) -> usize {
    if name.as_c_str() == c"SLOW" {
        // SAFETY: `sleep` has no preconditions.
        unsafe { sleep(1000) };
    }
    // SAFETY: `name` ends with a zero byte and outlives the call, and this program never changes the environment.
    let value = unsafe { getenv(name.as_ptr()) };
    // SAFETY: this call is unsound, on purpose. `value` is null if the variable is not set, and `strlen` reads through it.
    // In a worker process this bug costs one task.
    unsafe { strlen(value) }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    proc_pool::init();
    let builder = Builder::new().workers(2).deadline(Duration::from_millis(500));
    let pool = builder.env("GREETING", "hello").build_op(length)?;
    let names = (0..100).map(|n| match n {
        42 => c"NO_SUCH_VARIABLE".to_owned(),
        77 => c"SLOW".to_owned(),
        _ => c"GREETING".to_owned(),
    });
    let (mut lengths, mut failed) = (Vec::new(), Vec::new());
    for (name, output) in pool.map(names).with_inputs() {
        match output {
            Ok(length) => lengths.push(length),
            Err(error) => {
                println!("{name:?}: {error}");
                failed.push(error.fault);
            }
        }
    }
    println!("{} lengths, {:?}", lengths.len(), pool.stats());

    // This example is also a test.
    assert_eq!(lengths, [5; 98]);
    let [Fault::WorkerDied { cause, .. }, Fault::TimedOut { .. }] = &failed[..] else {
        panic!("expected a crash and a timeout: {failed:?}");
    };
    assert!(
        matches!(cause, ExitCause::Signal { .. } | ExitCause::Exception { .. }),
        "{cause}"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    proc_pool::init_in_tests!();

    #[test]
    fn example_succeeds() {
        super::main().expect("the example succeeds");
    }
}

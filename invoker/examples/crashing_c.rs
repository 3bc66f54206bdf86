//! A C function that crashes on one input in a hundred. That task fails, and all others have outputs.
//!
//! `cargo run -p invoker --example crashing_c`
#![allow(unsafe_code, reason = "crashes on purpose, in C")]

use std::ffi::{CString, c_char};

use invoker::{ExitCause, Fault, Invoker, Processes};

unsafe extern "C" {
    fn getenv(name: *const c_char) -> *mut c_char;
    fn strlen(text: *const c_char) -> usize;
}

/// Returns the length of a variable's value, with a bug that many C programs have.
fn length(_: &(), name: CString) -> usize {
    // SAFETY: `name` ends with a zero byte and outlives the call, and this program never changes the environment.
    let value = unsafe { getenv(name.as_ptr()) };
    // SAFETY: this call is unsound, on purpose. `value` is null if the variable is not set, and `strlen` reads through it.
    // In a worker process this bug costs one task.
    unsafe { strlen(value) }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    invoker::init();
    let processes = Processes::new().env("GREETING", "hello");
    let invoker = Invoker::builder(length).model(()).executor(processes).build()?;
    let names = (0..100).map(|n| match n {
        42 => c"NO_SUCH_VARIABLE".to_owned(),
        _ => c"GREETING".to_owned(),
    });
    let mut lengths = Vec::new();
    let mut crashes = Vec::new();
    for output in invoker.map(names) {
        match output {
            Ok(length) => lengths.push(length),
            Err(error) => {
                println!("{error}");
                crashes.push(error);
            }
        }
    }
    println!("{}", invoker.finish()?);

    // This example is also a test.
    assert_eq!(lengths, [5; 99]);
    let [error] = &crashes[..] else {
        panic!("expected one crash: {crashes:?}");
    };
    assert_eq!(error.task, 42);
    let Fault::WorkerDied { cause, .. } = &error.fault else {
        panic!("the worker did not die: {error}");
    };
    match cause {
        ExitCause::Signal { name, .. } => assert_eq!(name, "SIGSEGV"),
        ExitCause::Exception { name, .. } => assert_eq!(name, "STATUS_ACCESS_VIOLATION"),
        other => panic!("the worker did not crash: {other}"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    invoker::init_in_tests!();

    #[test]
    fn runs_to_the_end() {
        super::main().expect("no error");
    }
}

//! A C function that crashes on one input in a hundred: that input has an error, and all others have their outputs.
//!
//! `cargo run -p invoker --example crashing_c`
#![allow(unsafe_code)]

use std::ffi::{CString, c_char};

use invoker::{Cause, Fault, Invoker};

unsafe extern "C" {
    fn getenv(name: *const c_char) -> *mut c_char;
    fn strlen(text: *const c_char) -> usize;
}

/// The length of a variable's value, by the C library, and with a bug that many C programs have.
fn length(_: &(), name: CString) -> usize {
    // SAFETY: `name` ends with a zero byte and outlives the call; nothing in this program changes the environment.
    let value = unsafe { getenv(name.as_ptr()) };
    // SAFETY: there is none. `value` is null for a variable that is not set, and `strlen` reads what it points at: that
    // is the bug. In a worker process it costs one task.
    unsafe { strlen(value) }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    invoker::init();
    let builder = Invoker::builder(length).model(()).env("GREETING", "hello");
    let invoker = builder.build()?;
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

    // It is a test, too.
    assert_eq!(lengths, [5; 99]);
    let [error] = &crashes[..] else {
        panic!("one crash, not {crashes:?}");
    };
    assert_eq!(error.task, 42);
    let Fault::WorkerDied { cause, .. } = &error.fault else {
        panic!("no death: {error}");
    };
    match cause {
        Cause::Signal { name, .. } => assert_eq!(name, "SIGSEGV"),
        Cause::Exception { name, .. } => assert_eq!(name, "STATUS_ACCESS_VIOLATION"),
        other => panic!("not a crash: {other}"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    invoker::init_in_tests!();

    #[test]
    fn it_runs() {
        super::main().expect("it runs");
    }
}

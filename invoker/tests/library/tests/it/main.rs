//! The program, as its users run it, and the library within tests.

use std::process::Command;

invoker::init_in_tests!();

#[test]
fn a_library_brings_worker_processes_to_a_program_that_only_calls_init() {
    let output = Command::new(env!("CARGO_BIN_EXE_vowels-cli"))
        .args(["aeon", "rhythm", "banana"])
        .output()
        .expect("it runs");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "3\n0\n3\n");
    assert!(output.status.success());
}

#[test]
fn its_callers_can_test_it() {
    let counts = vowels::count(vec!["ocean".to_owned()]).expect("it counts");
    assert_eq!(counts, [3]);
}

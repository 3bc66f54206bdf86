//! The program from the command line, and the library in tests.

use std::process::Command;

invoker::init_in_tests!();

#[test]
fn a_program_that_only_calls_init_has_worker_processes() {
    let output = Command::new(env!("CARGO_BIN_EXE_vowels-cli"))
        .args(["aeon", "rhythm", "banana"])
        .output()
        .expect("it runs");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "3\n0\n3\n");
    assert!(output.status.success());
}

#[test]
fn the_library_works_in_tests() {
    let counts = vowels::count(vec!["ocean".to_owned()]).expect("no error");
    assert_eq!(counts, [3]);
}

/// Returns what the program prints for two words.
fn counts(program: &str, counting: &str) -> String {
    let output = Command::new(program)
        .args([counting, "aeon", "rhythm"])
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn init_works_as_the_first_line_of_tokio_main() {
    let program = env!("CARGO_BIN_EXE_vowels-tokio-main");
    assert_eq!(counts(program, "direct"), "Ok(3)\nOk(0)\n");
}

#[test]
fn init_works_before_a_tokio_runtime() {
    let program = env!("CARGO_BIN_EXE_vowels-tokio-runtime");
    assert_eq!(counts(program, "direct"), "Ok(3)\nOk(0)\n");
}

#[test]
fn an_op_can_use_a_runtime_of_its_own_only_if_init_came_before_any_runtime() {
    let program = env!("CARGO_BIN_EXE_vowels-tokio-runtime");
    assert_eq!(counts(program, "in-runtime"), "Ok(3)\nOk(0)\n");
    let refused = counts(env!("CARGO_BIN_EXE_vowels-tokio-main"), "in-runtime");
    let reason = "Cannot start a runtime from within a runtime";
    assert_eq!(refused.matches(reason).count(), 2, "{refused}");
}

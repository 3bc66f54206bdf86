//! What this machine will allow: `cargo run -p invoker --example doctor`, with `--json` for programs.
//!
//! It is an example, not a verb of the repository's own tools, so that it can be copied into a program that is deployed:
//! what counts is what that program finds where it runs.

use std::process::ExitCode;

use invoker::{Verdict, doctor};

fn main() -> ExitCode {
    invoker::init();
    let diagnosis = doctor();
    match std::env::args().nth(1).as_deref() {
        None => println!("{diagnosis}"),
        Some("--json") => println!("{}", diagnosis.to_json()),
        Some(other) => {
            eprintln!("doctor: {other} is not an option; --json is the only one");
            return ExitCode::from(2);
        }
    }
    match diagnosis.worst() {
        Verdict::Broken => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}

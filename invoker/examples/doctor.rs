//! Checks what this machine offers: `cargo run -p invoker --example doctor`, with `--json` for programs.
//!
//! Copy it into a program that you deploy: the limits that count are those of that program, where it runs.

use std::process::ExitCode;

use clap::Parser;
use invoker::{Verdict, doctor};

/// Checks what this machine offers. Exits with status 1 if a feature does not work.
#[derive(Parser)]
#[command(name = "doctor")]
struct Args {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    invoker::init();
    let args = Args::parse();
    let diagnosis = doctor();
    match args.json {
        true => println!("{}", diagnosis.to_json()),
        false => println!("{diagnosis}"),
    }
    match diagnosis.worst() {
        Verdict::Broken => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}

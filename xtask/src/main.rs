//! A contributor's day in one command: `cargo xtask VERB`.
//!
//! One module per verb; `cmd` runs programs, `workspace` knows the crates. This tool depends on none of them, so that it
//! still builds and tells what is wrong while one of them does not compile.

mod bench;
mod ci;
mod cmd;
mod cross;
mod faults;
mod hostile;
mod interop;
mod loom;
mod outcome;
mod small_shm;
mod tidy;
mod workspace;

use std::process::ExitCode;

use outcome::Error;

const HELP: &str = "\
Usage: cargo xtask VERB

Verbs:
  ci [STEP...]     everything a change must pass; names pick single steps, --list shows them
  tidy             the house rules that code can check
  bench [AREA...]  benchmarks in release; see `cargo xtask bench --help`
  faults           everything that can happen to a worker; see `cargo xtask faults --help`
  hostile          workers, leaders and images that lie; see `cargo xtask hostile --help`
  soak             a kill a second; see `cargo xtask soak --help`
  interop          images and tensors against Python's own readers; see `cargo xtask interop --help`
  loom             the model-checked tests of shm-buffers
  cross TARGET     other platforms: checked, tested, run; see `cargo xtask cross --help`
  help             this text

Exit status: 0 all well, 1 a check failed, 2 wrong usage or nothing there to run.
";

fn main() -> ExitCode {
    match dispatch(lexopt::Parser::from_env()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            error.exit_code()
        }
    }
}

fn dispatch(mut args: lexopt::Parser) -> Result<(), Error> {
    use lexopt::prelude::*;
    let verb = match args.next()? {
        Some(Value(verb)) => verb.string()?,
        Some(Short('h') | Long("help")) => "help".to_owned(),
        Some(other) => return Err(other.unexpected().into()),
        None => return Err(Error::usage("no verb given; `cargo xtask help` lists them")),
    };
    match verb.as_str() {
        "ci" => ci::main(args),
        "tidy" => tidy::main(args),
        "bench" => bench::main(args),
        "interop" => interop::main(args),
        "faults" => faults::main(args),
        "hostile" => hostile::main(args),
        "soak" => faults::soak(args),
        "loom" => loom::main(args),
        "cross" => cross::main(args),
        "help" => {
            print!("{HELP}");
            Ok(())
        }
        _ => Err(Error::usage(format!(
            "unknown verb `{verb}`; `cargo xtask help` lists them"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(args: &[&str]) -> Result<(), Error> {
        dispatch(lexopt::Parser::from_args(args))
    }

    #[test]
    fn wrong_usage_is_told_from_a_failed_check() {
        for args in [
            &[][..],
            &["frobnicate"],
            &["--frobnicate"],
            &["tidy", "extra"],
            &["ci", "no-such-step"],
        ] {
            let error = run(args).expect_err("accepted wrong usage");
            assert_eq!(error.exit_code(), ExitCode::from(2), "{args:?}: {error}");
        }
        assert!(run(&["help"]).is_ok());
    }

    #[test]
    fn the_help_names_every_verb() {
        for verb in [
            "ci", "tidy", "bench", "faults", "hostile", "soak", "interop", "loom", "cross", "help",
        ] {
            assert!(HELP.contains(&format!("\n  {verb}")), "{verb} is not in the help");
        }
    }
}

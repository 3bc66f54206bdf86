//! The command line of `bench`, and what of it is handed on to a benchmark.

use std::path::PathBuf;

use lexopt::prelude::*;

use crate::outcome::Error;

/// How much to measure.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum Effort {
    /// Enough for numbers that can be compared.
    #[default]
    Full,
    /// Just enough to see that it works.
    Quick,
}

/// What a benchmark is told.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Options {
    pub(super) effort: Effort,
    pub(super) bytes: Option<u64>,
}

/// What was asked for.
#[derive(Debug, PartialEq)]
pub(super) enum Request {
    Help,
    List,
    Run(Run),
}

/// What is measured, and what becomes of it.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Run {
    pub(super) areas: Vec<String>,
    pub(super) options: Options,
    /// Where the report goes.
    pub(super) out: Option<PathBuf>,
    /// The run to compare with.
    pub(super) baseline: Option<PathBuf>,
}

impl Options {
    /// The same, as arguments of a benchmark.
    pub(super) fn to_args(&self) -> Vec<String> {
        let mut args = Vec::new();
        if self.effort == Effort::Quick {
            args.push("--quick".to_owned());
        }
        if let Some(bytes) = self.bytes {
            args.extend(["--bytes".to_owned(), bytes.to_string()]);
        }
        args
    }
}

pub(super) fn parse(mut args: lexopt::Parser) -> Result<Request, Error> {
    let mut run = Run::default();
    let options = &mut run.options;
    while let Some(arg) = args.next()? {
        match arg {
            Short('h') | Long("help") => return Ok(Request::Help),
            Long("list") => return Ok(Request::List),
            Long("quick") => options.effort = Effort::Quick,
            Long("bytes") => options.bytes = Some(parse_bytes(&args.value()?.string()?)?),
            Long("out") => run.out = Some(args.value()?.into()),
            Long("baseline") => run.baseline = Some(args.value()?.into()),
            Value(area) => run.areas.push(area.string()?),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Request::Run(run))
}

fn parse_bytes(text: &str) -> Result<u64, Error> {
    let wrong = || {
        Error::usage(format!(
            "`--bytes {text}`: expected a number of bytes such as 1000000, 64MiB or 1GiB"
        ))
    };
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match &text[digits.len()..] {
        "" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(wrong()),
    };
    let bytes = digits
        .parse::<u64>()
        .ok()
        .and_then(|count| count.checked_mul(unit));
    bytes.filter(|bytes| *bytes > 0).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(args: &[&str]) -> Result<Request, Error> {
        parse(lexopt::Parser::from_args(args))
    }

    #[test]
    fn options_reach_the_benchmark() {
        let args = [
            "shm",
            "--quick",
            "--bytes",
            "64MiB",
            "pool",
            "--out",
            "d",
            "--baseline",
            "b.json",
        ];
        let Ok(Request::Run(run)) = parsed(&args) else {
            panic!("not a run");
        };
        assert_eq!(run.areas, ["shm", "pool"]);
        assert_eq!((run.out, run.baseline), (Some("d".into()), Some("b.json".into())));
        assert_eq!(run.options.to_args(), ["--quick", "--bytes", "67108864"]);
        assert_eq!(Options::default().to_args(), [""; 0]);
        assert_eq!(parsed(&["--list"]).expect("list"), Request::List);
    }

    #[test]
    fn sizes_that_make_no_sense_are_refused() {
        for text in ["", "0", "MiB", "-1", "64MB", "1.5GiB", "99999999999GiB", "12 MiB"] {
            let error = parsed(&["--bytes", text]).expect_err(text);
            assert!(matches!(error, Error::Usage(_)), "{text}: {error}");
        }
        assert_eq!(parse_bytes("1000").expect("plain bytes"), 1000);
        assert_eq!(parse_bytes("2KiB").expect("KiB"), 2048);
    }
}

//! The command line: options, their defaults, and what is wrong with them.

use std::ffi::OsString;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::str::FromStr;

use lexopt::prelude::*;

/// What `--help` prints.
pub(crate) const HELP: &str = "\
Batch evaluation of a recommender: trains item-item kNN on movie ratings, shares the model with all workers,
recommends for every user, and judges the lists against ratings that were held out.

Usage: batch_eval [OPTIONS]

Input:
  --ratings FILE       ratings as CSV with the header userId,movieId,rating,timestamp
                       [default: MovieLens ml-latest-small of October 2016, built in]
Evaluation:
  --top N              length of each list of recommendations [default: 10]
  --holdout FRACTION   part of each user's ratings to hold out, above 0 and below 1 [default: 0.2]
  --seed SEED          decides which ratings are held out, 0 to 18446744073709551615 [default: 42]
  --no-holdout         train on everything and only recommend; prints no metrics
  --repeat K           evaluate the users K times, for timing; lists and metrics stay the same [default: 1]
Execution:
  --executor KIND      processes: isolated worker processes, a crash costs one task
                       threads: threads of this process, a crash ends the run
                       in-process: one after the other on the main thread
                       [default: processes]
  --workers N          worker processes or threads [default: one per core; in-process has 1]
  --crash-user ID      abort the worker at this user, to show what happens
                       (with threads or in-process that ends the whole run)
Output:
  --recs OUT.csv       write the recommendations, as user,rank,item,score with all digits
  --report FORMAT      text or json, on standard output [default: text]
  --log LEVEL          off, error, warn, info, debug or trace, on standard error [default: info]
  --progress KIND      auto: bar on a terminal, lines elsewhere; or bar, lines, none [default: auto]
  -h, --help           print this

Exit status: 0 all users were evaluated, 1 some could not be or the run failed, 2 bad input.
";

/// The options of a run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Args {
    /// Ratings file; the bundled ratings without one.
    pub(crate) ratings: Option<PathBuf>,
    /// Length of the lists.
    pub(crate) top: NonZeroU32,
    /// Part of each user's ratings to hold out; `None` to train on everything.
    pub(crate) holdout: Option<f64>,
    /// Decides which ratings are held out.
    pub(crate) seed: u64,
    /// Number of passes over the users.
    pub(crate) repeat: NonZeroU32,
    /// Where the op runs.
    pub(crate) executor: Executor,
    /// Number of workers; the executor's default without one.
    pub(crate) workers: Option<NonZeroUsize>,
    /// Id of the user to crash at.
    pub(crate) crash_user: Option<u32>,
    /// Where to write the recommendations.
    pub(crate) recs: Option<PathBuf>,
    /// Form of the report.
    pub(crate) report: ReportFormat,
    /// Least severe events to log.
    pub(crate) log: tracing_subscriber::filter::LevelFilter,
    /// How progress is shown.
    pub(crate) progress: Progress,
}

/// What the command line asks for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Command {
    /// Print [`HELP`].
    Help,
    /// Evaluate.
    Run(Args),
}

/// Why a command line was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ArgsError {
    /// An unknown option, a missing or an unexpected argument.
    #[error("{0}; batch_eval --help lists the options")]
    Syntax(#[from] lexopt::Error),
    /// The value of an option is none of its values.
    #[error("{option}: `{value}` is not {expected}")]
    Value {
        option: &'static str,
        value: String,
        expected: &'static str,
    },
    /// Two options contradict each other.
    #[error("{0}")]
    Conflict(&'static str),
}

/// Declares an enum of an option's values.
macro_rules! choices {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl FromStr for $name {
            type Err = ();
            fn from_str(text: &str) -> Result<Self, ()> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    _ => Err(()),
                }
            }
        }
    };
}

choices! {
    /// Where the op runs.
    Executor {
        /// In worker processes.
        Processes = "processes",
        /// On threads of this process.
        Threads = "threads",
        /// On the main thread.
        InProcess = "in-process",
    }
}

choices! {
    /// Form of the report.
    ReportFormat {
        /// A table to read.
        Text = "text",
        /// One JSON object.
        Json = "json",
    }
}

choices! {
    /// How progress is shown.
    Progress {
        /// A bar on a terminal, lines elsewhere.
        Auto = "auto",
        /// A bar.
        Bar = "bar",
        /// A line now and then.
        Lines = "lines",
        /// Nothing.
        None = "none",
    }
}

impl Default for Args {
    fn default() -> Self {
        Self {
            ratings: None,
            top: NonZeroU32::new(10).expect("10 is not 0"),
            holdout: Some(0.2),
            seed: 42,
            repeat: NonZeroU32::MIN,
            executor: Executor::Processes,
            workers: None,
            crash_user: None,
            recs: None,
            report: ReportFormat::Text,
            log: tracing_subscriber::filter::LevelFilter::INFO,
            progress: Progress::Auto,
        }
    }
}

/// Reads the command line; the first argument is the program's name.
///
/// # Errors
/// When an option is unknown, has no or a wrong value, or contradicts another one.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, ArgsError> {
    let mut parser = lexopt::Parser::from_iter(args);
    let mut parsed = Args::default();
    let (mut holdout, mut no_holdout) = (None, false);
    while let Some(arg) = parser.next()? {
        match arg {
            Short('h') | Long("help") => return Ok(Command::Help),
            Long("ratings") => parsed.ratings = Some(parser.value()?.into()),
            Long("top") => parsed.top = value(&mut parser, "--top", "a whole number from 1 to 4294967295")?,
            Long("holdout") => {
                let expected = "a number above 0 and below 1; to hold out nothing, give --no-holdout";
                let (fraction, text) = value_and_text::<f64>(&mut parser, "--holdout", expected)?;
                if !(fraction > 0.0 && fraction < 1.0) {
                    return Err(ArgsError::Value {
                        option: "--holdout",
                        value: text,
                        expected,
                    });
                }
                holdout = Some(fraction);
            }
            Long("no-holdout") => no_holdout = true,
            Long("seed") => {
                parsed.seed = value(
                    &mut parser,
                    "--seed",
                    "a whole number from 0 to 18446744073709551615",
                )?;
            }
            Long("repeat") => {
                parsed.repeat = value(&mut parser, "--repeat", "a whole number from 1 to 4294967295")?;
            }
            Long("executor") => {
                parsed.executor = value(&mut parser, "--executor", "one of processes, threads, in-process")?;
            }
            Long("workers") => {
                let expected = "a whole number from 1 up; leave it out for one worker per core";
                parsed.workers = Some(value(&mut parser, "--workers", expected)?);
            }
            Long("crash-user") => {
                let expected = "a user id, which is a whole number from 0 to 4294967295";
                parsed.crash_user = Some(value(&mut parser, "--crash-user", expected)?);
            }
            Long("recs") => parsed.recs = Some(parser.value()?.into()),
            Long("report") => parsed.report = value(&mut parser, "--report", "one of text, json")?,
            Long("log") => {
                let expected = "one of off, error, warn, info, debug, trace";
                let (level, text) = value_and_text(&mut parser, "--log", expected)?;
                // The filter's own syntax takes numbers and the empty text too.
                if !text.starts_with(|c: char| c.is_ascii_alphabetic()) {
                    return Err(ArgsError::Value {
                        option: "--log",
                        value: text,
                        expected,
                    });
                }
                parsed.log = level;
            }
            Long("progress") => {
                parsed.progress = value(&mut parser, "--progress", "one of auto, bar, lines, none")?;
            }
            _ => return Err(arg.unexpected().into()),
        }
    }
    if no_holdout && holdout.is_some() {
        return Err(ArgsError::Conflict(
            "--holdout and --no-holdout exclude each other; give one of them",
        ));
    }
    if parsed.executor == Executor::InProcess && parsed.workers.is_some_and(|n| n > NonZeroUsize::MIN) {
        return Err(ArgsError::Conflict(
            "--executor in-process has one worker; leave --workers out, or take --executor threads",
        ));
    }
    parsed.holdout = if no_holdout {
        None
    } else {
        holdout.or(parsed.holdout)
    };
    Ok(Command::Run(parsed))
}

fn value<T: FromStr>(
    parser: &mut lexopt::Parser,
    option: &'static str,
    expected: &'static str,
) -> Result<T, ArgsError> {
    Ok(value_and_text(parser, option, expected)?.0)
}

fn value_and_text<T: FromStr>(
    parser: &mut lexopt::Parser,
    option: &'static str,
    expected: &'static str,
) -> Result<(T, String), ArgsError> {
    let text = parser.value()?.to_string_lossy().into_owned();
    match text.parse() {
        Ok(value) => Ok((value, text)),
        Err(_) => Err(ArgsError::Value {
            option,
            value: text.escape_debug().to_string(),
            expected,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &str) -> Result<Args, String> {
        let words = std::iter::once("batch_eval")
            .chain(args.split_whitespace())
            .map(OsString::from);
        match super::parse(words) {
            Ok(Command::Run(args)) => Ok(args),
            Ok(Command::Help) => panic!("help"),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn every_documented_default_holds() {
        let args = parse("").unwrap();
        assert_eq!(args, Args::default());
        for (option, default) in [
            ("--top", args.top.to_string()),
            ("--holdout", args.holdout.unwrap().to_string()),
            ("--seed", args.seed.to_string()),
            ("--repeat", args.repeat.to_string()),
            ("--log", args.log.to_string()),
        ] {
            let line = HELP.lines().find(|line| line.trim().starts_with(option)).unwrap();
            assert!(line.ends_with(&format!("[default: {default}]")), "{line}");
        }
        assert_eq!(args.executor, Executor::Processes);
        assert_eq!(args.report, ReportFormat::Text);
        assert_eq!(args.progress, Progress::Auto);
    }

    #[test]
    fn all_options_are_understood() {
        let args = parse(
            "--ratings r.csv --top 5 --holdout 0.5 --seed 7 --repeat 3 --executor threads --workers 4 \
             --crash-user 15 --recs out.csv --report json --log off --progress none",
        )
        .unwrap();
        let expected = Args {
            ratings: Some("r.csv".into()),
            top: NonZeroU32::new(5).unwrap(),
            holdout: Some(0.5),
            seed: 7,
            repeat: NonZeroU32::new(3).unwrap(),
            executor: Executor::Threads,
            workers: NonZeroUsize::new(4),
            crash_user: Some(15),
            recs: Some("out.csv".into()),
            report: ReportFormat::Json,
            log: tracing_subscriber::filter::LevelFilter::OFF,
            progress: Progress::None,
        };
        assert_eq!(args, expected);
        assert_eq!(parse("--no-holdout --top=5").unwrap().holdout, None);
        assert_eq!(
            parse("--executor in-process --workers 1").unwrap().executor,
            Executor::InProcess
        );
    }

    #[test]
    fn a_wrong_option_is_told_in_one_line_with_what_would_be_right() {
        for (args, error) in [
            (
                "--workers 0",
                "--workers: `0` is not a whole number from 1 up; leave it out for",
            ),
            (
                "--workers many",
                "--workers: `many` is not a whole number from 1 up",
            ),
            ("--workers -1", "--workers: `-1` is not"),
            ("--top 0", "--top: `0` is not a whole number from 1"),
            ("--repeat 0", "--repeat: `0` is not"),
            ("--seed x", "--seed: `x` is not a whole number"),
            (
                "--holdout 0",
                "--holdout: `0` is not a number above 0 and below 1; to hold out nothing, give",
            ),
            ("--holdout 1", "--holdout: `1` is not"),
            ("--holdout nan", "--holdout: `nan` is not"),
            ("--holdout 20%", "--holdout: `20%` is not"),
            (
                "--executor gpu",
                "--executor: `gpu` is not one of processes, threads, in-process",
            ),
            ("--report xml", "--report: `xml` is not one of text, json"),
            ("--log loud", "--log: `loud` is not one of off, error"),
            ("--log 3", "--log: `3` is not one of"),
            (
                "--progress dots",
                "--progress: `dots` is not one of auto, bar, lines, none",
            ),
            ("--crash-user bob", "--crash-user: `bob` is not a user id"),
            (
                "--holdout 0.5 --no-holdout",
                "--holdout and --no-holdout exclude each other",
            ),
            (
                "--executor in-process --workers 2",
                "--executor in-process has one worker",
            ),
            (
                "--frobnicate",
                "invalid option '--frobnicate'; batch_eval --help lists the options",
            ),
            (
                "ratings.csv",
                "unexpected argument \"ratings.csv\"; batch_eval --help",
            ),
            (
                "--no-holdout=yes",
                "unexpected argument for option '--no-holdout'",
            ),
            ("--top", "missing argument for option '--top'"),
        ] {
            let told = parse(args).unwrap_err();
            assert!(told.starts_with(error), "{told}");
            assert!(!told.contains('\n'));
        }
    }

    #[test]
    fn help_explains_every_option() {
        let help = super::parse(["batch_eval", "--top", "3", "--help"].map(OsString::from)).unwrap();
        assert_eq!(help, Command::Help);
        let source = include_str!("args.rs");
        let options: Vec<&str> = source
            .split("Long(\"")
            .skip(1)
            .filter_map(|rest| rest.split('"').next())
            .collect();
        assert!(options.len() >= 14);
        for option in options
            .iter()
            .filter(|option| option.chars().all(|c| c.is_ascii_lowercase() || c == '-'))
        {
            assert!(HELP.contains(&format!("--{option}")), "{option}");
        }
    }
}

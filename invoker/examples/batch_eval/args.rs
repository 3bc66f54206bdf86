//! The command line: options, their defaults and their help.

use std::num::NonZeroU32;
use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, ValueEnum};
use invoker::{Executor, Render, Workers};
use tracing_subscriber::filter::LevelFilter;

/// Batch evaluation of a recommender: trains item-item kNN on movie ratings, shares the model with all workers, recommends
/// for every user, and judges the lists against held-out ratings.
#[derive(Debug, Clone, PartialEq, Parser)]
#[command(
    name = "batch_eval",
    after_help = "Exit status: 0 all users were evaluated, 1 some could not be or the run failed, 2 bad input."
)]
pub(crate) struct Args {
    /// Ratings as CSV with the header userId,movieId,rating,timestamp [default: MovieLens ml-latest-small of October 2016,
    /// built in]
    #[arg(long, value_name = "FILE", help_heading = "Input")]
    pub(crate) ratings: Option<PathBuf>,

    /// Length of each list of recommendations
    #[arg(long, value_name = "N", default_value = "10", help_heading = "Evaluation")]
    pub(crate) top: NonZeroU32,

    /// Part of each user's ratings to hold out, above 0 and below 1
    #[arg(
        long = "holdout",
        value_name = "FRACTION",
        default_value = "0.2",
        value_parser = parse_fraction,
        help_heading = "Evaluation"
    )]
    holdout_fraction: f64,

    /// Determines which ratings are held out
    #[arg(long, default_value = "42", help_heading = "Evaluation")]
    pub(crate) seed: u64,

    /// Train on all ratings and only recommend; prints no metrics
    #[arg(long, conflicts_with = "holdout_fraction", help_heading = "Evaluation")]
    no_holdout: bool,

    /// Evaluate the users K times, for timing; lists and metrics stay the same
    #[arg(long, value_name = "K", default_value = "1", help_heading = "Evaluation")]
    pub(crate) repeat: NonZeroU32,

    /// Where the op runs: in worker processes (a crash costs one task), in threads of this process (a crash ends the run), or
    /// inline on the main thread
    #[arg(
        long,
        value_name = "KIND",
        default_value = "processes",
        value_parser = named::<Executor>(&["processes", "threads", "inline"]),
        help_heading = "Execution"
    )]
    pub(crate) executor: Executor,

    /// Number of workers, or `all` for one per core [default: all; inline has 1]
    #[arg(long, value_name = "N", help_heading = "Execution")]
    pub(crate) workers: Option<Workers>,

    /// Abort the worker at this user, to show what a crash costs (with other executors than processes it ends the run)
    #[arg(long, value_name = "ID", help_heading = "Execution")]
    pub(crate) crash_user: Option<u32>,

    /// Keep the outcomes in this file, and go on where an earlier run with the same file and options has ended
    #[arg(long, value_name = "FILE", help_heading = "Execution")]
    pub(crate) resume: Option<PathBuf>,

    /// Write the recommendations to this file, as user,rank,item,score with all digits
    #[arg(long, value_name = "OUT.csv", help_heading = "Output")]
    pub(crate) recs: Option<PathBuf>,

    /// Format of the report on standard output
    #[arg(long, value_name = "FORMAT", default_value = "text", help_heading = "Output")]
    pub(crate) report: ReportFormat,

    /// Minimum level of log events on standard error
    #[arg(
        long,
        value_name = "LEVEL",
        default_value = "info",
        value_parser = named::<LevelFilter>(&["off", "error", "warn", "info", "debug", "trace"]),
        help_heading = "Output"
    )]
    pub(crate) log: LevelFilter,

    /// How progress is shown on standard error; auto is a bar on a terminal, and lines elsewhere
    #[arg(
        long,
        value_name = "KIND",
        default_value = "auto",
        value_parser = named::<Render>(&["auto", "bar", "lines", "json", "none"]),
        help_heading = "Output"
    )]
    pub(crate) progress: Render,
}

/// The format of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReportFormat {
    /// A table to read.
    Text,
    /// One JSON object.
    Json,
}

impl Args {
    /// Returns the part of each user's ratings to hold out; `None` to train on all of them.
    pub(crate) fn holdout(&self) -> Option<f64> {
        (!self.no_holdout).then_some(self.holdout_fraction)
    }

    /// Checks what concerns more than one option, before any work is done.
    fn check(self) -> Result<Self, clap::Error> {
        let several = !matches!(self.workers, None | Some(Workers::Count(1)));
        if self.executor == Executor::Inline && several {
            return Err(Self::command().error(
                ErrorKind::ArgumentConflict,
                "--executor inline has one worker: leave --workers out, or use --executor threads",
            ));
        }
        Ok(self)
    }
}

/// Parses the command line of this process. Prints the help or the error and exits, if there is one.
pub(crate) fn parse() -> Args {
    Args::parse().check().unwrap_or_else(|error| error.exit())
}

fn parse_fraction(text: &str) -> Result<f64, String> {
    let fraction = text.parse().ok();
    fraction
        .filter(|fraction| (f64::MIN_POSITIVE..1.0).contains(fraction))
        .ok_or_else(|| {
            "it must be a number above 0 and below 1; use --no-holdout to hold out nothing".to_owned()
        })
}

/// Returns the parser of a value that is given by one of these names.
fn named<T>(names: &'static [&'static str]) -> impl TypedValueParser<Value = T>
where
    T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static> + Clone + Send + Sync + 'static,
{
    PossibleValuesParser::new(names).try_map(|name| name.parse::<T>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &str) -> Result<Args, String> {
        let words = std::iter::once("batch_eval").chain(args.split_whitespace());
        let args = Args::try_parse_from(words).and_then(Args::check);
        args.map_err(|error| error.to_string())
    }

    #[test]
    fn the_definition_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn defaults_evaluate_the_built_in_ratings_in_processes() {
        let args = parse("").unwrap();
        assert_eq!((args.ratings.as_ref(), args.top.get(), args.seed), (None, 10, 42));
        assert_eq!((args.holdout(), args.repeat.get()), (Some(0.2), 1));
        assert_eq!((args.executor, args.workers), (Executor::Processes, None));
        assert_eq!((args.report, args.progress), (ReportFormat::Text, Render::Auto));
        assert_eq!(args.log, LevelFilter::INFO);
        assert_eq!((args.crash_user, args.resume, args.recs), (None, None, None));
    }

    #[test]
    fn all_options_are_parsed() {
        let args = parse(
            "--ratings r.csv --top 5 --holdout 0.5 --seed 7 --repeat 3 --executor threads --workers 4 \
             --crash-user 15 --resume j --recs out.csv --report json --log off --progress none",
        )
        .unwrap();
        let expected = Args {
            ratings: Some("r.csv".into()),
            top: NonZeroU32::new(5).unwrap(),
            holdout_fraction: 0.5,
            seed: 7,
            no_holdout: false,
            repeat: NonZeroU32::new(3).unwrap(),
            executor: Executor::Threads,
            workers: Some(4.into()),
            crash_user: Some(15),
            resume: Some("j".into()),
            recs: Some("out.csv".into()),
            report: ReportFormat::Json,
            log: LevelFilter::OFF,
            progress: Render::None,
        };
        assert_eq!(args, expected);
        assert_eq!(parse("--no-holdout --top=5").unwrap().holdout(), None);
        assert_eq!(parse("--workers all").unwrap().workers, Some(Workers::All));
        let inline = parse("--executor inline --workers 1").unwrap();
        assert_eq!(inline.executor, Executor::Inline);
    }

    #[test]
    fn errors_name_the_option_and_its_valid_values() {
        for (args, option, valid) in [
            ("--workers 0", "--workers", "`all` or a whole number from 1"),
            ("--workers many", "--workers", "`all` or a whole number from 1"),
            ("--top 0", "--top", "zero"),
            ("--seed x", "--seed", "invalid digit"),
            ("--holdout 0", "--holdout", "use --no-holdout"),
            ("--holdout 1", "--holdout", "below 1"),
            ("--holdout nan", "--holdout", "below 1"),
            ("--executor gpu", "--executor", "processes, threads, inline"),
            ("--report xml", "--report", "text, json"),
            ("--log 3", "--log", "off, error, warn, info, debug, trace"),
            ("--progress dots", "--progress", "auto, bar, lines, json, none"),
            ("--crash-user bob", "--crash-user", "invalid digit"),
            ("--holdout 0.5 --no-holdout", "--holdout", "cannot be used with"),
            (
                "--executor inline --workers 2",
                "--executor inline",
                "leave --workers out",
            ),
            ("--frobnicate", "--frobnicate", "--help"),
            ("ratings.csv", "ratings.csv", "--help"),
            ("--top", "--top", "required"),
        ] {
            let error = parse(args).unwrap_err();
            assert!(error.contains(option) && error.contains(valid), "{args}: {error}");
        }
    }
}

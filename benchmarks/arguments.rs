//! Shared by the benchmarks that parse their own arguments, each of which includes this file.

use std::error::Error;
use std::fmt;

/// The arguments of a benchmark.
#[derive(Debug, Default, PartialEq, Eq)]
#[allow(dead_code, reason = "not every benchmark has a use for every argument")]
pub(crate) struct Arguments {
    /// Whether `cargo bench` has started it. `cargo test` does so too, and a short run is enough then.
    pub(crate) is_bench: bool,
    pub(crate) is_quick: bool,
    /// The size of a model in bytes. Benchmarks without a model ignore it.
    pub(crate) bytes: Option<usize>,
    /// The names of scenarios; none for all.
    pub(crate) scenarios: Vec<String>,
}

impl Arguments {
    /// Parses the arguments of this process.
    ///
    /// # Errors
    ///
    /// If an argument is neither an option nor the name of a scenario.
    pub(crate) fn from_env(scenarios: &[&str]) -> Result<Self, WrongArgument> {
        Self::parse(std::env::args().skip(1), scenarios)
    }

    pub(crate) fn parse(
        mut args: impl Iterator<Item = String>,
        scenarios: &[&str],
    ) -> Result<Self, WrongArgument> {
        let mut parsed = Self::default();
        while let Some(arg) = args.next() {
            let wrong = |problem| WrongArgument {
                problem,
                scenarios: scenarios.iter().map(|&name| name.to_owned()).collect(),
            };
            match arg.as_str() {
                "--bench" => parsed.is_bench = true,
                "--quick" => parsed.is_quick = true,
                "--bytes" => {
                    let number = args.next().unwrap_or_default();
                    let bytes = number.parse();
                    parsed.bytes = Some(bytes.map_err(|_| wrong(Problem::NotBytes(number)))?);
                }
                name if scenarios.contains(&name) => parsed.scenarios.push(arg),
                _ => return Err(wrong(Problem::Unknown(arg))),
            }
        }
        Ok(parsed)
    }

    /// Returns whether to measure a scenario.
    #[allow(dead_code, reason = "not every benchmark has scenarios")]
    pub(crate) fn includes(&self, scenario: &str) -> bool {
        self.scenarios.is_empty() || self.scenarios.iter().any(|name| name == scenario)
    }
}

#[derive(PartialEq, Eq)]
enum Problem {
    Unknown(String),
    NotBytes(String),
}

/// An argument that the benchmark does not have.
#[derive(PartialEq, Eq)]
pub(crate) struct WrongArgument {
    problem: Problem,
    scenarios: Vec<String>,
}

impl fmt::Display for WrongArgument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.problem {
            Problem::Unknown(argument) => write!(f, "unknown argument `{argument}`")?,
            Problem::NotBytes(number) => write!(f, "`--bytes {number}` is not a number of bytes")?,
        }
        write!(f, "; the options are --quick and --bytes N")?;
        match self.scenarios.as_slice() {
            [] => Ok(()),
            scenarios => write!(f, ", and the scenarios are {}", scenarios.join(", ")),
        }
    }
}

/// The same as `Display`, because `main` prints errors with it.
impl fmt::Debug for WrongArgument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error for WrongArgument {}

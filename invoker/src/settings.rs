//! [`Settings`]: what a builder's choices come to, and where each comes from.
//!
//! Code first, then the environment, then the default. A variable that makes no sense is an error, also when code has
//! decided: nobody sets one to be ignored.

use std::fmt;
use std::num::NonZeroUsize;

use proc_pool::Workers;
use progress::Render;

use crate::error::Error;
use crate::executor::Executor;

/// `processes`, `threads` or `in-process`.
pub const EXECUTOR_VARIABLE: &str = "INVOKER_EXECUTOR";
/// Numbers of workers by nesting level, as `4,2`: four, and two for an invoker inside an op of the first; `all` for one
/// a core. Levels beyond the last number have one worker.
pub const WORKERS_VARIABLE: &str = "INVOKER_WORKERS";
/// `auto`, `bar`, `lines`, `json` or `none`: for progress that a builder asks for.
pub const PROGRESS_VARIABLE: &str = "INVOKER_PROGRESS";
/// Set in worker processes: how deep they are.
pub(crate) const LEVEL_VARIABLE: &str = "INVOKER_LEVEL";

/// Where a setting comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// The builder was told.
    Code,
    /// This environment variable.
    Environment(&'static str),
    /// Nobody said anything.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code => f.pad("code"),
            Self::Environment(name) => f.pad(name),
            Self::Default => f.pad("default"),
        }
    }
}

/// A setting and its origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting<T> {
    /// What is used.
    pub value: T,
    /// Why.
    pub origin: Origin,
}

/// The settings that [`build`](crate::Builder::build) would use. Printed, they are a table.
///
/// ```
/// use invoker::{Executor, Invoker, Origin};
///
/// let builder = Invoker::builder(|scale: &f64, n: u32| scale * f64::from(n)).model(2.0);
/// let settings = builder.executor(Executor::Threads).settings()?;
/// assert_eq!((settings.executor.value, settings.executor.origin), (Executor::Threads, Origin::Code));
/// println!("{settings}");
/// # Ok::<(), invoker::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settings {
    /// Where ops run.
    pub executor: Setting<Executor>,
    /// How many workers.
    pub workers: Setting<NonZeroUsize>,
    /// How progress is shown, if it is.
    pub progress: Setting<Render>,
    /// How many invokers this process is inside of.
    pub level: usize,
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            executor,
            workers,
            progress,
            level,
        } = self;
        writeln!(f, "{:<10} {:<12} origin", "setting", "value")?;
        writeln!(
            f,
            "{:<10} {:<12} {}",
            "executor",
            executor.value.name(),
            executor.origin
        )?;
        writeln!(f, "{:<10} {:<12} {}", "workers", workers.value, workers.origin)?;
        writeln!(
            f,
            "{:<10} {:<12} {}",
            "progress",
            progress.value.to_string(),
            progress.origin
        )?;
        write!(f, "{:<10} {:<12}", "level", level)
    }
}

/// What a builder was told.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Choices {
    pub(crate) executor: Option<Executor>,
    pub(crate) workers: Option<Workers>,
}

/// Reads the environment. Injected, so that tests need not change it.
pub(crate) type Environment<'a> = &'a dyn Fn(&'static str) -> Option<String>;

/// The process's own environment.
pub(crate) fn environment(name: &'static str) -> Option<String> {
    std::env::var(name).ok()
}

pub(crate) fn resolve(choices: Choices, environment: Environment<'_>) -> Result<Settings, Error> {
    let level = match environment(LEVEL_VARIABLE) {
        None => 0,
        Some(text) => parse(LEVEL_VARIABLE, &text, "a whole number", |text| text.parse().ok())?,
    };
    let executor = match environment(EXECUTOR_VARIABLE) {
        None => None,
        Some(text) => Some(parse(
            EXECUTOR_VARIABLE,
            &text,
            "processes, threads or in-process",
            Executor::of_name,
        )?),
    };
    let executor = pick(choices.executor, executor, EXECUTOR_VARIABLE, Executor::default());
    let workers = match environment(WORKERS_VARIABLE) {
        None => None,
        Some(text) => {
            let levels = parse(
                WORKERS_VARIABLE,
                &text,
                "numbers from 1 up or `all`, as 4,2",
                levels,
            )?;
            Some(levels.get(level).copied().unwrap_or(Workers::Count(1)))
        }
    };
    // One for each core at each level would be cores to the power of levels.
    let default = if level == 0 {
        Workers::All
    } else {
        Workers::Count(1)
    };
    let workers = match executor.value {
        Executor::InProcess => in_process(choices.workers)?,
        _ => {
            let Setting { value, origin } = pick(choices.workers, workers, WORKERS_VARIABLE, default);
            Setting {
                value: value.resolve()?,
                origin,
            }
        }
    };
    let progress = match environment(PROGRESS_VARIABLE) {
        None => None,
        Some(text) => {
            let wanted = "auto, bar, lines, json or none";
            Some(parse(PROGRESS_VARIABLE, &text, wanted, |text| text.parse().ok())?)
        }
    };
    let progress = pick(None, progress, PROGRESS_VARIABLE, Render::default());
    Ok(Settings {
        executor,
        workers,
        progress,
        level,
    })
}

/// The caller is the only worker there.
fn in_process(asked: Option<Workers>) -> Result<Setting<NonZeroUsize>, Error> {
    match asked {
        None => Ok(Setting {
            value: NonZeroUsize::MIN,
            origin: Origin::Default,
        }),
        Some(Workers::Count(1)) => Ok(Setting {
            value: NonZeroUsize::MIN,
            origin: Origin::Code,
        }),
        Some(_) => Err(Error::Unsupported {
            executor: Executor::InProcess,
            what: "several workers",
        }),
    }
}

fn pick<T>(code: Option<T>, environment: Option<T>, variable: &'static str, default: T) -> Setting<T> {
    match (code, environment) {
        (Some(value), _) => Setting {
            value,
            origin: Origin::Code,
        },
        (None, Some(value)) => Setting {
            value,
            origin: Origin::Environment(variable),
        },
        (None, None) => Setting {
            value: default,
            origin: Origin::Default,
        },
    }
}

fn parse<T>(
    variable: &'static str,
    text: &str,
    wanted: &'static str,
    read: impl FnOnce(&str) -> Option<T>,
) -> Result<T, Error> {
    read(text.trim()).ok_or_else(|| Error::Environment {
        variable,
        value: text.to_owned(),
        wanted,
    })
}

fn levels(text: &str) -> Option<Vec<Workers>> {
    let level = |text: &str| match text.trim() {
        "all" => Some(Workers::All),
        number => number
            .parse::<NonZeroUsize>()
            .ok()
            .map(|n| Workers::Count(n.get())),
    };
    text.split(',').map(level).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(choices: Choices, variables: &[(&'static str, &str)]) -> Result<Settings, Error> {
        let find = |name: &'static str| {
            variables
                .iter()
                .find(|(variable, _)| *variable == name)
                .map(|(_, value)| (*value).to_owned())
        };
        resolve(choices, &find)
    }

    #[test]
    fn defaults() {
        let settings = resolved(Choices::default(), &[]).expect("nothing is wrong");
        assert_eq!(
            settings.executor,
            Setting {
                value: Executor::Processes,
                origin: Origin::Default
            }
        );
        let cores = std::thread::available_parallelism().expect("known here");
        assert_eq!(
            settings.workers,
            Setting {
                value: cores,
                origin: Origin::Default
            }
        );
        assert_eq!(
            settings.progress,
            Setting {
                value: Render::Auto,
                origin: Origin::Default
            }
        );
        assert_eq!(settings.level, 0);
    }

    #[test]
    fn code_goes_before_the_environment() {
        let environment = [(EXECUTOR_VARIABLE, "threads"), (WORKERS_VARIABLE, "7")];
        let settings = resolved(Choices::default(), &environment).expect("nothing is wrong");
        assert_eq!(settings.executor.value, Executor::Threads);
        assert_eq!(settings.workers.value.get(), 7);
        assert_eq!(settings.workers.origin, Origin::Environment(WORKERS_VARIABLE));
        let choices = Choices {
            executor: Some(Executor::Processes),
            workers: Some(Workers::Count(3)),
        };
        let settings = resolved(choices, &environment).expect("nothing is wrong");
        assert_eq!(
            (settings.executor.value, settings.workers.value.get()),
            (Executor::Processes, 3)
        );
        assert_eq!(settings.executor.origin, Origin::Code);
        let text = settings.to_string();
        assert!(
            text.contains("executor   processes    code") && text.contains("workers    3"),
            "{text}"
        );
    }

    #[test]
    fn each_level_has_its_number() {
        for (level, workers) in [("0", 4), ("1", 2), ("2", 1), ("9", 1)] {
            let environment = [(WORKERS_VARIABLE, "4, 2"), (LEVEL_VARIABLE, level)];
            let settings = resolved(Choices::default(), &environment).expect("nothing is wrong");
            assert_eq!(settings.workers.value.get(), workers, "level {level}");
        }
        let settings = resolved(Choices::default(), &[(LEVEL_VARIABLE, "1")]).expect("nothing is wrong");
        assert_eq!(
            settings.workers.value.get(),
            1,
            "nested invokers don't multiply by default"
        );
    }

    #[test]
    fn nonsense_is_named_with_the_remedy() {
        let cases = [
            (EXECUTOR_VARIABLE, "fork"),
            (WORKERS_VARIABLE, "0"),
            (WORKERS_VARIABLE, "4,,2"),
            (WORKERS_VARIABLE, "-1"),
            (PROGRESS_VARIABLE, "loud"),
            (LEVEL_VARIABLE, "deep"),
        ];
        for (variable, value) in cases {
            let choices = Choices {
                executor: Some(Executor::Threads),
                workers: Some(Workers::Count(1)),
            };
            let error = resolved(choices, &[(variable, value)])
                .expect_err(value)
                .to_string();
            assert!(
                error.contains(variable) && error.contains(&format!("`{value}`")),
                "{error}"
            );
        }
    }

    #[test]
    fn the_caller_is_one_worker() {
        let choices = Choices {
            executor: Some(Executor::InProcess),
            workers: None,
        };
        assert_eq!(
            resolved(choices, &[(WORKERS_VARIABLE, "4")])
                .expect("fine")
                .workers
                .value
                .get(),
            1
        );
        let choices = Choices {
            workers: Some(Workers::Count(2)),
            ..choices
        };
        assert!(matches!(resolved(choices, &[]), Err(Error::Unsupported { .. })));
    }
}

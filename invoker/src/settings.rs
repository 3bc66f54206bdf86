//! [`Settings`]: what a builder's choices come to, and where each comes from.
//!
//! Code first, then the environment, then the default. A variable that makes no sense is an error, also when code has
//! decided: nobody sets one to be ignored.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::num::NonZeroUsize;

use proc_pool::{OnInterrupt, Workers};
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

impl<T> Setting<T> {
    fn map<R>(&self, f: impl FnOnce(T) -> R) -> Setting<R>
    where
        T: Copy,
    {
        Setting {
            value: f(self.value),
            origin: self.origin,
        }
    }
}

/// The settings that [`build`](crate::Builder::build) would use. Printed, they are a table.
///
/// What ops have to bear (that they are killed, or run twice) is said in code alone: no variable sets deadlines or
/// retries.
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
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settings {
    /// Where ops run.
    pub executor: Setting<Executor>,
    /// How many workers.
    pub workers: Setting<NonZeroUsize>,
    /// How progress is shown, if it is.
    pub progress: Setting<Render>,
    /// What Ctrl-C does.
    pub on_interrupt: Setting<OnInterrupt>,
    /// The root of the tasks' seeds.
    pub seed: Setting<Option<u64>>,
    /// What only worker processes have, by the name of the builder's method and as text; empty for other executors.
    pub processes: Vec<(&'static str, Setting<String>)>,
    /// How many invokers this process is inside of.
    pub level: usize,
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn row<T: fmt::Display>(name: &str, setting: &Setting<T>) -> String {
            let value = setting.value.to_string();
            format!("{name:<17} {value:<12} {}\n", setting.origin)
        }
        writeln!(f, "{:<17} {:<12} origin", "setting", "value")?;
        f.write_str(&row("executor", &self.executor.map(Executor::name)))?;
        f.write_str(&row("workers", &self.workers))?;
        f.write_str(&row("progress", &self.progress))?;
        f.write_str(&row(
            "on_interrupt",
            &self.on_interrupt.map(|it| format!("{it:?}")),
        ))?;
        let seed = self
            .seed
            .map(|it| it.map_or_else(|| "none".to_owned(), |root| root.to_string()));
        f.write_str(&row("seed", &seed))?;
        for (name, setting) in &self.processes {
            f.write_str(&row(name, setting))?;
        }
        write!(f, "{:<17} {:<12}", "level", self.level)
    }
}

/// What a builder was told.
#[derive(Debug, Clone, Default)]
pub(crate) struct Choices {
    pub(crate) executor: Option<Executor>,
    pub(crate) workers: Option<Workers>,
    pub(crate) on_interrupt: Option<OnInterrupt>,
    pub(crate) seed: Option<u64>,
    /// Some of [`FOR_PROCESSES`], as text.
    pub(crate) processes: Vec<(&'static str, String)>,
}

/// What only worker processes have, and what it is when nobody says anything.
const FOR_PROCESSES: [(&str, &str); 17] = [
    ("backing", "Auto"),
    ("deadline", "none"),
    ("retries", "0"),
    ("start_timeout", "60s"),
    ("recycle_after", "never"),
    ("recycle_above", "never"),
    ("memory_limit", "none"),
    ("threads", "Share"),
    ("env", "as here"),
    ("current_dir", "as here"),
    ("stdout", "Inherit"),
    ("stderr", "Inherit"),
    ("logs", "as wanted"),
    ("log_panics", "no"),
    ("on_dump", "nobody"),
    ("stack_on_deadline", "no"),
    ("timing", "Totals"),
];

/// Reads the environment. Injected, so that tests need not change it.
pub(crate) type Environment<'a> = &'a dyn Fn(&'static str) -> Option<OsString>;

/// The process's own environment.
pub(crate) fn environment(name: &'static str) -> Option<OsString> {
    std::env::var_os(name)
}

pub(crate) fn resolve(choices: &Choices, environment: Environment<'_>) -> Result<Settings, Error> {
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
        processes: for_processes(executor.value, &choices.processes)?,
        executor,
        workers,
        progress,
        on_interrupt: told(choices.on_interrupt, OnInterrupt::default()),
        seed: told(choices.seed.map(Some), None),
        level,
    })
}

fn for_processes(
    executor: Executor,
    chosen: &[(&'static str, String)],
) -> Result<Vec<(&'static str, Setting<String>)>, Error> {
    if executor != Executor::Processes {
        return match chosen.first() {
            Some((what, _)) => Err(Error::Unsupported { executor, what }),
            None => Ok(Vec::new()),
        };
    }
    let setting = |(name, default): (&'static str, &str)| {
        let mut values = chosen.iter().filter(|it| it.0 == name).map(|it| &*it.1);
        let value = values
            .next()
            .map(|first| values.fold(first.to_owned(), |all, it| all + ", " + it));
        (name, told(value, default.to_owned()))
    };
    Ok(FOR_PROCESSES.into_iter().map(setting).collect())
}

/// The variables that are set, or what is wrong with them.
pub(crate) fn variables(environment: Environment<'_>) -> Result<Vec<(&'static str, String)>, String> {
    let names = [
        EXECUTOR_VARIABLE,
        WORKERS_VARIABLE,
        PROGRESS_VARIABLE,
        LEVEL_VARIABLE,
    ];
    resolve(&Choices::default(), environment).map_err(|e| e.in_full())?;
    let set = names
        .into_iter()
        .filter_map(|name| Some((name, environment(name)?.into_string().ok()?)));
    Ok(set.collect())
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

/// What only code can say.
fn told<T>(code: Option<T>, default: T) -> Setting<T> {
    pick(code, None, "", default)
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
    value: &OsStr,
    wanted: &'static str,
    read: impl FnOnce(&str) -> Option<T>,
) -> Result<T, Error> {
    let text = value.to_str();
    text.and_then(|text| read(text.trim()))
        .ok_or_else(|| Error::Environment {
            variable,
            // Bytes that are not UTF-8 are shown as `\xFF`.
            value: text.map_or_else(
                || format!("{value:?}").trim_matches('"').to_owned(),
                str::to_owned,
            ),
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
                .map(|(_, value)| value.into())
        };
        resolve(&choices, &find)
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
            ..Choices::default()
        };
        let settings = resolved(choices, &environment).expect("nothing is wrong");
        assert_eq!(
            (settings.executor.value, settings.workers.value.get()),
            (Executor::Processes, 3)
        );
        assert_eq!(settings.executor.origin, Origin::Code);
        let text = settings.to_string();
        assert!(
            text.contains("executor          processes    code\nworkers           3 "),
            "{text}"
        );
    }

    #[test]
    fn what_only_processes_have_is_told_or_refused() {
        let choices = |executor| Choices {
            executor: Some(executor),
            seed: Some(7),
            processes: vec![
                ("retries", "2".into()),
                ("env", "A".into()),
                ("env", "no B".into()),
            ],
            ..Choices::default()
        };
        let settings = resolved(choices(Executor::Processes), &[]).expect("nothing is wrong");
        let text = settings.to_string();
        for row in [
            "seed              7            code",
            "deadline          none         default",
            "retries           2            code",
            "env               A, no B      code",
        ] {
            assert!(text.contains(row), "{row}\n{text}");
        }
        let refused = resolved(choices(Executor::Threads), &[]);
        assert!(
            matches!(refused, Err(Error::Unsupported { what: "retries", .. })),
            "{refused:?}"
        );
        let known = |name| FOR_PROCESSES.iter().any(|it| it.0 == name);
        assert!(settings.processes.iter().all(|it| known(it.0)) && settings.processes.len() == 17);
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
                ..Choices::default()
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

    #[cfg(unix)]
    #[test]
    fn a_variable_that_is_not_utf8_is_an_error_that_names_it() {
        use std::os::unix::ffi::OsStrExt;
        for variable in [
            EXECUTOR_VARIABLE,
            WORKERS_VARIABLE,
            PROGRESS_VARIABLE,
            LEVEL_VARIABLE,
        ] {
            let find = |name: &'static str| {
                let value = OsStr::from_bytes(b"4\xff").to_owned();
                (name == variable).then_some(value)
            };
            let error = resolve(&Choices::default(), &find)
                .expect_err(variable)
                .to_string();
            let expected = format!(r"{variable} is `4\xFF`; it has to be ");
            assert!(error.starts_with(&expected), "{error}");
            assert!(variables(&find).is_err_and(|said| said.contains(variable)));
        }
    }

    #[test]
    fn the_caller_is_one_worker() {
        let choices = Choices {
            executor: Some(Executor::InProcess),
            ..Choices::default()
        };
        assert_eq!(
            resolved(choices.clone(), &[(WORKERS_VARIABLE, "4")])
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

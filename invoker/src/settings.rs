//! [`Settings`]: the effective settings of a builder, and the origin of each.
//!
//! Code overrides the environment, which overrides the default. An invalid variable is an error even if code overrides it.

use std::ffi::OsString;
use std::fmt;
use std::num::NonZeroUsize;
use std::str::FromStr;

use proc_pool::OnInterrupt;
use progress::Render;
use shm_buffers::{ByteSize, ModelMemory};

use crate::copies::{COPIES_VARIABLE, Copies};
use crate::error::Error;
use crate::executor::{Executor, ExecutorOptions, Options, Processes};
use proc_pool::Workers;

/// The environment variable that selects the executor: `processes`, `threads` or `inline`.
pub const EXECUTOR_VARIABLE: &str = "INVOKER_EXECUTOR";
/// The environment variable that sets the number of workers by nesting level. `4,2` means four workers, and two for an
/// invoker inside an op of the first; `all` means one per core. Levels after the last number have one worker.
pub const WORKERS_VARIABLE: &str = "INVOKER_WORKERS";
/// The environment variable that selects how requested progress is shown: `auto`, `bar`, `lines`, `json` or `none`.
pub const PROGRESS_VARIABLE: &str = "INVOKER_PROGRESS";
/// The nesting level, set in worker processes.
pub(crate) const LEVEL_VARIABLE: &str = "INVOKER_LEVEL";

/// Where the value of a setting comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// A method of the builder.
    Code,
    /// This environment variable.
    Environment(&'static str),
    /// Neither code nor an environment variable.
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
#[non_exhaustive]
pub struct Setting<T> {
    /// The effective value.
    pub value: T,
    /// Where the value comes from.
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

/// The effective settings of a [`Builder`](crate::Builder). `Display` prints them as a table.
///
/// Deadlines and retries are set in code alone: whether an op may be killed or run twice is a property of the op.
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
    /// Number of workers.
    pub workers: Setting<NonZeroUsize>,
    /// How progress is shown, if the builder requests it.
    pub progress: Setting<Render>,
    /// The reaction to Ctrl-C and SIGTERM.
    pub on_interrupt: Setting<OnInterrupt>,
    /// The root of the tasks' seeds.
    pub seed: Setting<Option<u64>>,
    /// The options of [`Processes`], by method name, as text. Empty with other executors.
    pub processes: Vec<(&'static str, Setting<String>)>,
    /// How many invokers enclose this process.
    pub level: usize,
    /// Where the bytes of the model are: only of an [invoker](crate::Invoker::settings) with worker processes, because a builder has
    /// not shared its model yet.
    pub model: Option<ModelMemory>,
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn row<T: fmt::Display>(name: &str, setting: &Setting<T>) -> String {
            let value = setting.value.to_string();
            format!("{name:<19} {value:<17} {}\n", setting.origin)
        }
        writeln!(f, "{:<19} {:<17} origin", "setting", "value")?;
        f.write_str(&row("executor", &self.executor))?;
        f.write_str(&row("workers", &self.workers))?;
        f.write_str(&row("progress", &self.progress))?;
        let on_interrupt = self.on_interrupt.map(|reaction| format!("{reaction:?}"));
        f.write_str(&row("on_interrupt", &on_interrupt))?;
        let seed = self
            .seed
            .map(|root| root.map_or_else(|| "none".to_owned(), |root| root.to_string()));
        f.write_str(&row("seed", &seed))?;
        for (name, setting) in &self.processes {
            f.write_str(&row(name, setting))?;
        }
        write!(f, "{:<19} {}", "level", self.level)?;
        let Some(model) = &self.model else {
            return Ok(());
        };
        let parts = [
            ("shared", model.shared),
            ("mapped", model.mapped),
            ("copied", model.copied),
            ("per worker", model.per_process),
        ];
        parts
            .into_iter()
            .try_for_each(|(part, bytes)| write!(f, "\n{:<19} {}", format!("model, {part}"), ByteSize(bytes)))
    }
}

/// The choices of a builder.
#[derive(Debug, Clone, Default)]
pub(crate) struct Choices {
    pub(crate) executor: Option<ExecutorOptions>,
    pub(crate) workers: Option<Workers>,
    pub(crate) on_interrupt: Option<OnInterrupt>,
    pub(crate) seed: Option<u64>,
    /// Whether `finish` writes a trace, which needs samples.
    pub(crate) trace: bool,
}

/// Reads environment variables. A parameter, so that tests need not change the process's own.
pub(crate) type Environment<'a> = &'a dyn Fn(&'static str) -> Option<OsString>;

/// The process's own environment.
pub(crate) fn environment(name: &'static str) -> Option<OsString> {
    std::env::var_os(name)
}

/// Returns the effective settings, and the options of the executor.
pub(crate) fn resolve(choices: &Choices, environment: Environment<'_>) -> Result<(Settings, Options), Error> {
    let level = variable(environment, LEVEL_VARIABLE, "a whole number", parsed)?.unwrap_or(0);
    let wanted = "processes, threads or inline";
    let executor = variable(environment, EXECUTOR_VARIABLE, wanted, parsed)?;
    let chosen = choices.executor.as_ref().map(ExecutorOptions::executor);
    let executor = pick(chosen, executor, EXECUTOR_VARIABLE, Executor::default());
    let wanted = "whole numbers from 1 or `all`, as in 4,2";
    let levels = variable(environment, WORKERS_VARIABLE, wanted, parse_levels)?;
    let workers = levels.map(|levels| levels.get(level).copied().unwrap_or(Workers::Count(1)));
    // With one worker per core at each level, processes would multiply: cores to the power of levels.
    let default = match level {
        0 => Workers::All,
        _ => Workers::Count(1),
    };
    let workers = match executor.value {
        Executor::Inline => inline_workers(choices.workers)?,
        _ => {
            let Setting { value, origin } = pick(choices.workers, workers, WORKERS_VARIABLE, default);
            Setting {
                value: value.resolve()?,
                origin,
            }
        }
    };
    let wanted = "auto, bar, lines, json or none";
    let progress = variable(environment, PROGRESS_VARIABLE, wanted, parsed)?;
    let progress = pick(None, progress, PROGRESS_VARIABLE, Render::default());
    let copies = variable(environment, COPIES_VARIABLE, "warn, refuse or allow", parsed)?;
    let options = choices.executor.clone();
    let ExecutorOptions(options) = options.unwrap_or_else(|| executor.value.into());
    let options = match options {
        Options::Processes(processes) if choices.trace => {
            Options::Processes(Box::new(processes.sample_for_trace()))
        }
        options => options,
    };
    let options = match (options, copies) {
        (Options::Processes(mut processes), Some(copies)) if !processes.is_set("copies") => {
            processes.copies = copies;
            Options::Processes(processes)
        }
        (options, _) => options,
    };
    let settings = Settings {
        processes: match &options {
            Options::Processes(processes) => process_settings(processes, copies),
            Options::Threads | Options::Inline => Vec::new(),
        },
        executor,
        workers,
        progress,
        on_interrupt: code_only(choices.on_interrupt, OnInterrupt::default()),
        seed: code_only(choices.seed.map(Some), None),
        level,
        model: None,
    };
    Ok((settings, options))
}

fn process_settings(processes: &Processes, copies: Option<Copies>) -> Vec<(&'static str, Setting<String>)> {
    let values = processes.values();
    let settings = values.map(|(option, value, default)| {
        let (environment, variable) = match option {
            "copies" => (copies.map(|copies| copies.to_string()), COPIES_VARIABLE),
            _ => (None, ""),
        };
        (option, pick(value, environment, variable, default.to_owned()))
    });
    settings.collect()
}

/// Returns the variables that are set, or the reason why one is invalid.
pub(crate) fn variables(environment: Environment<'_>) -> Result<Vec<(&'static str, String)>, String> {
    let names = [
        EXECUTOR_VARIABLE,
        WORKERS_VARIABLE,
        PROGRESS_VARIABLE,
        COPIES_VARIABLE,
        LEVEL_VARIABLE,
    ];
    resolve(&Choices::default(), environment).map_err(|e| e.in_full())?;
    let set = names
        .into_iter()
        .filter_map(|name| Some((name, environment(name)?.into_string().ok()?)));
    Ok(set.collect())
}

/// The calling thread is the only worker of [`Executor::Inline`].
fn inline_workers(chosen: Option<Workers>) -> Result<Setting<NonZeroUsize>, Error> {
    match chosen {
        None => Ok(Setting {
            value: NonZeroUsize::MIN,
            origin: Origin::Default,
        }),
        Some(Workers::Count(1)) => Ok(Setting {
            value: NonZeroUsize::MIN,
            origin: Origin::Code,
        }),
        Some(_) => Err(Error::Unsupported {
            what: "more than one worker",
            needs: "threads or processes",
            remedy: "use `Executor::Threads` or `Executor::Processes`, or leave `workers` out",
        }),
    }
}

/// A setting without an environment variable.
fn code_only<T>(code: Option<T>, default: T) -> Setting<T> {
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

/// Returns what `read` makes of an environment variable, if it is set. `wanted` says which values there are.
fn variable<T>(
    environment: Environment<'_>,
    variable: &'static str,
    wanted: &'static str,
    read: impl FnOnce(&str) -> Option<T>,
) -> Result<Option<T>, Error> {
    let Some(value) = environment(variable) else {
        return Ok(None);
    };
    let text = value.to_str();
    let read = text.and_then(|text| read(text.trim()));
    let read = read.ok_or_else(|| Error::Environment {
        variable,
        // Bytes that are not UTF-8 are shown as `\xFF`.
        value: text.map_or_else(
            || format!("{value:?}").trim_matches('"').to_owned(),
            str::to_owned,
        ),
        wanted,
    });
    read.map(Some)
}

fn parsed<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

/// Parses numbers of workers by nesting level.
fn parse_levels(text: &str) -> Option<Vec<Workers>> {
    text.split(',').map(|level| level.trim().parse().ok()).collect()
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
        resolve(&choices, &find).map(|(settings, _)| settings)
    }

    fn executor(executor: impl Into<ExecutorOptions>) -> Choices {
        Choices {
            executor: Some(executor.into()),
            ..Choices::default()
        }
    }

    #[test]
    fn defaults_are_processes_on_all_cores_with_automatic_progress() {
        let settings = resolved(Choices::default(), &[]).expect("valid");
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
    fn code_overrides_the_environment() {
        let environment = [(EXECUTOR_VARIABLE, "threads"), (WORKERS_VARIABLE, "7")];
        let settings = resolved(Choices::default(), &environment).expect("valid");
        assert_eq!(settings.executor.value, Executor::Threads);
        assert_eq!(settings.workers.value.get(), 7);
        assert_eq!(settings.workers.origin, Origin::Environment(WORKERS_VARIABLE));
        assert_eq!(settings.processes, []);
        let choices = Choices {
            workers: Some(3.into()),
            ..executor(Executor::Processes)
        };
        let settings = resolved(choices, &environment).expect("valid");
        assert_eq!(
            (settings.executor.value, settings.workers.value.get()),
            (Executor::Processes, 3)
        );
        assert_eq!(settings.executor.origin, Origin::Code);
        let text = settings.to_string();
        assert!(
            text.contains("executor            processes         code\nworkers             3 "),
            "{text}"
        );
    }

    #[test]
    fn process_options_are_listed_with_their_origins() {
        let choices = Choices {
            seed: Some(7),
            ..executor(Processes::new().retries(2).env("A", "1").env_remove("B"))
        };
        let settings = resolved(choices, &[(COPIES_VARIABLE, "refuse")]).expect("valid");
        let text = settings.to_string();
        for row in [
            "seed                7                 code",
            "copies              refuse            INVOKER_COPIES",
            "deadline            none              default",
            "retries             2                 code",
            "recycle_above_bytes never             default",
            "env                 A=…, no B         code",
        ] {
            assert!(text.contains(row), "{row}\n{text}");
        }
        let settings = resolved(executor(Executor::Threads), &[]).expect("valid");
        assert_eq!(settings.processes, []);
    }

    #[test]
    fn each_nesting_level_has_its_number_of_workers() {
        for (level, workers) in [("0", 4), ("1", 2), ("2", 1), ("9", 1)] {
            let environment = [(WORKERS_VARIABLE, "4, 2"), (LEVEL_VARIABLE, level)];
            let settings = resolved(Choices::default(), &environment).expect("valid");
            assert_eq!(settings.workers.value.get(), workers, "level {level}");
        }
        let settings = resolved(Choices::default(), &[(LEVEL_VARIABLE, "1")]).expect("valid");
        assert_eq!(
            settings.workers.value.get(),
            1,
            "nested invokers don't multiply by default"
        );
    }

    #[test]
    fn an_invalid_variable_is_named_even_if_code_overrides_it() {
        let cases = [
            (EXECUTOR_VARIABLE, "fork"),
            (COPIES_VARIABLE, "no"),
            (WORKERS_VARIABLE, "0"),
            (WORKERS_VARIABLE, "4,,2"),
            (WORKERS_VARIABLE, "-1"),
            (PROGRESS_VARIABLE, "loud"),
            (LEVEL_VARIABLE, "deep"),
        ];
        for (variable, value) in cases {
            let choices = Choices {
                workers: Some(1.into()),
                ..executor(Executor::Threads)
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
        use std::ffi::OsStr;
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
            let expected = format!(r"{variable} is `4\xFF`; it must be ");
            assert!(error.starts_with(&expected), "{error}");
            assert!(variables(&find).is_err_and(|reason| reason.contains(variable)));
        }
    }

    #[test]
    fn the_inline_executor_has_one_worker() {
        let choices = executor(Executor::Inline);
        let settings = resolved(choices.clone(), &[(WORKERS_VARIABLE, "4")]).expect("valid");
        assert_eq!(settings.workers.value.get(), 1);
        let choices = Choices {
            workers: Some(2.into()),
            ..choices
        };
        assert!(matches!(resolved(choices, &[]), Err(Error::Unsupported { .. })));
    }
}

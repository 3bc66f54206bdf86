//! [`NativeThreads`]: how many threads the numeric libraries in a worker may use, also in workers of workers.

use std::ffi::OsString;

use crate::error::PoolError;
use crate::process::launch::Environment;

/// The environment variables from which numeric libraries take their number of threads.
const LIMITS: [&str; 7] = [
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "RAYON_NUM_THREADS",
];

/// The environment variable that passes a worker's share of the machine to the worker and to the processes that it starts.
const VARIABLE: &str = "PROC_POOL_NESTING";

/// How many threads the numeric libraries in each worker may use. Their limits are set through `OMP_NUM_THREADS`,
/// `RAYON_NUM_THREADS` and similar variables in the worker's environment.
///
/// A variable that the user has set, or that [`env`](crate::Builder::env) sets, keeps its value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum NativeThreads {
    /// The cores available to the leader, divided by the number of workers; at least 1. The cores available are those that CPU
    /// quota and affinity allow; within a worker, they are the share of that worker.
    #[default]
    Share,
    /// This number of threads.
    Count(usize),
    /// No limit: limits that enclosing pools have set are removed.
    Unlimited,
}

impl NativeThreads {
    fn to_text(self) -> String {
        match self {
            Self::Share => "share".to_owned(),
            Self::Count(count) => count.to_string(),
            Self::Unlimited => "unlimited".to_owned(),
        }
    }

    fn parse(word: &str) -> Option<Self> {
        match word {
            "share" => Some(Self::Share),
            "unlimited" => Some(Self::Unlimited),
            count => count.parse().ok().map(Self::Count),
        }
    }
}

/// What enclosing pools have set for this process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Nesting {
    /// Number of cores that this process may use.
    share: Option<usize>,
    /// The thread limits for its own workers, their workers, and so on, unless these pools choose their own.
    levels: Vec<NativeThreads>,
    /// The variables that an enclosing pool set, not the user.
    set: Vec<String>,
}

impl Nesting {
    /// Returns the nesting of this process; the default if the variable is invalid.
    pub(crate) fn here() -> Self {
        Self::from_variable(std::env::var_os(VARIABLE)).unwrap_or_default()
    }

    /// Returns the nesting of this process, to build a pool in it.
    ///
    /// # Errors
    /// [`PoolError::Environment`] if the variable is not UTF-8.
    pub(crate) fn checked() -> Result<Self, PoolError> {
        Self::from_variable(std::env::var_os(VARIABLE))
    }

    fn from_variable(value: Option<OsString>) -> Result<Self, PoolError> {
        let Some(value) = value else {
            return Ok(Self::default());
        };
        let text = value.into_string().map_err(|value| PoolError::Environment {
            variable: VARIABLE,
            value: format!("{value:?}").trim_matches('"').to_owned(),
        })?;
        // Only pools write it; text that this version would not write may come from another version.
        Ok(Self::parse(&text).unwrap_or_default())
    }

    /// Returns how many of the system's cores this process may use.
    pub(crate) fn cores(&self, system: usize) -> usize {
        self.share.map_or(system, |share| share.clamp(1, system.max(1)))
    }

    /// Sets the variables for the workers of a pool in `environment`. Each is one of `workers` that share `cores`. `chosen` holds the
    /// limits that the pool's builder was given, for its workers, their workers and so on; `inherited` reads the environment of
    /// this process.
    pub(crate) fn limit(
        self,
        cores: usize,
        workers: usize,
        chosen: &[NativeThreads],
        inherited: impl Fn(&str) -> Option<OsString>,
        environment: &mut Environment,
    ) {
        let mut levels = if chosen.is_empty() {
            self.levels
        } else {
            chosen.to_vec()
        };
        let own = if levels.is_empty() {
            NativeThreads::Share
        } else {
            levels.remove(0)
        };
        let threads = match own {
            NativeThreads::Share => Some((cores / workers).max(1)),
            NativeThreads::Count(count) => Some(count),
            NativeThreads::Unlimited => None,
        };
        let mut set = Vec::new();
        for name in LIMITS {
            let enclosing = self.set.iter().any(|it| it == name);
            let users = environment.inherits() && inherited(name).is_some() && !enclosing;
            if users || environment.mentions(name) {
                continue;
            }
            match threads {
                Some(count) => {
                    environment.set(name.into(), count.to_string().into());
                    set.push(name.to_owned());
                }
                None => environment.remove(name.into()),
            }
        }
        let nesting = Self {
            share: Some(threads.unwrap_or(cores)),
            levels,
            set,
        };
        environment.set(VARIABLE.into(), nesting.to_value().into());
    }

    fn to_value(&self) -> String {
        let levels: Vec<String> = self.levels.iter().map(|level| level.to_text()).collect();
        let share = self.share.map(|share| share.to_string()).unwrap_or_default();
        format!("{share};{};{}", levels.join(","), self.set.join(","))
    }

    fn parse(value: &str) -> Option<Self> {
        let mut parts = value.split(';');
        let mut words = || Some(parts.next()?.split(',').filter(|word| !word.is_empty()));
        Some(Self {
            share: words()?.next().map(str::parse).transpose().ok()?,
            levels: words()?.map(NativeThreads::parse).collect::<Option<_>>()?,
            set: words()?.map(str::to_owned).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn variable_that_is_not_utf8_is_an_error_that_names_it() {
        use std::os::unix::ffi::OsStringExt;
        let value = OsString::from_vec(b"2\xff".to_vec());
        let error = Nesting::from_variable(Some(value))
            .expect_err("it is not UTF-8")
            .to_string();
        assert!(error.starts_with(r"PROC_POOL_NESTING is `2\xFF`"), "{error}");
        assert_eq!(Nesting::from_variable(None).ok(), Some(Nesting::default()));
    }

    /// Returns what a worker finds if its leader is in `nesting` and the user has set the variables `users`.
    fn worker(
        nesting: Nesting,
        (cores, workers): (usize, usize),
        chosen: &[NativeThreads],
        users: &[(&str, &str)],
    ) -> (Nesting, Environment) {
        let mut environment = Environment::default();
        let inherited = |name: &str| {
            let user = users.iter().find(|it| it.0 == name).map(|it| it.1.into());
            user.or_else(|| nesting.set.iter().any(|it| it == name).then(|| "1".into()))
        };
        nesting
            .clone()
            .limit(cores, workers, chosen, inherited, &mut environment);
        let value = environment.get(VARIABLE).expect("it is always set");
        let inner = Nesting::parse(value.to_str().expect("plain text")).expect("it is readable");
        (inner, environment)
    }

    fn limit(environment: &Environment, name: &str) -> Option<String> {
        environment
            .get(name)
            .map(|value| value.to_string_lossy().into_owned())
    }

    #[test]
    fn values_are_parsed_as_written() {
        let nesting = Nesting {
            share: Some(3),
            levels: vec![
                NativeThreads::Share,
                NativeThreads::Count(2),
                NativeThreads::Unlimited,
            ],
            set: vec!["OMP_NUM_THREADS".into(), "X".into()],
        };
        for nesting in [nesting, Nesting::default()] {
            assert_eq!(Nesting::parse(&nesting.to_value()), Some(nesting));
        }
        for bad in ["", "x;;", "1;some;", "1;2"] {
            assert_eq!(Nesting::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn nested_workers_get_shares_of_shares() {
        let (outer, environment) = worker(Nesting::default(), (16, 2), &[], &[]);
        assert_eq!(limit(&environment, "OMP_NUM_THREADS").as_deref(), Some("8"));
        assert_eq!(outer.cores(16), 8);
        // The limits in its environment come from its pool, so its own workers get less.
        let (inner, environment) = worker(outer.clone(), (outer.cores(16), 4), &[], &[]);
        assert_eq!(limit(&environment, "OMP_NUM_THREADS").as_deref(), Some("2"));
        let (innermost, environment) = worker(inner.clone(), (inner.cores(16), 4), &[], &[]);
        assert_eq!(limit(&environment, "OMP_NUM_THREADS").as_deref(), Some("1"));
        assert_eq!(innermost.cores(16), 1);
    }

    #[test]
    fn variables_of_the_user_are_kept() {
        let users = [("MKL_NUM_THREADS", "5")];
        let (outer, environment) = worker(Nesting::default(), (4, 2), &[], &users);
        assert_eq!(limit(&environment, "MKL_NUM_THREADS"), None);
        assert_eq!(limit(&environment, "OMP_NUM_THREADS").as_deref(), Some("2"));
        let (_, environment) = worker(outer, (2, 2), &[], &users);
        assert_eq!(limit(&environment, "MKL_NUM_THREADS"), None);
        assert_eq!(limit(&environment, "OMP_NUM_THREADS").as_deref(), Some("1"));
    }

    #[test]
    fn levels_of_the_outermost_pool_apply_to_nested_pools() {
        let levels = [NativeThreads::Count(3), NativeThreads::Unlimited];
        let (outer, environment) = worker(Nesting::default(), (4, 2), &levels, &[]);
        assert_eq!(limit(&environment, "OMP_NUM_THREADS").as_deref(), Some("3"));
        let (inner, environment) = worker(outer.clone(), (3, 1), &[], &[]);
        assert!(environment.mentions("OMP_NUM_THREADS") && limit(&environment, "OMP_NUM_THREADS").is_none());
        assert_eq!(inner.cores(4), 3);
        // Beyond the last level, and for a nested pool with a choice of its own.
        let (_, environment) = worker(inner, (3, 3), &[], &[]);
        assert_eq!(limit(&environment, "OMP_NUM_THREADS").as_deref(), Some("1"));
        let (_, environment) = worker(outer, (3, 1), &[NativeThreads::Count(2)], &[]);
        assert_eq!(limit(&environment, "OMP_NUM_THREADS").as_deref(), Some("2"));
    }
}

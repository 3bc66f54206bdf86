//! [`Threads`]: how many threads a worker's libraries may use, also in workers of workers.

use std::ffi::OsString;

use crate::error::PoolError;
use crate::launch::Environment;

/// The variables by which numeric libraries learn how many threads to use.
const LIMITS: [&str; 7] = [
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "RAYON_NUM_THREADS",
];

/// Tells a worker, and what it starts, what part of the machine is its own.
const VARIABLE: &str = "PROC_POOL_NESTING";

/// How many threads the numeric libraries in each worker may use, told by `OMP_NUM_THREADS`, `RAYON_NUM_THREADS` and
/// the like before it starts.
///
/// What the user's environment or [`env`](crate::Builder::env) says about such a variable always holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Threads {
    /// The cores that the leader may use, divided by its workers; at least one. What a leader may use are the
    /// system's cores by CPU quota and affinity, and within a worker that worker's own share.
    #[default]
    Share,
    /// That many.
    Count(usize),
    /// As many as the libraries like: no limit is set, and limits of enclosing pools are taken away.
    Unlimited,
}

impl Threads {
    fn to_word(self) -> String {
        match self {
            Self::Share => "share".to_owned(),
            Self::Count(count) => count.to_string(),
            Self::Unlimited => "unlimited".to_owned(),
        }
    }

    fn of_word(word: &str) -> Option<Self> {
        match word {
            "share" => Some(Self::Share),
            "unlimited" => Some(Self::Unlimited),
            count => count.parse().ok().map(Self::Count),
        }
    }
}

/// What enclosing pools have said to this process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Nesting {
    /// Cores that it may use.
    share: Option<usize>,
    /// For its own workers, theirs, and so on, where they don't choose themselves.
    levels: Vec<Threads>,
    /// Limits that the enclosing pool set, and not the user.
    set: Vec<String>,
}

impl Nesting {
    /// This process's.
    pub(crate) fn here() -> Self {
        Self::of_variable(std::env::var_os(VARIABLE)).unwrap_or_default()
    }

    /// This process's, for its own pool.
    ///
    /// # Errors
    /// When the variable is not UTF-8.
    pub(crate) fn checked() -> Result<Self, PoolError> {
        Self::of_variable(std::env::var_os(VARIABLE))
    }

    fn of_variable(value: Option<OsString>) -> Result<Self, PoolError> {
        let Some(value) = value else {
            return Ok(Self::default());
        };
        let text = value.into_string().map_err(|value| PoolError::Environment {
            variable: VARIABLE,
            value: format!("{value:?}").trim_matches('"').to_owned(),
        })?;
        // Only pools write it; text that none of this version would write may be of another version's.
        Ok(Self::of_value(&text).unwrap_or_default())
    }

    /// How many of the system's cores this process may use.
    pub(crate) fn cores(&self, system: usize) -> usize {
        self.share.map_or(system, |share| share.clamp(1, system.max(1)))
    }

    /// Puts into `environment` what the workers of a pool find, each of them one of `workers` that have `cores`
    /// together. `chosen` is what the pool's builder was told, for its workers, theirs and so on; `inherited` is this
    /// process's environment.
    pub(crate) fn limit(
        self,
        cores: usize,
        workers: usize,
        chosen: &[Threads],
        inherited: impl Fn(&str) -> Option<OsString>,
        environment: &mut Environment,
    ) {
        let mut levels = if chosen.is_empty() {
            self.levels
        } else {
            chosen.to_vec()
        };
        let own = if levels.is_empty() {
            Threads::Share
        } else {
            levels.remove(0)
        };
        let threads = match own {
            Threads::Share => Some((cores / workers).max(1)),
            Threads::Count(count) => Some(count),
            Threads::Unlimited => None,
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
        let levels: Vec<String> = self.levels.iter().map(|level| level.to_word()).collect();
        let share = self.share.map(|share| share.to_string()).unwrap_or_default();
        format!("{share};{};{}", levels.join(","), self.set.join(","))
    }

    fn of_value(value: &str) -> Option<Self> {
        let mut parts = value.split(';');
        let mut words = || Some(parts.next()?.split(',').filter(|word| !word.is_empty()));
        Some(Self {
            share: words()?.next().map(str::parse).transpose().ok()?,
            levels: words()?.map(Threads::of_word).collect::<Option<_>>()?,
            set: words()?.map(str::to_owned).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_variable_that_is_not_utf8_is_an_error_that_names_it() {
        use std::os::unix::ffi::OsStringExt;
        let value = OsString::from_vec(b"2\xff".to_vec());
        let error = Nesting::of_variable(Some(value))
            .expect_err("it is not UTF-8")
            .to_string();
        assert!(error.starts_with(r"PROC_POOL_NESTING is `2\xFF`"), "{error}");
        assert_eq!(Nesting::of_variable(None).ok(), Some(Nesting::default()));
    }

    /// What a worker finds whose leader is in `nesting` and has the user's variables `users`.
    fn worker(
        nesting: Nesting,
        (cores, workers): (usize, usize),
        chosen: &[Threads],
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
        let value = environment.get(VARIABLE).expect("it is always told");
        let inner = Nesting::of_value(value.to_str().expect("plain text")).expect("it is readable");
        (inner, environment)
    }

    fn limit(environment: &Environment, name: &str) -> Option<String> {
        environment
            .get(name)
            .map(|value| value.to_string_lossy().into_owned())
    }

    #[test]
    fn values_are_read_as_written() {
        let nesting = Nesting {
            share: Some(3),
            levels: vec![Threads::Share, Threads::Count(2), Threads::Unlimited],
            set: vec!["OMP_NUM_THREADS".into(), "X".into()],
        };
        for nesting in [nesting, Nesting::default()] {
            assert_eq!(Nesting::of_value(&nesting.to_value()), Some(nesting));
        }
        for bad in ["", "x;;", "1;some;", "1;2"] {
            assert_eq!(Nesting::of_value(bad), None, "{bad}");
        }
    }

    #[test]
    fn shares_of_shares() {
        let (outer, environment) = worker(Nesting::default(), (16, 2), &[], &[]);
        assert_eq!(limit(&environment, "OMP_NUM_THREADS").as_deref(), Some("8"));
        assert_eq!(outer.cores(16), 8);
        // The limits it finds are its pool's, so that its own workers get less.
        let (inner, environment) = worker(outer.clone(), (outer.cores(16), 4), &[], &[]);
        assert_eq!(limit(&environment, "OMP_NUM_THREADS").as_deref(), Some("2"));
        let (innermost, environment) = worker(inner.clone(), (inner.cores(16), 4), &[], &[]);
        assert_eq!(limit(&environment, "OMP_NUM_THREADS").as_deref(), Some("1"));
        assert_eq!(innermost.cores(16), 1);
    }

    #[test]
    fn what_the_user_has_set_is_kept() {
        let users = [("MKL_NUM_THREADS", "5")];
        let (outer, environment) = worker(Nesting::default(), (4, 2), &[], &users);
        assert_eq!(limit(&environment, "MKL_NUM_THREADS"), None);
        assert_eq!(limit(&environment, "OMP_NUM_THREADS").as_deref(), Some("2"));
        let (_, environment) = worker(outer, (2, 2), &[], &users);
        assert_eq!(limit(&environment, "MKL_NUM_THREADS"), None);
        assert_eq!(limit(&environment, "OMP_NUM_THREADS").as_deref(), Some("1"));
    }

    #[test]
    fn levels_are_told_once_for_all() {
        let levels = [Threads::Count(3), Threads::Unlimited];
        let (outer, environment) = worker(Nesting::default(), (4, 2), &levels, &[]);
        assert_eq!(limit(&environment, "OMP_NUM_THREADS").as_deref(), Some("3"));
        let (inner, environment) = worker(outer.clone(), (3, 1), &[], &[]);
        assert!(environment.mentions("OMP_NUM_THREADS") && limit(&environment, "OMP_NUM_THREADS").is_none());
        assert_eq!(inner.cores(4), 3);
        // Beyond the last, and for who chooses himself.
        let (_, environment) = worker(inner, (3, 3), &[], &[]);
        assert_eq!(limit(&environment, "OMP_NUM_THREADS").as_deref(), Some("1"));
        let (_, environment) = worker(outer, (3, 1), &[Threads::Count(2)], &[]);
        assert_eq!(limit(&environment, "OMP_NUM_THREADS").as_deref(), Some("2"));
    }
}

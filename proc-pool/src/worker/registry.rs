//! [`Registry`]: the ops of a separate worker program, by name.

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::message::VERSION;
use crate::wire::entry::{Entry, NamedEntry, Refusal, TypeNames};
use crate::worker::entry_point::{EntryPoint, OwnEntryPoint};
use crate::worker::init;
use crate::worker::routine::Routine;

/// Exit code of a worker program that no pool has started.
const NOT_A_WORKER: i32 = 2;

/// The ops of a separate worker program, by name.
///
/// Usually a worker runs the leader's own program. A separate program is for leaders that should not run their `main` again,
/// for ops that need other libraries or settings than the leader, and for leaders that are built separately.
///
/// The whole `main` of a worker program:
///
/// ```no_run
/// proc_pool::Registry::new()
///     .op("square", |n: u64| n * n)
///     .op("shout", |text: String| text.to_uppercase())
///     .serve()
/// ```
///
/// The leader, which needs no [`init`](crate::init()) then:
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let builder = proc_pool::Builder::new();
/// let square = proc_pool::EntryPoint::named::<(), u64, u64>("path/to/worker", "square");
/// let pool = builder.build(square, &())?;
/// for square in pool.map(0..1000) {
///     println!("{}", square?);
/// }
/// # Ok(()) }
/// ```
///
/// A worker compares the version of this crate and the names of the types with its leader's. So the types of task, output
/// and initial value must come from `std`, or from one library that both programs use.
#[derive(Default)]
#[must_use = "a registry does nothing until it serves"]
pub struct Registry {
    ops: Vec<Registered>,
}

struct Registered {
    name: String,
    routine: Routine,
    types: TypeNames,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.ops.iter().map(|op| &op.name))
            .finish()
    }
}

impl Registry {
    /// Makes a registry without ops.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a function as an op. Short for [`add`](Self::add) with [`EntryPoint::op`].
    pub fn op<T, R>(self, name: impl Into<String>, op: fn(T) -> R) -> Self
    where
        T: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        self.add(name, EntryPoint::op(op))
    }

    /// Adds an entry point. A worker runs it when its leader asks for `name`. The initial value comes from the leader.
    pub fn add(mut self, name: impl Into<String>, entry_point: impl OwnEntryPoint) -> Self {
        let name = name.into();
        let (routine, types) = entry_point.own();
        self.ops.push(Registered { name, routine, types });
        self
    }

    /// Runs the tasks of the leader that started this process, until the leader ends it. This is the whole `main` of a worker
    /// program.
    ///
    /// Like [`init`](crate::init()), it must be the first call in `main`. If no pool has started this process, it prints a
    /// message to standard error and exits with code 2.
    pub fn serve(self) -> ! {
        init::enter(|entry| match entry {
            Entry::Own(own) => Routine::resolve(own),
            Entry::Named(wanted) => self.find(wanted).cloned().map_err(Refusal::NoMatchingOp),
        });
        eprintln!(
            "This is a worker program of proc-pool {VERSION}. A leader starts it, with \
             `proc_pool::EntryPoint::named`; run by hand it does nothing. Its ops: {}.",
            self.names()
        );
        std::process::exit(NOT_A_WORKER)
    }

    /// Finds the op that the leader asks for.
    ///
    /// # Errors
    /// The reason why no op matches.
    pub(crate) fn find(&self, wanted: &NamedEntry) -> Result<&Routine, String> {
        let NamedEntry { name, types } = wanted;
        let mut matching = self.ops.iter().filter(|op| op.name == *name);
        let Some(op) = matching.next() else {
            return Err(format!("has no op \"{name}\"; it has {}", self.names()));
        };
        if matching.next().is_some() {
            return Err(format!("has more than one op \"{name}\""));
        }
        let differences = op.types.differences(types);
        match differences.is_empty() {
            true => Ok(&op.routine),
            false => Err(format!("has another op \"{name}\": {}", differences.join("; "))),
        }
    }

    fn names(&self) -> String {
        let names: Vec<String> = self.ops.iter().map(|op| format!("\"{}\"", op.name)).collect();
        match names.is_empty() {
            true => "none".to_owned(),
            false => names.join(", "),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::wire::native::Native;

    fn types<I, T, R>() -> TypeNames {
        TypeNames::of::<I, T, R, Native, Native>()
    }

    fn find(registry: &Registry, name: &str, types: TypeNames) -> Result<(), String> {
        let wanted = NamedEntry {
            name: name.to_owned(),
            types,
        };
        registry.find(&wanted).map(drop)
    }

    #[test]
    fn ops_are_found_by_name_and_types() {
        let registry = Registry::new()
            .op("square", |n: u64| n * n)
            .op("twice", |n: u32| n)
            .op("twice", |n: u32| n);
        assert_eq!(find(&registry, "square", types::<(), u64, u64>()), Ok(()));
        for (name, types, part) in [
            ("cube", types::<(), u64, u64>(), "it has \"square\", \"twice\""),
            ("twice", types::<(), u32, u32>(), "more than one"),
            (
                "square",
                types::<(), u32, u64>(),
                "task is u64 for the worker and u32 for the leader",
            ),
            ("square", types::<(), u64, String>(), "output is u64"),
            ("square", types::<u8, u64, u64>(), "initial value is ()"),
            (
                "square",
                TypeNames::of::<(), u64, u64, Native, crate::Pod>(),
                "outputs' codec is proc_pool::wire::native::Native",
            ),
            ("square", TypeNames::bytes(), "and bytes for the leader"),
        ] {
            let reason = find(&registry, name, types).expect_err(name);
            assert!(reason.contains(part), "{reason}");
        }
        let reason = find(&Registry::new(), "any", TypeNames::bytes()).expect_err("it is empty");
        assert!(reason.ends_with("it has none"), "{reason}");
    }
}

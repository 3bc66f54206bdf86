//! [`Registry`]: the ops that a worker program of its own has, by name.

use std::any::type_name;
use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::codec::{Codec, Postcard};
use crate::entry::Routine;
use crate::init;
use crate::protocol::VERSION;
use crate::service::{BoxError, Plain, Service, Stateful, Worker, WorkerContext};

/// Exit status of a worker program that nobody started as a worker.
const NOT_A_WORKER: i32 = 2;

/// The ops of a program that is made to be a worker, by name.
///
/// Usually workers are the leader's own program. One of their own is for leaders that should not run their `main`
/// again, ops that need other libraries or settings than the leader, or a leader that is built apart.
///
/// The worker program's whole `main`:
///
/// ```no_run
/// proc_pool::Registry::new()
///     .op("square", |n: u64| n * n)
///     .op("shout", |text: String| text.to_uppercase())
///     .serve()
/// ```
///
/// The leader, which needs no [`init`](crate::init()) for that:
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let builder = proc_pool::Builder::new();
/// let pool = builder.build_named::<u64, u64, _>("path/to/worker", "square", &())?;
/// for square in pool.map(0..1000) {
///     println!("{}", square?);
/// }
/// # Ok(()) }
/// ```
///
/// A worker compares the names of types, and the version of this crate, with its leader's: those of task, output and
/// initial value have to be from one library that both use, or from `std`.
#[derive(Default)]
pub struct Registry {
    ops: Vec<Registered>,
}

struct Registered {
    name: String,
    routine: Routine,
    types: Types,
}

/// An op that a leader wants, and the types it has for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Named {
    pub(crate) name: String,
    pub(crate) types: Types,
}

/// The names of what crosses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Types {
    init: String,
    task: String,
    output: String,
    task_codec: String,
    output_codec: String,
}

impl Types {
    pub(crate) fn of<I, T, R, CT, CR>() -> Self {
        Self {
            init: type_name::<I>().to_owned(),
            task: type_name::<T>().to_owned(),
            output: type_name::<R>().to_owned(),
            task_codec: type_name::<CT>().to_owned(),
            output_codec: type_name::<CR>().to_owned(),
        }
    }

    /// Of a [`Service`].
    pub(crate) fn bytes() -> Self {
        Self {
            init: "bytes".to_owned(),
            task: "bytes".to_owned(),
            output: "bytes".to_owned(),
            task_codec: "none".to_owned(),
            output_codec: "none".to_owned(),
        }
    }

    /// What is different where `self` is the worker's.
    fn differences(&self, leaders: &Self) -> Vec<String> {
        let pairs = [
            ("its task", &self.task, &leaders.task),
            ("its output", &self.output, &leaders.output),
            ("its initial value", &self.init, &leaders.init),
            ("its tasks' codec", &self.task_codec, &leaders.task_codec),
            ("its outputs' codec", &self.output_codec, &leaders.output_codec),
        ];
        let different = pairs.into_iter().filter(|(_, own, theirs)| own != theirs);
        different
            .map(|(what, own, theirs)| format!("{what} is {own} for the worker and {theirs} for the leader"))
            .collect()
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.ops.iter().map(|op| &op.name))
            .finish()
    }
}

impl Registry {
    /// One without ops.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a function: a plain `fn`, or a closure that captures nothing.
    pub fn op<T, R>(self, name: impl Into<String>, op: fn(T) -> R) -> Self
    where
        T: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        self.op_with_codecs(name, op, Postcard, Postcard)
    }

    /// As [`op`](Self::op), with other codecs than [`Postcard`] for tasks and outputs.
    pub fn op_with_codecs<T, R, CT, CR>(
        self,
        name: impl Into<String>,
        op: fn(T) -> R,
        tasks: CT,
        outputs: CR,
    ) -> Self
    where
        T: 'static,
        R: 'static,
        CT: Codec<T>,
        CR: Codec<R>,
    {
        self.worker_with_codecs::<Plain<T, R>, CT, CR>(name, op, tasks, outputs)
    }

    /// Adds an op with a state of its worker's, which `start` makes from the initial value that the leader gives. See
    /// [`build_op_with_state`](crate::Builder::build_op_with_state).
    pub fn op_with_state<I, S, T, R>(
        self,
        name: impl Into<String>,
        start: fn(&mut WorkerContext, I) -> Result<S, BoxError>,
        op: fn(&mut S, T) -> R,
    ) -> Self
    where
        I: Serialize + DeserializeOwned + 'static,
        S: 'static,
        T: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        self.worker::<Stateful<I, S, T, R>>(name, (start, op))
    }

    /// Adds a [`Worker`] made from `op` and the initial value that the leader gives.
    pub fn worker<W>(self, name: impl Into<String>, op: W::Op) -> Self
    where
        W: Worker,
        W::Task: Serialize + DeserializeOwned,
        W::Output: Serialize + DeserializeOwned,
    {
        self.worker_with_codecs::<W, _, _>(name, op, Postcard, Postcard)
    }

    /// As [`worker`](Self::worker), with other codecs than [`Postcard`] for tasks and outputs.
    pub fn worker_with_codecs<W, CT, CR>(
        self,
        name: impl Into<String>,
        op: W::Op,
        tasks: CT,
        outputs: CR,
    ) -> Self
    where
        W: Worker,
        CT: Codec<W::Task>,
        CR: Codec<W::Output>,
    {
        // Of the codecs, their types are all that is needed.
        let _ = (tasks, outputs);
        let types = Types::of::<W::Init, W::Task, W::Output, CT, CR>();
        self.add(name.into(), Routine::worker::<W, CT, CR>(op), types)
    }

    /// Adds a [`Service`]: for [`build_named_bytes`](crate::Builder::build_named_bytes), with which no types are
    /// compared.
    pub fn service<S: Service>(self, name: impl Into<String>) -> Self {
        self.add(name.into(), Routine::service::<S>(), Types::bytes())
    }

    fn add(mut self, name: String, routine: Routine, types: Types) -> Self {
        self.ops.push(Registered { name, routine, types });
        self
    }

    /// The whole `main` of a worker program: works for the leader that started this process until it is told to end.
    ///
    /// Like [`init`](crate::init()), it has to be the first that `main` does. A program that nobody started as a
    /// worker says so on standard error and exits with status 2.
    pub fn serve(self) -> ! {
        init::enter(Some(&self));
        eprintln!(
            "This is a worker program of proc-pool {VERSION}. A leader starts it, with \
             `proc_pool::Builder::build_named`; run by hand it does nothing. Its ops: {}.",
            self.names()
        );
        std::process::exit(NOT_A_WORKER)
    }

    /// The op that the leader wants.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) fn find(&self, wanted: &Named) -> Result<&Routine, String> {
        let Named { name, types } = wanted;
        let mut found = self.ops.iter().filter(|op| op.name == *name);
        let Some(op) = found.next() else {
            return Err(format!("has no op \"{name}\"; it has {}", self.names()));
        };
        if found.next().is_some() {
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

    fn types<I, T, R>() -> Types {
        Types::of::<I, T, R, Postcard, Postcard>()
    }

    fn find(registry: &Registry, name: &str, types: Types) -> Result<(), String> {
        let wanted = Named {
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
                Types::of::<(), u64, u64, Postcard, crate::Pod>(),
                "outputs' codec is proc_pool::codec::Postcard",
            ),
            ("square", Types::bytes(), "and bytes for the leader"),
        ] {
            let reason = find(&registry, name, types).expect_err(name);
            assert!(reason.contains(part), "{reason}");
        }
        let reason = find(&Registry::new(), "any", Types::bytes()).expect_err("it is empty");
        assert!(reason.ends_with("it has none"), "{reason}");
    }
}

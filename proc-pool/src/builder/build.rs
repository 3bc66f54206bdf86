//! The start of a pool as a [`Builder`] describes it.

use std::num::NonZeroU64;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use serde::de::DeserializeOwned;
use shm_buffers::descriptors::{Descriptors, collect};

use super::Builder;
use crate::codec::{Codec, Postcard};
use crate::core::Core;
use crate::driver::Driver;
use crate::entry::{Entry, Routine};
use crate::error::PoolError;
use crate::init;
use crate::keeper::{Keeper, Plan, Seat};
use crate::launch::Program;
use crate::os::{self, own_memory};
use crate::pool::{BytePool, Pool};
use crate::registry::{Named, Types};
use crate::service::{BoxError, Plain, Service, Stateful, Worker, WorkerContext, encode};
use crate::supervisor::Supervisor;
use crate::threads::{Nesting, Threads};
use crate::workers::cores;

const MAX_SIDE_RING: usize = 1 << 30;
const MAX_SLOTS: usize = 1 << 20;

impl Builder {
    /// Starts a pool that runs `op`: a plain `fn`, or a closure that captures nothing.
    ///
    /// A closure that captures is not a `fn`: a worker process has its code, but not the values:
    ///
    /// ```compile_fail,E0308
    /// let factor = 3;
    /// let pool = proc_pool::Builder::new().build_op(move |n: u64| factor * n)?;
    /// # Ok::<(), proc_pool::PoolError>(())
    /// ```
    ///
    /// They belong in the task, or in the initial value of a [worker's state](Self::build_op_with_state).
    ///
    /// # Errors
    /// [`PoolError`]; when workers can't start, after a few attempts. [`PoolError::EntryOutsideImage`] for a function in
    /// another shared library than the one that this crate is linked into.
    pub fn build_op<T, R>(self, op: fn(T) -> R) -> Result<Pool<T, R>, PoolError>
    where
        T: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        self.build_op_with_codecs(op, Postcard, Postcard)
    }

    /// As [`build_op`](Self::build_op), with other codecs than [`Postcard`] for tasks and outputs.
    ///
    /// ```no_run
    /// use proc_pool::{Builder, Pod, PodVec};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let powers = |base: f64| (0..1000).map(|n| base.powi(n)).collect();
    /// let pool = Builder::new().build_op_with_codecs(powers, Pod, PodVec)?;
    /// let powers: Vec<f64> = pool.map([1.5]).next().ok_or("one task, one output")??;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`build_op`](Self::build_op).
    pub fn build_op_with_codecs<T, R, CT, CR>(
        self,
        op: fn(T) -> R,
        tasks: CT,
        outputs: CR,
    ) -> Result<Pool<T, R>, PoolError>
    where
        T: 'static,
        R: 'static,
        CT: Codec<T>,
        CR: Codec<R>,
    {
        self.build_with_codecs::<Plain<T, R>, CT, CR>(op, &(), tasks, outputs)
    }

    /// Starts a pool that runs `op` with a state of its worker's, which `start` makes from `init` once in each worker.
    /// Both are plain `fn`s or closures that capture nothing.
    ///
    /// ```no_run
    /// use proc_pool::{Builder, WorkerContext};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let start = |_: &mut WorkerContext, path: String| Ok(std::fs::read_to_string(path)?);
    /// let count = |text: &mut String, word: String| text.matches(&word).count();
    /// let pool = Builder::new().build_op_with_state(start, count, &"text.txt".to_owned())?;
    /// for count in pool.map(["one".to_owned(), "two".to_owned()]) {
    ///     println!("{}", count?);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`PoolError`]; when workers can't start, after a few attempts, with the reason that `start` gives.
    pub fn build_op_with_state<I, S, T, R>(
        self,
        start: fn(&mut WorkerContext, I) -> Result<S, BoxError>,
        op: fn(&mut S, T) -> R,
        init: &I,
    ) -> Result<Pool<T, R>, PoolError>
    where
        I: Serialize + DeserializeOwned + 'static,
        S: 'static,
        T: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        self.build::<Stateful<I, S, T, R>>((start, op), init)
    }

    /// Starts a pool of [`Worker`]s, each made from `op` and `init`, and waits until all are ready.
    ///
    /// # Errors
    /// [`PoolError`]; when workers can't start, after a few attempts.
    pub fn build<W>(self, op: W::Op, init: &W::Init) -> Result<Pool<W::Task, W::Output>, PoolError>
    where
        W: Worker,
        W::Task: Serialize + DeserializeOwned,
        W::Output: Serialize + DeserializeOwned,
    {
        self.build_with_codecs::<W, _, _>(op, init, Postcard, Postcard)
    }

    /// As [`build`](Self::build), with other codecs than [`Postcard`] for tasks and outputs.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn build_with_codecs<W, CT, CR>(
        self,
        op: W::Op,
        init: &W::Init,
        tasks: CT,
        outputs: CR,
    ) -> Result<Pool<W::Task, W::Output>, PoolError>
    where
        W: Worker,
        CT: Codec<W::Task>,
        CR: Codec<W::Output>,
    {
        // Of the codecs, their types are all that crosses, as part of the entry point's.
        let _ = (tasks, outputs);
        let (init, descriptors) = encoded(init)?;
        let bytes = self
            .pass(descriptors)
            .start_own(&Routine::worker::<W, CT, CR>(op), init)?;
        Ok(Pool::new::<CT, CR>(bytes))
    }

    /// Starts a pool of workers that run `S`, each made from `init`, and waits until all are ready.
    ///
    /// # Errors
    /// [`PoolError`]; when workers can't start, after a few attempts.
    pub fn build_bytes<S: Service>(self, init: Vec<u8>) -> Result<BytePool, PoolError> {
        self.start_own(&Routine::service::<S>(), init)
    }

    /// Starts a pool of workers that are another program, found at `program` (relative to this process's current
    /// directory), and run what that has [registered](crate::Registry) as `name`, each made from `init` (`&()` for
    /// an [`op`](crate::Registry::op)). Waits until all are ready.
    ///
    /// # Errors
    /// [`PoolError::Program`] at once when `program` can't be executed; [`PoolError::Start`] with the worker's
    /// reason when it has no such op, or one with other types.
    pub fn build_named<T, R, I>(
        self,
        program: impl AsRef<Path>,
        name: &str,
        init: &I,
    ) -> Result<Pool<T, R>, PoolError>
    where
        T: Serialize + DeserializeOwned,
        R: Serialize + DeserializeOwned,
        I: Serialize,
    {
        self.build_named_with_codecs(program, name, init, Postcard, Postcard)
    }

    /// As [`build_named`](Self::build_named), for an op that was registered with other codecs than [`Postcard`] for
    /// tasks and outputs.
    ///
    /// # Errors
    /// As [`build_named`](Self::build_named).
    pub fn build_named_with_codecs<T, R, I, CT, CR>(
        self,
        program: impl AsRef<Path>,
        name: &str,
        init: &I,
        tasks: CT,
        outputs: CR,
    ) -> Result<Pool<T, R>, PoolError>
    where
        I: Serialize,
        CT: Codec<T>,
        CR: Codec<R>,
    {
        let _ = (tasks, outputs);
        let types = Types::of::<I, T, R, CT, CR>();
        let (init, descriptors) = encoded(init)?;
        let builder = self.pass(descriptors);
        let bytes = builder.start_named(program.as_ref(), name, types, init)?;
        Ok(Pool::new::<CT, CR>(bytes))
    }

    /// As [`build_named`](Self::build_named), for a [`Service`] in another program.
    ///
    /// # Errors
    /// As [`build_named`](Self::build_named).
    pub fn build_named_bytes(
        self,
        program: impl AsRef<Path>,
        name: &str,
        init: Vec<u8>,
    ) -> Result<BytePool, PoolError> {
        self.start_named(program.as_ref(), name, Types::bytes(), init)
    }

    fn start_own(self, routine: &Routine, init: Vec<u8>) -> Result<BytePool, PoolError> {
        if !init::is_initialized() {
            return Err(PoolError::NotInitialized);
        }
        self.start(Program::Own, Entry::own(routine)?, init)
    }

    fn start_named(
        self,
        program: &Path,
        name: &str,
        types: Types,
        init: Vec<u8>,
    ) -> Result<BytePool, PoolError> {
        let name = name.to_owned();
        self.start(
            Program::other(program)?,
            Entry::Named(Named { name, types }),
            init,
        )
    }

    fn start(self, program: Program, entry: Entry, init: Vec<u8>) -> Result<BytePool, PoolError> {
        if os::is_privileged() {
            return Err(PoolError::Privileged);
        }
        let workers = self.workers.resolve()?.get();
        let sizes = [
            ("a side ring", self.sizes.side, MAX_SIDE_RING),
            ("a number of slots", self.sizes.slots, MAX_SLOTS),
        ];
        for (what, asked, max) in sizes {
            if asked > max {
                return Err(PoolError::Size { what, asked, max });
            }
        }
        if self.threads.contains(&Threads::Count(0)) {
            return Err(PoolError::ThreadCount);
        }
        let mut limits = self.limits;
        if let Some(tasks) = self.lifespan {
            limits.lifespan = Some(NonZeroU64::new(tasks).ok_or(PoolError::Lifespan)?);
        }
        if limits.weighs() && own_memory(std::process::id()).is_none() {
            return Err(PoolError::Unsupported {
                what: "a limit of workers' memory",
            });
        }
        let mut launch = self.launch;
        launch.program = program;
        launch.prepare()?;
        Nesting::checked()?.limit(
            cores(),
            workers,
            &self.threads,
            |name| std::env::var_os(name),
            &mut launch.environment,
        );
        let seat = Seat::new()?;
        let supervisor = Supervisor::new(workers, self.patience, Instant::now());
        let (keeper, orders) = crossbeam_channel::unbounded();
        let driver = Arc::new(Driver::new(Core::new(
            workers,
            limits,
            supervisor,
            keeper.clone(),
        ))?);
        let plan = Plan {
            entry,
            sizes: self.sizes,
            init,
            descriptors: self.descriptors,
            backing: self.backing,
            launch,
            inherited: self.inherited,
        };
        let keeping = Keeper::new(driver.clone(), self.observer, plan, orders, keeper.clone())?;
        BytePool::start(driver, keeper, (seat, keeping), self.reactions)
    }
}

/// An initial value, with what handles in it lead to.
fn encoded<I: Serialize>(init: &I) -> Result<(Vec<u8>, Descriptors), PoolError> {
    let mut bytes = Vec::new();
    let (encoded, descriptors) = collect(|| encode(init, &mut bytes));
    encoded.map_err(|e| PoolError::Init(e.to_string()))?;
    Ok((bytes, descriptors))
}

//! Starts a pool from a [`Builder`] and an [`EntryPoint`]: checks the options, and makes the parts of the pool.

use std::ffi::OsString;
use std::num::NonZeroU64;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use serde::de::DeserializeOwned;
use shm_buffers::descriptors::{Descriptors, collect};

use super::Builder;
use crate::error::PoolError;
use crate::leader::event_loop::EventLoop;
use crate::leader::scheduler::Scheduler;
use crate::leader::supervisor::{RestartPolicy, Supervisor};
use crate::observer::observe_ends;
use crate::os::{self, own_memory};
use crate::pool::workers::cores;
use crate::pool::{BytePool, Pool};
use crate::process::launch::Program;
use crate::process::manager::{PendingThread, ProcessManager, SpawnConfig};
use crate::process::threads::{NativeThreads, Nesting};
use crate::wire::codec::Codec;
use crate::wire::encoding::encode;
use crate::wire::entry::{Entry, NamedEntry, TypeNames};
use crate::wire::value::PreparedValue;
use crate::worker::entry_point::sealed::Own;
use crate::worker::entry_point::{EntryPoint, NamedService, NamedWorker, OwnService, OwnWorker};
use crate::worker::init;
use crate::worker::routine::Routine;
use crate::worker::service::{Service, Worker};

/// Maximum size of a user ring in bytes.
const MAX_USER_RING: usize = 1 << 30;
/// Maximum number of user slots.
const MAX_SLOTS: usize = 1 << 20;

impl Builder {
    /// Starts a pool of workers that run `entry_point`, and waits until all are ready. The state of each worker is made from
    /// the initial value `init`: `&()` for an op without state.
    ///
    /// ```no_run
    /// use proc_pool::{Builder, EntryPoint};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let pool = Builder::new().build(EntryPoint::named::<(), u64, u64>("path/to/worker", "square"), &())?;
    /// for square in pool.map(0..1000) {
    ///     println!("{}", square?);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// - [`PoolError::Start`] if workers can't start, after a few attempts, with the reason that a worker has reported.
    /// - [`PoolError::NotInitialized`] if the program has not called [`init`](crate::init()).
    /// - [`PoolError::EntryInOtherLibrary`] for a function in another shared library than the one that this crate is linked into.
    /// - [`PoolError::Program`], [`PoolError::NotAWorker`] and [`PoolError::Refused`], after one attempt, if a separate worker program
    ///   can't be executed, is no worker program, or has no such op.
    /// - Other [`PoolError`]s for invalid options, and for failures of the system.
    pub fn build<E: Runnable>(self, entry_point: E, init: &E::Init) -> Result<E::Pool, PoolError> {
        entry_point.start(self, init)
    }

    /// Starts a pool that runs `op`. Short for [`build`](Self::build) with [`EntryPoint::op`].
    ///
    /// # Errors
    /// The same as those of [`build`](Self::build).
    pub fn build_op<T, R>(self, op: fn(T) -> R) -> Result<Pool<T, R>, PoolError>
    where
        T: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        self.build(EntryPoint::op(op), &())
    }

    fn start_own(self, routine: &Routine, init: Vec<u8>) -> Result<BytePool, PoolError> {
        if !init::is_initialized() {
            return Err(PoolError::NotInitialized);
        }
        self.start((Program::Own, Vec::new()), routine.entry()?, init)
    }

    fn start_named(
        self,
        (program, args): (&Path, Vec<OsString>),
        name: String,
        types: TypeNames,
        init: Vec<u8>,
    ) -> Result<BytePool, PoolError> {
        let entry = Entry::Named(NamedEntry { name, types });
        self.start((Program::other(program)?, args), entry, init)
    }

    fn start(
        self,
        (program, args): (Program, Vec<OsString>),
        entry: Entry,
        init: Vec<u8>,
    ) -> Result<BytePool, PoolError> {
        if os::is_privileged() {
            return Err(PoolError::Privileged);
        }
        let workers = self.workers.resolve()?.get();
        let sizes = [
            ("a user ring", self.sizes.user_ring, MAX_USER_RING),
            ("a number of slots", self.sizes.slots, MAX_SLOTS),
        ];
        for (what, asked, max) in sizes {
            if asked > max {
                return Err(PoolError::Size { what, asked, max });
            }
        }
        if self.native_threads.contains(&NativeThreads::Count(0)) {
            return Err(PoolError::ThreadCount);
        }
        let mut limits = self.limits;
        if let Some(tasks) = self.max_tasks {
            limits.task_limit = Some(NonZeroU64::new(tasks).ok_or(PoolError::ZeroTaskLimit)?);
        }
        if limits.watches_memory() && own_memory(std::process::id()).is_none() {
            return Err(PoolError::Unsupported {
                what: "a limit of workers' memory",
            });
        }
        let mut launch = self.launch;
        let own_program = matches!(program, Program::Own);
        launch.program = program;
        launch.args = args;
        launch.prepare()?;
        let cores = cores();
        Nesting::checked()?.limit(
            cores,
            workers,
            &self.native_threads,
            |name| std::env::var_os(name),
            &mut launch.environment,
        );
        let pending_thread = PendingThread::new()?;
        let policy = RestartPolicy {
            own_program,
            ..self.restart_policy
        };
        let supervisor = Supervisor::new(workers, policy, Instant::now());
        let (manager, commands) = crossbeam_channel::unbounded();
        let scheduler = Scheduler::new(
            workers,
            limits,
            supervisor,
            manager.clone(),
            launch.program.path(),
        );
        let event_loop = Arc::new(EventLoop::new(scheduler, cores)?);
        let spawn_config = SpawnConfig {
            entry,
            sizes: self.sizes,
            init: PreparedValue::new(init).map_err(PoolError::Init)?,
            descriptors: self.descriptors,
            backing: self.backing,
            launch,
            inherited: self.inherited,
            trust: self.trust,
            hooks: self.hooks,
        };
        let process_manager = ProcessManager::new(
            event_loop.clone(),
            observe_ends(self.observer, self.on_worker_end),
            spawn_config,
            commands,
            manager.clone(),
        )?;
        BytePool::start(
            event_loop,
            manager,
            (pending_thread, process_manager),
            self.reactions,
        )
    }
}

/// An [`EntryPoint`] of any kind, from which [`Builder::build`] starts a pool. This trait is sealed: other types can't
/// implement it.
pub trait Runnable: sealed::Sealed {
    /// The initial value, from which the state of each worker is made.
    type Init: ?Sized;
    /// The type of the pool: a [`Pool`] or a [`BytePool`].
    type Pool;

    #[doc(hidden)]
    fn start(self, builder: Builder, init: &Self::Init) -> Result<Self::Pool, PoolError>;
}

mod sealed {
    pub trait Sealed {}

    impl<K, CT, CR> Sealed for super::EntryPoint<K, CT, CR> {}
}

impl<W, CT, CR> Runnable for EntryPoint<OwnWorker<W>, CT, CR>
where
    W: Worker,
    CT: Codec<W::Task>,
    CR: Codec<W::Output>,
{
    type Init = W::Init;
    type Pool = Pool<W::Task, W::Output>;

    fn start(self, builder: Builder, init: &W::Init) -> Result<Pool<W::Task, W::Output>, PoolError> {
        let (init, descriptors) = encoded(init)?;
        let bytes = builder
            .pass_descriptors(descriptors)
            .start_own(&self.own().0, init)?;
        Ok(Pool::new::<CT, CR>(bytes))
    }
}

impl<I, T, R, CT, CR> Runnable for EntryPoint<NamedWorker<I, T, R>, CT, CR>
where
    I: Serialize,
    CT: Codec<T>,
    CR: Codec<R>,
{
    type Init = I;
    type Pool = Pool<T, R>;

    fn start(self, builder: Builder, init: &I) -> Result<Pool<T, R>, PoolError> {
        let (init, descriptors) = encoded(init)?;
        let NamedWorker {
            program, args, name, ..
        } = self.kind;
        let types = TypeNames::of::<I, T, R, CT, CR>();
        let bytes = builder
            .pass_descriptors(descriptors)
            .start_named((&program, args), name, types, init)?;
        Ok(Pool::new::<CT, CR>(bytes))
    }
}

impl<S: Service> Runnable for EntryPoint<OwnService<S>> {
    type Init = [u8];
    type Pool = BytePool;

    fn start(self, builder: Builder, init: &[u8]) -> Result<BytePool, PoolError> {
        builder.start_own(&self.own().0, init.to_vec())
    }
}

impl Runnable for EntryPoint<NamedService> {
    type Init = [u8];
    type Pool = BytePool;

    fn start(self, builder: Builder, init: &[u8]) -> Result<BytePool, PoolError> {
        let NamedService { program, args, name } = self.kind;
        builder.start_named((&program, args), name, TypeNames::bytes(), init.to_vec())
    }
}

/// Encodes an initial value. Also returns the descriptors that the handles in it refer to.
fn encoded<I: Serialize>(init: &I) -> Result<(Vec<u8>, Descriptors), PoolError> {
    let mut bytes = Vec::new();
    let (encoded, descriptors) = collect(|| encode(init, &mut bytes));
    encoded.map_err(|e| PoolError::Init(e.to_string()))?;
    Ok((bytes, descriptors))
}

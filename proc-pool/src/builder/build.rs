//! The start of a pool as a [`Builder`] describes it.

use std::num::NonZeroU64;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Builder;
use crate::core::Core;
use crate::driver::Driver;
use crate::entry::{Entry, Place};
use crate::error::PoolError;
use crate::init;
use crate::keeper::{Keeper, Plan};
use crate::launch::Program;
use crate::os::own_memory;
use crate::pool::{BytePool, Pool};
use crate::registry::{Named, Types};
use crate::service::{Op, Service, Typed, Worker, encode};
use crate::spawn;
use crate::supervisor::Supervisor;
use crate::threads::{Nesting, Threads};
use crate::worker::serve;
use crate::workers::cores;

const MAX_SIDE_RING: usize = 1 << 30;
const MAX_SLOTS: usize = 1 << 20;

impl Builder {
    /// Starts a pool that runs `op`: a plain `fn`, or a closure that captures nothing (another one does not
    /// compile).
    ///
    /// # Errors
    /// [`PoolError`]; when workers can't start, after a few attempts.
    pub fn build_op<F, T, R>(self, op: F) -> Result<Pool<T, R>, PoolError>
    where
        F: Fn(T) -> R + Copy + 'static,
        T: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        self.build::<Op<F, T, R>>(op, &())
    }

    /// Starts a pool of [`Worker`]s, each made from `op` and `init`, and waits until all are ready.
    ///
    /// # Errors
    /// [`PoolError`]; when workers can't start, after a few attempts.
    pub fn build<W: Worker>(self, op: W::Op, init: &W::Init) -> Result<Pool<W::Task, W::Output>, PoolError> {
        // Its type is all that crosses, as part of the entry point's; that it exists is what `op` shows.
        let _ = op;
        Ok(Pool::new(self.build_bytes::<Typed<W>>(encoded(init)?)?))
    }

    /// Starts a pool of workers that run `S`, each made from `init`, and waits until all are ready.
    ///
    /// # Errors
    /// [`PoolError`]; when workers can't start, after a few attempts.
    pub fn build_bytes<S: Service>(self, init: Vec<u8>) -> Result<BytePool, PoolError> {
        if !init::is_initialized() {
            return Err(PoolError::NotInitialized);
        }
        self.start(Program::Own, Entry::Own(Place::of(serve::<S>)?), init)
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
        T: Serialize,
        R: DeserializeOwned,
        I: Serialize,
    {
        let types = Types::of::<I, T, R>();
        Ok(Pool::new(self.start_named(
            program.as_ref(),
            name,
            types,
            encoded(init)?,
        )?))
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

    fn start_named(
        self,
        program: &Path,
        name: &str,
        types: Types,
        init: Vec<u8>,
    ) -> Result<BytePool, PoolError> {
        // It would otherwise be looked for in PATH, or in the workers' directory.
        let path = std::path::absolute(program).map_err(|source| PoolError::Program {
            path: program.to_owned(),
            source: Arc::new(source),
        })?;
        let name = name.to_owned();
        self.start(Program::Other(path), Entry::Named(Named { name, types }), init)
    }

    fn start(self, program: Program, entry: Entry, init: Vec<u8>) -> Result<BytePool, PoolError> {
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
        launch.check()?;
        spawn::check()?;
        Nesting::here().limit(
            cores(),
            workers,
            &self.threads,
            |name| std::env::var_os(name),
            &mut launch.environment,
        );
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
            backing: self.backing,
            launch,
        };
        let keeping = Keeper::new(driver.clone(), self.observer, plan, orders, keeper.clone())?;
        BytePool::start(driver, keeper, keeping, self.reactions)
    }
}

fn encoded<I: Serialize>(init: &I) -> Result<Vec<u8>, PoolError> {
    let mut bytes = Vec::new();
    encode(init, &mut bytes).map_err(|e| PoolError::Init(e.to_string()))?;
    Ok(bytes)
}

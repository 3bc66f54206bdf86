//! A worker program: the tests in `it/worker_programs.rs` call its ops by name.

use proc_pool::{
    BoxError, Builder, CallError, EntryPoint, OutputBuf, Pod, PodVec, Registry, Service, Worker,
    WorkerContext, Workers,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    if std::env::args().nth(1).as_deref() == Some("without-init") {
        Builder::new().build_op(|n: u64| n)?;
        return Ok(());
    }
    Registry::new()
        .op("square", |n: u64| n * n)
        .op("exit", |code: i32| -> () { std::process::exit(code) })
        .op("nested", nested)
        .add(
            "sum",
            EntryPoint::op(|ns: Vec<f32>| ns.iter().sum::<f32>()).codecs(PodVec, Pod),
        )
        .add(
            "count",
            EntryPoint::op_with_state(|_, first: u64| Ok(first), count),
        )
        .add("add", EntryPoint::worker::<Adder>(()))
        .add("reverse", EntryPoint::service::<Reverse>())
        .serve()
}

/// Runs a pool of this program inside its worker.
fn nested(n: u64) -> Result<u64, String> {
    let builder = Builder::new().workers(Workers::Count(1));
    let pool = builder.build_op(|n: u64| n + 1).map_err(|e| e.to_string())?;
    let output = pool.map([n]).next().ok_or("no output")?;
    output.map_err(|e| e.to_string())
}

fn count(next: &mut u64, (): ()) -> u64 {
    *next += 1;
    *next - 1
}

/// Adds its initial value to each task.
struct Adder(u64);

impl Worker for Adder {
    type Op = ();
    type Init = u64;
    type Task = u64;
    type Output = u64;

    fn start(_: &mut WorkerContext, (): (), init: u64) -> Result<Self, BoxError> {
        match init {
            0 => Err("nothing to add")?,
            _ => Ok(Self(init)),
        }
    }

    fn run(&mut self, task: u64) -> u64 {
        self.0 + task
    }
}

/// Outputs its task reversed.
struct Reverse;

impl Service for Reverse {
    fn start(_: &mut WorkerContext, _: &[u8]) -> Result<Self, BoxError> {
        Ok(Self)
    }

    fn call(&mut self, task: &[u8], output: &mut OutputBuf) -> Result<(), CallError> {
        output.extend(task.iter().rev());
        Ok(())
    }
}

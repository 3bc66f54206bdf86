//! The main job of the example `batch_eval`, on several machines: one leader, and a node on each machine.
//!
//! ```text
//! nats-server --jetstream &
//! batch_eval_cluster --cluster node &
//! batch_eval_cluster --cluster lead --recs recs.csv
//! ```
//!
//! Without `--cluster`, it evaluates the users on this machine alone, all of them or, for schedulers with job arrays, one shard: the files
//! of all shards, one after the other, are the file of a run without shards.
//!
//! Recommender, op and task are the files of the other example. The model is best trained once, and saved where all nodes can read it:
//!
//! ```text
//! batch_eval_cluster --save-model model.safetensors
//! batch_eval_cluster --cluster node --model model.safetensors &
//! ```
//!
//! Then all nodes of a machine use one copy of it, the pages of the file in the system's cache. Without `--model`, each node trains it.

#![allow(dead_code, reason = "the other example uses all of these files")]

#[path = "../../invoker/examples/batch_eval/csr.rs"]
mod csr;
#[path = "../../invoker/examples/batch_eval/gather.rs"]
mod gather;
#[path = "../../invoker/examples/batch_eval/knn.rs"]
mod knn;
#[path = "../../invoker/examples/batch_eval/metrics.rs"]
mod metrics;
#[path = "../../invoker/examples/batch_eval/op.rs"]
mod op;
#[path = "../../invoker/examples/batch_eval/ratings.rs"]
mod ratings;
#[path = "../../invoker/examples/batch_eval/split.rs"]
mod split;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::num::NonZeroU32;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use invoker::{Backing, BoxError, Image, Invoker, TaskError, Workers};
use invoker_nats::Cluster;

use gather::Gathered;
use knn::ItemKnn;
use op::{EvalModel, Outcome, Task, evaluate_user};
use ratings::Ratings;

/// The root of the tasks' seeds.
const SEED: u64 = 7;

/// Batch evaluation of a recommender on several machines.
#[derive(Debug, Parser)]
struct Args {
    /// The part of this process in a run on several machines; they find each other by INVOKER_NATS and INVOKER_RUN
    #[arg(long, value_name = "ROLE")]
    cluster: Option<Role>,
    /// Evaluate only shard I of N, counted from 0
    #[arg(long, value_name = "I/N", value_parser = parse_shard, conflicts_with = "cluster")]
    shard: Option<Shard>,
    /// Ratings as CSV [default: built in]
    #[arg(long, value_name = "FILE")]
    ratings: Option<PathBuf>,
    /// Train the model, save it to this file, and do nothing else
    #[arg(long, value_name = "FILE", conflicts_with_all = ["cluster", "shard", "model"])]
    save_model: Option<PathBuf>,
    /// Use the model in this file; no program may change it during the run
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// Length of each list of recommendations
    #[arg(long, value_name = "N", default_value = "10")]
    top: NonZeroU32,
    /// Evaluate the users K times, for timing
    #[arg(long, value_name = "K", default_value = "1")]
    repeat: NonZeroU32,
    /// Number of workers, of a node or of this machine, or `all`
    #[arg(long, value_name = "N", default_value = "all")]
    workers: Workers,
    /// Write the recommendations to this file, as user,rank,item,score with all digits
    #[arg(long, value_name = "OUT.csv")]
    recs: Option<PathBuf>,
    /// The same command, after the leader was killed, continues the run
    #[arg(long)]
    resumable: bool,
    /// After this silence a node counts as lost
    #[arg(long, value_name = "SECONDS", default_value = "5")]
    ack_wait: f64,
    /// Any server and network: all that reach the server could read and forge
    #[arg(long)]
    insecure: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Role {
    /// Has the tasks, and writes the recommendations
    Lead,
    /// Runs tasks, one process on each machine
    Node,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shard {
    index: u64,
    of: u64,
}

fn parse_shard(text: &str) -> Result<Shard, String> {
    let wrong = || format!("`{text}` must be I/N with I below N, as in 0/8");
    let (index, of) = text.split_once('/').ok_or_else(wrong)?;
    let (index, of) = (
        index.parse().map_err(|_| wrong())?,
        of.parse().map_err(|_| wrong())?,
    );
    if index < of {
        Ok(Shard { index, of })
    } else {
        Err(wrong())
    }
}

impl Shard {
    /// Returns the positions of its tasks.
    fn range(self, tasks: usize) -> Range<usize> {
        let start = |index: u64| (tasks as u64 * index / self.of) as usize;
        start(self.index)..start(self.index + 1)
    }
}

fn main() -> ExitCode {
    invoker::init(); // a worker of a node starts here
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("batch_eval_cluster: {error:?}");
            ExitCode::FAILURE
        }
    }
}

/// Returns whether all tasks have succeeded.
fn run(args: &Args) -> Result<bool, BoxError> {
    let ratings = match &args.ratings {
        Some(path) => Ratings::read(path)?,
        None => Ratings::bundled()?,
    };
    let users = ratings.users.clone();
    if let Some(path) = &args.save_model {
        invoker::share(&train(args, ratings), &Backing::Auto)?.save(path)?;
        return Ok(true);
    }
    if args.cluster == Some(Role::Lead) {
        let run = cluster(args)?.lead(evaluate_user).progress("evaluate").seed(SEED);
        let run = run.ack_wait(Duration::try_from_secs_f64(args.ack_wait)?);
        let run = if args.resumable { run.resumable() } else { run }.build()?;
        let tasks = gather::tasks(users.len() as u32, args.repeat.get(), None);
        let all = write(args, users, 0, run.map(tasks))?;
        println!("{}", run.finish()?);
        return Ok(all);
    }
    let shard = args.shard.unwrap_or(Shard { index: 0, of: 1 });
    let range = shard.range(users.len());
    let node = match &args.model {
        Some(path) => Invoker::builder(evaluate_user).image(open(path)?),
        None => Invoker::builder(evaluate_user).model(train(args, ratings)),
    };
    let node = node.workers(args.workers);
    if args.cluster == Some(Role::Node) {
        println!("{}", cluster(args)?.serve(node)?);
        return Ok(true);
    }
    // A task has the seed that it has in a run without shards.
    let invoker = node.seed_from(SEED, range.start as u64).build()?;
    let tasks: Vec<Task> = gather::tasks(users.len() as u32, args.repeat.get(), None).collect();
    let of_shard = |task: &Task| range.contains(&(task.user as usize));
    let outputs = invoker.map(tasks.into_iter().filter(of_shard));
    let all = write(args, users[range.clone()].to_vec(), shard.index, outputs)?;
    println!("{}", invoker.finish()?);
    Ok(all)
}

fn train(args: &Args, ratings: Ratings) -> EvalModel {
    let split = split::hold_out(&ratings, 0.2, 42);
    let knn = ItemKnn::train(ratings.items, &split.train);
    EvalModel::new(knn, ratings.users, split, args.top.get())
}

#[allow(
    unsafe_code,
    reason = "a file that is mapped rather than read is one copy for all processes of this machine"
)]
fn open(path: &Path) -> Result<Image, BoxError> {
    // SAFETY: the user promises with `--model` that no program changes the file; `--save-model` writes a new one under its name.
    Ok(unsafe { Image::open(path)? })
}

fn cluster(args: &Args) -> Result<Cluster, invoker_nats::Error> {
    match args.insecure {
        true => Cluster::from_env_insecure(),
        false => Cluster::from_env(),
    }
}

/// Gathers the outcomes, in the order of users, and writes recommendations; the first shard writes the header. Returns whether all tasks
/// have succeeded.
fn write(
    args: &Args,
    users: Vec<u32>,
    shard: u64,
    outcomes: impl Iterator<Item = Result<Outcome, TaskError>>,
) -> Result<bool, BoxError> {
    let mut gathered = Gathered::new(users);
    for (index, outcome) in (0..).zip(outcomes) {
        gathered.add(index, outcome);
    }
    if let Some(path) = &args.recs {
        let mut out = BufWriter::new(File::create(path)?);
        if shard == 0 {
            writeln!(out, "user,rank,item,score")?;
        }
        for (user, list) in gathered.recs() {
            for (rank, (item, score)) in (1..).zip(list) {
                writeln!(out, "{user},{rank},{item},{score}")?;
            }
        }
        out.flush()?;
    }
    for failure in gathered.failures() {
        eprintln!("batch_eval_cluster: {failure}");
    }
    if let Some(summary) = gathered.summary() {
        let tasks = gathered.tasks();
        println!(
            "nDCG@{} {:.4} over {} users, {tasks} tasks",
            args.top, summary.ndcg, summary.users
        );
    }
    Ok(gathered.failures().is_empty())
}

#[cfg(test)]
mod shards {
    use super::*;

    #[test]
    fn shards_are_disjoint_and_complete() {
        for (tasks, of) in [(671, 8), (3, 5), (0, 1)] {
            let all: Vec<usize> = (0..of)
                .flat_map(|index| Shard { index, of }.range(tasks))
                .collect();
            assert!(all.into_iter().eq(0..tasks));
        }
        assert_eq!(parse_shard("1/3"), Ok(Shard { index: 1, of: 3 }));
        for wrong in ["3/3", "1", "a/2", "1/0", "-1/2"] {
            assert!(parse_shard(wrong).is_err(), "{wrong}");
        }
    }
}

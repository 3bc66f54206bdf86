//! Recommendations by a matrix factorisation: the job that `cargo xtask bench peers` runs on every pool. Baseline: the same
//! op on one thread without a pool.
//!
//! The model and the outputs equal those of the Python side bit by bit.

use std::hint::black_box;
use std::time::{Duration, Instant};

use proc_pool::{BoxError, Builder, EntryPoint, Worker, WorkerContext, Workers};
use serde::{Deserialize, Serialize};
use shm_buffers::{Backing, Buffer, Image, SegmentHandle, share_move};

use crate::{Failure, WORKERS};

const ITEMS: usize = 20_000;
const FACTORS: usize = 64;
const TOP: usize = 10;
/// The duration of the measurement without a pool.
const DURATION: Duration = Duration::from_millis(600);

/// Items with their scores, best first.
type Best = [(u32, f32); TOP];

#[derive(Serialize, Deserialize)]
struct Model {
    /// The factors of all items, then of the users.
    factors: Buffer<f32>,
}

impl Model {
    /// Builds a model of multiples of 1/512 below 1: every sum of 64 products is exact in 32 bits, in any order.
    fn new(users: usize) -> Self {
        let numbers = 1..=((ITEMS + users) * FACTORS) as u64;
        let factors = numbers.map(|number| (splitmix64(number) >> 54) as f32 / 512.0 - 1.0);
        Self {
            factors: factors.collect::<Vec<f32>>().into(),
        }
    }

    /// Returns the best items for a user.
    fn top(&self, user: u32) -> Best {
        let (rows, _) = self.factors.as_chunks::<FACTORS>();
        let (items, users) = rows.split_at(ITEMS);
        let preferences = &users[user as usize];
        let mut best = [(0, f32::NEG_INFINITY); TOP];
        for (item, factors) in items.iter().enumerate() {
            let score = dot(factors, preferences);
            if score > best[TOP - 1].1 {
                let rank = best.partition_point(|(_, better)| *better >= score);
                best.copy_within(rank..TOP - 1, rank + 1);
                best[rank] = (item as u32, score);
            }
        }
        best
    }
}

/// Returns the number at this index of the sequence that SplitMix64 generates from the seed 0.
fn splitmix64(index: u64) -> u64 {
    let mut state = index.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    state = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    state ^ (state >> 31)
}

/// Computes a dot product in lanes that the compiler can vectorise.
fn dot(a: &[f32; FACTORS], b: &[f32; FACTORS]) -> f32 {
    const LANES: usize = 16;
    let mut lanes = [0.0; LANES];
    let (a, b) = (a.as_chunks::<LANES>().0, b.as_chunks::<LANES>().0);
    for (a, b) in a.iter().zip(b) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += a * b;
        }
    }
    lanes.iter().sum()
}

struct Recommender(Model);

impl Worker for Recommender {
    type Op = ();
    type Init = SegmentHandle;
    type Task = u32;
    type Output = Best;

    fn start(_: &mut WorkerContext, (): (), model: SegmentHandle) -> Result<Self, BoxError> {
        Ok(Self(Image::attach(&model)?.load()?))
    }

    fn run(&mut self, user: u32) -> Best {
        self.0.top(user)
    }
}

/// The results of [`run`].
pub(crate) struct Measured {
    /// Ops per second of one thread without a pool.
    pub(crate) bare: f64,
    /// Ops per second of the pool.
    pub(crate) pool: f64,
    /// A checksum of the scores and their order.
    pub(crate) checksum: i64,
}

/// Measures the job for this number of users.
pub(crate) fn run(users: u32) -> Result<Measured, Failure> {
    let model = Model::new(users as usize);
    let started = Instant::now();
    let mut ops = 0;
    while started.elapsed() < DURATION {
        black_box(model.top(ops % users));
        ops += 1;
    }
    let bare = f64::from(ops) / started.elapsed().as_secs_f64();

    let image = share_move(model, &Backing::Auto)?;
    let builder = Builder::new().workers(Workers::Count(WORKERS));
    let pool = builder.build(EntryPoint::worker::<Recommender>(()), &image.handle()?)?;
    // Warms up: the workers have read the whole model afterwards.
    pool.map(0..64).collect::<Result<Vec<_>, _>>()?;
    let started = Instant::now();
    let outputs = pool.map(0..users).collect::<Result<Vec<Best>, _>>()?;
    let seconds = started.elapsed().as_secs_f64();
    Ok(Measured {
        bare,
        pool: f64::from(users) / seconds,
        checksum: outputs
            .iter()
            .flat_map(|best| (1..).zip(best))
            .map(weighted)
            .sum(),
    })
}

/// Returns a score in units of 2^-18, times its rank.
fn weighted((rank, (_, score)): (i64, &(u32, f32))) -> i64 {
    rank * (f64::from(*score) * f64::from(1 << 18)) as i64
}

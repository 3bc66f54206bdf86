//! A model image in a file, `.image(Image::open(…))`, with a context for each run, and a device for each worker.
//!
//! One copy: the pages of the file. The image need not know of the context. Each worker has the environment of its device.
#![allow(
    unsafe_code,
    reason = "mapping a file is unsafe: nothing may change it meanwhile"
)]

use cookbook::{Copies, Random, check, scaled, workers};
use invoker::{Backing, BoxError, Buffer, Image, Invoker, Processes, WithContext, WorkerId, share, worker};

const DEVICES: usize = 2;

/// The best items of the task's thousandth, as many as the context says, and the worker's device.
fn top_k(run: &WithContext<Buffer<f32>, usize>, part: usize) -> (Vec<usize>, usize) {
    let device = std::env::var("CUDA_VISIBLE_DEVICES").expect("each worker has it");
    let device = device.parse().expect("a number");
    let index = worker().expect("an op runs in a worker").index;
    assert_eq!(device, index % DEVICES);
    (best(&run.model, part, run.context), device)
}

fn best(scores: &[f32], part: usize, count: usize) -> Vec<usize> {
    let len = scores.len() / 1000;
    let scores = &scores[part * len..][..len];
    let mut items: Vec<usize> = (0..len).collect();
    items.sort_by(|one, other| scores[*other].total_cmp(&scores[*one]).then(one.cmp(other)));
    items.truncate(count);
    items
}

fn main() -> Result<(), BoxError> {
    invoker::init();
    let mut random = Random::new(16);
    let scores: Vec<f32> = (0..scaled(10_000_000))
        .map(|_| random.below(1 << 20) as f32)
        .collect();
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("scores.safetensors");
    let scores = Buffer::from(scores);
    share(&scores, &Backing::Auto)?.save(&path)?;
    let expected = |count| Vec::from_iter((0..1000).map(|part| best(&scores, part, count)));
    let expected = [3, 10].map(|count| (count, expected(count)));
    drop(scores);

    for (count, expected) in expected {
        let device = |worker: WorkerId| [("CUDA_VISIBLE_DEVICES", (worker.0 as usize % DEVICES).to_string())];
        // SAFETY: the file is in a directory of this program, and nothing changes it.
        let image = unsafe { Image::open(&path)? };
        let builder = Invoker::builder(top_k)
            .context(count)
            .image(image)
            .workers(workers());
        let invoker = builder.executor(Processes::new().worker_env(device)).build()?;
        let found: Vec<(Vec<usize>, usize)> = invoker.map(0..1000).collect::<Result<_, _>>()?;
        let (found, devices): (Vec<_>, Vec<_>) = found.into_iter().unzip();
        assert_eq!(found, expected);
        assert!(
            (0..DEVICES).all(|device| devices.contains(&device)),
            "each worker has run tasks"
        );
        check(&format!("queries, top {count}"), Copies::One, invoker)?;
    }
    Ok(())
}

//! A model that nodes fetch from the server.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use invoker::{Backing, Buffer, Image};
use invoker_nats::{Error, StageError};

use crate::support::{Server, alone};

/// The size of the model in MiB.
fn size() -> usize {
    let size = std::env::var("IT_MODEL_MIB").ok();
    size.and_then(|mib| mib.parse().ok()).unwrap_or(16)
}

#[test]
fn a_model_is_fetched_once_by_all_processes_of_a_machine() {
    let _turn = alone(300);
    let Some(server) = Server::start() else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let (source, local) = (dir.path().join("model.safetensors"), dir.path().join("local"));
    let save = |value: u64| {
        let model: Buffer<u64> = (0..(size() as u64) << 17).map(|n| n ^ value).collect();
        let image = invoker::share(&model, &Backing::Auto).expect("memory");
        image.save(&source).expect("a writable directory");
        image.checksum()
    };
    let cluster = server.cluster("stored").wait(Duration::from_secs(60));
    let early = server.cluster("stored").wait(Duration::from_millis(100));
    let error = early.fetch_model(&local).expect_err("there is none yet");
    assert!(matches!(error, Error::NoModel { .. }), "{error}");

    let fetch = || {
        let fetched: Vec<PathBuf> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..3)
                .map(|_| scope.spawn(|| cluster.fetch_model(&local).expect("room")))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("no panic"))
                .collect()
        });
        assert!(fetched.windows(2).all(|pair| pair[0] == pair[1]));
        fetched[0].clone()
    };
    let loaded = |path: &PathBuf| {
        let image = Image::load_shared(path, &Backing::Auto).expect("an image");
        image.checksum()
    };
    let checksum = save(0);
    let started = Instant::now();
    cluster.publish_model(&source).expect("room");
    let published = started.elapsed();
    let first = fetch();
    println!(
        "a model of {} MiB: published in {:.2} s, fetched by three at once in {:.2} s",
        size(),
        published.as_secs_f64(),
        (started.elapsed() - published).as_secs_f64()
    );
    assert_eq!(loaded(&first), checksum);
    let written = || {
        fs::metadata(&first)
            .and_then(|it| it.modified())
            .expect("it exists")
    };
    let before = written();
    assert_eq!((fetch(), written()), (first.clone(), before), "it is there");

    // Another model has another name: the first one may be in use.
    let checksum = save(1);
    cluster.publish_model(&source).expect("room");
    let second = fetch();
    assert!(second != first && first.exists());
    assert_eq!(loaded(&second), checksum);

    let mut bytes = fs::read(&source).expect("it was saved");
    *bytes.last_mut().expect("it is not empty") ^= 1;
    fs::write(&source, bytes).expect("a writable directory");
    let error = cluster.publish_model(&source).expect_err("it is damaged");
    assert!(
        matches!(error, Error::Stage(StageError::Damaged { .. })),
        "{error}"
    );
    cluster.remove_model().expect("it is there");
    assert!(matches!(early.fetch_model(&local), Err(Error::NoModel { .. })));
}

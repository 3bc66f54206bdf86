//! The main job, the example `batch_eval_cluster`, from the command line.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use futures_util::StreamExt;

use crate::support::{Server, alone};

/// Builds the example, because `cargo test` may have built only these tests, and returns its path. Built with the whole workspace, the
/// dependencies have the features that they have in continuous integration, and are not built again.
fn program() -> PathBuf {
    let mut build = Command::new(env!("CARGO"));
    build.args([
        "build",
        "--workspace",
        "--example",
        "batch_eval_cluster",
        "--message-format=json",
    ]);
    let output = build
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let messages = String::from_utf8(output.stdout).expect("cargo writes text");
    let built = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let path = built
        .filter(|message| message["target"]["name"] == "batch_eval_cluster")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from));
    path.expect("cargo names the executable")
}

/// Writes ratings of 60 users and 80 items, small enough for a debug build.
fn ratings(dir: &Path) -> PathBuf {
    let mut csv = String::from("userId,movieId,rating,timestamp\n");
    for (user, item) in (1..=60_u32).flat_map(|user| (1..=80_u32).map(move |item| (user, item))) {
        let mix = user
            .wrapping_mul(2_654_435_761)
            .wrapping_add(item.wrapping_mul(40_503))
            >> 7;
        if mix.is_multiple_of(3) {
            writeln!(csv, "{user},{item},{}.5,{mix}", 1 + mix / 3 % 4).expect("memory");
        }
    }
    let path = dir.join("ratings.csv");
    fs::write(&path, csv).expect("a writable directory");
    path
}

/// Waits until nodes have published `count` answers.
fn wait_for_answers(url: &str, count: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let client = async_nats::connect(url).await.expect("the server");
        let answers = client
            .subscribe("invoker.job.answers")
            .await
            .expect("a subscription");
        answers.take(count).collect::<Vec<_>>().await;
    });
}

#[test]
fn recommendations_of_a_cluster_and_of_shards_are_those_of_one_machine() {
    let _turn = alone(400);
    let Some(server) = Server::start() else { return };
    let (dir, program) = (tempfile::tempdir().expect("a directory"), program());
    let ratings = ratings(dir.path());
    let job = |arguments: &[&str]| {
        let mut command = Command::new(&program);
        command
            .env("INVOKER_NATS", server.url())
            .env("INVOKER_RUN", "job");
        command
            .arg("--ratings")
            .arg(&ratings)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        command
    };
    let recs = |name: &str| dir.path().join(name);
    let write = |name: &str, arguments: &[&str]| {
        let path = recs(name).display().to_string();
        let output = job(&[arguments, &["--recs", &path]].concat())
            .output()
            .expect("it runs");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        (
            fs::read(path).expect("it was written"),
            String::from_utf8(output.stdout).expect("text"),
        )
    };
    let (expected, _) = write("one.csv", &[]);
    assert!(expected.iter().filter(|byte| **byte == b'\n').count() > 500);

    let shards: Vec<u8> = (0..3)
        .flat_map(|index| write("shard.csv", &["--shard", &format!("{index}/3")]).0)
        .collect();
    assert!(shards == expected, "three shards");

    let node = || {
        job(&["--cluster", "node", "--workers", "2"])
            .spawn()
            .expect("it runs")
    };
    let mut nodes: [Child; 3] = [(); 3].map(|()| node());
    let url = server.url();
    let killer = std::thread::spawn(move || {
        // In the middle of the run.
        wait_for_answers(&url, 20);
        nodes[1].kill().expect("it is a child");
        nodes
    });
    let (recs, report) = write(
        "cluster.csv",
        &["--cluster", "lead", "--repeat", "100", "--ack-wait", "1"],
    );
    assert!(recs == expected, "a cluster");
    println!("{report}");
    for node in killer.join().expect("no panic") {
        let output = node.wait_with_output().expect("it is a child");
        let text = String::from_utf8(output.stdout).expect("text");
        // One model image for all workers of a node.
        assert!(text.is_empty() || text.contains("shared    "), "{text}");
    }
}

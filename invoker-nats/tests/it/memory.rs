//! One copy of a model for all workers and all nodes of a machine.

use std::fs;
use std::path::Path;

use invoker::{Backing, Buffer};

use crate::ops::{self, Work};
use crate::runs::lead;
use crate::support::{Process, Role, Server, alone, wait_for_nodes};

/// Returns a process and all that it has started.
fn family(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("it exists");
    let children = tasks
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let children: Vec<u32> = children
        .flat_map(|text| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .map(|pid| pid.parse().expect("a process id"))
        .collect();
    std::iter::once(pid)
        .chain(children.into_iter().flat_map(family))
        .collect()
}

/// Returns how many bytes of a file are mapped and present in a process, and its share of them: a page that n processes map counts
/// as 1/n.
fn mapped(pid: u32, file: &Path) -> (u64, u64) {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps")).expect("it exists");
    let (mut of_file, mut sums) = (false, (0, 0));
    for line in text.lines() {
        let kib = |rest: &str| {
            rest.trim()
                .trim_end_matches(" kB")
                .parse::<u64>()
                .expect("a number")
        };
        match line.split_once(':') {
            Some(("Rss", rest)) if of_file => sums.0 += kib(rest) << 10,
            Some(("Pss", rest)) if of_file => sums.1 += kib(rest) << 10,
            // The first line of each mapping: addresses, and the path at the end.
            Some((name, _)) if name.contains(' ') => of_file = line.ends_with(&*file.to_string_lossy()),
            _ => {}
        }
    }
    sums
}

#[test]
fn two_nodes_of_a_machine_with_three_workers_each_have_one_copy_of_the_model() {
    let _turn = alone(120);
    let Some(server) = Server::start() else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("model.safetensors");
    let model: Buffer<u64> = (0..4_000_000_u64).collect();
    let expected: u64 = model.iter().sum();
    let image = invoker::share(&model, &Backing::Auto).expect("memory");
    image.save(&path).expect("a writable directory");
    drop((image, model));
    let size = fs::metadata(&path).expect("it was saved").len();

    let leader = lead(&server, "copies");
    let text = path.display().to_string();
    let variables = [("IT_MODEL", &*text), ("INVOKER_WORKERS", "3")];
    let nodes = [(); 2].map(|()| Process::start(Role::Node, &server, "copies", &variables));
    wait_for_nodes(&leader, &nodes);
    // Until every worker has read all of it.
    let workers = || -> Vec<u32> {
        let children = nodes.iter().flat_map(|node| family(node.pid()).split_off(1));
        children.collect()
    };
    while workers().iter().any(|pid| mapped(*pid, &path).0 < size * 9 / 10) {
        for output in leader.map(ops::numbers(60, Work::Sum)) {
            let (_, _, sum) = output.expect("no task fails");
            assert_eq!(sum, expected.to_le_bytes());
        }
    }
    let all = nodes.iter().flat_map(|node| family(node.pid()));
    let all: Vec<(u64, u64)> = all.map(|pid| mapped(pid, &path)).collect();
    let (present, share) = all.iter().fold((0, 0), |sum, it| (sum.0 + it.0, sum.1 + it.1));
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    println!(
        "a model of {:.1} MiB: {:.1} MiB mapped by {} processes of two nodes, in memory {:.1} MiB (PSS)",
        mib(size),
        mib(present),
        all.len(),
        mib(share)
    );
    assert_eq!(all.len(), 8, "two nodes with three workers each");
    assert!(present >= 6 * size * 9 / 10, "each worker has mapped it");
    assert!(share > size * 9 / 10 && share < size * 11 / 10, "one copy");
    assert_eq!(leader.finish().expect("a report").nodes.len(), 2);
}

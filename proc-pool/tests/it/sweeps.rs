//! What a leader and its worker leave that both died at the worst moment is removed by the next leader.

use std::io::BufReader;

use proc_pool::{Builder, Workers};

use crate::leaders::listen;
use crate::support::{Alone, Dir, hang, is_alone, pool, signal, test_name, watchdog};

#[test]
fn servers_of_dead_leaders_and_only_those() {
    let _watchdog = watchdog(100);
    if is_alone() {
        if std::env::var_os("IT_NEXT").is_some() {
            assert_eq!(pool(1, |n: u64| n).map(0..10).filter(Result::is_ok).count(), 10);
            return;
        }
        let builder = Builder::new()
            .workers(Workers::Count(1))
            .env("IT_STOP_BEFORE_INIT", "1");
        let pool = builder
            .build_op(|n: u64| n)
            .expect("it starts, once it may go on");
        assert_eq!(pool.map(0..10).filter(Result::is_ok).count(), 10);
        crate::leaders::say("works", []);
        hang()
    }
    let tmp = Dir::new();
    // One whose worker has not connected yet.
    let leader = || {
        let (mut leader, _own) = Alone::new(&test_name!().replace("::{{closure}}", ""))
            .env("TMPDIR", tmp.path())
            .start();
        let mut stdout = BufReader::new(leader.stdout.take().expect("it is piped"));
        let worker = listen(&mut stdout, "before")[0];
        (leader, stdout, worker)
    };
    let (mut dead, _stdout, worker) = leader();
    let (mut alive, mut stdout, stopped) = leader();
    dead.kill().expect("it lives");
    dead.wait().expect("it is ours");
    signal(worker, rustix::process::Signal::KILL);
    assert_eq!(tmp.entries().len(), 2);
    Alone::new(&test_name!())
        .env("TMPDIR", tmp.path())
        .env("IT_NEXT", "1")
        .run();
    assert_eq!(tmp.entries().len(), 1);
    signal(stopped, rustix::process::Signal::CONT);
    listen(&mut stdout, "works");
    alive.kill().expect("it lives");
    alive.wait().expect("it is ours");
    assert_eq!(tmp.entries(), [""; 0].map(std::path::PathBuf::from));
}

//! Pools create no file, directory or socket that has a name.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::support::{IsolatedTest, TempDir, is_isolated, kill_workers, pool, test_name, watchdog};

/// Other users who may write to the temporary directory find nothing of a pool there.
#[test]
fn pool_creates_nothing_that_has_a_name() {
    if !is_isolated() {
        return IsolatedTest::new(&test_name!()).run();
    }
    let _watchdog = watchdog(60);
    rustix::process::umask(rustix::fs::Mode::empty());
    let tmp = std::env::temp_dir();
    std::fs::set_permissions(&tmp, PermissionsExt::from_mode(0o777)).expect("the mode can be changed");
    // Files of the user that have the names which files of pools once had.
    let own = tmp.join(".tmpABCDEF");
    std::fs::create_dir(&own).expect("the directory can be created");
    for name in ["proc-pool", "socket"] {
        std::fs::write(own.join(name), "mine").expect("the file can be written");
    }
    let names = |tmp: &Path| -> Vec<String> {
        let entries = std::fs::read_dir(tmp)
            .expect("the directory is readable")
            .flatten();
        let named = entries.map(|entry| entry.path().display().to_string());
        let sockets = std::fs::read_to_string("/proc/net/unix").expect("/proc is readable");
        let within = tmp.display().to_string();
        let sockets = sockets
            .lines()
            .filter(|line| line.contains(&within))
            .map(str::to_owned);
        named.chain(sockets).collect()
    };
    let before = names(&tmp);
    assert_eq!(before.len(), 1);
    let pool = pool(2, |tmp: String| {
        let entries = std::fs::read_dir(tmp).expect("the directory is readable");
        entries.count()
    });
    for _ in 0..3 {
        let seen = pool.map([tmp.to_str().expect("the path is UTF-8").to_owned()]);
        assert!(
            seen.map(|seen| seen.expect("no task fails"))
                .all(|seen| seen == 1)
        );
        assert_eq!(names(&tmp), before);
        kill_workers(&pool);
    }
    drop(pool);
    assert_eq!(
        std::fs::read(own.join("socket")).expect("the file exists"),
        b"mine"
    );
    assert_eq!(
        std::fs::read(own.join("proc-pool")).expect("the file exists"),
        b"mine"
    );
    std::fs::remove_dir_all(own).expect("the directory can be removed");
}

/// The path of the temporary directory is very long or not UTF-8; or the directory is read-only or missing.
#[test]
fn unusable_temporary_directory_does_not_matter() {
    if !is_isolated() {
        let test = test_name!();
        let dir = TempDir::new();
        let long = dir.path().join("d".repeat(200));
        std::fs::create_dir(&long).expect("the directory can be created");
        let not_utf8 = dir.path().join(OsStr::from_bytes(b"\xff"));
        std::fs::create_dir(&not_utf8).expect("the directory can be created");
        for it in [
            &*long,
            &*not_utf8,
            Path::new("/proc"),
            &dir.path().join("missing"),
        ] {
            IsolatedTest::new(&test).env("TMPDIR", it).run();
        }
        for empty in [long, not_utf8] {
            assert_eq!(
                std::fs::read_dir(empty)
                    .expect("the directory is readable")
                    .count(),
                0
            );
        }
        return;
    }
    let _watchdog = watchdog(60);
    let pool = pool(2, |n: u64| if n == 5 { std::process::exit(1) } else { n });
    assert_eq!(pool.map(0..10).filter(Result::is_ok).count(), 9);
}

//! What the tests have in common on every system.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use proc_pool::{Builder, Pool, Workers};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A pool of so many workers that run `op`.
pub(crate) fn pool<T, R>(workers: usize, op: fn(T) -> R) -> Pool<T, R>
where
    T: Serialize + DeserializeOwned + 'static,
    R: Serialize + DeserializeOwned + 'static,
{
    Builder::new()
        .workers(Workers::Count(workers))
        .build_op(op)
        .expect("the pool starts")
}

/// Whether this runs under wine, which lacks `gap`: told, for whoever counts what was skipped.
pub(crate) fn wine_lacks(gap: &str) -> bool {
    let wine = std::env::var_os("UNDER_WINE").is_some();
    if wine {
        println!("not tested under wine: {gap}");
    }
    wine
}

/// A gap of wine's.
pub(crate) const NO_PRIVATE_BYTES: &str = "K32GetProcessMemoryInfo tells 0 private bytes of every process";

/// Waits for ever.
pub(crate) fn hang() -> ! {
    loop {
        thread::park();
    }
}

/// Ends the process if it is not dropped in time: a hang is a failure, not a hang.
pub(crate) struct Watchdog(#[expect(dead_code, reason = "its drop is the news")] mpsc::Sender<()>);

pub(crate) fn watchdog(seconds: u64) -> Watchdog {
    let (alive, news) = mpsc::channel::<()>();
    let name = thread::current().name().unwrap_or("a test").to_owned();
    thread::spawn(move || {
        if news.recv_timeout(Duration::from_secs(seconds)) == Err(mpsc::RecvTimeoutError::Timeout) {
            eprintln!("{name} hangs: not done after {seconds} s");
            std::process::abort();
        }
    });
    Watchdog(alive)
}

/// Numbers that look random, always the same for the same seed.
pub(crate) fn random(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    // SplitMix64.
    move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// A directory of the test's own, removed at its end.
pub(crate) struct Dir(PathBuf);

impl Dir {
    pub(crate) fn new() -> Self {
        use std::sync::atomic::{AtomicU32, Ordering};
        static COUNT: AtomicU32 = AtomicU32::new(0);
        loop {
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("pp{}-{count}", std::process::id()));
            match std::fs::create_dir(&path) {
                Ok(()) => return Self(path),
                // A process that was killed had the same pid.
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(e) => panic!("{}: {e}", path.display()),
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn entries(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&self.0).expect("it is readable");
        entries
            .map(|entry| entry.expect("it is readable").path())
            .collect()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

//! What a run ran on.

use std::fs;
use std::thread;

use crate::cmd::Cmd;

/// Name and value; what the system does not tell is left out.
pub(super) fn describe(settings: &str) -> Vec<(String, String)> {
    let cores = thread::available_parallelism().map(|cores| cores.to_string());
    let version = Cmd::new("rustc").args(["--version"]).stdout_quietly();
    let commit = Cmd::new("git")
        .args(["describe", "--always", "--dirty", "--abbrev=12"])
        .stdout_quietly();
    [
        ("processor", proc_line("/proc/cpuinfo", "model name")),
        ("cores", cores.ok()),
        (
            "memory",
            proc_line("/proc/meminfo", "MemTotal").map(|kib| mib(&kib)),
        ),
        (
            "system",
            fs::read_to_string("/proc/sys/kernel/osrelease").map_or_else(
                |_| Some(std::env::consts::OS.to_owned()),
                |release| Some(format!("Linux {release}")),
            ),
        ),
        ("scheduling", scheduling()),
        ("rustc", version),
        ("commit", commit),
        ("settings", Some(settings.to_owned())),
        ("load at the start", load()),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name.to_owned(), value?.trim().to_owned())))
    .collect()
}

/// The load of the last minute.
pub(super) fn load() -> Option<String> {
    let text = fs::read_to_string("/proc/loadavg").ok()?;
    text.split(' ').next().map(str::to_owned)
}

/// Under real-time scheduling other processes wait, which is to be known.
fn scheduling() -> Option<String> {
    let policy = proc_line("/proc/self/sched", "policy")?;
    let name = match policy.as_str() {
        "0" => "ordinary",
        "1" | "2" => "real-time",
        _ => "other",
    };
    Some(name.to_owned())
}

fn proc_line(path: &str, key: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// "8160412 kB" as MiB.
fn mib(text: &str) -> String {
    match text.trim_end_matches(" kB").parse::<u64>() {
        Ok(kib) => format!("{} MiB", kib >> 10),
        Err(_) => text.to_owned(),
    }
}

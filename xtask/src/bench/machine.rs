//! The machine and the settings of a run.

use std::{env, fs, thread};

use xshell::{Shell, cmd};

/// Returns names and values, without those that the system does not report.
pub(super) fn describe(sh: &Shell, settings: &str) -> Vec<(String, String)> {
    let cores = thread::available_parallelism().map(|cores| cores.to_string());
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease");
    let system = kernel.map_or(env::consts::OS.to_owned(), |release| format!("Linux {release}"));
    let commit = cmd!(sh, "git describe --always --dirty --abbrev=12");
    let memory = proc_line("/proc/meminfo", "MemTotal").map(|kib| mib(&kib));
    let policy = proc_line("/proc/self/sched", "policy").map(scheduling);
    let values = [
        ("processor", proc_line("/proc/cpuinfo", "model name")),
        ("cores", cores.ok()),
        ("memory", memory),
        ("system", Some(system)),
        ("scheduling", policy),
        ("rustc", cmd!(sh, "rustc --version").read().ok()),
        ("commit", commit.ignore_stderr().read().ok()),
        ("settings", Some(settings.to_owned())),
        ("load at the start", load()),
    ];
    let owned = |(name, value): (&str, Option<String>)| Some((name.to_owned(), value?.trim().to_owned()));
    values.into_iter().filter_map(owned).collect()
}

/// Returns the load of the last minute.
pub(super) fn load() -> Option<String> {
    let text = fs::read_to_string("/proc/loadavg").ok()?;
    text.split(' ').next().map(str::to_owned)
}

/// Under real-time scheduling other processes wait, so a reader must know it.
fn scheduling(policy: String) -> String {
    let name = match policy.as_str() {
        "0" => "ordinary",
        "1" | "2" => "real-time",
        _ => "other",
    };
    name.to_owned()
}

fn proc_line(path: &str, key: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Converts "8160412 kB" to MiB.
fn mib(text: &str) -> String {
    match text.trim_end_matches(" kB").parse::<u64>() {
        Ok(kib) => format!("{} MiB", kib >> 10),
        Err(_) => text.to_owned(),
    }
}

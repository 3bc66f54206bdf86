//! How much memory a process has.

/// Memory of one process, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// Resident: everything mapped and in memory, shared pages in full.
    pub resident: u64,
    /// Proportional (`Pss`): each shared page divided by the number of processes that map it, so that sums over
    /// processes count it once. `None` where the system does not tell (it is Linux's).
    pub proportional: Option<u64>,
}

impl Memory {
    /// The memory of process `pid` now; `None` when it is gone or the system does not tell.
    pub fn of(pid: u32) -> Option<Self> {
        let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        let field = |key: &str| {
            let line = rollup.lines().find_map(|line| line.strip_prefix(key))?;
            line.trim()
                .strip_suffix("kB")?
                .trim()
                .parse::<u64>()
                .ok()
                .map(|kib| kib * 1024)
        };
        Some(Self {
            resident: field("Rss:")?,
            proportional: field("Pss:"),
        })
    }
}

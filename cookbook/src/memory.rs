//! [`private_bytes`]: the memory that a process does not share.

/// Returns the private memory of a process in bytes, where the system reports it (Linux).
///
/// On Linux it is `Anonymous` of `/proc/PID/smaps_rollup`: the heap, the stacks and the changed data of the program. `Private_Dirty`
/// of the same file would count a page of the shared model as well while only one process has touched it.
pub fn private_bytes(pid: u32) -> Option<u64> {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    anonymous(&rollup)
}

fn anonymous(rollup: &str) -> Option<u64> {
    let rest = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:"))?;
    let kib: u64 = rest.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anonymous_memory_is_read_in_bytes() {
        let rollup =
            "Private_Dirty:       2064 kB\nAnonymous:            64 kB\nLazyFree:              0 kB\n";
        assert_eq!(anonymous(rollup), Some(65536));
        assert_eq!(anonymous("Private_Dirty:       2064 kB\n"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn heap_counts_as_private() {
        let before = private_bytes(std::process::id()).expect("Linux reports it");
        // Memory that no code reads would not be allocated in an optimized build.
        let heap = std::hint::black_box(vec![1u8; 32 << 20]);
        let after = private_bytes(std::process::id()).expect("Linux reports it");
        assert!(after >= before + (heap.len() as u64) / 2, "{before} {after}");
    }
}

//! The memory that cgroups (both versions) and the machine (proc_meminfo(5)) leave for this process.

#[cfg(target_os = "linux")]
use std::path::Path;
#[cfg(target_os = "linux")]
use std::sync::{Arc, Mutex, PoisonError};

use super::cgroup::{Cgroup, CgroupVersion};
#[cfg(target_os = "linux")]
use super::cgroup::{Cgroups, Controller};

/// Values from here on mean "no limit": version 1 writes the largest number of whole pages.
const NO_LIMIT: u64 = 1 << 60;

/// The memory of a cgroup that has a limit, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CgroupMemory {
    /// Bytes that the cgroup may use: the least of its hard limit, its throttling limit (`memory.high`) and, in version 1, the
    /// limits of ancestors that are not mounted.
    pub limit: u64,
    /// Bytes that the cgroup and its descendants use, page cache included; 0 if the system does not report it.
    pub usage: u64,
    /// The part of `usage` that the kernel reclaims before it kills a process: page cache of files, active or not, and caches
    /// of the kernel. Shared memory, tmpfs and locked pages are not reclaimable.
    pub reclaimable: u64,
    /// Private memory of the cgroup's processes.
    pub anonymous: u64,
}

impl CgroupMemory {
    /// Returns the bytes that can still be used.
    pub fn available(&self) -> u64 {
        self.limit
            .saturating_sub(self.usage.saturating_sub(self.reclaimable))
    }
}

impl Cgroup {
    /// Returns the memory of this cgroup and its descendants, or `None` without a limit.
    ///
    /// Swap does not count. A cgroup at its limit swaps before a process is killed, but a job that depends on that is too slow
    /// to be useful.
    pub fn memory(&self) -> Option<CgroupMemory> {
        let limits = [self.own_limit(), self.hidden_limit()];
        self.limited(limits.into_iter().flatten().min())
    }

    /// Returns the least limit of the cgroup and its ancestors, mounted or not. Version 2 does not report it.
    fn hidden_limit(&self) -> Option<u64> {
        match self.version {
            CgroupVersion::V1 => field(&self.read("memory.stat")?, "hierarchical_memory_limit"),
            CgroupVersion::V2 => None,
        }
    }

    /// Returns the limit in the cgroup's own files.
    fn own_limit(&self) -> Option<u64> {
        let limits: &[&str] = match self.version {
            CgroupVersion::V1 => &["memory.limit_in_bytes"],
            CgroupVersion::V2 => &["memory.max", "memory.high"],
        };
        limits.iter().filter_map(|file| number(&self.read(file)?)).min()
    }

    /// Returns the cgroup's memory under `limit`, if that is a limit.
    fn limited(&self, limit: Option<u64>) -> Option<CgroupMemory> {
        let limit = limit.filter(|limit| *limit < NO_LIMIT)?;
        let stat = self.read("memory.stat").unwrap_or_default();
        let value = |file: &str| number(&self.read(file)?);
        // Version 1 also has the numbers without descendants.
        let first = |names: &[&str]| names.iter().find_map(|name| field(&stat, name));
        let (usage, caches, anonymous) = match self.version {
            CgroupVersion::V1 => (
                value("memory.usage_in_bytes"),
                [
                    first(&["total_active_file", "active_file"]),
                    first(&["total_inactive_file", "inactive_file"]),
                    None,
                ],
                first(&["total_rss", "rss"]),
            ),
            CgroupVersion::V2 => (
                value("memory.current"),
                ["active_file", "inactive_file", "slab_reclaimable"].map(|name| field(&stat, name)),
                field(&stat, "anon"),
            ),
        };
        let usage = usage.unwrap_or(0);
        let caches = caches.into_iter().flatten();
        Some(CgroupMemory {
            limit,
            usage,
            reclaimable: caches.fold(0, u64::saturating_add).min(usage),
            anonymous: anonymous.unwrap_or(usage).min(usage),
        })
    }

    /// Returns whether the limit of this cgroup applies to its descendants: always, except with an old setting of version 1.
    #[cfg(target_os = "linux")]
    fn limits_descendants(&self) -> bool {
        let setting = match self.version {
            CgroupVersion::V1 => self.read("memory.use_hierarchy"),
            CgroupVersion::V2 => None,
        };
        setting.and_then(|text| number(&text)) != Some(0)
    }
}

/// Parses a text that is one number.
pub(crate) fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// Returns the number after `name` in a file of lines such as `name 7`.
pub(super) fn field(text: &str, name: &str) -> Option<u64> {
    let value = |line: &'_ str| line.strip_prefix(name)?.strip_prefix(' ').and_then(number);
    text.lines().find_map(value)
}

/// The limit that leaves the least memory.
#[cfg(target_os = "linux")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MemoryLimit {
    /// The available memory and swap of the machine.
    Machine,
    /// The machine's limit of committed memory (`vm.overcommit_memory=2`).
    Commit,
    /// The limit of an enclosing cgroup.
    Cgroup,
}

/// All memory limits that apply to this process, read once.
#[cfg(target_os = "linux")]
#[derive(Debug, Default)]
pub(crate) struct MachineMemory {
    /// The machine's memory.
    pub(crate) total: Option<u64>,
    available: Option<u64>,
    /// Bytes that can still be committed; `None` without a limit.
    committable: Option<u64>,
    /// Free bytes of reserved huge pages.
    pub(crate) huge_free: Option<u64>,
    groups: Vec<CgroupMemory>,
}

#[cfg(target_os = "linux")]
impl MachineMemory {
    /// Reads the current limits.
    pub(crate) fn now() -> Self {
        Self::read(Path::new("/"), &enclosing_groups())
    }

    /// Reads the files of the system whose root directory is `root`, and those of the cgroups that enclose the process.
    fn read(root: &Path, enclosing: &[Cgroup]) -> Self {
        let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap_or_default();
        let info = read("proc/meminfo");
        let kib = |key: &str| kib_field(&info, key);
        let plain = |key: &str| number(info.lines().find_map(|line| line.strip_prefix(key))?);
        // Linux before 3.14 has no MemAvailable.
        let estimate = || {
            let cache = kib("Cached:")?.saturating_sub(kib("Shmem:").unwrap_or(0));
            Some(kib("MemFree:")?.saturating_add(cache))
        };
        let swap = kib("SwapFree:").unwrap_or(0);
        let available = kib("MemAvailable:").or_else(estimate);
        let strict = number(&read("proc/sys/vm/overcommit_memory")) == Some(2);
        let committed = kib("CommitLimit:").zip(kib("Committed_AS:")).filter(|_| strict);
        let (mut groups, mut version, mut applies) = (Vec::new(), None, true);
        for group in enclosing {
            // Each hierarchy starts with the process's own cgroup.
            let innermost = version != Some(group.version);
            applies = innermost || (applies && group.limits_descendants());
            version = Some(group.version);
            if !applies {
                continue;
            }
            // In version 1, the innermost cgroup also reports the limits of hidden ancestors.
            groups.extend(match innermost {
                true => group.memory(),
                false => group.limited(group.own_limit()),
            });
        }
        Self {
            total: kib("MemTotal:"),
            available: available.map(|available| available.saturating_add(swap)),
            committable: committed.map(|(limit, committed)| limit.saturating_sub(committed)),
            huge_free: plain("HugePages_Free:")
                .zip(kib("Hugepagesize:"))
                .map(|(pages, bytes)| pages.saturating_mul(bytes)),
            groups,
        }
    }

    /// Returns the least limit of the enclosing cgroups, if it is less than the machine's memory.
    pub(crate) fn cgroup_limit(&self) -> Option<u64> {
        let limit = self.groups.iter().map(|group| group.limit).min();
        limit.filter(|limit| self.total.is_none_or(|total| *limit < total))
    }

    /// Returns the bytes that can still be used after this process has released `released` bytes of its private memory, and
    /// the limit that determines them. `None` if the system reports no limit.
    pub(crate) fn available(&self, released: u64) -> Option<(u64, MemoryLimit)> {
        let groups = self.groups.iter().map(|group| {
            // Releasing memory that is charged to another cgroup leaves this one unchanged.
            let released = released.min(group.anonymous);
            (group.available().saturating_add(released), MemoryLimit::Cgroup)
        });
        let machine = self
            .available
            .map(|bytes| (bytes.saturating_add(released), MemoryLimit::Machine));
        // Released pages stay committed until they are unmapped.
        let commit = self.committable.map(|bytes| (bytes, MemoryLimit::Commit));
        groups
            .chain(machine)
            .chain(commit)
            .min_by_key(|(bytes, _)| *bytes)
    }
}

/// Returns the enclosing cgroups that account for memory. The mounts are read again only if the process was moved.
#[cfg(target_os = "linux")]
fn enclosing_groups() -> Arc<[Cgroup]> {
    static CACHE: Mutex<Option<(String, Arc<[Cgroup]>)>> = Mutex::new(None);

    let mut cache = CACHE.lock().unwrap_or_else(PoisonError::into_inner);
    let now = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    match &*cache {
        Some((then, groups)) if *then == now => groups.clone(),
        _ => {
            let groups: Arc<[Cgroup]> = Cgroups::of_this_process().enclosing(Controller::Memory).into();
            *cache = Some((now, groups.clone()));
            groups
        }
    }
}

/// Returns the number of KiB after `key` in a file such as `/proc/meminfo` or `/proc/PID/status`, in bytes.
#[doc(hidden)]
pub fn kib_field(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    number(line.trim().strip_suffix("kB")?)?.checked_mul(1024)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const V1_MOUNT: &str = "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
    const V2_MOUNT: &str = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";

    /// An imitated machine with 1 GiB of memory.
    struct Machine(tempfile::TempDir);

    impl Machine {
        fn new(group: &str, mounts: &str) -> Self {
            let machine = Self(tempfile::tempdir().expect("a directory"));
            machine
                .file(
                    "proc/meminfo",
                    "MemTotal: 1048576 kB\nMemAvailable: 1048576 kB\nSwapFree: 0 kB\n",
                )
                .file("proc/self/cgroup", group)
                .file("proc/self/mountinfo", mounts);
            machine
        }

        fn file(&self, path: &str, text: impl AsRef<[u8]>) -> &Self {
            let path = self.0.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            std::fs::write(path, text).expect("the file is writable");
            self
        }

        /// Writes the files of a cgroup of version 2, from numbers in MiB.
        fn v2(&self, dir: &str, max: &str, current: u64, stat: &[(&str, u64)]) -> &Self {
            let dir = Path::new("sys/fs/cgroup").join(dir);
            let dir = dir.display();
            let stat: String = stat
                .iter()
                .map(|(name, n)| format!("{name} {}\n", n * MIB))
                .collect();
            self.file(&format!("{dir}/memory.max"), max)
                .file(&format!("{dir}/memory.current"), format!("{}\n", current * MIB))
                .file(&format!("{dir}/memory.stat"), stat)
        }

        /// Writes the files of a cgroup of version 1, from numbers in MiB.
        fn v1(&self, dir: &str, limit: u64, usage: u64, stat: &[(&str, u64)]) -> &Self {
            let dir = Path::new("sys/fs/cgroup/memory").join(dir);
            let dir = dir.display();
            let stat: String = stat
                .iter()
                .map(|(name, n)| format!("{name} {}\n", n * MIB))
                .collect();
            self.file(
                &format!("{dir}/memory.limit_in_bytes"),
                format!("{}\n", limit * MIB),
            )
            .file(
                &format!("{dir}/memory.usage_in_bytes"),
                format!("{}\n", usage * MIB),
            )
            .file(&format!("{dir}/memory.stat"), stat)
        }

        fn read(&self) -> MachineMemory {
            let root = self.0.path();
            MachineMemory::read(root, &Cgroups::with_root(root).enclosing(Controller::Memory))
        }

        /// Returns the available memory in MiB.
        fn available(&self, released: u64) -> Option<(u64, MemoryLimit)> {
            let available = self.read().available(released * MIB);
            available.map(|(bytes, limit)| (bytes / MIB, limit))
        }
    }

    fn bytes(mib: u64) -> String {
        format!("{}\n", mib * MIB)
    }

    #[test]
    fn without_cgroups_the_machine_is_the_limit() {
        let machine = Machine::new("", "");
        assert_eq!(machine.available(0), Some((1024, MemoryLimit::Machine)));
        assert_eq!(machine.available(100), Some((1124, MemoryLimit::Machine)));
        machine.file(
            "proc/meminfo",
            "MemTotal: 10 kB\nMemAvailable: 2048 kB\nSwapFree: 1024 kB\n",
        );
        assert_eq!(machine.available(0), Some((3, MemoryLimit::Machine)));
        machine.file(
            "proc/meminfo",
            "MemFree: 1024 kB\nCached: 4096 kB\nShmem: 1024 kB\n",
        );
        assert_eq!(
            machine.available(0),
            Some((4, MemoryLimit::Machine)),
            "before Linux 3.14"
        );
        machine.file(
            "proc/meminfo",
            "HugePages_Free:       3\nHugepagesize:       2048 kB\n",
        );
        assert_eq!(
            (machine.available(0), machine.read().huge_free),
            (None, Some(6 * MIB))
        );
    }

    #[test]
    fn strict_overcommit_is_a_limit() {
        let machine = Machine::new("", "");
        let info = "MemAvailable: 1048576 kB\nCommitLimit: 204800 kB\nCommitted_AS: 102400 kB\n";
        machine
            .file("proc/meminfo", info)
            .file("proc/sys/vm/overcommit_memory", "0\n");
        assert_eq!(machine.available(0), Some((1024, MemoryLimit::Machine)));
        machine.file("proc/sys/vm/overcommit_memory", "2\n");
        assert_eq!(machine.available(50), Some((100, MemoryLimit::Commit)));
    }

    #[test]
    fn reclaimable_cache_is_available_in_version_2() {
        let machine = Machine::new("0::/job\n", V2_MOUNT);
        let stat = [
            ("anon", 100),
            ("file", 180),
            ("shmem", 30),
            ("active_file", 90),
            ("inactive_file", 50),
            ("slab_reclaimable", 10),
        ];
        machine.v2("job", &bytes(400), 330, &stat);
        assert_eq!(machine.available(0), Some((400 - 330 + 150, MemoryLimit::Cgroup)));
        assert_eq!(
            machine.available(60),
            Some((400 - 330 + 150 + 60, MemoryLimit::Cgroup))
        );
        assert_eq!(
            machine.available(500),
            Some((400 - 330 + 150 + 100, MemoryLimit::Cgroup)),
            "at most the private memory of the cgroup"
        );
        assert_eq!(machine.read().cgroup_limit(), Some(400 * MIB));
    }

    #[test]
    fn the_limit_of_a_parent_applies_with_its_own_cache() {
        let machine = Machine::new("0::/pod/job\n", V2_MOUNT);
        machine.v2("pod/job", "max\n", 100, &[("active_file", 10)]).v2(
            "pod",
            &bytes(300),
            280,
            &[("active_file", 60), ("inactive_file", 20)],
        );
        assert_eq!(machine.available(0), Some((100, MemoryLimit::Cgroup)));
        machine.v2("pod/job", &bytes(150), 100, &[("active_file", 10)]);
        assert_eq!(machine.available(0), Some((60, MemoryLimit::Cgroup)));
        assert_eq!(machine.read().cgroup_limit(), Some(150 * MIB));
    }

    #[test]
    fn a_throttling_limit_is_a_limit() {
        let machine = Machine::new("0::/\n", V2_MOUNT);
        machine
            .v2("", "max\n", 50, &[])
            .file("sys/fs/cgroup/memory.high", bytes(200));
        assert_eq!(machine.available(0), Some((150, MemoryLimit::Cgroup)));
    }

    #[test]
    fn version_1_counts_descendants_and_hidden_ancestors() {
        let machine = Machine::new("4:memory:/pod/job\n0::/\n", &format!("{V1_MOUNT}{V2_MOUNT}"));
        let no_limit = NO_LIMIT / MIB;
        let parent = [
            ("active_file", 0),
            ("total_active_file", 70),
            ("inactive_file", 1),
            ("total_inactive_file", 10),
            ("total_rss", 40),
        ];
        machine
            .v1("pod/job", no_limit, 90, &[("total_rss", 40)])
            .v1("pod", 200, 190, &parent);
        assert_eq!(machine.available(0), Some((90, MemoryLimit::Cgroup)));
        assert_eq!(machine.available(100), Some((130, MemoryLimit::Cgroup)));
        // An ancestor that is not mounted has a lower limit.
        machine.v1("pod/job", no_limit, 90, &[("hierarchical_memory_limit", 120)]);
        assert_eq!(machine.available(0), Some((30, MemoryLimit::Cgroup)));
        // Very old kernels have no totals.
        machine.v1("pod/job", 100, 90, &[("active_file", 5), ("inactive_file", 15)]);
        assert_eq!(machine.available(0), Some((30, MemoryLimit::Cgroup)));
    }

    #[test]
    fn parents_without_hierarchy_do_not_limit_in_version_1() {
        let machine = Machine::new("4:memory:/pod/job\n", V1_MOUNT);
        machine
            .v1("pod/job", 500, 0, &[])
            .v1("pod", 10, 0, &[])
            .file("sys/fs/cgroup/memory/pod/memory.use_hierarchy", "0\n");
        assert_eq!(machine.available(0), Some((500, MemoryLimit::Cgroup)));
        machine.file("sys/fs/cgroup/memory/pod/memory.use_hierarchy", "1\n");
        assert_eq!(machine.available(0), Some((10, MemoryLimit::Cgroup)));
    }

    #[test]
    fn a_container_with_a_namespace_has_its_limit_at_the_mount_point() {
        // Docker without a cgroup namespace may report a path that is not mounted.
        for group in ["0::/\n", "0::/docker/ab12\n", "0::/job (deleted)\n"] {
            let machine = Machine::new(group, V2_MOUNT);
            machine.v2("", &bytes(300), 100, &[("inactive_file", 50)]);
            assert_eq!(machine.available(0), Some((250, MemoryLimit::Cgroup)), "{group}");
        }
    }

    #[test]
    fn invalid_files_count_as_missing() {
        let machine = Machine::new("0::/job\n", V2_MOUNT);
        for invalid in [
            "",
            "\n",
            "max",
            "-1\n",
            "18446744073709551616\n",
            "12 34\n",
            "0x10",
            "\u{feff}5",
        ] {
            machine.v2("job", invalid, 50, &[]);
            assert_eq!(
                machine.available(0),
                Some((1024, MemoryLimit::Machine)),
                "{invalid:?}"
            );
        }
        machine.file("sys/fs/cgroup/job/memory.max", [0xFF, 0xFE]);
        assert_eq!(machine.available(0), Some((1024, MemoryLimit::Machine)));
        // A limit alone is still an upper bound.
        machine
            .v2("job", &bytes(100), 0, &[])
            .file("sys/fs/cgroup/job/memory.current", "?");
        assert_eq!(machine.available(0), Some((100, MemoryLimit::Cgroup)));
        // More cache than usage, and numbers that overflow.
        let stat = format!(
            "active_file {0}\ninactive_file {0}\nanon {0}\nfile\nactive_filex 7\n",
            u64::MAX
        );
        machine
            .v2("job", &bytes(100), 90, &[])
            .file("sys/fs/cgroup/job/memory.stat", stat);
        assert_eq!(machine.available(5000), Some((190, MemoryLimit::Cgroup)));
        assert_eq!(machine.available(0), Some((100, MemoryLimit::Cgroup)));
        machine.v2("job", &bytes(100), 900, &[]);
        assert_eq!(
            machine.available(0),
            Some((0, MemoryLimit::Cgroup)),
            "above its limit"
        );
        machine.file(
            "proc/meminfo",
            "MemAvailable: 99999999999999999999 kB\nMemTotal: 18446744073709551615 kB\nSwapFree: 3\n",
        );
        assert_eq!(machine.available(0), Some((0, MemoryLimit::Cgroup)));
        machine
            .file("proc/self/cgroup", [0xFF])
            .file("proc/self/mountinfo", [0; 9]);
        assert_eq!(machine.available(0), None);
    }
}

//! [`Cgroups`]: finds the directories of the cgroups that enclose this process (cgroups(7), proc_pid_mountinfo(5)).

use std::fs;
use std::path::{Component, Path, PathBuf};

/// A resource that cgroups account for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Controller {
    /// Memory.
    Memory,
    /// Processor time.
    Cpu,
}

impl Controller {
    /// Returns the name in version 1, where each hierarchy lists its controllers.
    fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpu => "cpu",
        }
    }
}

/// The version of a cgroup hierarchy, which determines the names of its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupVersion {
    /// Each hierarchy has one or a few controllers.
    V1,
    /// A single hierarchy has all controllers.
    V2,
}

/// A cgroup (control group).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cgroup {
    /// The version of its hierarchy.
    pub version: CgroupVersion,
    /// The path in the hierarchy, as this process's cgroup namespace shows it.
    pub name: String,
    /// The directory with the cgroup's files.
    pub dir: PathBuf,
}

impl Cgroup {
    /// Returns the contents of the file `name`, or `None` if the cgroup has no such file.
    pub fn read(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.dir.join(name)).ok()
    }
}

/// The cgroups of a process, from its `/proc/PID/cgroup` and `/proc/PID/mountinfo`.
///
/// ```
/// use shm_buffers::limits::{Cgroups, Controller};
///
/// let groups = Cgroups::of_this_process();
/// for group in groups.enclosing(Controller::Memory) {
///     println!("{}: {:?}", group.name, group.memory());
/// }
/// ```
#[derive(Debug, Clone, Default)]
pub struct Cgroups {
    root: PathBuf,
    groups: String,
    mounts: String,
}

impl Cgroups {
    /// Reads the cgroups of this process.
    pub fn of_this_process() -> Self {
        Self::with_root(Path::new("/"))
    }

    /// Reads the cgroups of this process. All absolute paths are relative to `root`.
    pub fn with_root(root: &Path) -> Self {
        let read = |path: &str| fs::read(root.join(path)).unwrap_or_default();
        let text = |path: &str| String::from_utf8_lossy(&read(path)).into_owned();
        Self {
            root: root.to_owned(),
            ..Self::parse(&text("proc/self/cgroup"), &text("proc/self/mountinfo"))
        }
    }

    /// Parses the contents of `/proc/PID/cgroup` and `/proc/PID/mountinfo`.
    pub fn parse(cgroup: &str, mountinfo: &str) -> Self {
        Self {
            root: PathBuf::from("/"),
            groups: cgroup.to_owned(),
            mounts: mountinfo.to_owned(),
        }
    }

    /// Returns the process's cgroup and its ancestors, innermost first, as far as they are mounted. Version 1 comes before
    /// version 2 if both are in use. A cgroup may not exist or not have the controller; its files are missing then.
    pub fn enclosing(&self, controller: Controller) -> Vec<Cgroup> {
        let mut found: Vec<Cgroup> = Vec::new();
        for version in [CgroupVersion::V1, CgroupVersion::V2] {
            let Some(group) = self.group(version, controller) else {
                continue;
            };
            for mount in self.mounts.lines().filter_map(Mount::parse) {
                if !mount.has(version, controller) {
                    continue;
                }
                let Some(relative) = relative_to_mount(group, &mount.root) else {
                    continue;
                };
                let mount_point = self.root.join(mount.point.trim_start_matches('/'));
                for relative in relative.ancestors() {
                    let name = joined(Path::new(&mount.root), relative);
                    let (name, dir) = (
                        name.to_string_lossy().into_owned(),
                        joined(&mount_point, relative),
                    );
                    // The same hierarchy may be mounted several times.
                    if !found.iter().any(|known| known.dir == dir) {
                        found.push(Cgroup { version, name, dir });
                    }
                }
            }
        }
        found
    }

    /// Returns the path of the process's cgroup in the hierarchy with `controller`.
    fn group(&self, version: CgroupVersion, controller: Controller) -> Option<&str> {
        self.groups.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
            let ours = match version {
                CgroupVersion::V1 => controllers.split(',').any(|it| it == controller.name()),
                CgroupVersion::V2 => controllers.is_empty(),
            };
            // A cgroup can be removed while its last process is still ending.
            let path = path.strip_suffix(" (deleted)").unwrap_or(path);
            (ours && path.starts_with('/')).then_some(path)
        })
    }
}

/// A mounted cgroup hierarchy, or a part of one.
struct Mount {
    /// The path of the mounted cgroup in its hierarchy.
    root: String,
    /// The directory where it is mounted.
    point: String,
    version: CgroupVersion,
    /// The super options. In version 1 they list the controllers.
    options: String,
}

impl Mount {
    fn parse(line: &str) -> Option<Self> {
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ').skip(3);
        let mut after = after.split(' ');
        let (root, point) = (unescaped(before.next()?), unescaped(before.next()?));
        let version = match after.next()? {
            "cgroup" => CgroupVersion::V1,
            "cgroup2" => CgroupVersion::V2,
            _ => return None,
        };
        let options = after.nth(1).unwrap_or_default().to_owned();
        (root.starts_with('/') && point.starts_with('/')).then_some(Self {
            root,
            point,
            version,
            options,
        })
    }

    fn has(&self, version: CgroupVersion, controller: Controller) -> bool {
        self.version == version
            && match version {
                CgroupVersion::V1 => self.options.split(',').any(|it| it == controller.name()),
                CgroupVersion::V2 => true,
            }
    }
}

/// Returns `base` joined with `path`, without a trailing slash.
fn joined(base: &Path, path: &Path) -> PathBuf {
    match path.as_os_str().is_empty() {
        true => base.to_owned(),
        false => base.join(path),
    }
}

/// Returns the path of `group` relative to the mounted cgroup `root`, or `None` if it is not a descendant of `root`.
fn relative_to_mount(group: &str, root: &str) -> Option<PathBuf> {
    // A mount from outside of this process's cgroup namespace has an ancestor as its root. The names of the cgroups between
    // them are hidden.
    let (group, root) = (Path::new(group), Path::new(root));
    let mut components = root.components().skip(1).peekable();
    let above = components.peek().is_some() && components.all(|it| it == Component::ParentDir);
    if above && !group.starts_with(root) {
        return Some(PathBuf::new());
    }
    let relative = group.strip_prefix(root).ok()?;
    // The cgroup of a process outside of its own namespace is in another branch.
    let inside = relative.components().all(|it| matches!(it, Component::Normal(_)));
    inside.then(|| relative.to_owned())
}

/// Decodes a path of mountinfo, in which blanks and backslashes are octal numbers.
fn unescaped(text: &str) -> String {
    if !text.contains('\\') {
        return text.to_owned();
    }
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((first, others)) = rest.split_first() {
        let digits = others.get(..3).filter(|_| *first == b'\\');
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &others[3..];
            }
            None => {
                bytes.push(*first);
                rest = others;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

// Only on systems with the same path separator.
#[cfg(all(test, unix))]
mod tests {
    use super::*;

    const V2: &str = "30 23 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
    const V1: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    fn dirs(groups: &str, mounts: &str, controller: Controller) -> Vec<String> {
        let found = Cgroups::parse(groups, mounts).enclosing(controller);
        found.iter().map(|it| it.dir.display().to_string()).collect()
    }

    fn memory_dirs(groups: &str, mounts: &str) -> Vec<String> {
        dirs(groups, mounts, Controller::Memory)
    }

    #[test]
    fn version_2_lists_the_cgroup_and_its_ancestors() {
        let dirs = memory_dirs("0::/user.slice/session-3.scope\n", V2);
        assert_eq!(
            dirs,
            ["/user.slice/session-3.scope", "/user.slice", ""].map(|dir| format!("/sys/fs/cgroup{dir}"))
        );
        assert_eq!(memory_dirs("0::/\n", V2), ["/sys/fs/cgroup"]);
        assert_eq!(memory_dirs("0::/a\n", ""), [""; 0]);
    }

    #[test]
    fn hybrid_hierarchies_are_listed_version_1_first() {
        let groups = "9:name=systemd:/\n4:memory:/jobs/7\n3:cpuset:/\n1:cpu,cpuacct:/slow\n0::/jobs\n";
        assert_eq!(
            memory_dirs(groups, V1),
            [
                "/sys/fs/cgroup/memory/jobs/7",
                "/sys/fs/cgroup/memory/jobs",
                "/sys/fs/cgroup/memory",
                "/sys/fs/cgroup/unified/jobs",
                "/sys/fs/cgroup/unified",
            ]
        );
        assert_eq!(
            dirs(groups, V1, Controller::Cpu)[0],
            "/sys/fs/cgroup/cpu,cpuacct/slow"
        );
        let found = Cgroups::parse(groups, V1).enclosing(Controller::Memory);
        let names: Vec<_> = found.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["/jobs/7", "/jobs", "/", "/jobs", "/"]);
    }

    #[test]
    fn a_container_without_a_namespace_lists_what_is_mounted() {
        let mounts = "600 599 0:26 /docker/ab12 /sys/fs/cgroup/memory ro,relatime master:12 - cgroup cgroup rw,memory\n";
        let found = Cgroups::parse("4:memory:/docker/ab12/job\n", mounts).enclosing(Controller::Memory);
        let dirs_and_names: Vec<_> = found
            .iter()
            .map(|it| (it.dir.to_str(), it.name.as_str()))
            .collect();
        assert_eq!(
            dirs_and_names,
            [
                (Some("/sys/fs/cgroup/memory/job"), "/docker/ab12/job"),
                (Some("/sys/fs/cgroup/memory"), "/docker/ab12")
            ]
        );
        for other in ["elsewhere", "docker/ab123"] {
            assert_eq!(memory_dirs(&format!("4:memory:/{other}\n"), mounts), [""; 0]);
        }
    }

    #[test]
    fn a_mount_from_outside_of_the_namespace_is_listed_without_hidden_names() {
        let from_above = V2.replace("0:26 / ", "0:26 /../.. ");
        assert_eq!(memory_dirs("0::/inner\n", &from_above), ["/sys/fs/cgroup"]);
        assert_eq!(memory_dirs("0::/\n", &from_above), ["/sys/fs/cgroup"]);
        assert_eq!(
            memory_dirs("0::/../../other\n", &from_above)[0],
            "/sys/fs/cgroup/other"
        );
        assert_eq!(memory_dirs("0::/../sibling\n", V2), [""; 0]);
    }

    #[test]
    fn a_removed_cgroup_is_listed_with_its_ancestors() {
        let dirs = memory_dirs("0::/jobs/7 (deleted)\n", V2);
        assert_eq!(
            dirs,
            ["/sys/fs/cgroup/jobs/7", "/sys/fs/cgroup/jobs", "/sys/fs/cgroup"]
        );
    }

    #[test]
    fn escaped_names_and_mount_points_are_decoded() {
        let mounts = "30 23 0:26 / /mnt/my\\040groups\\134x rw - cgroup2 none rw\n";
        assert_eq!(
            memory_dirs("0::/a:b/c d\n", mounts),
            [
                "/mnt/my groups\\x/a:b/c d",
                "/mnt/my groups\\x/a:b",
                "/mnt/my groups\\x"
            ]
        );
        assert_eq!(unescaped("a\\04"), "a\\04");
        assert_eq!(unescaped("\\999\\101é"), "\\999Aé");
    }

    #[test]
    fn each_mount_of_a_hierarchy_is_listed_once() {
        let again = format!("{V2}31 23 0:26 /a /mnt rw - cgroup2 cgroup2 rw\n{V2}");
        assert_eq!(
            memory_dirs("0::/a/b\n", &again),
            [
                "/sys/fs/cgroup/a/b",
                "/sys/fs/cgroup/a",
                "/sys/fs/cgroup",
                "/mnt/b",
                "/mnt"
            ]
        );
    }

    #[test]
    fn invalid_text_lists_nothing() {
        for invalid in [
            "",
            ":::",
            "4:memory",
            "4:memory:relative",
            "a - b",
            "1 2 3 4 - cgroup2",
            "\n\n - - - ",
            "\0",
        ] {
            assert_eq!(memory_dirs(invalid, V1), [""; 0], "{invalid}");
            assert_eq!(memory_dirs("0::/\n", invalid), [""; 0], "{invalid}");
        }
        let relative = "30 23 0:26 a b rw - cgroup2 cgroup2 rw\n";
        assert_eq!(memory_dirs("0::/\n", relative), [""; 0]);
    }
}

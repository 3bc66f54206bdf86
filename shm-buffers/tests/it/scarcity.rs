//! Less room than a model needs: a typed error or a fallback that is told, never SIGBUS.
#![cfg(target_os = "linux")]

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use shm_buffers::{Backing, BackingKind, BufferMut, CreateError, SegmentMut};

use crate::children;

const MIB: usize = 1 << 20;

/// A segment whose every page was written and read back; panics where that would fault.
fn filled(backing: &Backing, len: usize) -> Result<SegmentMut, CreateError> {
    let mut segment = SegmentMut::create(backing, len)?;
    segment.fill(0x5A);
    assert!(segment.iter().step_by(4096).all(|b| *b == 0x5A));
    Ok(segment)
}

/// How many bytes a buffer took until it could not grow; what it held is still there then.
fn grown_to_the_limit(backing: &Backing) -> usize {
    const BLOCK: [u64; 1024] = [0x5A; 1024];
    let mut buffer = BufferMut::new(backing).expect("an empty one");
    let blocks = (0..100 * MIB / size_of_val(&BLOCK))
        .take_while(|_| buffer.extend_from_slice(&BLOCK).is_ok())
        .count();
    let frozen = buffer.freeze().expect("it can still be frozen");
    assert_eq!(frozen.len(), blocks * BLOCK.len());
    assert!(frozen.chunks(BLOCK.len()).all(|block| *block == BLOCK));
    size_of_val(&*frozen)
}

#[track_caller]
fn assert_no_space(made: Result<SegmentMut, CreateError>, kind: BackingKind) {
    match made {
        Err(CreateError::NoSpace {
            needed,
            available,
            backing,
            hint,
        }) => {
            assert_eq!(backing, kind);
            assert!(
                available < needed && !hint.is_empty(),
                "{available} of {needed}, {hint}"
            );
        }
        other => panic!("{kind} memory that there is no room for: {other:?}"),
    }
}

/// As root, or as a user who may become root in a namespace of his own.
const NAMESPACES: [&[&str]; 2] = [&["unshare", "-m"], &["unshare", "-rm"]];

#[test]
fn a_tmpfs_of_64_mib() -> Result<(), Box<dyn Error>> {
    if children::part().is_some() {
        let small = Backing::File(PathBuf::from("/dev/shm"));
        for (backing, kind) in [(&Backing::Named, BackingKind::Named), (&small, BackingKind::File)] {
            assert_no_space(filled(backing, 100 * MIB), kind);
            let first = filled(backing, 40 * MIB)?;
            assert_no_space(filled(backing, 40 * MIB), kind);
            drop(first);
            let grown = grown_to_the_limit(backing);
            assert!(grown > 40 * MIB, "only {grown} bytes fitted");
        }
        // Memory without a name is not bound by it.
        assert_eq!(
            filled(&Backing::Auto, 100 * MIB)?.backing(),
            BackingKind::Anonymous
        );
        println!("all well");
        return Ok(());
    }
    let mount = "mount -t tmpfs -o size=64m tmpfs /dev/shm && exec \"$@\"";
    for namespace in NAMESPACES {
        let launcher = [namespace, &["sh", "-c", mount, "sh"]].concat();
        let allowed = std::process::Command::new(launcher[0])
            .args(&launcher[1..])
            .arg("true")
            .stderr(std::process::Stdio::null())
            .status();
        if !allowed.is_ok_and(|status| status.success()) {
            continue;
        }
        let (status, said) = children::run(&mut children::again(
            &launcher,
            "scarcity::a_tmpfs_of_64_mib",
            "inside",
        ));
        assert!(
            status.success() && said.contains("all well"),
            "{status}, having said\n{said}"
        );
        return Ok(());
    }
    eprintln!("skipped: mounting a tmpfs in a namespace is not allowed here");
    Ok(())
}

/// A control group with a memory limit; removed when dropped.
struct Group(PathBuf);

impl Group {
    fn with_limit(bytes: usize) -> Option<Self> {
        let name = format!("shm-buffers-test-{}", std::process::id());
        let versions = [
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            ("/sys/fs/cgroup", "memory.max"),
        ];
        for (root, limit) in versions {
            let group = Path::new(root).join(&name);
            if fs::create_dir(&group).is_err() {
                continue;
            }
            let group = Self(group);
            if fs::write(group.0.join(limit), bytes.to_string()).is_ok() {
                return Some(group);
            }
        }
        None
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn a_control_group_of_64_mib() -> Result<(), Box<dyn Error>> {
    if children::part().is_some() {
        assert_no_space(filled(&Backing::Anonymous, 100 * MIB), BackingKind::Anonymous);
        assert_no_space(filled(&Backing::Named, 100 * MIB), BackingKind::Named);
        if shm_buffers::Pages::Reserved != SegmentMut::create(&Backing::HugePages, 1)?.pages() {
            assert_no_space(filled(&Backing::HugePages, 100 * MIB), BackingKind::Anonymous);
        }
        assert_eq!(
            filled(&Backing::Auto, 20 * MIB)?.backing(),
            BackingKind::Anonymous
        );
        // The announced fallback: a file's pages can be written back to make room.
        match filled(&Backing::Auto, 100 * MIB) {
            Ok(segment) => assert_eq!(segment.backing(), BackingKind::File),
            Err(error) => assert!(matches!(error, CreateError::NoSpace { .. }), "{error:?}"),
        }
        let grown = grown_to_the_limit(&Backing::Anonymous);
        assert!(grown < 64 * MIB, "{grown} bytes in 64 MiB");
        println!("all well");
        return Ok(());
    }
    let Some(group) = Group::with_limit(64 * MIB) else {
        eprintln!("skipped: making a memory control group is not allowed here");
        return Ok(());
    };
    // The child enters by itself, before it becomes the test.
    let enter = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", group.0.display());
    let launcher = ["sh", "-c", &enter, "sh"];
    let (status, said) = children::run(&mut children::again(
        &launcher,
        "scarcity::a_control_group_of_64_mib",
        "inside",
    ));
    assert!(
        status.success() && said.contains("all well"),
        "{status}, having said\n{said}"
    );
    Ok(())
}

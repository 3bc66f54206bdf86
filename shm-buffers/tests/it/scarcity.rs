//! Less memory than a model needs is a typed error or a reported fallback, never SIGBUS.
#![cfg(target_os = "linux")]

use std::error::Error;
use std::path::PathBuf;

use shm_buffers::{Backing, BackingKind, BufferMut, CreateError, SegmentMut};

use crate::cgroups::run_under_limit;
use crate::children;

const MIB: usize = 1 << 20;

/// Returns a segment of which each page was written and read back.
fn filled(backing: &Backing, len: usize) -> Result<SegmentMut, CreateError> {
    let mut segment = SegmentMut::create(backing, len)?;
    segment.fill(0x5A);
    assert!(segment.iter().step_by(4096).all(|b| *b == 0x5A));
    Ok(segment)
}

/// Grows a buffer until it can't grow any more, checks that its elements are unchanged, and returns its bytes.
fn grown_to_the_limit(backing: &Backing) -> usize {
    const BLOCK: [u64; 1024] = [0x5A; 1024];
    let mut buffer = BufferMut::new(backing).expect("an empty buffer");
    let blocks = (0..100 * MIB / size_of_val(&BLOCK))
        .take_while(|_| buffer.extend_from_slice(&BLOCK).is_ok())
        .count();
    let frozen = buffer.freeze().expect("it can still be frozen");
    assert_eq!(frozen.len(), blocks * BLOCK.len());
    assert!(frozen.chunks(BLOCK.len()).all(|block| *block == BLOCK));
    size_of_val(&*frozen)
}

#[track_caller]
fn assert_no_space(created: Result<SegmentMut, CreateError>, kind: BackingKind) {
    match created {
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
        other => panic!("{kind} memory that exceeds the limit: {other:?}"),
    }
}

/// The commands that create a mount namespace: as root, or as a user who may become root in a user namespace.
const NAMESPACES: [&[&str]; 2] = [&["unshare", "-m"], &["unshare", "-rm"]];

#[test]
fn segments_beyond_a_tmpfs_are_refused() -> Result<(), Box<dyn Error>> {
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
        // Anonymous memory is not limited by /dev/shm.
        assert_eq!(
            filled(&Backing::Auto, 100 * MIB)?.backing(),
            BackingKind::Anonymous
        );
        children::report_success();
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
        let test = "scarcity::segments_beyond_a_tmpfs_are_refused";
        children::assert_success(&mut children::again(&launcher, test, "inside"));
        return Ok(());
    }
    eprintln!("skipped: mounting a tmpfs in a namespace is not allowed here");
    Ok(())
}

#[test]
fn segments_beyond_a_cgroup_limit_are_refused_or_files() -> Result<(), Box<dyn Error>> {
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
        // The documented fallback: pages of a file can be written back to free memory.
        match filled(&Backing::Auto, 100 * MIB) {
            Ok(segment) => assert_eq!(segment.backing(), BackingKind::File),
            Err(error) => assert!(matches!(error, CreateError::NoSpace { .. }), "{error:?}"),
        }
        let grown = grown_to_the_limit(&Backing::Anonymous);
        assert!(grown < 64 * MIB, "{grown} bytes in 64 MiB");
        children::report_success();
        return Ok(());
    }
    run_under_limit(
        "scarcity::segments_beyond_a_cgroup_limit_are_refused_or_files",
        "inside",
        64 * MIB,
        false,
    );
    Ok(())
}

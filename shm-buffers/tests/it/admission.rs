//! Limits of memory and file sizes: a segment that exceeds one is an error with the numbers, never a signal.
#![cfg(target_os = "linux")]

use std::error::Error;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use shm_buffers::{
    Backing, BackingKind, Buffer, BufferMut, CreateError, Image, SegmentMut, ShareError, WithCauses,
};

use crate::cgroups::run_under_limit;
use crate::children;

const MIB: usize = 1 << 20;
const MODEL: usize = 250 * MIB;
const WORD: u64 = 0x5A5A_5A5A_5A5A_5A5A;

fn model_of(bytes: usize) -> Buffer<u64> {
    vec![WORD; bytes / 8].into()
}

/// Returns the needed and the available bytes of a model that was refused.
fn refused<T: std::fmt::Debug>(shared: Result<T, ShareError>) -> (u64, u64) {
    match shared {
        Err(ShareError::Create(CreateError::NoSpace {
            needed, available, ..
        })) => {
            assert!(available < needed, "{available} of {needed}");
            (needed, available)
        }
        other => panic!("a model that exceeds the limit: {other:?}"),
    }
}

#[test]
fn share_move_fits_under_a_limit_of_1_3_times_the_model() {
    const TEST: &str = "admission::share_move_fits_under_a_limit_of_1_3_times_the_model";
    let Some(part) = children::part() else {
        for part in ["move-anonymous", "move-auto", "move-huge", "move-parts"] {
            run_under_limit(TEST, part, MODEL / 10 * 13, part == "move-auto");
        }
        return;
    };
    children::watchdog(120);
    let backing = match &*part {
        "move-auto" => Backing::Auto,
        "move-huge" => Backing::HugePages,
        _ => Backing::Anonymous,
    };
    let image = match &*part {
        "move-parts" => {
            let built = BufferMut::from_fn(&Backing::Anonymous, 50 * MIB / 8, |_| WORD).expect("it fits");
            let mut parts: Vec<Buffer<u64>> = (0..20).map(|_| model_of(10 * MIB)).collect();
            parts.push(built.freeze().expect("it can be frozen"));
            shm_buffers::share_move(parts, &backing)
        }
        _ => shm_buffers::share_move(model_of(MODEL), &backing),
    };
    let image = image.expect("a move needs only a window on top");
    assert_eq!(
        image.segment().backing(),
        Some(BackingKind::Anonymous),
        "memory for it was refused; now {:?}",
        shm_buffers::MemoryInfo::now()
    );
    let whole = match &*part {
        "move-parts" => image.load::<Vec<Buffer<u64>>>().expect("it is an image"),
        _ => vec![image.load::<Buffer<u64>>().expect("it is an image")],
    };
    assert_eq!(whole.iter().map(|part| part.len()).sum::<usize>(), MODEL / 8);
    assert!(whole.iter().all(|part| part.iter().all(|word| *word == WORD)));
    children::report_success();
}

#[test]
fn share_move_is_refused_if_too_little_is_released() {
    const TEST: &str = "admission::share_move_is_refused_if_too_little_is_released";
    let Some(part) = children::part() else {
        for part in ["move-cloned", "move-untouched", "move-named"] {
            run_under_limit(TEST, part, MODEL / 10 * 13, false);
        }
        return;
    };
    children::watchdog(120);
    match &*part {
        "move-cloned" => {
            let kept = model_of(MODEL);
            let (needed, _) = refused(shm_buffers::share_move(kept.clone(), &Backing::Anonymous));
            assert!(needed >= MODEL as u64, "{needed}");
            assert!(kept.iter().all(|word| *word == WORD));
        }
        // Zeros that were never written take no memory in the source, but all of it in the target.
        "move-untouched" => {
            let ballast = model_of(150 * MIB);
            let zeros = Buffer::from(vec![0_u64; MODEL / 8]);
            refused(shm_buffers::share_move(zeros, &Backing::Anonymous));
            drop(ballast);
        }
        // Named memory is reserved as a whole before any page is released.
        "move-named" => {
            let (needed, _) = refused(shm_buffers::share_move(model_of(MODEL), &Backing::Named));
            assert!(needed >= MODEL as u64, "{needed}");
        }
        other => panic!("no part {other}"),
    }
    children::report_success();
}

/// Returns a file whose pages are in the page cache. It was read twice, so that they count as active.
fn cached_file(dir: &Path, bytes: usize) -> File {
    let mut file = tempfile::tempfile_in(dir).expect("a file can be created");
    let block = vec![0x5A; MIB];
    for _ in 0..bytes / MIB {
        file.write_all(&block).expect("the disk has space");
    }
    file.sync_all().expect("the file is writable");
    for _ in 0..3 {
        std::io::Seek::rewind(&mut file).expect("a file can be rewound");
        std::io::copy(&mut Read::by_ref(&mut file), &mut std::io::sink()).expect("it can be read");
    }
    file
}

#[test]
fn page_cache_counts_as_available_in_the_cgroup_and_its_parent() {
    const TEST: &str = "admission::page_cache_counts_as_available_in_the_cgroup_and_its_parent";
    let Some(_) = children::part() else {
        run_under_limit(TEST, "cache-own", 200 * MIB, false);
        run_under_limit(TEST, "cache-nested", 200 * MIB, true);
        return;
    };
    children::watchdog(120);
    assert_eq!(shm_buffers::MemoryInfo::now().cgroup_limit, Some(200 << 20));
    let exe = std::env::current_exe().expect("the path of the test binary");
    let dir = exe.parent().expect("a directory");
    if rustix::fs::statfs(dir).is_ok_and(|stat| stat.f_type == 0x0102_1994) {
        eprintln!(
            "skipped: {} is a tmpfs, whose pages are not a cache",
            dir.display()
        );
        return children::report_success();
    }
    let _file = cached_file(dir, 150 * MIB);
    let mut segment = SegmentMut::create(&Backing::Anonymous, 120 * MIB).expect("the cache is reclaimable");
    segment.fill(0x5A);
    assert!(
        SegmentMut::create(&Backing::Anonymous, 100 * MIB).is_err(),
        "the segment is not reclaimable"
    );
    children::report_success();
}

/// Growth and files on a tmpfs take memory of the cgroup as well.
#[test]
fn growth_and_tmpfs_are_limited_by_the_cgroup() {
    const TEST: &str = "admission::growth_and_tmpfs_are_limited_by_the_cgroup";
    let Some(_) = children::part() else {
        return run_under_limit(TEST, "growth", 96 * MIB, false);
    };
    children::watchdog(120);
    let shm = PathBuf::from("/dev/shm");
    for backing in [Backing::Anonymous, Backing::Named, Backing::File(shm)] {
        match SegmentMut::create(&backing, 150 * MIB) {
            Err(CreateError::NoSpace { .. }) => {}
            other => panic!("{backing:?}: {other:?}"),
        }
        let mut segment = SegmentMut::create(&backing, 20 * MIB).expect("it fits");
        segment.fill(0x5A);
        match segment.resize(150 * MIB) {
            Err(CreateError::NoSpace { .. }) => {}
            other => panic!("{backing:?}: {other:?}"),
        }
        assert!(segment.len() == 20 * MIB && segment.iter().all(|byte| *byte == 0x5A));
    }
    let image = shm_buffers::share(&model_of(60 * MIB), &Backing::File(std::env::temp_dir()));
    let ballast = model_of(40 * MIB);
    let saved = image
        .expect("the disk has space")
        .save("/dev/shm/shm-buffers-test-growth");
    let error = saved.expect_err("the cgroup has no memory for it");
    assert_names(&error, &["write", "file memory", "raise"]);
    drop(ballast);
    children::report_success();
}

fn set_limit(resource: Resource, bytes: u64) {
    let limits = getrlimit(resource);
    let current = Some(bytes);
    setrlimit(resource, Rlimit { current, ..limits }).expect("a lower limit is allowed");
}

#[track_caller]
fn assert_names(error: &(dyn Error + 'static), words: &[&str]) {
    let text = format!("{:#}", WithCauses(error));
    for word in words {
        assert!(text.contains(word), "no `{word}` in: {text}");
    }
}

const FILE_LIMIT: u64 = 256 << 10;

/// Runs a test of this file again, with the parameter `part`, in a child that has to succeed.
#[track_caller]
fn again(test: &str, part: &str) {
    children::assert_success(&mut children::again(&[], test, part));
}

#[test]
fn every_backing_reports_a_file_size_limit() {
    const TEST: &str = "admission::every_backing_reports_a_file_size_limit";
    if children::part().is_none() {
        return again(TEST, "file-size");
    }
    children::watchdog(60);
    set_limit(Resource::Fsize, FILE_LIMIT);
    let words = ["RLIMIT_FSIZE", "ulimit -f", "1048576", "262144"];
    let dir = std::env::temp_dir();
    for backing in [
        Backing::Auto,
        Backing::Anonymous,
        Backing::Named,
        Backing::HugePages,
        Backing::File(dir),
    ] {
        let error = SegmentMut::create(&backing, MIB).expect_err("more than the limit");
        assert_names(&error, &words);
        let mut segment = SegmentMut::create(&backing, 100_000).expect("less than the limit");
        segment.fill(0x5A);
        if segment.pages() != shm_buffers::Pages::Reserved {
            assert_names(&segment.resize(MIB).expect_err("more than the limit"), &words);
        }
        segment.resize(FILE_LIMIT as usize).expect("just the limit");
        assert!(segment[..100_000].iter().all(|byte| *byte == 0x5A));
    }
    let error = shm_buffers::Region::create(&Backing::Auto, MIB).expect_err("more than the limit");
    assert_names(&error, &words);
    children::report_success();
}

#[test]
fn save_reports_a_file_size_limit() {
    const TEST: &str = "admission::save_reports_a_file_size_limit";
    if children::part().is_none() {
        return again(TEST, "file-size-save");
    }
    children::watchdog(60);
    let dir = tempfile::tempdir().expect("a directory");
    // Bytes that don't compress.
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state ^ (state >> 29)
    };
    let noise: Buffer<u64> = (0..MIB / 8).map(|_| next()).collect();
    let apart = BufferMut::from_fn(&Backing::Anonymous, MIB / 8, |_| WORD).expect("it fits");
    let apart = shm_buffers::share(&apart.freeze().expect("it can be frozen"), &Backing::Auto);
    let images = [
        shm_buffers::share(&noise, &Backing::Anonymous).expect("it fits"),
        apart.expect("it fits"),
    ];
    let path = dir.path().join("model");
    fs::write(&path, "old").expect("the file is writable");
    set_limit(Resource::Fsize, FILE_LIMIT);
    for image in &images {
        let error = image.save(&path).expect_err("more than the limit");
        assert_names(&error, &["model", "RLIMIT_FSIZE", "ulimit -f", "262144"]);
    }
    #[cfg(feature = "zstd")]
    {
        let compression = shm_buffers::Compression::level(1).frame_bytes(64 << 10);
        let error = images[0]
            .save_compressed(&path, compression)
            .expect_err("more than the limit");
        assert_names(&error, &["model", "RLIMIT_FSIZE", "ulimit -f", "262144"]);
    }
    assert_eq!(fs::read_to_string(&path).expect("it is there"), "old");
    assert_eq!(fs::read_dir(dir.path()).expect("it is a directory").count(), 1);
    let small: Buffer<u64> = noise.slice(..100);
    let small = shm_buffers::share(&small, &Backing::Auto).expect("it fits");
    small.save(&path).expect("less than the limit");
    assert!(Image::load_shared(&path, &Backing::Auto).is_ok());
    children::report_success();
}

#[test]
fn an_address_space_limit_is_reported_by_name() {
    const TEST: &str = "admission::an_address_space_limit_is_reported_by_name";
    if children::part().is_none() {
        return again(TEST, "address-space");
    }
    children::watchdog(60);
    let large = SegmentMut::create(&Backing::Anonymous, 512 * MIB).expect("no page is touched");
    let large = large.freeze().expect("it can be frozen");
    let status = fs::read_to_string("/proc/self/statm").expect("/proc is mounted");
    let pages: u64 = status
        .split(' ')
        .next()
        .and_then(|n| n.parse().ok())
        .expect("a number");
    set_limit(Resource::As, pages * 4096 + (200 << 20));
    let words = ["RLIMIT_AS", "ulimit -v"];
    for backing in [
        Backing::Auto,
        Backing::Anonymous,
        Backing::Named,
        Backing::File(std::env::temp_dir()),
    ] {
        let error = SegmentMut::create(&backing, 300 * MIB).expect_err("more than the limit leaves");
        assert_names(&error, &words);
        assert!(matches!(error, CreateError::NoSpace { .. }), "{error:?}");
        let mut segment = SegmentMut::create(&backing, 10 * MIB).expect("it fits");
        assert_names(
            &segment.resize(300 * MIB).expect_err("more than the limit leaves"),
            &words,
        );
        segment.fill(0x5A);
    }
    let handle = large.handle().expect("its owner lives");
    let error = shm_buffers::Segment::attach(&handle).expect_err("more than the limit leaves");
    assert_names(&error, &words);
    children::report_success();
}

/// If no thread can be spawned, the caller's thread does all the work.
#[test]
fn share_works_without_threads() {
    const TEST: &str = "admission::share_works_without_threads";
    if children::part().is_none() {
        return again(TEST, "threads");
    }
    children::watchdog(60);
    let model = model_of(32 * MIB);
    let status = fs::read_to_string("/proc/self/statm").expect("/proc is mounted");
    let pages: u64 = status
        .split(' ')
        .next()
        .and_then(|n| n.parse().ok())
        .expect("a number");
    // Enough for the copy, but not for the stack of another thread as well.
    set_limit(Resource::As, pages * 4096 + (33 << 20));
    let image = shm_buffers::share(&model, &Backing::Anonymous).expect("it fits");
    set_limit(Resource::As, pages * 4096 + (100 << 20));
    assert!(image.load::<Buffer<u64>>().expect("it is an image") == model);
    children::report_success();
}

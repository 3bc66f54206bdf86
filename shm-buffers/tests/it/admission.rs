//! Limits of memory and of file sizes: a segment that does not fit is an error with the numbers, never a signal.
#![cfg(target_os = "linux")]

use std::error::Error;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use shm_buffers::{Backing, BackingKind, Buffer, BufferMut, CreateError, Image, SegmentMut, ShareError};

use crate::children;

const MIB: usize = 1 << 20;
const MODEL: usize = 250 * MIB;
const WORD: u64 = 0x5A5A_5A5A_5A5A_5A5A;

/// A memory cgroup with a limit; removed when dropped.
struct Group {
    dir: PathBuf,
    /// The group that processes enter: `dir`, or a group in it without a limit of its own.
    leaf: PathBuf,
}

impl Group {
    /// A group named after `purpose` with `limit` bytes, or the reason why none can be made.
    fn new(purpose: &str, limit: usize, nested: bool) -> Result<Self, String> {
        let v1 = Path::new("/sys/fs/cgroup/memory");
        let (tree, file) = match v1.is_dir() {
            true => (v1, "memory.limit_in_bytes"),
            false => (Path::new("/sys/fs/cgroup"), "memory.max"),
        };
        let dir = tree.join(format!("shm-buffers-test-{purpose}-{}", std::process::id()));
        let because = |what: &str, e| format!("{what} below {}: {e}", tree.display());
        fs::create_dir(&dir).map_err(|e| because("no group can be made", e))?;
        let mut group = Self {
            leaf: dir.clone(),
            dir,
        };
        fs::write(group.dir.join(file), limit.to_string()).map_err(|e| because("no limit can be set", e))?;
        if nested {
            // Version 2 hands controllers down only when asked; the leaf needs none.
            group.leaf = group.dir.join("leaf");
            fs::create_dir(&group.leaf).map_err(|e| because("no nested group can be made", e))?;
        }
        Ok(group)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The kernel releases processes that have just ended a moment later.
        for _ in 0..200 {
            drop(fs::remove_dir(&self.leaf));
            if !self.dir.exists() || fs::remove_dir(&self.dir).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

/// Runs `test` again, as `part`, in a cgroup of `limit` bytes.
fn under_limit(test: &str, part: &str, limit: usize, nested: bool) {
    let group = match Group::new(part, limit, nested) {
        Ok(group) => group,
        Err(why) => {
            eprintln!("skipped: {why}");
            return;
        }
    };
    // The child enters by itself, before it becomes the test.
    let enter = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", group.leaf.display());
    let launcher = ["sh", "-c", &enter, "sh"];
    let (status, said) = children::run(&mut children::again(&launcher, test, part));
    assert!(
        status.success() && said.contains("all well"),
        "{part}: {status}, having said\n{said}"
    );
}

fn model_of(bytes: usize) -> Buffer<u64> {
    vec![WORD; bytes / 8].into()
}

fn refused<T: std::fmt::Debug>(made: Result<T, ShareError>) -> (u64, u64) {
    match made {
        Err(ShareError::Create(CreateError::NoSpace {
            needed, available, ..
        })) => {
            assert!(available < needed, "{available} of {needed}");
            (needed, available)
        }
        other => panic!("a model that there is no room for: {other:?}"),
    }
}

#[test]
fn a_move_fits_under_a_limit_of_1_3_times_the_model() {
    const TEST: &str = "admission::a_move_fits_under_a_limit_of_1_3_times_the_model";
    let Some(part) = children::part() else {
        for part in ["move-anonymous", "move-auto", "move-huge", "move-parts"] {
            under_limit(TEST, part, MODEL / 10 * 13, part == "move-auto");
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
    let image = image.expect("a move needs a window on top");
    assert_eq!(image.segment().backing(), Some(BackingKind::Anonymous));
    let whole = match &*part {
        "move-parts" => image.load::<Vec<Buffer<u64>>>().expect("it is an image"),
        _ => vec![image.load::<Buffer<u64>>().expect("it is an image")],
    };
    assert_eq!(whole.iter().map(|part| part.len()).sum::<usize>(), MODEL / 8);
    assert!(whole.iter().all(|part| part.iter().all(|word| *word == WORD)));
    println!("all well");
}

#[test]
fn a_move_counts_only_what_comes_back() {
    const TEST: &str = "admission::a_move_counts_only_what_comes_back";
    let Some(part) = children::part() else {
        for part in ["move-cloned", "move-untouched", "move-named"] {
            under_limit(TEST, part, MODEL / 10 * 13, false);
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
        // Zeros that were never written occupy nothing in the source and everything in the target.
        "move-untouched" => {
            let ballast = model_of(150 * MIB);
            let zeros = Buffer::from(vec![0_u64; MODEL / 8]);
            refused(shm_buffers::share_move(zeros, &Backing::Anonymous));
            drop(ballast);
        }
        // Named memory is reserved as a whole before anything is given back.
        "move-named" => {
            let (needed, _) = refused(shm_buffers::share_move(model_of(MODEL), &Backing::Named));
            assert!(needed >= MODEL as u64, "{needed}");
        }
        other => panic!("no part {other}"),
    }
    println!("all well");
}

/// A file whose pages are in memory, read twice so that they count as active.
fn cached_file(dir: &Path, bytes: usize) -> File {
    let mut file = tempfile::tempfile_in(dir).expect("a file can be made");
    let block = vec![0x5A; MIB];
    for _ in 0..bytes / MIB {
        file.write_all(&block).expect("the disk has room");
    }
    file.sync_all().expect("it can be written");
    for _ in 0..3 {
        std::io::Seek::rewind(&mut file).expect("a file has a beginning");
        std::io::copy(&mut Read::by_ref(&mut file), &mut std::io::sink()).expect("it can be read");
    }
    file
}

#[test]
fn page_cache_is_room_in_the_group_and_in_its_parent() {
    const TEST: &str = "admission::page_cache_is_room_in_the_group_and_in_its_parent";
    let Some(_) = children::part() else {
        under_limit(TEST, "cache-own", 200 * MIB, false);
        under_limit(TEST, "cache-nested", 200 * MIB, true);
        return;
    };
    children::watchdog(120);
    assert_eq!(shm_buffers::Room::now().limit, Some(200 << 20));
    let exe = std::env::current_exe().expect("a test binary knows where it is");
    let dir = exe.parent().expect("a directory");
    if rustix::fs::statfs(dir).is_ok_and(|stat| stat.f_type == 0x0102_1994) {
        eprintln!("skipped: {} is a tmpfs, whose pages are no cache", dir.display());
        return println!("all well");
    }
    let _file = cached_file(dir, 150 * MIB);
    let mut segment = SegmentMut::create(&Backing::Anonymous, 120 * MIB).expect("the cache is reclaimable");
    segment.fill(0x5A);
    assert!(
        SegmentMut::create(&Backing::Anonymous, 100 * MIB).is_err(),
        "the segment is not"
    );
    println!("all well");
}

/// What grows or lies on a tmpfs is memory of the group as well.
#[test]
fn growth_and_tmpfs_are_admitted_by_the_group() {
    const TEST: &str = "admission::growth_and_tmpfs_are_admitted_by_the_group";
    let Some(_) = children::part() else {
        return under_limit(TEST, "growth", 96 * MIB, false);
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
        .expect("a disk has room")
        .save("/dev/shm/shm-buffers-test-growth");
    let error = saved.expect_err("there is no memory for it");
    assert_names(&error, &["write", "file memory", "raise"]);
    drop(ballast);
    println!("all well");
}

fn set_limit(resource: Resource, bytes: u64) {
    let limits = getrlimit(resource);
    let current = Some(bytes);
    setrlimit(resource, Rlimit { current, ..limits }).expect("less is allowed");
}

/// The error with its sources.
fn in_full(error: &(dyn Error + 'static)) -> String {
    let errors = std::iter::successors(Some(error), |e| (*e).source());
    errors.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[track_caller]
fn assert_names(error: &(dyn Error + 'static), words: &[&str]) {
    let text = in_full(error);
    for word in words {
        assert!(text.contains(word), "no `{word}` in: {text}");
    }
}

const FILE_LIMIT: u64 = 256 << 10;

/// Runs this test again as `part`; it has to end well.
fn again(test: &str, part: &str) {
    let (status, said) = children::run(&mut children::again(&[], test, part));
    assert!(
        status.success() && said.contains("all well"),
        "{status}, having said\n{said}"
    );
}

#[test]
fn a_file_size_limit_is_an_error_for_every_backing() {
    const TEST: &str = "admission::a_file_size_limit_is_an_error_for_every_backing";
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
    println!("all well");
}

#[test]
fn a_file_size_limit_is_an_error_of_save() {
    const TEST: &str = "admission::a_file_size_limit_is_an_error_of_save";
    if children::part().is_none() {
        return again(TEST, "file-size-save");
    }
    children::watchdog(60);
    let dir = tempfile::tempdir().expect("a directory can be made");
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
    fs::write(&path, "old").expect("it can be written");
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
    println!("all well");
}

#[test]
fn an_address_space_limit_is_an_error_with_its_name() {
    const TEST: &str = "admission::an_address_space_limit_is_an_error_with_its_name";
    if children::part().is_none() {
        return again(TEST, "address-space");
    }
    children::watchdog(60);
    let large = SegmentMut::create(&Backing::Anonymous, 512 * MIB).expect("there are no pages yet");
    let large = large.freeze().expect("it can be frozen");
    let status = fs::read_to_string("/proc/self/statm").expect("there is one");
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
    println!("all well");
}

/// Where threads can't be made, the caller's thread does the work.
#[test]
fn copies_do_without_threads() {
    const TEST: &str = "admission::copies_do_without_threads";
    if children::part().is_none() {
        return again(TEST, "threads");
    }
    children::watchdog(60);
    let model = model_of(32 * MIB);
    let status = fs::read_to_string("/proc/self/statm").expect("there is one");
    let pages: u64 = status
        .split(' ')
        .next()
        .and_then(|n| n.parse().ok())
        .expect("a number");
    // Enough for the copy, not for it and the stack of another thread.
    set_limit(Resource::As, pages * 4096 + (33 << 20));
    let image = shm_buffers::share(&model, &Backing::Anonymous).expect("it fits");
    set_limit(Resource::As, pages * 4096 + (100 << 20));
    assert!(image.load::<Buffer<u64>>().expect("it is an image") == model);
    println!("all well");
}

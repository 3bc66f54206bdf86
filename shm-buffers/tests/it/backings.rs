//! Tests that apply to every backing.

use std::error::Error;

use shm_buffers::{
    Backing, BackingKind, CreateError, Layout, Region, RegionHandle, Segment, SegmentHandle, SegmentMut, ring,
};

/// Returns the backings of this platform, with that which `Auto` chooses first.
pub(crate) fn backings() -> Vec<(Backing, BackingKind)> {
    let file = (Backing::File(std::env::temp_dir()), BackingKind::File);
    let named = (Backing::Named, BackingKind::Named);
    let mut backings = Vec::new();
    if cfg!(target_os = "linux") {
        backings.extend([Backing::Anonymous, Backing::HugePages].map(|it| (it, BackingKind::Anonymous)));
    }
    if cfg!(any(feature = "named", not(target_os = "linux"))) {
        backings.push(named);
    }
    backings.push(file);
    backings
}

/// Returns whether this runs under Wine, which lacks `gap`. Prints what is not tested, for reports of skipped tests.
pub(crate) fn wine_lacks(gap: &str) -> bool {
    let wine = std::env::var_os("UNDER_WINE").is_some();
    if wine {
        println!("not tested under wine: {gap}");
    }
    wine
}

/// A gap of Wine: Windows refuses to open such a file (`STATUS_DELETE_PENDING`).
pub(crate) const NO_DELETE_PENDING: &str =
    "NtCreateFile opens a file that is marked for deletion as long as a process has it open";

/// Serializes and deserializes a handle, as if it were sent to another process.
pub(crate) fn through_serde<T: serde::Serialize + serde::de::DeserializeOwned>(value: &T) -> T {
    let bytes = serde_json::to_vec(value).expect("handles serialize");
    serde_json::from_slice(&bytes).expect("handles deserialize")
}

#[test]
fn a_segment_is_filled_frozen_and_attached() -> Result<(), Box<dyn Error>> {
    for (backing, kind) in backings() {
        for len in [0, 1, 4096, 100_003] {
            let mut segment = SegmentMut::create(&backing, len)?;
            assert_eq!((segment.len(), segment.backing()), (len, kind));
            assert!(segment.iter().all(|&b| b == 0), "{backing:?} is not zeroed");
            segment
                .iter_mut()
                .enumerate()
                .for_each(|(i, b)| *b = (i * 31) as u8);
            let segment = segment.freeze()?;
            let handle: SegmentHandle = through_serde(&segment.handle()?);
            assert_eq!(handle.len(), len);

            let theirs = Segment::attach(&handle)?;
            assert_eq!(&segment[..], &theirs[..]);
            assert!(theirs.iter().enumerate().all(|(i, &b)| b == (i * 31) as u8));

            // An attached segment keeps the memory. Attaching by the handle of an owner that dropped it fails.
            drop(segment);
            assert_eq!(theirs.len(), len);
            assert!(theirs.iter().enumerate().all(|(i, &b)| b == (i * 31) as u8));
            let late = Segment::attach(&handle);
            assert!(
                late.is_err() || (kind == BackingKind::File && wine_lacks(NO_DELETE_PENDING)),
                "{backing:?}: attached to {late:?} after its owner dropped it"
            );
        }
    }
    Ok(())
}

#[test]
fn a_region_is_shared_by_both_sides() -> Result<(), Box<dyn Error>> {
    for (backing, _) in backings() {
        let mut layout = Layout::new();
        let span = layout.ring(1000);
        let mine = Region::create(&backing, layout.byte_len())?;
        let handle: RegionHandle = through_serde(&mine.handle()?);
        let theirs = Region::attach(&handle)?;
        let mut producer = ring::Producer::new(&mine, span);
        let mut consumer = ring::Consumer::new(&theirs, span);
        producer.push(b"over there")?;
        let mut frame = Vec::new();
        assert_eq!(consumer.pop(&mut frame)?, Some(10));
        assert_eq!(frame, b"over there");
    }
    Ok(())
}

#[test]
fn a_segment_that_is_too_large_is_an_error_with_numbers() {
    for (backing, kind) in backings() {
        match SegmentMut::create(&backing, 1 << 50) {
            Err(CreateError::NoSpace {
                needed,
                available,
                backing,
                hint,
            }) => {
                assert_eq!((needed, backing), (1 << 50, kind));
                assert!(available < needed && !hint.is_empty());
            }
            // If the numbers can't be read, the system call fails.
            Err(CreateError::Os { .. }) if !cfg!(target_os = "linux") => {}
            other => panic!("{backing:?}: {other:?}"),
        }
    }
}

#[test]
fn the_error_names_a_missing_directory() {
    let dir = std::env::temp_dir().join("no such directory");
    let error = SegmentMut::create(&Backing::File(dir), 10).expect_err("a missing directory");
    assert!(error.to_string().contains("no such directory"), "{error}");
}

#[test]
fn backing_returns_the_choice_of_auto() -> Result<(), Box<dyn Error>> {
    let segment = SegmentMut::create(&Backing::Auto, 10)?;
    assert_eq!(segment.backing(), backings()[0].1);
    Ok(())
}

/// A process that opens sealed memory again can neither write nor truncate it.
#[test]
#[cfg(target_os = "linux")]
fn a_sealed_segment_refuses_writes() -> Result<(), Box<dyn Error>> {
    let segment = SegmentMut::create(&Backing::Anonymous, 4096)?.freeze()?;
    let text = segment.handle()?.to_string();
    let fd = text.split(':').nth(5).expect("a descriptor");
    let path = format!("/proc/self/fd/{fd}");
    if let Ok(file) = std::fs::File::options().write(true).open(path) {
        let written = std::io::Write::write(&mut &file, b"scribble");
        assert!(written.is_err(), "wrote {written:?} bytes into a sealed segment");
        assert!(file.set_len(0).is_err(), "truncated a sealed segment");
    }
    Ok(())
}

/// Huge pages are requested but not required. `pages` returns the kind that was granted.
#[test]
#[cfg(target_os = "linux")]
fn pages_returns_the_granted_kind_of_huge_pages() -> Result<(), Box<dyn Error>> {
    use shm_buffers::Pages;
    let len = (5 << 20) + 3;
    let mut segment = SegmentMut::create(&Backing::HugePages, len)?;
    segment.fill(3);
    let pages = segment.pages();
    segment.resize(len - 1)?;
    segment.resize(len)?;
    assert_eq!((segment.len(), segment[len - 2], segment[len - 1]), (len, 3, 0));
    let segment = segment.freeze()?;
    assert_eq!(segment.pages(), Some(pages));
    let theirs = Segment::attach(&segment.handle()?)?;
    assert!(theirs[..len - 1].iter().all(|b| *b == 3));
    let setting = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/shmem_enabled");
    match setting {
        Ok(setting) if setting.contains("[advise]") => assert_ne!(pages, Pages::Ordinary),
        _ => eprintln!("{pages} pages were granted"),
    }
    Ok(())
}

/// A peer that could truncate its memory would turn a read here into SIGBUS.
#[test]
#[cfg(target_os = "linux")]
fn unsealed_memory_is_refused() -> Result<(), Box<dyn Error>> {
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fstat, memfd_create};
    use shm_buffers::AttachError;
    use std::os::fd::AsRawFd;

    let memory = memfd_create("peer", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    rustix::fs::ftruncate(&memory, 8192)?;
    let stat = fstat(&memory)?;
    let locator = |fd: &dyn AsRawFd, stat: rustix::fs::Stat| {
        let (pid, fd) = (std::process::id(), fd.as_raw_fd());
        format!("descriptor:{pid}:{fd}:{}:{}:anonymous", stat.st_dev, stat.st_ino)
    };
    let attach = |locator: &str, len: usize| {
        let text = format!("segment:{len}:foreign:{locator}");
        let handle: SegmentHandle = text.parse().expect("a handle");
        assert_eq!(handle.backing(), BackingKind::Anonymous);
        Segment::attach(&handle)
    };
    let it = locator(&memory, stat);
    assert!(matches!(attach(&it, 8192), Err(AttachError::Unsealed { .. })));
    fcntl_add_seals(&memory, SealFlags::SHRINK)?;
    assert!(matches!(attach(&it, 8192), Err(AttachError::Unsealed { .. })));
    let region: RegionHandle = format!("region:8192:{it}").parse()?;
    assert!(Region::attach(&region).is_ok(), "both sides write a region");
    fcntl_add_seals(&memory, SealFlags::WRITE)?;
    assert_eq!(attach(&it, 8192)?.len(), 8192);

    // A length beyond the memory is refused, and so is a descriptor that is not memory.
    assert!(matches!(attach(&it, 8193), Err(AttachError::Replaced { .. })));
    let (pipe, _other_end) = rustix::pipe::pipe()?;
    let it = locator(&pipe, fstat(&pipe)?);
    assert!(matches!(attach(&it, 0), Err(AttachError::Replaced { .. })));
    Ok(())
}

#[test]
#[cfg(all(target_os = "linux", feature = "named"))]
fn named_memory_is_private_to_its_user_and_removed() -> Result<(), Box<dyn Error>> {
    use std::os::unix::fs::PermissionsExt;
    let segment = SegmentMut::create(&Backing::Named, 100)?.freeze()?;
    let text = segment.handle()?.to_string();
    let (_, name) = text.split_once(":name:").expect("a name");
    let path = format!("/dev/shm{name}");
    assert_eq!(std::fs::metadata(&path)?.permissions().mode() & 0o777, 0o600);
    drop(segment);
    assert!(!std::path::Path::new(&path).exists(), "{path} was left behind");
    Ok(())
}

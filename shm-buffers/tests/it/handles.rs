//! Handles as text: what `Display` and serde write, and what `FromStr` refuses.

use std::error::Error;

use shm_buffers::{Backing, ParseHandleError, Region, RegionHandle, Segment, SegmentHandle, SegmentMut};

use crate::backings::{backings, through_serde};

#[test]
fn a_handle_is_one_word_and_the_same_in_serde() -> Result<(), Box<dyn Error>> {
    for (backing, _) in backings() {
        let segment = SegmentMut::create(&backing, 5)?.freeze()?;
        let region = Region::create(&backing, 8)?;
        let (one, other) = (segment.handle()?, region.handle()?);
        for text in [one.to_string(), other.to_string()] {
            assert!(text.bytes().all(|byte| byte.is_ascii_graphic()), "{text}");
            assert!(text.len() < 1000, "{text}");
        }
        assert_eq!(one.to_string().parse::<SegmentHandle>()?, one);
        assert_eq!(other.to_string().parse::<RegionHandle>()?, other);
        assert_eq!((through_serde(&one), through_serde(&other)), (one.clone(), other));
        assert_eq!(serde_json::to_value(&one)?, one.to_string());
        assert_eq!(Segment::attach(&one.to_string().parse()?)?.len(), 5);
    }
    Ok(())
}

#[test]
fn a_file_in_a_directory_that_is_not_unicode_is_attached_by_text() -> Result<(), Box<dyn Error>> {
    #[cfg(unix)]
    let name: std::ffi::OsString = std::os::unix::ffi::OsStringExt::from_vec(b"a b\xff%41:".to_vec());
    #[cfg(windows)]
    let name: std::ffi::OsString = std::os::windows::ffi::OsStringExt::from_wide(&[0x61, 0x20, 0xD800, 0x25]);
    let dir = tempfile::tempdir()?;
    let dir = dir.path().join(name);
    // macOS has no such names.
    if std::fs::create_dir(&dir).is_ok() {
        let segment = SegmentMut::create(&Backing::File(dir), 5)?.freeze()?;
        let handle: SegmentHandle = segment.handle()?.to_string().parse()?;
        assert_eq!(Segment::attach(&handle)?.len(), 5);
    }
    Ok(())
}

#[test]
fn the_error_names_the_handle_and_the_reason() {
    let text = |result: Result<SegmentHandle, ParseHandleError>| result.expect_err("no handle").to_string();
    for (hostile, reason) in [
        ("", "starts with something else"),
        ("region:8:name:x", "starts with something else"),
        ("segment", "starts with something else"),
        ("segment:8", "too few fields"),
        ("segment:x:own:name:a", "not a number"),
        ("segment:8:mine:name:a", "where the bytes come from"),
        ("segment:8:own:memory:a", "where the memory is"),
        ("segment:8:own:name:a b", "not allowed there"),
    ] {
        let error = text(hostile.parse());
        assert!(
            error.contains(reason) && error.contains("segment handle"),
            "{hostile}: {error}"
        );
    }
    let error = serde_json::from_str::<RegionHandle>("\"region\"").expect_err("no handle");
    assert!(error.to_string().contains("region handle"), "{error}");
    assert!(serde_json::from_str::<RegionHandle>("7").is_err());
}

/// Parsing returns for every text. A handle that it accepts has a text that it accepts as well, as the same handle.
#[test]
fn random_text_is_refused_or_stable() {
    let seeds = [
        "segment:4096:own:descriptor:12:3:45:678:anonymous",
        "segment:4096:foreign:name:/shm-buffers-0123456789abcdef",
        "region:4096:path:/tmp/shm-buffers%20%ff",
        "region:18446744073709551615:file:1:2:/tmp/a%3ab",
    ];
    let pieces = [
        "%",
        ":",
        "segment",
        "own",
        "%zz",
        "%u",
        "\u{0}",
        "é",
        "18446744073709551616",
        "-1",
        "descriptor",
        " ",
    ];
    let mut state = 1_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 20) as usize % below
    };
    let (mut accepted, mut refused) = (0, 0);
    for _ in 0..50_000 {
        let mut text: Vec<char> = seeds[random(seeds.len())].chars().collect();
        for _ in 0..=random(3) {
            let at = random(text.len() + 1);
            match random(4) {
                0 => text.truncate(at),
                1 => drop(text.splice(at..at, pieces[random(pieces.len())].chars())),
                2 if at < text.len() => text[at] = char::from(random(128) as u8),
                _ if at < text.len() => drop(text.remove(at)),
                _ => {}
            }
        }
        let text: String = text.into_iter().collect();
        let stable = match (text.parse::<SegmentHandle>(), text.parse::<RegionHandle>()) {
            (Ok(handle), Err(_)) => handle.to_string().parse() == Ok(handle),
            (Err(_), Ok(handle)) => handle.to_string().parse() == Ok(handle),
            (Err(_), Err(_)) => {
                refused += 1;
                continue;
            }
            (Ok(_), Ok(_)) => false,
        };
        assert!(stable, "{text}");
        accepted += 1;
    }
    assert!(accepted > 1000 && refused > 1000, "{accepted} {refused}");
}

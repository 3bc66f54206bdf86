//! Objects in the ELF format: their program headers, as reported by the dynamic linker, and the mapped file.
#![allow(unsafe_code, reason = "reads what the dynamic linker reports of an object")]

use std::ffi::{c_int, c_void};
use std::io;

use super::{Identity, LoadedObject, Protection, Segment, fingerprint};

/// The type of the note that contains a build id, and its owner.
const NT_GNU_BUILD_ID: u32 = 3;
const GNU: &[u8] = b"GNU\0";

pub(super) fn find_object(address: usize) -> io::Result<LoadedObject> {
    let mut search = Search { address, found: None };
    // SAFETY: `visit` uses `data` as the `Search` that it is. `search` outlives the call, and nothing else uses it during the
    // call.
    unsafe { libc::dl_iterate_phdr(Some(visit), (&raw mut search).cast::<c_void>()) };
    let SearchResult {
        segments,
        build,
        layout,
    } = search
        .found
        .ok_or_else(|| io::Error::other("no loaded object contains this code"))?;
    let identity = Identity {
        file: mapped_file(address),
        build,
        layout,
    };
    Ok(LoadedObject { identity, segments })
}

struct Search {
    address: usize,
    found: Option<SearchResult>,
}

struct SearchResult {
    segments: Vec<Segment>,
    build: Vec<u8>,
    layout: u64,
}

/// Visits one object. Ends the iteration, by returning 1, at the object that contains the address.
unsafe extern "C" fn visit(info: *mut libc::dl_phdr_info, _size: libc::size_t, data: *mut c_void) -> c_int {
    // SAFETY: `data` is the `Search` that `find_object` passes, and nothing else uses it during the iteration.
    let search = unsafe { &mut *data.cast::<Search>() };
    // SAFETY: `dl_iterate_phdr` passes the description of an object. It is valid during this call.
    let info = unsafe { &*info };
    let count = usize::from(info.dlpi_phnum);
    if info.dlpi_phdr.is_null() || count == 0 {
        return 0;
    }
    // SAFETY: by the description, `count` program headers are at that address. They exist as long as the object is loaded, and
    // no object is unloaded during the iteration.
    let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, count) };
    let base = info.dlpi_addr as usize;
    let range = |start: usize, bytes: usize| {
        let start = base.wrapping_add(start);
        start..start.saturating_add(bytes)
    };
    let loads = headers.iter().filter(|it| it.p_type == libc::PT_LOAD);
    let segments: Vec<Segment> = loads
        .map(|it| Segment {
            addresses: range(it.p_vaddr as usize, it.p_memsz as usize),
            protection: Protection::of(it.p_flags & libc::PF_X != 0),
        })
        .collect();
    if !segments.iter().any(|it| it.addresses.contains(&search.address)) {
        return 0;
    }
    let words = headers.iter().flat_map(|it| {
        [
            it.p_type as usize,
            it.p_flags as usize,
            it.p_offset as usize,
            it.p_vaddr as usize,
            it.p_filesz as usize,
            it.p_memsz as usize,
        ]
    });
    let layout = fingerprint(words.map(|word| word as u64));
    let read_only = |note: &std::ops::Range<usize>| {
        headers.iter().any(|it| {
            let load = range(it.p_vaddr as usize, it.p_filesz as usize);
            let flags = it.p_flags & (libc::PF_R | libc::PF_W);
            it.p_type == libc::PT_LOAD
                && flags == libc::PF_R
                && load.start <= note.start
                && note.end <= load.end
        })
    };
    let notes = headers.iter().filter(|it| it.p_type == libc::PT_NOTE);
    let build = notes
        .map(|it| {
            (
                range(it.p_vaddr as usize, it.p_memsz as usize),
                it.p_align as usize,
            )
        })
        .filter(|(note, _)| read_only(note))
        .find_map(|(note, align)| {
            // SAFETY: the bytes are in a segment that is loaded readable and not writable (checked above). So they are
            // initialized and do not change while the object is loaded, and it is not unloaded during the iteration.
            let notes = unsafe { std::slice::from_raw_parts(note.start as *const u8, note.len()) };
            build_id(notes, align).map(<[u8]>::to_vec)
        });
    search.found = Some(SearchResult {
        segments,
        build: build.unwrap_or_default(),
        layout,
    });
    1
}

/// Finds the build id among the notes of a segment.
fn build_id(mut notes: &[u8], align: usize) -> Option<&[u8]> {
    // Notes of 64-bit objects are aligned to 4 as well, unless their segment says 8.
    let align = if align == 8 { 8 } else { 4 };
    loop {
        let (name_len, rest) = word(notes)?;
        let (len, rest) = word(rest)?;
        let (kind, _) = word(rest)?;
        let name_end = 12usize.checked_add(name_len as usize)?;
        let start = name_end.checked_next_multiple_of(align)?;
        let end = start.checked_add(len as usize)?;
        if kind == NT_GNU_BUILD_ID && notes.get(12..name_end)? == GNU {
            return notes.get(start..end);
        }
        notes = notes.get(end.checked_next_multiple_of(align)?..)?;
    }
}

fn word(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (word, rest) = bytes.split_first_chunk()?;
    Some((u32::from_ne_bytes(*word), rest))
}

/// Returns device and inode of the file that is mapped at `address`. This is also right for a program that was started through
/// its loader, for a library, and for a file that was replaced since.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn mapped_file(address: usize) -> Option<(u64, u64)> {
    use std::io::BufRead;

    let maps = std::fs::File::open("/proc/self/maps").ok()?;
    let lines = std::io::BufReader::new(maps).split(b'\n');
    lines
        .map_while(Result::ok)
        .find_map(|line| file_of_mapping(&line, address))
        .flatten()
}

/// Parses a line of `maps`. Returns the file that is mapped at `address`, if any, and `None` if the line is about other
/// addresses.
///
/// Format: `START-END PERMISSIONS OFFSET MAJOR:MINOR INODE PATH`, with hexadecimal numbers except for the inode; see
/// proc_pid_maps(5).
#[cfg(any(target_os = "linux", target_os = "android"))]
fn file_of_mapping(line: &[u8], address: usize) -> Option<Option<(u64, u64)>> {
    let mut fields = line
        .split(|byte| *byte == b' ')
        .map(|field| std::str::from_utf8(field).ok());
    let hexadecimal = |text: &str| u64::from_str_radix(text, 16).ok();
    let (start, end) = fields.next()??.split_once('-')?;
    let address = address as u64;
    if address < hexadecimal(start)? || hexadecimal(end)? <= address {
        return None;
    }
    let (major, minor) = fields.nth(2)??.split_once(':')?;
    let device = hexadecimal(major)? << 32 | hexadecimal(minor)?;
    let inode = fields.next()??.parse().ok()?;
    Some((inode != 0).then_some((device, inode)))
}

/// Returns device and inode of the file that the dynamic linker names for `address`.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn mapped_file(address: usize) -> Option<(u64, u64)> {
    use std::ffi::{CStr, OsStr};
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::MetadataExt;

    let mut info = std::mem::MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: dladdr accepts any address, and `info` is valid for its writes.
    let found = unsafe { libc::dladdr(address as *const c_void, info.as_mut_ptr()) };
    // SAFETY: all-zero is a valid Dl_info (null pointers), and dladdr may have written a valid one.
    let info = unsafe { info.assume_init() };
    if found == 0 || info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: the name is a C string that the dynamic linker owns, and that exists while the object is loaded.
    let name = unsafe { CStr::from_ptr(info.dli_fname) };
    let meta = std::fs::metadata(OsStr::from_bytes(name.to_bytes())).ok()?;
    Some((meta.dev(), meta.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(name: &[u8], kind: u32, bytes: &[u8]) -> Vec<u8> {
        let mut note: Vec<u8> = [name.len() as u32, bytes.len() as u32, kind]
            .iter()
            .flat_map(|word| word.to_ne_bytes())
            .collect();
        for part in [name, bytes] {
            note.extend_from_slice(part);
            note.resize(note.len().next_multiple_of(4), 0);
        }
        note
    }

    #[test]
    fn build_id_is_found_among_other_notes() {
        let id = [5; 20];
        let own = note(GNU, NT_GNU_BUILD_ID, &id);
        let notes = [
            note(GNU, 1, &[1; 16]),
            note(b"stapsdt\0", 3, &[2; 7]),
            own.clone(),
        ]
        .concat();
        assert_eq!(build_id(&notes, 4), Some(&id[..]));
        assert_eq!(build_id(&own, 0), Some(&id[..]));
        assert_eq!(build_id(&notes[..notes.len() - 1], 4), None);
        assert_eq!(build_id(&note(b"GNU\0", 5, &[]), 8), None);
        let mut forged = own;
        forged[..4].fill(0xff);
        assert_eq!(build_id(&forged, 4), None);
        assert_eq!(build_id(&[], 4), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn lines_of_maps_name_the_file_of_an_address() {
        let file = b"7f00-7f10 r-xp 00001000 fd:1a 42                 /a (deleted)\xff";
        assert_eq!(file_of_mapping(file, 0x7f00), Some(Some((0xfd << 32 | 0x1a, 42))));
        assert_eq!(file_of_mapping(file, 0x7f10), None);
        let anonymous = b"7f00-7f10 rw-p 00000000 00:00 0 ";
        assert_eq!(file_of_mapping(anonymous, 0x7f0f), Some(None));
        for broken in [&b""[..], b"7f00", b"7f00-7f10 r", b"7f00-7f10 r-xp 0 fd:zz 1"] {
            assert_eq!(file_of_mapping(broken, 0x7f00), None);
        }
        let here = mapped_file as fn(usize) -> Option<(u64, u64)> as usize;
        use std::os::unix::fs::MetadataExt;
        let meta = std::fs::metadata("/proc/self/exe").expect("/proc is mounted");
        assert_eq!(mapped_file(here).map(|(_, inode)| inode), Some(meta.ino()));
        assert_eq!(mapped_file(&raw const meta as usize), None);
    }
}

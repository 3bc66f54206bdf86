//! Loaded objects of Apple's systems: the load commands of a Mach-O image, and its file.
#![allow(unsafe_code)]

use std::ffi::{CStr, OsStr, c_void};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;

use super::{Access, Identity, Loaded, Segment, fingerprint};

/// `mach-o/loader.h`: the magic number and size of a 64-bit header, two load commands, and `mach/vm_prot.h`.
const MH_MAGIC_64: u32 = 0xfeed_facf;
const HEADER: usize = 32;
const LC_SEGMENT_64: u32 = 0x19;
const LC_UUID: u32 = 0x1b;
const VM_PROT_EXECUTE: u32 = 4;

pub(super) fn holding(address: usize) -> io::Result<Loaded> {
    let mut info = std::mem::MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: dladdr takes any address, and `info` is valid for its writes.
    let found = unsafe { libc::dladdr(address as *const c_void, info.as_mut_ptr()) };
    // SAFETY: all-zero is a valid Dl_info (null pointers), and dladdr may have written a valid one.
    let info = unsafe { info.assume_init() };
    let unknown = || io::Error::other("no loaded image holds this code");
    if found == 0 || info.dli_fbase.is_null() {
        return Err(unknown());
    }
    // SAFETY: the base of a loaded image is its Mach header, mapped readable and never written.
    let header = unsafe { std::slice::from_raw_parts(info.dli_fbase.cast::<u8>(), HEADER) };
    if word(header, 0) != Some(MH_MAGIC_64) {
        return Err(io::Error::other("its image is not a 64-bit one"));
    }
    let commands = word(header, 20).ok_or_else(unknown)? as usize;
    // SAFETY: the load commands follow the header, as long as it says, in the same mapping.
    let image = unsafe { std::slice::from_raw_parts(info.dli_fbase.cast::<u8>(), HEADER + commands) };
    let (segments, build) = read(&image[HEADER..], info.dli_fbase as usize).ok_or_else(unknown)?;
    let loaded = Loaded {
        identity: Identity {
            file: file_of(&info),
            build,
            layout: fingerprint(image[HEADER..].iter().map(|byte| u64::from(*byte))),
        },
        segments,
    };
    match loaded.locate(address) {
        super::Located::Elsewhere => Err(unknown()),
        _ => Ok(loaded),
    }
}

/// Segments and UUID of the image that is loaded at `base`.
fn read(commands: &[u8], base: usize) -> Option<(Vec<Segment>, Vec<u8>)> {
    let mut build = Vec::new();
    // Address as linked, size, whether the header is in it, protection.
    let mut linked = Vec::new();
    let mut rest = commands;
    while !rest.is_empty() {
        let (kind, len) = (word(rest, 0)?, word(rest, 4)? as usize);
        let command = rest.get(..len).filter(|it| it.len() >= 8)?;
        match kind {
            LC_SEGMENT_64 => {
                let (place, bytes) = (double(command, 24)? as usize, double(command, 32)? as usize);
                let (offset, in_file) = (double(command, 40)?, double(command, 48)?);
                let is_executable = word(command, 60)? & VM_PROT_EXECUTE != 0;
                linked.push((place, bytes, offset == 0 && in_file > 0, is_executable));
            }
            LC_UUID => build = command.get(8..24)?.to_vec(),
            _ => {}
        }
        rest = &rest[len..];
    }
    let (header, ..) = linked.iter().find(|(_, _, has_header, _)| *has_header)?;
    let slide = base.wrapping_sub(*header);
    let segments = linked.iter().map(|(place, bytes, _, is_executable)| {
        let start = place.wrapping_add(slide);
        Segment {
            addresses: start..start.saturating_add(*bytes),
            access: Access::of(*is_executable),
        }
    });
    Some((segments.collect(), build))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*bytes))
}

fn double(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u64::from_ne_bytes(*bytes))
}

/// Device and inode of the image's file.
fn file_of(info: &libc::Dl_info) -> Option<(u64, u64)> {
    if info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: the name is a C string of the dynamic linker's; it stays while the image is loaded.
    let name = unsafe { CStr::from_ptr(info.dli_fname) };
    let meta = std::fs::metadata(OsStr::from_bytes(name.to_bytes())).ok()?;
    Some((meta.dev(), meta.ino()))
}

//! Objects in the Mach-O format: the load commands in their header, and their file.
#![allow(unsafe_code, reason = "reads the header of a loaded image")]

use std::ffi::{CStr, OsStr, c_void};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;

use super::{Identity, LoadedObject, Protection, Segment, fingerprint};

/// From `mach-o/loader.h`: magic number and size of a 64-bit header, and two load commands. From `mach/vm_prot.h`: the flag
/// for executable memory.
const MH_MAGIC_64: u32 = 0xfeed_facf;
const HEADER: usize = 32;
const LC_SEGMENT_64: u32 = 0x19;
const LC_UUID: u32 = 0x1b;
const VM_PROT_EXECUTE: u32 = 4;

pub(super) fn find_object(address: usize) -> io::Result<LoadedObject> {
    let mut info = std::mem::MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: dladdr accepts any address, and `info` is valid for its writes.
    let found = unsafe { libc::dladdr(address as *const c_void, info.as_mut_ptr()) };
    // SAFETY: all-zero is a valid Dl_info (null pointers), and dladdr may have written a valid one.
    let info = unsafe { info.assume_init() };
    let unknown = || io::Error::other("no loaded object contains this code");
    if found == 0 || info.dli_fbase.is_null() {
        return Err(unknown());
    }
    // SAFETY: the base of a loaded object is its Mach header. It is mapped readable and never written.
    let header = unsafe { std::slice::from_raw_parts(info.dli_fbase.cast::<u8>(), HEADER) };
    if word(header, 0) != Some(MH_MAGIC_64) {
        return Err(io::Error::other("its header is not that of a 64-bit object"));
    }
    let commands = word(header, 20).ok_or_else(unknown)? as usize;
    // SAFETY: the load commands follow the header in the same mapping, and have the length that the header states.
    let image = unsafe { std::slice::from_raw_parts(info.dli_fbase.cast::<u8>(), HEADER + commands) };
    let (segments, build) = read(&image[HEADER..], info.dli_fbase as usize).ok_or_else(unknown)?;
    let loaded = LoadedObject {
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

/// Parses segments and UUID of the object that is loaded at `base`.
fn read(commands: &[u8], base: usize) -> Option<(Vec<Segment>, Vec<u8>)> {
    let mut build = Vec::new();
    // For each segment: the address as linked, the size, whether it contains the header, whether it is executable.
    let mut linked = Vec::new();
    let mut rest = commands;
    while !rest.is_empty() {
        let (kind, len) = (word(rest, 0)?, word(rest, 4)? as usize);
        let command = rest.get(..len).filter(|it| it.len() >= 8)?;
        match kind {
            LC_SEGMENT_64 => {
                let (address, bytes) = (double(command, 24)? as usize, double(command, 32)? as usize);
                let (offset, in_file) = (double(command, 40)?, double(command, 48)?);
                let is_executable = word(command, 60)? & VM_PROT_EXECUTE != 0;
                linked.push((address, bytes, offset == 0 && in_file > 0, is_executable));
            }
            LC_UUID => build = command.get(8..24)?.to_vec(),
            _ => {}
        }
        rest = &rest[len..];
    }
    let (header, ..) = linked.iter().find(|(_, _, has_header, _)| *has_header)?;
    let slide = base.wrapping_sub(*header);
    let segments = linked.iter().map(|(address, bytes, _, is_executable)| {
        let start = address.wrapping_add(slide);
        Segment {
            addresses: start..start.saturating_add(*bytes),
            protection: Protection::of(*is_executable),
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

/// Returns device and inode of the object's file.
fn file_of(info: &libc::Dl_info) -> Option<(u64, u64)> {
    if info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: the name is a C string that the dynamic linker owns, and that exists while the object is loaded.
    let name = unsafe { CStr::from_ptr(info.dli_fname) };
    let meta = std::fs::metadata(OsStr::from_bytes(name.to_bytes())).ok()?;
    Some((meta.dev(), meta.ino()))
}

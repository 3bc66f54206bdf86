//! [`LoadedObject`]: the executable or library that contains an address, its identity, and where its code is. One submodule
//! for each format of executables finds the object of this process.

#[cfg(all(unix, not(target_vendor = "apple")))]
mod elf;
#[cfg(target_vendor = "apple")]
mod mach_o;
#[cfg(windows)]
mod pe;

use std::io;
use std::ops::Range;

use serde::{Deserialize, Serialize};

#[cfg(all(unix, not(target_vendor = "apple")))]
use elf::find_object;
#[cfg(target_vendor = "apple")]
use mach_o::find_object;
#[cfg(windows)]
use pe::find_object;

/// The shortest build id that distinguishes two builds, in bytes: a hash of 64 bits.
const MIN_BUILD: usize = 8;

/// The identity of an object. It is equal in two processes that have loaded the same object. No part of it is a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// Device and inode, or volume and index, of the mapped file. `None` where the system does not report them (Linux without
    /// `/proc`, code that was remapped onto huge pages).
    file: Option<(u64, u64)>,
    /// The linker's hash of its output: the build id of ELF, the UUID of Mach-O. It may be empty.
    build: Vec<u8>,
    /// A hash of the positions and sizes of the segments. Where those are not known, the length of the file.
    layout: u64,
}

impl Identity {
    /// Returns whether both identify the same object.
    ///
    /// An unchanged file is the same object. So is another file with the output of the same link: a network or overlay file
    /// system may report new numbers for an executable that was only touched, and `/proc` may be mounted for one of the two
    /// processes only.
    pub(crate) fn is(&self, other: &Self) -> bool {
        let is_same_file = self.file.is_some() && self.file == other.file;
        let is_same_link = is_same_file || self.build.len() >= MIN_BUILD;
        is_same_link && self.build == other.build && self.layout == other.layout
    }

    /// Returns what identifies the object, as text that is equal for the same object: its link, or its file if the linker wrote no
    /// build id.
    pub(crate) fn describe(&self) -> String {
        let build: String = self.build.iter().map(|byte| format!("{byte:02x}")).collect();
        match (self.build.len() >= MIN_BUILD, self.file) {
            (false, Some((device, inode))) => format!("file {device:x}:{inode:x} {:x}", self.layout),
            _ => format!("build {build} {:x}", self.layout),
        }
    }

    /// Returns whether there is anything to compare.
    fn is_known(&self) -> bool {
        self.file.is_some() || self.build.len() >= MIN_BUILD
    }
}

/// The position of an address relative to a loaded object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Located {
    /// In its executable memory.
    Code,
    /// In its memory that is not executable.
    Data,
    /// Outside of it.
    Elsewhere,
}

/// A loaded object: an executable or a library.
#[derive(Debug, Clone)]
pub(crate) struct LoadedObject {
    identity: Identity,
    segments: Vec<Segment>,
}

/// Memory of a loaded object.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Segment {
    addresses: Range<usize>,
    protection: Protection,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protection {
    Executable,
    Other,
}

impl Protection {
    fn of(is_executable: bool) -> Self {
        match is_executable {
            true => Self::Executable,
            false => Self::Other,
        }
    }
}

impl LoadedObject {
    /// Finds the object that contains `address`.
    ///
    /// # Errors
    /// When no object contains it, or nothing identifies the object.
    pub(crate) fn containing(address: usize) -> io::Result<Self> {
        let loaded = find_object(address)?;
        if !loaded.identity.is_known() {
            return Err(io::Error::other(
                "the system names no file for it (is /proc mounted?) and its linker wrote no build id; link it with \
                 `-C link-arg=-Wl,--build-id`",
            ));
        }
        Ok(loaded)
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Returns whether `address` is in this object, and whether it is code.
    pub(crate) fn locate(&self, address: usize) -> Located {
        let mut containing = self.segments.iter().filter(|it| it.addresses.contains(&address));
        match containing.next().map(|it| it.protection) {
            Some(Protection::Executable) => Located::Code,
            Some(Protection::Other) => Located::Data,
            None => Located::Elsewhere,
        }
    }
}

/// Returns a hash (FNV-1a) that is the same in all processes of a build.
#[cfg(unix)]
fn fingerprint(words: impl IntoIterator<Item = u64>) -> u64 {
    words.into_iter().fold(0xcbf2_9ce4_8422_2325, |hash, word| {
        let bytes = word.to_le_bytes();
        bytes.iter().fold(hash, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(file: Option<(u64, u64)>, build: &[u8], layout: u64) -> Identity {
        Identity {
            file,
            build: build.to_vec(),
            layout,
        }
    }

    #[test]
    fn objects_are_identified_by_file_or_build_id() {
        let (one, other) = (Some((1, 2)), Some((1, 3)));
        let (id, another, short) = ([7; 20], [8; 20], [7; 4]);
        for (left, right, same) in [
            (identity(one, &[], 5), identity(one, &[], 5), true),
            (identity(one, &[], 5), identity(other, &[], 5), false),
            (identity(one, &[], 5), identity(one, &[], 6), false),
            (identity(one, &id, 5), identity(one, &another, 5), false),
            // A copy of the same link, or one that the system reports as another file.
            (identity(one, &id, 5), identity(other, &id, 5), true),
            (identity(one, &id, 5), identity(None, &id, 5), true),
            (identity(one, &id, 5), identity(None, &id, 6), false),
            (identity(one, &short, 5), identity(other, &short, 5), false),
            (identity(None, &id, 5), identity(None, &id, 5), true),
            (identity(None, &[], 5), identity(None, &[], 5), false),
        ] {
            assert_eq!(left.is(&right), same, "{left:?} {right:?}");
            assert_eq!(right.is(&left), same, "{right:?} {left:?}");
        }
        assert!(!identity(None, &short, 5).is_known());
    }

    #[test]
    fn locate_distinguishes_code_from_data_and_other_memory() {
        static DATA: [u8; 4] = [1; 4];
        let here = objects_are_identified_by_file_or_build_id as fn() as usize;
        let own = LoadedObject::containing(here).expect("tests run from a file");
        assert!(own.identity().is_known());
        assert_eq!(own.locate(here), Located::Code);
        assert_eq!(own.locate(DATA.as_ptr() as usize), Located::Data);
        let local = 0u8;
        assert_eq!(own.locate(&raw const local as usize), Located::Elsewhere);
        let heap = Box::new(0u8);
        assert_eq!(own.locate(&raw const *heap as usize), Located::Elsewhere);
        assert_eq!(own.locate(0), Located::Elsewhere);
        assert_eq!(own.locate(usize::MAX), Located::Elsewhere);
        assert!(LoadedObject::containing(&raw const *heap as usize).is_err());
    }

    #[cfg(all(unix, not(target_env = "musl")))]
    #[test]
    fn a_library_is_another_object() {
        let here = a_library_is_another_object as fn() as usize;
        let own = LoadedObject::containing(here).expect("tests run from a file");
        let function = libc::getpid as *const () as usize;
        // The linker may have made a stub of the function in the executable.
        if own.locate(function) == Located::Elsewhere {
            let library = LoadedObject::containing(function).expect("the function is in a library");
            assert_eq!(library.locate(function), Located::Code);
            assert_eq!(library.locate(here), Located::Elsewhere);
            assert!(!library.identity().is(own.identity()));
        }
    }
}

//! [`Loaded`]: the executable or library that an address lies in, what identifies it, and where its code is.

#[cfg_attr(all(unix, not(target_vendor = "apple")), path = "unix/elf.rs")]
#[cfg_attr(target_vendor = "apple", path = "unix/mach_o.rs")]
#[cfg_attr(windows, path = "windows/module.rs")]
mod system;

use std::io;
use std::ops::Range;

use serde::{Deserialize, Serialize};

/// Bytes of the shortest build id that distinguishes two builds: a hash of 64 bits.
const MIN_BUILD: usize = 8;

/// The identity of an object: two processes that have loaded the same one agree in it. No part of it is a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// Device and inode, or volume and index, of the mapped file; `None` where the system does not report them (Linux
    /// without `/proc`, code that was remapped onto huge pages).
    file: Option<(u64, u64)>,
    /// The linker's hash of its output (the build id of ELF, the UUID of Mach-O); may be empty.
    build: Vec<u8>,
    /// A hash of the segments' places and sizes; where those are not known, the file's length.
    layout: u64,
}

impl Identity {
    /// Whether both are the same object.
    ///
    /// The same file is, if it is unchanged. So is another file of the same link: a network or overlay file system may
    /// report new numbers for an executable that was only touched, and `/proc` may be mounted for one process only.
    pub(crate) fn is(&self, other: &Self) -> bool {
        let is_same_file = self.file.is_some() && self.file == other.file;
        let is_same_link = is_same_file || self.build.len() >= MIN_BUILD;
        is_same_link && self.build == other.build && self.layout == other.layout
    }

    /// Whether there is anything to compare.
    fn is_known(&self) -> bool {
        self.file.is_some() || self.build.len() >= MIN_BUILD
    }
}

/// Where an address lies, as seen from a loaded object.
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
pub(crate) struct Loaded {
    identity: Identity,
    segments: Vec<Segment>,
}

/// Memory of a loaded object.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Segment {
    addresses: Range<usize>,
    access: Access,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    Executable,
    Other,
}

impl Access {
    fn of(is_executable: bool) -> Self {
        match is_executable {
            true => Self::Executable,
            false => Self::Other,
        }
    }
}

impl Loaded {
    /// The object that holds `address`.
    ///
    /// # Errors
    /// When no object does, or nothing identifies it.
    pub(crate) fn holding(address: usize) -> io::Result<Self> {
        let loaded = system::holding(address)?;
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

    pub(crate) fn locate(&self, address: usize) -> Located {
        let mut holding = self.segments.iter().filter(|it| it.addresses.contains(&address));
        match holding.next().map(|it| it.access) {
            Some(Access::Executable) => Located::Code,
            Some(Access::Other) => Located::Data,
            None => Located::Elsewhere,
        }
    }
}

/// A hash that is the same in every process of a build (FNV-1a).
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
    fn files_or_build_ids_identify_objects() {
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
    fn code_is_distinguished_from_data_and_everything_else() {
        static DATA: [u8; 4] = [1; 4];
        let here = files_or_build_ids_identify_objects as fn() as usize;
        let own = Loaded::holding(here).expect("tests run from a file");
        assert!(own.identity().is_known());
        assert_eq!(own.locate(here), Located::Code);
        assert_eq!(own.locate(DATA.as_ptr() as usize), Located::Data);
        let local = 0u8;
        assert_eq!(own.locate(&raw const local as usize), Located::Elsewhere);
        let heap = Box::new(0u8);
        assert_eq!(own.locate(&raw const *heap as usize), Located::Elsewhere);
        assert_eq!(own.locate(0), Located::Elsewhere);
        assert_eq!(own.locate(usize::MAX), Located::Elsewhere);
        assert!(Loaded::holding(&raw const *heap as usize).is_err());
    }

    #[cfg(all(unix, not(target_env = "musl")))]
    #[test]
    fn libraries_are_objects_of_their_own() {
        let here = libraries_are_objects_of_their_own as fn() as usize;
        let own = Loaded::holding(here).expect("tests run from a file");
        let function = libc::getpid as *const () as usize;
        // The linker may have made a stub of it in the executable.
        if own.locate(function) == Located::Elsewhere {
            let library = Loaded::holding(function).expect("it is in a library");
            assert_eq!(library.locate(function), Located::Code);
            assert_eq!(library.locate(here), Located::Elsewhere);
            assert!(!library.identity().is(own.identity()));
        }
    }
}

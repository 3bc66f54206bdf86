//! [`Locator`]: a reference to memory, for other processes, and its text.

use std::fmt;
use std::path::PathBuf;

use super::escape::{self, Escaped};
use crate::backing::BackingKind;

/// A reference to a store, for other processes. Displayed for people; [`Text`] is for programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Locator {
    /// An open descriptor of a running process, and the identity of its file.
    Descriptor {
        pid: u32,
        fd: i32,
        device: u64,
        inode: u64,
        /// Anonymous memory must be sealed when it is attached. A file can't be sealed.
        kind: BackingKind,
    },
    /// The name of shared memory.
    Name(String),
    /// The path of a file that a store created.
    Path(PathBuf),
    /// An existing file, on systems where other processes can't open a descriptor.
    File { path: PathBuf, identity: FileIdentity },
}

/// The identity of a file, which does not change when the file is renamed, removed or touched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileIdentity {
    /// Windows: the volume.
    pub(super) device: u64,
    /// Windows: the file's index.
    pub(super) inode: u64,
}

impl Locator {
    pub(crate) fn kind(&self) -> BackingKind {
        match self {
            Self::Descriptor { kind, .. } => *kind,
            Self::Name(_) => BackingKind::Named,
            Self::Path(_) | Self::File { .. } => BackingKind::File,
        }
    }

    /// Parses a [`Text`]. It may come from anywhere: whatever it says, attaching the locator is safe, though it may lead to
    /// memory or files that its author chose.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let (form, rest) = text.split_once(':').ok_or("it has too few fields")?;
        match form {
            "descriptor" => {
                let mut fields = rest.split(':');
                let mut next = || fields.next().ok_or("it has too few fields");
                let pid = number(next()?)?.try_into();
                let fd = number(next()?)?.try_into();
                let (device, inode) = (number(next()?)?, number(next()?)?);
                let kind = match next()? {
                    "anonymous" => BackingKind::Anonymous,
                    "file" => BackingKind::File,
                    _ => return Err("it names no known kind of memory"),
                };
                match fields.next() {
                    Some(_) => Err("it has too many fields"),
                    None => Ok(Self::Descriptor {
                        pid: pid.map_err(|_| "its process id is out of range")?,
                        fd: fd.map_err(|_| "its descriptor is out of range")?,
                        device,
                        inode,
                        kind,
                    }),
                }
            }
            "name" => escape::string(rest).map(Self::Name),
            "path" => escape::path(rest).map(Self::Path),
            "file" => {
                let mut fields = rest.splitn(3, ':');
                let mut next = || fields.next().ok_or("it has too few fields");
                let (device, inode) = (number(next()?)?, number(next()?)?);
                Ok(Self::File {
                    path: escape::path(next()?)?,
                    identity: FileIdentity { device, inode },
                })
            }
            _ => Err("it does not say where the memory is"),
        }
    }
}

/// Parses a number of digits only, without a sign.
pub(crate) fn number(text: &str) -> Result<u64, &'static str> {
    let is_digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|_| is_digits);
    number.ok_or("one of its numbers is not a number of 64 bits")
}

impl fmt::Display for Locator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Descriptor { pid, fd, .. } => write!(f, "descriptor {fd} of process {pid}"),
            Self::Name(name) => write!(f, "shared memory {name}"),
            Self::Path(path) | Self::File { path, .. } => write!(f, "file {}", path.display()),
        }
    }
}

/// Displays a locator as printable ASCII characters without spaces, for [`Locator::parse`].
pub(crate) struct Text<'a>(pub(crate) &'a Locator);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Locator::Descriptor {
                pid,
                fd,
                device,
                inode,
                kind,
            } => write!(f, "descriptor:{pid}:{fd}:{device}:{inode}:{kind}"),
            Locator::Name(name) => write!(f, "name:{}", Escaped::string(name)),
            Locator::Path(path) => write!(f, "path:{}", Escaped::path(path)),
            Locator::File { path, identity } => {
                let FileIdentity { device, inode } = identity;
                write!(f, "file:{device}:{inode}:{}", Escaped::path(path))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_locator_is_restored_from_its_text() {
        let kinds = [BackingKind::Anonymous, BackingKind::File];
        let descriptors = kinds.map(|kind| Locator::Descriptor {
            pid: u32::MAX,
            fd: i32::MAX,
            device: 0,
            inode: u64::MAX,
            kind,
        });
        let path = PathBuf::from("/tmp/a b/%41:é\n\"$(x)'");
        let identity = FileIdentity { device: 7, inode: 8 };
        let others = [
            Locator::Name("/shm-buffers-0".to_owned()),
            Locator::Name(String::new()),
            Locator::Path(path.clone()),
            Locator::File { path, identity },
        ];
        for locator in descriptors.into_iter().chain(others) {
            let text = Text(&locator).to_string();
            assert!(text.bytes().all(|byte| byte.is_ascii_graphic()), "{text}");
            assert_eq!(Locator::parse(&text), Ok(locator), "{text}");
        }
    }

    #[test]
    fn other_text_is_refused() {
        for text in [
            "",
            "descriptor",
            "descriptor:1:2:3:4",
            "descriptor:1:2:3:4:anonymous:5",
            "descriptor:1:2:3:4:named",
            "descriptor:1:-2:3:4:anonymous",
            "descriptor:+1:2:3:4:anonymous",
            "descriptor:1:2147483648:3:4:anonymous",
            "descriptor:4294967296:2:3:4:anonymous",
            "descriptor:1:2:3:18446744073709551616:anonymous",
            "descriptor::2:3:4:anonymous",
            "name:a b",
            "name:%ff",
            "path:/tmp/\u{e9}",
            "file:1:/tmp",
            "other:1",
        ] {
            assert!(Locator::parse(text).is_err(), "{text}");
        }
    }
}

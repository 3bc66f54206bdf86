//! Names of named memory and of segment files: a prefix and random digits.

use std::io;

/// The prefix of all names. Random digits follow.
pub(super) const PREFIX: &str = "shm-buffers-";

/// The number of random names that are tried. Only a process that guesses them makes more than one necessary.
const ATTEMPTS: usize = 8;

/// Calls `create` with random names until it returns anything but [`AlreadyExists`](io::ErrorKind::AlreadyExists), and returns
/// that.
pub(super) fn create_with_name<T>(mut create: impl FnMut(&str) -> io::Result<T>) -> io::Result<T> {
    let mut attempt = || create(&format!("{PREFIX}{:016x}", random()?));
    let mut created = attempt();
    for _ in 1..ATTEMPTS {
        match &created {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => created = attempt(),
            _ => break,
        }
    }
    created
}

#[cfg(target_os = "linux")]
fn random() -> io::Result<u64> {
    use rustix::rand::{GetRandomFlags, getrandom};

    let mut bytes = [0; 8];
    // A request of up to 256 bytes is never answered in part, and is not interrupted once the system has been started.
    let read = rustix::io::retry_on_intr(|| getrandom(&mut bytes[..], GetRandomFlags::empty()))?;
    match read == bytes.len() {
        true => Ok(u64::from_ne_bytes(bytes)),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

#[cfg(not(target_os = "linux"))]
fn random() -> io::Result<u64> {
    getrandom::u64().map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken<T>() -> io::Result<T> {
        Err(io::ErrorKind::AlreadyExists.into())
    }

    #[test]
    fn taken_names_are_skipped_but_not_forever() {
        let mut tried = Vec::new();
        let found = create_with_name(|name| {
            tried.push(name.to_owned());
            match tried.len() {
                1 | 2 => taken(),
                _ => Ok(name.to_owned()),
            }
        });
        assert_eq!(found.ok().as_ref(), tried.get(2));
        assert!(tried[0] != tried[1] && tried.iter().all(|name| name.len() == PREFIX.len() + 16));

        let mut attempts = 0;
        let none: io::Result<()> = create_with_name(|_| {
            attempts += 1;
            taken()
        });
        assert!(none.is_err_and(|e| e.kind() == io::ErrorKind::AlreadyExists));
        assert_eq!(attempts, ATTEMPTS);
        let other: io::Result<()> = create_with_name(|_| Err(io::ErrorKind::PermissionDenied.into()));
        assert!(other.is_err_and(|e| e.kind() == io::ErrorKind::PermissionDenied));
    }
}

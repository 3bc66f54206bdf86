//! One-shot servers that are sockets, each in a directory of its own: whose they are, and what becomes of those of leaders that died.
//!
//! A worker that connects removes its server's directory. What is left is that of a leader and a worker which both
//! died before that: the next leader removes it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// The file beside a server's socket that its leader has locked.
const MARK: &str = "proc-pool";

/// Longest path of a socket, in bytes.
pub(crate) const MAX_SOCKET_PATH: Option<usize> = {
    let unused = std::mem::offset_of!(libc::sockaddr_un, sun_path);
    Some(size_of::<libc::sockaddr_un>() - unused - 1)
};

/// Says that the server's leader lives, while it is held.
#[derive(Debug)]
pub(crate) struct Mark(#[expect(dead_code, reason = "its lock ends with it")] File);

impl Mark {
    /// Marks the directory of the server `socket`; `None` where the system can't.
    ///
    /// # Errors
    /// The server was swept away before it was marked.
    pub(crate) fn new(socket: &Path) -> io::Result<Option<Self>> {
        let path = socket.with_file_name(MARK);
        let mut options = OpenOptions::new();
        let Ok(file) = options.write(true).create_new(true).mode(0o600).open(&path) else {
            return Ok(None);
        };
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            // Without its lock it looked like a dead leader's.
            Ok(()) if file.metadata()?.nlink() > 0 => Ok(Some(Self(file))),
            Ok(()) | Err(Errno::WOULDBLOCK) => Err(io::Error::other("it was taken for a dead leader's")),
            Err(_) => {
                let _ = fs::remove_file(path);
                Ok(None)
            }
        }
    }
}

/// Whether somebody could connect to the server.
pub(crate) fn is_open(socket: &Path) -> bool {
    socket.exists()
}

/// Removes the server's socket and directory.
pub(crate) fn remove_server(socket: &Path) {
    let _ = fs::remove_file(socket);
    let _ = fs::remove_file(socket.with_file_name(MARK));
    let _ = socket.parent().map(fs::remove_dir);
}

/// Removes servers in the temporary directory `dir` whose leaders are provably dead: marked, and the mark not locked.
pub(crate) fn sweep(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let named = entry
            .file_name()
            .to_str()
            .is_some_and(|name| name.starts_with(".tmp"));
        if named && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            sweep_server(&entry.path());
        }
    }
}

fn sweep_server(dir: &Path) {
    let own = |meta: fs::Metadata| meta.uid() == rustix::process::geteuid().as_raw();
    let Ok(mark) = File::open(dir.join(MARK)) else {
        return;
    };
    let ours = fs::symlink_metadata(dir).is_ok_and(own) && mark.metadata().is_ok_and(own);
    if ours && flock(&mark, FlockOperation::NonBlockingLockExclusive).is_ok() {
        remove_server(&dir.join("socket"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_marked_and_not_held_is_swept() {
        let tmp = std::env::temp_dir().join(format!("proc-pool-sweep-{}", std::process::id()));
        let make = |name: &str| {
            let socket = tmp.join(name).join("socket");
            fs::create_dir_all(tmp.join(name)).expect("it can be made");
            fs::write(&socket, "").expect("it can be written");
            socket
        };
        let [dead, alive, strange, unlike] = [".tmpdead", ".tmpalive", ".tmpstrange", "other"].map(make);
        drop(Mark::new(&dead).expect("it is new").expect("it can be locked"));
        drop(Mark::new(&unlike).expect("it is new"));
        let mark = Mark::new(&alive).expect("it is new");
        sweep(&tmp);
        assert!(!dead.parent().is_some_and(Path::exists));
        for left in [&alive, &strange, &unlike] {
            assert!(left.exists(), "{left:?}");
        }
        drop(mark);
        sweep(&tmp);
        assert!(!alive.exists() && strange.exists());
        fs::remove_dir_all(tmp).expect("it is ours");
    }
}

//! [`scan`]: reads the blocks of a journal, and finds out whether its end was torn or its middle was damaged.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::error::JournalError;
use crate::format::{BLOCK_HEAD, MAGIC, MARKER, OutputsBlock, PID_AT, PROLOGUE, Payload, VERSION};
use crate::hash::hash_at;

/// A file, or its bytes in memory, that is read at any position.
pub(crate) trait ReadAt {
    /// Reads some bytes at a position; 0 at the end.
    fn read_some_at(&self, into: &mut [u8], position: u64) -> io::Result<usize>;

    /// Returns the number of bytes.
    fn byte_len(&self) -> io::Result<u64>;

    /// Fills `into` with the bytes at a position.
    fn read_at(&self, mut into: &mut [u8], mut position: u64) -> io::Result<()> {
        while !into.is_empty() {
            match self.read_some_at(into, position) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    into = &mut into[read..];
                    position += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl ReadAt for File {
    fn read_some_at(&self, into: &mut [u8], position: u64) -> io::Result<usize> {
        #[cfg(unix)]
        return std::os::unix::fs::FileExt::read_at(self, into, position);
        #[cfg(windows)]
        return std::os::windows::fs::FileExt::seek_read(self, into, position);
    }

    fn byte_len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}

impl<F: ReadAt> ReadAt for Arc<F> {
    fn read_some_at(&self, into: &mut [u8], position: u64) -> io::Result<usize> {
        (**self).read_some_at(into, position)
    }

    fn byte_len(&self) -> io::Result<u64> {
        (**self).byte_len()
    }
}

impl ReadAt for &[u8] {
    fn read_some_at(&self, into: &mut [u8], position: u64) -> io::Result<usize> {
        let start = usize::try_from(position).unwrap_or(usize::MAX).min(self.len());
        let len = into.len().min(self.len() - start);
        into[..len].copy_from_slice(&self[start..start + len]);
        Ok(len)
    }

    fn byte_len(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }
}

/// The reaction to damage before the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnDamage {
    Fail,
    /// Goes on with the next block that is intact.
    Skip,
}

/// The result of a scan.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Scanned {
    /// The identity of the job, as JSON.
    pub(crate) identity: Vec<u8>,
    /// The position behind the last intact block.
    pub(crate) end: u64,
    /// Bytes behind it.
    pub(crate) torn: u64,
    /// Bytes before it in no intact block; not 0 only if damage is skipped.
    pub(crate) damaged: u64,
}

/// Returns the process id of the last leader, or 0 if it is unknown.
pub(crate) fn pid(file: &impl ReadAt) -> u32 {
    let mut pid = [0; 4];
    // It is for a message only.
    file.read_at(&mut pid, PID_AT)
        .map_or(0, |()| u32::from_le_bytes(pid))
}

/// Calls `outputs` with each block of outputs, its payload, and the position of that.
pub(crate) fn scan(
    file: &impl ReadAt,
    path: &Path,
    on_damage: OnDamage,
    mut outputs: impl FnMut(OutputsBlock, &[u8], u64) -> Result<(), JournalError>,
) -> Result<Scanned, JournalError> {
    let mut blocks = Blocks::open(file, path)?;
    let damaged = |offset| JournalError::Damaged {
        path: path.to_owned(),
        offset,
    };
    let mut at = PROLOGUE as u64;
    let identity = match blocks.read(at)? {
        Some(payload) => match Payload::parse(payload) {
            Ok(Payload::Identity(json)) => json.to_vec(),
            _ => return Err(damaged(at)),
        },
        None => return Err(damaged(at)),
    };
    at += BLOCK_HEAD as u64 + blocks.payload.len() as u64;
    let mut scanned = Scanned {
        identity,
        end: at,
        torn: 0,
        damaged: 0,
    };
    while at < blocks.len {
        if blocks.read(at)?.is_some() {
            let next = at + (BLOCK_HEAD + blocks.payload.len()) as u64;
            match (Payload::parse(&blocks.payload), on_damage) {
                (Ok(Payload::Outputs(block)), _) => {
                    outputs(block, &blocks.payload, at + BLOCK_HEAD as u64)?;
                    scanned.damaged += at - scanned.end;
                    scanned.end = next;
                }
                // Another program wrote it: the checksum is right.
                (_, OnDamage::Fail) => return Err(damaged(at)),
                (_, OnDamage::Skip) => {}
            }
            at = next;
            continue;
        }
        match on_damage {
            OnDamage::Skip => match blocks.find(at + 1)? {
                Some(found) => at = found,
                None => break,
            },
            OnDamage::Fail if blocks.was_synced(at)? => return Err(damaged(at)),
            OnDamage::Fail => break,
        }
    }
    scanned.torn = blocks.len - scanned.end;
    Ok(scanned)
}

/// The blocks of a file, by position.
struct Blocks<'a, F> {
    file: &'a F,
    path: &'a Path,
    len: u64,
    /// Of the block that was read last.
    payload: Vec<u8>,
}

impl<'a, F: ReadAt> Blocks<'a, F> {
    /// Checks the prologue.
    fn open(file: &'a F, path: &'a Path) -> Result<Self, JournalError> {
        let len = file.byte_len().map_err(JournalError::os("read", path))?;
        let not = |reason: &str| JournalError::NotAJournal {
            path: path.to_owned(),
            reason: reason.to_owned(),
        };
        if len < PROLOGUE as u64 {
            return Err(not("it is too short"));
        }
        let mut prologue = [0; PROLOGUE];
        file.read_at(&mut prologue, 0)
            .map_err(JournalError::os("read", path))?;
        if prologue[..8] != MAGIC {
            return Err(not("its first bytes are others"));
        }
        let found = u32::from_le_bytes([prologue[8], prologue[9], prologue[10], prologue[11]]);
        if found != VERSION {
            return Err(JournalError::Version {
                path: path.to_owned(),
                found,
                known: VERSION,
            });
        }
        let payload = Vec::new();
        Ok(Self {
            file,
            path,
            len,
            payload,
        })
    }

    /// Reads the block at a position. Returns its payload, or `None` if there is no intact block.
    fn read(&mut self, at: u64) -> Result<Option<&[u8]>, JournalError> {
        let failed = JournalError::os("read", self.path);
        let Some(room) = self.len.checked_sub(at + BLOCK_HEAD as u64) else {
            return Ok(None);
        };
        let mut head = [0; BLOCK_HEAD];
        self.file.read_at(&mut head, at).map_err(&failed)?;
        let number = |from: usize| u64::from_le_bytes(std::array::from_fn(|byte| head[from + byte]));
        let (len, hash) = (number(4), number(12));
        self.payload.clear();
        if head[..4] != MARKER || len > room || self.payload.try_reserve(len as usize).is_err() {
            return Ok(None);
        }
        self.payload.resize(len as usize, 0);
        self.file
            .read_at(&mut self.payload, at + BLOCK_HEAD as u64)
            .map_err(&failed)?;
        Ok((hash_at(at, &self.payload) == hash).then_some(&self.payload))
    }

    /// Returns whether the bytes at a position were on the disk once: whether a later block is proof of that. Without one they are a
    /// torn end, of which the power may have left any part.
    fn was_synced(&mut self, at: u64) -> Result<bool, JournalError> {
        let mut from = at + 1;
        while let Some(found) = self.find(from)? {
            match Payload::parse(&self.payload) {
                Ok(Payload::Outputs(block)) if block.synced <= at => {}
                _ => return Ok(true),
            }
            from = found + (BLOCK_HEAD + self.payload.len()) as u64;
        }
        Ok(false)
    }

    /// Finds the next intact block at or behind a position, and reads it.
    fn find(&mut self, from: u64) -> Result<Option<u64>, JournalError> {
        const WINDOW: usize = 64 << 10;
        let mut window = vec![0; (self.len - from.min(self.len)).min(WINDOW as u64) as usize];
        let mut start = from;
        while start + (BLOCK_HEAD as u64) < self.len {
            let len = (self.len - start).min(WINDOW as u64) as usize;
            let window = &mut window[..len];
            self.file
                .read_at(window, start)
                .map_err(JournalError::os("read", self.path))?;
            for offset in 0..len - MARKER.len() + 1 {
                if window[offset..offset + MARKER.len()] == MARKER {
                    let at = start + offset as u64;
                    if self.read(at)?.is_some() {
                        return Ok(Some(at));
                    }
                }
            }
            start += (len - MARKER.len() + 1) as u64;
        }
        Ok(None)
    }
}

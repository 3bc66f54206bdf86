//! A batch: encoded tasks on their way into the pool.

/// Encoded tasks, first in, first out, in one buffer that is used again.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    /// Index, and end in `bytes`.
    tasks: Vec<(u64, usize)>,
    next: usize,
}

impl Batch {
    pub(crate) fn len(&self) -> usize {
        self.tasks.len() - self.next
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds task `index`, whose bytes `encode` appends. When that fails, nothing is added.
    pub(crate) fn push<E>(
        &mut self,
        index: u64,
        encode: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.is_empty() {
            self.bytes.clear();
            self.tasks.clear();
            self.next = 0;
        }
        let start = self.bytes.len();
        match encode(&mut self.bytes) {
            Ok(()) => {
                self.tasks.push((index, self.bytes.len()));
                Ok(())
            }
            Err(e) => {
                self.bytes.truncate(start);
                Err(e)
            }
        }
    }

    pub(crate) fn front(&self) -> Option<(u64, &[u8])> {
        let (index, end) = *self.tasks.get(self.next)?;
        let start = self.next.checked_sub(1).map_or(0, |before| self.tasks[before].1);
        Some((index, &self.bytes[start..end]))
    }

    pub(crate) fn pop(&mut self) {
        debug_assert!(!self.is_empty(), "popped what is not there");
        self.next += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_in_first_out_and_failures_leave_no_trace() {
        let mut batch = Batch::default();
        for round in 0..3u64 {
            let put = |bytes: &mut Vec<u8>| {
                bytes.extend([1, 2, 3]);
                Ok::<(), ()>(())
            };
            assert_eq!(batch.push(round, put), Ok(()));
            let fail = |bytes: &mut Vec<u8>| {
                bytes.push(9);
                Err(())
            };
            assert_eq!(batch.push(7, fail), Err(()));
            assert_eq!(batch.push(round + 10, |_| Ok::<(), ()>(())), Ok(()));
            assert_eq!(batch.front(), Some((round, &[1u8, 2, 3][..])));
            batch.pop();
            assert_eq!(batch.front(), Some((round + 10, &[][..])));
            batch.pop();
            assert!(batch.is_empty() && batch.front().is_none());
        }
    }
}

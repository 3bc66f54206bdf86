//! [`Tag`]: the kind of a frame in a ring.

/// The first byte of a frame. It says what the other bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Tag {
    /// The payload itself.
    Inline = 0,
    /// A [piece](crate::wire::pieces) of a large payload.
    Piece = 1,
    /// A [`Panic`](crate::Panic).
    Panicked = 2,
    /// Text: why the worker could not decode the task.
    BadTask = 3,
    /// Text: why the worker could not encode the output.
    BadOutput = 4,
    /// Empty: the leader recalled the task before the worker started it.
    Recalled = 5,
    /// Text: the leader sends no more pieces of a large task, of which it may have sent none. The task was recalled, or the
    /// text is the reason.
    Withdrawn = 6,
    /// A number: that many buffers of a task or an output come before it. It leaves them out.
    Buffers = 7,
    /// A buffer, which its receiver may hold: the position of its block in the arena, as in a [piece](crate::wire::pieces).
    Block = 8,
}

impl Tag {
    /// Returns the tag with this value, if there is one.
    pub(crate) fn of(byte: u8) -> Option<Self> {
        [
            Self::Inline,
            Self::Piece,
            Self::Panicked,
            Self::BadTask,
            Self::BadOutput,
            Self::Recalled,
            Self::Withdrawn,
            Self::Buffers,
            Self::Block,
        ]
        .into_iter()
        .find(|tag| *tag as u8 == byte)
    }
}

//! The handle by which another process counts for a bar, and its errors.

use std::error::Error;
use std::fmt;
use std::str::FromStr;

use shm_buffers::slots::Slots;
use shm_buffers::{AttachError, Layout, ParseHandleError, Region, RegionHandle, Span};

use super::counters::Counters;
use super::slots::{SLOTS, WriterState};

/// A reference to the counters of one writer in another process.
/// [`Bar::remote_counters`](crate::Bar::remote_counters) returns it, the worker [connects](Self::connect) with it.
///
/// A handle travels as text ([`Display`](fmt::Display) and [`FromStr`]): one word of printable ASCII characters, for an
/// environment variable, an argument or a pipe. Or with serde, as that text. While a handle is displayed or serialized
/// within [`shm_buffers::descriptors::collect`], the descriptor of its memory is collected, so that pools which send
/// descriptors to their workers send this one, too.
///
/// A handle is good for one writer. It leads to memory of the process with the bar: a worker connects while that process
/// runs, on the same machine, as the same user and (on Linux) in a container that shows the process in `/proc`. After
/// that, the worker counts whatever happens to the other process.
///
/// ```no_run
/// use progress::{CountersHandle, Outcome};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let counters = std::env::var("BAR")?.parse::<CountersHandle>()?.connect()?;
/// counters.counter(Outcome::Done).inc();
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CountersHandle(RegionHandle);

/// The start of the text of a handle.
const PREFIX: &str = "counters:";

/// The first word of the memory of a handle: the layout of what follows.
const LAYOUT: u64 = u64::from_le_bytes(*b"progres\x01");

/// The parts of the memory of a handle.
struct Parts {
    header: Span,
    slots: Span,
    bytes: usize,
}

impl Parts {
    fn new() -> Self {
        let mut layout = Layout::new();
        let (header, slots) = (layout.slots(1), layout.slots(SLOTS));
        let bytes = layout.byte_len();
        Self { header, slots, bytes }
    }
}

/// Returns the number of bytes that the memory of a handle needs.
pub(super) fn byte_len() -> usize {
    Parts::new().bytes
}

/// Returns the slots in new memory for a handle.
pub(super) fn prepare(region: &Region) -> Slots {
    let parts = Parts::new();
    Slots::new(region, parts.header).slot(0).store_release(LAYOUT);
    Slots::new(region, parts.slots)
}

impl CountersHandle {
    pub(super) fn new(region: RegionHandle) -> Self {
        Self(region)
    }

    /// Connects the one writer of this handle. The bar shows its counts immediately.
    ///
    /// Dropping the counters ends the writer: connecting again takes another handle.
    ///
    /// # Errors
    /// - [`ConnectError::Unreachable`] if the process with the bar has ended, or the [`Source`](crate::Source) is retired.
    /// - [`ConnectError::Retired`] if the source is retired, and this process has received the memory from a pool.
    /// - [`ConnectError::AlreadyConnected`] if another writer has connected before.
    /// - [`ConnectError::OtherLayout`] if another version of this crate, or no counters at all, made the memory.
    /// - [`ConnectError::Map`] if this process cannot map the memory.
    pub fn connect(&self) -> Result<Counters, ConnectError> {
        let region = Region::attach(&self.0).map_err(|source| match source {
            AttachError::Unreachable { .. } | AttachError::Replaced { .. } => {
                ConnectError::Unreachable(source)
            }
            source => ConnectError::Map(source),
        })?;
        let parts = Parts::new();
        if region.byte_len() < parts.bytes
            || Slots::new(&region, parts.header).slot(0).load_acquire() != LAYOUT
        {
            return Err(ConnectError::OtherLayout);
        }
        let slots = Slots::new(&region, parts.slots);
        let before = WriterState::start(&slots);
        if before.is_retired() || before.has_started() {
            WriterState::end(&slots);
            return Err(match before.is_retired() {
                true => ConnectError::Retired,
                false => ConnectError::AlreadyConnected,
            });
        }
        Ok(Counters::started(slots, None))
    }
}

impl fmt::Display for CountersHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", self.0)
    }
}

/// Parses the text that `Display` writes.
impl FromStr for CountersHandle {
    type Err = ParseCountersHandleError;

    fn from_str(text: &str) -> Result<Self, ParseCountersHandleError> {
        let region = text.strip_prefix(PREFIX).ok_or(ParseCountersHandleError(None))?;
        let region = region.parse().map_err(Some);
        region.map(Self).map_err(ParseCountersHandleError)
    }
}

shm_buffers::serde_as_text!(CountersHandle, "the text of a counters handle");

/// The error of parsing a [`CountersHandle`] from a text that no handle displays.
#[derive(Clone, PartialEq, Eq)]
pub struct ParseCountersHandleError(
    /// `None` if the text does not start with [`PREFIX`].
    Option<ParseHandleError>,
);

impl fmt::Display for ParseCountersHandleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(_) => f.write_str("cannot read where the counters of a bar are"),
            None => write!(
                f,
                "not a counters handle, whose text starts with `{PREFIX}`; pass on the text of a `CountersHandle` unchanged"
            ),
        }
    }
}

impl Error for ParseCountersHandleError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        let source = self.0.as_ref()?;
        Some(source)
    }
}

/// The error of [connecting](CountersHandle::connect) a writer to a bar.
#[non_exhaustive]
pub enum ConnectError {
    /// The process with the bar has ended or retired the writer, or this process cannot reach its memory.
    Unreachable(AttachError),
    /// The process with the bar has retired the writer.
    Retired,
    /// A writer has connected with this handle before.
    AlreadyConnected,
    /// The memory has another layout than that of this crate's counters.
    OtherLayout,
    /// The memory exists, but this process cannot map it.
    Map(AttachError),
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreachable(_) => {
                "cannot connect to a bar: the process with the bar has ended or retired this writer, or is out of \
                 reach; open a handle for each worker, and keep its `Source` until the worker has ended"
            }
            Self::Retired => {
                "cannot connect to a bar: this writer is retired; open a handle for each worker, and keep its \
                 `Source` until the worker has ended"
            }
            Self::AlreadyConnected => {
                "cannot connect to a bar: a writer has connected with this handle before, and two would lose \
                 counts; open a handle for each worker, and another one for its replacement"
            }
            Self::OtherLayout => {
                "cannot connect to a bar: the handle leads to memory with another layout; build both programs with \
                 the same version of `progress`"
            }
            Self::Map(_) => "cannot connect to a bar: its memory is not usable in this process",
        })
    }
}

impl Error for ConnectError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Unreachable(source) | Self::Map(source) => Some(source),
            Self::Retired | Self::AlreadyConnected | Self::OtherLayout => None,
        }
    }
}

shm_buffers::debug_with_causes!(ParseCountersHandleError, ConnectError);

#[cfg(test)]
mod tests {
    use shm_buffers::{Backing, assert_said_once};

    use super::*;

    #[test]
    fn each_message_is_said_once_and_has_a_remedy() {
        let gone = Region::create(&Backing::Auto, byte_len()).expect("memory");
        let handle = gone.handle().expect("its owner");
        drop(gone);
        let attach = || Region::attach(&handle).expect_err("it is gone");
        let connect = [
            ConnectError::Unreachable(attach()),
            ConnectError::Retired,
            ConnectError::AlreadyConnected,
            ConnectError::OtherLayout,
            ConnectError::Map(attach()),
        ];
        for error in &connect {
            assert_said_once(error);
        }
        for error in &connect[..4] {
            assert!(error.to_string().contains("; "), "{error}");
        }
        for text in ["", "counters:x"] {
            assert_said_once(&text.parse::<CountersHandle>().expect_err("no handle"));
        }
    }
}

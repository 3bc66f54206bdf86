//! The handle by which a worker connects to a source that its leader has opened.

use std::error::Error;
use std::fmt;
use std::str::FromStr;

use shm_buffers::RegionHandle;

use crate::filter::Filter;
use crate::filter::text::{push_escaped, unescape};
use crate::wire::shared_memory::SharedMemory;

/// The first part of a handle's text. The number changes with the text and with the division of the region.
const VERSION: &str = "lb1";
/// Bytes of a handle's text. A longer one is refused before it is parsed.
const MAX_TEXT: usize = 32 * 1024;
/// Bytes of a filter's text within it.
pub(crate) const MAX_FILTER_TEXT: usize = 16 * 1024;

/// A reference to a source that a leader has [opened](crate::Collector::open): its memory and the filter of its worker.
///
/// It travels to the worker as text, by [`Display`](fmt::Display) and [`FromStr`] or by serde. The text is one word of ASCII
/// characters without blanks and quotes, suited for an environment variable or an argument. The worker calls
/// [`connect`](Self::connect), once.
///
/// The memory exists as long as the source is in its collector. The worker must run as the same user on the same machine.
/// On Linux it opens the memory through `/proc`, unless it has received the descriptors that
/// `shm_buffers::descriptors::collect` finds while the handle is written.
///
/// ```
/// use log_bridge::{Collector, SourceHandle};
///
/// let mut collector = Collector::new();
/// let source = collector.open(7)?;
/// let text = source.to_string();
/// assert_eq!(text.parse::<SourceHandle>()?, source);
/// let _worker = source.connect()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a worker connects with it"]
pub struct SourceHandle {
    pub(crate) id: u64,
    pub(crate) ring_bytes: usize,
    pub(crate) filter: Filter,
    pub(crate) region: RegionHandle,
}

impl SourceHandle {
    /// Returns the worker's id in its collector.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Returns the size of the ring in bytes.
    #[must_use]
    pub fn ring_bytes(&self) -> usize {
        self.ring_bytes
    }

    /// Returns the filter that the worker starts with.
    pub fn filter(&self) -> &Filter {
        &self.filter
    }
}

/// Why a text is not a [`SourceHandle`].
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParseSourceHandleError {
    /// The text is longer than that of any handle.
    TooLong {
        /// Bytes of the text.
        bytes: usize,
    },
    /// The text begins differently: it is something else, or the handle of another version of this crate.
    Version,
    /// A part is missing or malformed.
    Malformed {
        /// The name of the part.
        part: &'static str,
    },
}

impl fmt::Display for ParseSourceHandleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { bytes } => write!(
                f,
                "cannot parse a log source handle of {bytes} bytes: at most {MAX_TEXT} are possible; pass on the text that the leader's handle displays"
            ),
            Self::Version => write!(
                f,
                "cannot parse a log source handle: the text does not begin with `{VERSION}.`; pass on the text that the leader's handle displays, and build leader and worker with the same version of log-bridge"
            ),
            Self::Malformed { part } => write!(
                f,
                "cannot parse a log source handle: its {part} is missing or malformed; pass on the whole text that the leader's handle displays"
            ),
        }
    }
}

impl Error for ParseSourceHandleError {}

impl fmt::Display for SourceHandle {
    /// Writes the version, id, size of the ring, filter and region, separated by dots.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut region = String::new();
        // Also notes the region's descriptor for `shm_buffers::descriptors::collect`.
        push_escaped(&mut region, &self.region.to_string());
        let filter = self.filter.to_word();
        write!(f, "{VERSION}.{}.{}.{filter}.{region}", self.id, self.ring_bytes)
    }
}

impl FromStr for SourceHandle {
    type Err = ParseSourceHandleError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = text.len();
        if bytes > MAX_TEXT {
            return Err(ParseSourceHandleError::TooLong { bytes });
        }
        let mut parts = text.split('.');
        if parts.next() != Some(VERSION) {
            return Err(ParseSourceHandleError::Version);
        }
        let malformed = |part| ParseSourceHandleError::Malformed { part };
        let mut part = |name, last: bool| {
            let text = parts.next().ok_or(malformed(name))?;
            match last && parts.next().is_some() {
                true => Err(malformed(name)),
                false => Ok(text),
            }
        };
        let id = number(part("id", false)?).ok_or(malformed("id"))?;
        let size = part("ring size", false)?;
        let ring_bytes = number(size).and_then(|bytes| usize::try_from(bytes).ok());
        let ring_bytes = ring_bytes.filter(|bytes| SharedMemory::new(*bytes).is_some());
        let filter = Filter::from_word(part("filter", false)?);
        let region = unescape(part("region", true)?).and_then(|region| region.parse().ok());
        Ok(Self {
            id,
            ring_bytes: ring_bytes.ok_or(malformed("ring size"))?,
            filter: filter.ok_or(malformed("filter"))?,
            region: region.ok_or(malformed("region"))?,
        })
    }
}

/// Returns the number that `text` is, without a sign.
fn number(text: &str) -> Option<u64> {
    text.parse().ok().filter(|_| !text.starts_with('+'))
}

shm_buffers::serde_as_text!(SourceHandle, "the text of a log source handle");
shm_buffers::debug_with_causes!(ParseSourceHandleError);

//! [`Copies`]: what happens if a model is not shared whole, because parts of it are no buffers.

use std::fmt::{self, Write as _};
use std::str::FromStr;

use shm_buffers::{ByteSize, ModelMemory};

/// The environment variable that selects what happens if a model is not shared whole: `warn`, `refuse` or `allow`. See
/// [`Copies`].
pub const COPIES_VARIABLE: &str = "INVOKER_COPIES";

/// Fewer copied bytes are nothing to warn of.
const TOLERATED: u64 = 1 << 20;
/// More buffers are worth a warning: each worker makes an object for each of them, of 32 bytes or more.
const MANY_BUFFERS: u64 = 100_000;
/// The most fields that a warning names.
const NAMED: usize = 5;

/// What happens if more than 1 MiB of a model is copied: rebuilt by each worker process on its own heap, because it is no
/// [`Buffer`](crate::Buffer), or copied from a mapped file. A model of more than 100,000 buffers counts as well: each worker
/// makes an object for each of them. For [`Processes::copies`](crate::Processes::copies).
///
/// Parsed and printed as `warn`, `refuse` or `allow`.
///
/// ```
/// use invoker::Copies;
///
/// assert_eq!("refuse".parse(), Ok(Copies::Refuse));
/// assert_eq!(Copies::default().to_string(), "warn");
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Copies {
    /// One event at WARN, with target `invoker`, names the largest fields and the types to use instead.
    #[default]
    Warn,
    /// [`Builder::build`](crate::Builder::build) returns [`Error::Copied`](crate::Error::Copied).
    Refuse,
    /// Nothing. The [`Report`](crate::Report) has the bytes.
    Allow,
}

impl Copies {
    const ALL: [Self; 3] = [Self::Warn, Self::Refuse, Self::Allow];

    fn name(self) -> &'static str {
        match self {
            Self::Warn => "warn",
            Self::Refuse => "refuse",
            Self::Allow => "allow",
        }
    }

    /// Warns of the copies of a model for each of these workers, or refuses them.
    pub(crate) fn check(self, memory: ModelMemory, workers: usize) -> Result<(), CopiedError> {
        if memory.per_process <= TOLERATED && memory.copied <= TOLERATED && memory.buffers <= MANY_BUFFERS {
            return Ok(());
        }
        match self {
            Self::Allow => Ok(()),
            Self::Warn => {
                tracing::warn!(target: "invoker", "{}", describe(&memory, workers));
                Ok(())
            }
            Self::Refuse => Err(CopiedError {
                memory: Box::new(memory),
                workers,
            }),
        }
    }
}

impl fmt::Display for Copies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Copies {
    type Err = ParseCopiesError;

    fn from_str(name: &str) -> Result<Self, ParseCopiesError> {
        let found = Self::ALL.into_iter().find(|copies| copies.name() == name);
        found.ok_or_else(|| ParseCopiesError(name.to_owned()))
    }
}

/// The error of parsing [`Copies`].
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("copies can't be {0:?}: use warn, refuse or allow")]
pub struct ParseCopiesError(String);

shm_buffers::debug_with_causes!(ParseCopiesError);

/// The error of a model that is not shared whole, with [`Copies::Refuse`].
#[derive(Clone, thiserror::Error)]
#[error("{}", describe(memory, *workers))]
#[non_exhaustive]
pub struct CopiedError {
    /// Where the bytes of the model are.
    pub memory: Box<ModelMemory>,
    /// The number of workers.
    pub workers: usize,
}

shm_buffers::debug_with_causes!(CopiedError);

/// Describes what is copied, and what to use instead.
fn describe(memory: &ModelMemory, workers: usize) -> String {
    let mut text = String::new();
    let mut put = |part: fmt::Arguments<'_>| {
        // Writing to a string does not fail.
        let _ = text.write_fmt(part);
    };
    put(format_args!("the model is not shared whole: "));
    let mut separator = "";
    if memory.per_process > TOLERATED {
        let (each, all) = (
            memory.per_process,
            memory.per_process.saturating_mul(workers as u64),
        );
        put(format_args!(
            "each worker rebuilds {} on its heap, {} in {workers} workers",
            ByteSize(each),
            ByteSize(all)
        ));
        separator = "; ";
    }
    if memory.copied > TOLERATED {
        put(format_args!(
            "{separator}{} of buffers in small mapped segments were copied; put the buffers into fewer segments or files",
            ByteSize(memory.copied)
        ));
        separator = "; ";
    }
    if memory.buffers > MANY_BUFFERS {
        put(format_args!(
            "{separator}each worker makes an object for each of {} buffers; put small buffers of one type together, into `Lists`",
            memory.buffers
        ));
    }
    for (index, field) in memory.fields.iter().take(NAMED).enumerate() {
        let separator = if index == 0 { ": " } else { "; " };
        let path = match &*field.path {
            "" => "the model",
            path => path,
        };
        put(format_args!(
            "{separator}{path}: {}, {} per worker",
            field.type_name,
            ByteSize(field.bytes)
        ));
        if let Some(suggestion) = &field.suggestion {
            put(format_args!(" → {suggestion}"));
        }
    }
    put(format_args!(
        "; to allow it, use `Processes::copies(Copies::Allow)` or {}=allow",
        COPIES_VARIABLE
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_back() {
        for copies in Copies::ALL {
            assert_eq!(copies.to_string().parse(), Ok(copies));
        }
        let error = "ignore".parse::<Copies>().expect_err("no such policy");
        assert_eq!(
            error.to_string(),
            "copies can't be \"ignore\": use warn, refuse or allow"
        );
    }

    #[test]
    fn up_to_one_mebibyte_is_tolerated() {
        let mut memory = ModelMemory::default();
        (memory.per_process, memory.copied) = (TOLERATED, TOLERATED);
        assert!(Copies::Refuse.check(memory.clone(), 2).is_ok());
        memory.copied += 1;
        let error = Copies::Refuse
            .check(memory.clone(), 2)
            .expect_err("it is too much");
        let expected = "the model is not shared whole: 1.0 MiB of buffers in small mapped segments were copied; \
                        put the buffers into fewer segments or files; to allow it, use `Processes::copies(Copies::Allow)` or \
                        INVOKER_COPIES=allow";
        assert_eq!(error.to_string(), expected);
        assert!(Copies::Allow.check(memory, 2).is_ok());
    }

    #[test]
    fn many_buffers_are_to_become_lists() {
        let mut memory = ModelMemory::default();
        memory.buffers = MANY_BUFFERS;
        assert!(Copies::Refuse.check(memory.clone(), 2).is_ok());
        memory.buffers += 1;
        let refused = |memory| Copies::Refuse.check(memory, 2).expect_err("too many buffers");
        let advice = "each worker makes an object for each of 100001 buffers; put small buffers of one type together, into `Lists`";
        let expected = format!(
            "the model is not shared whole: {advice}; to allow it, use `Processes::copies(Copies::Allow)` or INVOKER_COPIES=allow"
        );
        assert_eq!(refused(memory.clone()).to_string(), expected);
        memory.per_process = 4 << 20;
        let start =
            "the model is not shared whole: each worker rebuilds 4.0 MiB on its heap, 8.0 MiB in 2 workers";
        assert!(
            refused(memory)
                .to_string()
                .starts_with(&format!("{start}; {advice}; "))
        );
    }
}

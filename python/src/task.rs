//! Tasks and outputs on their way between leader and worker.
//!
//! The first byte of a payload says what follows: a value in the [native encoding](crate::codec), a pickle, or the pickle of an exception
//! that the op has raised.

use proc_pool::{BoxError, Codec, OwnedBytes};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyBytes;

use crate::codec::{self, Decoder, Source};
use crate::memory::Memory;

const VALUE: u8 = 0;
const PICKLE: u8 = 1;
const RAISED: u8 = 2;
/// 8 bytes of the task's seed follow, and then the payload of the task.
const SEEDED: u8 = 3;
/// The bytes of a seed and its mark.
const SEED_LEN: usize = 9;

/// Received payloads of at least this many bytes become memory that large arrays view.
const MIN_OWNED: usize = 32 << 10;

/// The functions of the module `_pickle`.
struct Pickle {
    dumps: Py<PyAny>,
    loads: Py<PyAny>,
    dump_raised: Py<PyAny>,
    load_raised: Py<PyAny>,
    same_in_each_process: Py<PyAny>,
}

impl Pickle {
    fn get(py: Python<'_>) -> PyResult<&Self> {
        static PICKLE: PyOnceLock<Pickle> = PyOnceLock::new();
        PICKLE.get_or_try_init(py, || {
            let module = py.import("invokerpool._pickle")?;
            let function = |name: &str| Ok::<_, PyErr>(module.getattr(name)?.unbind());
            Ok(Self {
                dumps: function("dumps")?,
                loads: function("loads")?,
                dump_raised: function("dump_raised")?,
                load_raised: function("load_raised")?,
                same_in_each_process: function("same_in_each_process")?,
            })
        })
    }
}

/// Appends the seed of a task, before its payload: a mix of the root and the task's index.
pub(crate) fn put_seed(root: u64, index: u64, out: &mut Vec<u8>) {
    // SplitMix64 (Steele, Lea and Flood 2014), whose state advances by this constant for each number.
    let mut mixed = root.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    out.push(SEEDED);
    out.extend_from_slice(&(mixed ^ (mixed >> 31)).to_le_bytes());
}

/// Returns the seed of a task, if it has one, and where its payload starts.
pub(crate) fn seed(task: &[u8]) -> (Option<u64>, usize) {
    match task
        .split_first()
        .and_then(|(mark, rest)| Some((mark, rest.first_chunk()?)))
    {
        Some((&SEEDED, seed)) => (Some(u64::from_le_bytes(*seed)), SEED_LEN),
        _ => (None, 0),
    }
}

/// Replaces what differs between processes in the payload of a task that starts at `start`: only pickles have such parts.
///
/// # Errors
/// Those of Python.
pub(crate) fn normalize(task: &mut Vec<u8>, start: usize) -> PyResult<()> {
    let Some(bytes) = task.get(start..) else {
        return Ok(());
    };
    let pickle = start + seed(bytes).1;
    if task.get(pickle) != Some(&PICKLE) {
        return Ok(());
    }
    Python::attach(|py| {
        let bytes = PyBytes::new(py, &task[pickle + 1..]);
        let known = Pickle::get(py)?.same_in_each_process.bind(py).call1((bytes,))?;
        task.truncate(pickle + 1);
        task.extend_from_slice(known.cast::<PyBytes>()?.as_bytes());
        Ok(())
    })
}

/// Returns whether a payload is an exception that the op has raised.
pub(crate) fn is_raised(payload: &[u8]) -> bool {
    payload.first() == Some(&RAISED)
}

/// Appends the payload of a value to a buffer that is empty or has a seed.
pub(crate) fn encode(value: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> PyResult<()> {
    let start = out.len();
    out.push(VALUE);
    if codec::encode(value, out) {
        return Ok(());
    }
    out.truncate(start);
    out.push(PICKLE);
    append(&Pickle::get(value.py())?.dumps, value, out)
}

/// Appends the payload of an exception that an op has raised to an empty buffer.
pub(crate) fn encode_raised(py: Python<'_>, error: &PyErr, out: &mut Vec<u8>) -> PyResult<()> {
    out.push(RAISED);
    // With its traceback.
    let error = error.clone_ref(py).into_value(py);
    append(&Pickle::get(py)?.dump_raised, error.bind(py).as_any(), out)
}

fn append(dumps: &Py<PyAny>, value: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> PyResult<()> {
    let bytes = dumps.bind(value.py()).call1((value,))?;
    out.extend_from_slice(bytes.cast::<PyBytes>()?.as_bytes());
    Ok(())
}

/// Returns the value of a payload.
///
/// # Errors
/// The exception of a payload that is one; errors of the decoder and of pickle.
pub(crate) fn decode<'py>(py: Python<'py>, source: Source<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    decode_from(py, source, 0)
}

/// Like [`decode`], for a payload that starts at `start`.
pub(crate) fn decode_from<'py>(
    py: Python<'py>,
    source: Source<'_, 'py>,
    start: usize,
) -> PyResult<Bound<'py, PyAny>> {
    let (Source::Borrowed(bytes) | Source::Owned(bytes, _)) = source;
    let pickled = |bytes| PyBytes::new(py, bytes);
    match bytes.get(start..).and_then(<[u8]>::split_first) {
        Some((&VALUE, _)) => Decoder::new(py, source, start + 1).value(),
        Some((&PICKLE, rest)) => Pickle::get(py)?.loads.bind(py).call1((pickled(rest),)),
        Some((&RAISED, rest)) => {
            let raised = Pickle::get(py)?.load_raised.bind(py).call1((pickled(rest),))?;
            Err(PyErr::from_value(raised))
        }
        _ => Err(pyo3::exceptions::PyValueError::new_err("malformed payload")),
    }
}

/// Returns the value of a payload in memory that may be taken. Large arrays are views of it.
pub(crate) fn decode_owned<'py>(py: Python<'py>, bytes: Vec<u8>) -> PyResult<Bound<'py, PyAny>> {
    if bytes.len() < MIN_OWNED || bytes.first() != Some(&VALUE) {
        return decode(py, Source::Borrowed(&bytes));
    }
    let memory = Bound::new(py, Memory::new(bytes))?;
    Memory::with_bytes(&memory, |bytes| decode(py, Source::Owned(bytes, memory.as_any())))
}

/// An encoded task. Small ones need no allocation.
pub(crate) enum Encoded {
    /// An int without a seed, the most frequent task.
    Int(i64),
    Small {
        len: u8,
        bytes: [u8; Self::SMALL],
    },
    Large(Vec<u8>),
    /// The task could not be encoded. Its exception is kept by whoever encoded it.
    Failed,
}

impl Encoded {
    const SMALL: usize = 55;

    /// Appends the encoding, if there is one.
    #[inline]
    pub(crate) fn append_to(&self, into: &mut Vec<u8>) -> Option<()> {
        match self {
            Self::Int(value) => {
                into.push(VALUE);
                codec::encode_int(*value, into);
            }
            Self::Small { len, bytes } => into.extend_from_slice(&bytes[..usize::from(*len)]),
            Self::Large(bytes) => into.extend_from_slice(bytes),
            Self::Failed => return None,
        }
        Some(())
    }

    /// Takes the bytes out of `buffer`, whose memory is kept for the next task if that is small.
    pub(crate) fn take(buffer: &mut Vec<u8>) -> Self {
        let mut bytes = [0; Self::SMALL];
        match (u8::try_from(buffer.len()), bytes.get_mut(..buffer.len())) {
            (Ok(len), Some(small)) => {
                small.copy_from_slice(buffer);
                Self::Small { len, bytes }
            }
            _ => Self::Large(std::mem::take(buffer)),
        }
    }
}

/// The text of the fault of a task that could not be encoded.
const NOT_ENCODED: &str = "it cannot be pickled";

/// The leader's codec of tasks that are encoded already.
pub(crate) struct TaskCodec;

impl Codec<Encoded> for TaskCodec {
    #[inline]
    fn encode(task: &Encoded, into: &mut Vec<u8>) -> Result<(), BoxError> {
        Ok(task.append_to(into).ok_or(NOT_ENCODED)?)
    }

    #[inline]
    fn into_owned(task: Encoded) -> Result<OwnedBytes, Encoded> {
        match task {
            Encoded::Large(bytes) => OwnedBytes::from_vec(bytes).map_err(Encoded::Large),
            other => Err(other),
        }
    }

    fn decode(_: &[u8]) -> Result<Encoded, BoxError> {
        Err("the leader decodes no tasks".into())
    }
}

/// The value of an output, or the exception that the op has raised, or that decoding has. The exception is boxed, because most outputs
/// have none, and all are moved.
pub(crate) struct Reply(pub(crate) Result<Py<PyAny>, Box<PyErr>>);

impl Reply {
    fn new(decoded: PyResult<Bound<'_, PyAny>>) -> Self {
        Self(decoded.map(Bound::unbind).map_err(Box::new))
    }

    /// Returns the value, or raises the exception.
    pub(crate) fn into_result(self) -> PyResult<Py<PyAny>> {
        self.0.map_err(|error| *error)
    }
}

/// The leader's codec of outputs.
pub(crate) struct ReplyCodec;

impl Codec<Reply> for ReplyCodec {
    fn encode(_: &Reply, _: &mut Vec<u8>) -> Result<(), BoxError> {
        Err("the leader encodes no outputs".into())
    }

    #[inline]
    fn decode(bytes: &[u8]) -> Result<Reply, BoxError> {
        Ok(Python::attach(|py| {
            Reply::new(decode(py, Source::Borrowed(bytes)))
        }))
    }

    fn decode_owned(bytes: &mut OwnedBytes) -> Result<Reply, BoxError> {
        let bytes = std::mem::take(bytes).into_vec::<u8>();
        let bytes = bytes.unwrap_or_else(|other| other.to_vec());
        Ok(Python::attach(|py| Reply::new(decode_owned(py, bytes))))
    }
}

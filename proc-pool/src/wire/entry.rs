//! [`Entry`]: which functions a worker runs, in a form that is valid in another process.
//!
//! A function pointer means nothing in another process, because address spaces are randomized. But wherever the same
//! executable or library is loaded, the distance between two of its functions is the same. So the leader sends the distance
//! of each function from an anchor function, and the identity of the loaded object that contains the anchor. A worker calls
//! the functions only if the same object contains its own anchor, and if that object has executable memory at the distance.
//!
//! The object is the executable, or the library that this crate is linked into. It is found by the address of the anchor,
//! not by the program's name; so it is also right for a program that was started through its loader, and for a pool in a
//! library.
//!
//! A separate worker program has its ops by name instead: [`NamedEntry`].

use std::any::{TypeId, type_name};
use std::hash::{Hash, Hasher};
use std::io;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use crate::error::PoolError;
use crate::os::object::{Identity, LoadedObject, Located};

/// The code that a worker runs, in a form that is valid in another process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Entry {
    /// Functions of the leader's own program.
    Own(OwnEntry),
    /// An op that a separate worker program has registered.
    Named(NamedEntry),
}

/// Functions of the object that this crate is linked into.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OwnEntry {
    object: Identity,
    main: Offset,
    pub(crate) op_type: OpType,
    op: Vec<Offset>,
}

/// The position of a function: its distance from the anchor, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Offset(usize);

/// The type of an op, as a number that is the same in all processes of a program: a hash (FNV-1a) of its `TypeId`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OpType(u64);

impl OpType {
    pub(crate) fn of<O: 'static>() -> Self {
        struct Fnv(u64);

        impl Hasher for Fnv {
            fn finish(&self) -> u64 {
                self.0
            }

            fn write(&mut self, bytes: &[u8]) {
                for byte in bytes {
                    self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
                }
            }
        }

        let mut hasher = Fnv(0xcbf2_9ce4_8422_2325);
        TypeId::of::<O>().hash(&mut hasher);
        Self(hasher.finish())
    }
}

/// The name of the op that a leader asks for, and the leader's names of its types.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NamedEntry {
    pub(crate) name: String,
    pub(crate) types: TypeNames,
}

/// The names of the types of an op's values and codecs. Leader and worker program compare them before the first task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TypeNames {
    init: String,
    task: String,
    output: String,
    task_codec: String,
    output_codec: String,
}

impl TypeNames {
    pub(crate) fn of<I, T, R, CT, CR>() -> Self {
        Self {
            init: type_name::<I>().to_owned(),
            task: type_name::<T>().to_owned(),
            output: type_name::<R>().to_owned(),
            task_codec: type_name::<CT>().to_owned(),
            output_codec: type_name::<CR>().to_owned(),
        }
    }

    /// Returns the names for a `Service`. Its only type is bytes.
    pub(crate) fn bytes() -> Self {
        Self {
            init: "bytes".to_owned(),
            task: "bytes".to_owned(),
            output: "bytes".to_owned(),
            task_codec: "none".to_owned(),
            output_codec: "none".to_owned(),
        }
    }

    /// Describes each difference between `self`, the worker's types, and the leader's types.
    pub(crate) fn differences(&self, leaders: &Self) -> Vec<String> {
        let pairs = [
            ("its task", &self.task, &leaders.task),
            ("its output", &self.output, &leaders.output),
            ("its initial value", &self.init, &leaders.init),
            ("its tasks' codec", &self.task_codec, &leaders.task_codec),
            ("its outputs' codec", &self.output_codec, &leaders.output_codec),
        ];
        let different = pairs.into_iter().filter(|(_, worker, leader)| worker != leader);
        different
            .map(|(what, worker, leader)| {
                format!("{what} is {worker} for the worker and {leader} for the leader")
            })
            .collect()
    }
}

/// Why a worker refuses to run what its leader asks for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Refusal {
    #[error("cannot identify the executable or library that it runs: {0}")]
    Unidentified(io::Error),
    #[error(
        "runs another executable than its leader, or another version of the library with the pool; was it replaced?"
    )]
    OtherObject,
    #[error("was given a function at distance {0:#x}, where its executable has no code")]
    NotCode(usize),
    #[error("{0}")]
    NoMatchingOp(String),
}

impl OwnEntry {
    /// Converts addresses of functions in this process to offsets in its program.
    ///
    /// # Errors
    /// [`PoolError::EntryInOtherLibrary`] if one is not in the object that this crate is linked into.
    pub(crate) fn of(main: usize, op_type: OpType, op: &[usize]) -> Result<Self, PoolError> {
        let object = object().map_err(PoolError::io("identify the program's executable"))?;
        let offset = |address| match object.locate(address) {
            Located::Code => Ok(Offset(address.wrapping_sub(anchor_address()))),
            Located::Data | Located::Elsewhere => Err(PoolError::EntryInOtherLibrary),
        };
        Ok(Self {
            object: object.identity().clone(),
            main: offset(main)?,
            op_type,
            op: op
                .iter()
                .map(|address| offset(*address))
                .collect::<Result<_, _>>()?,
        })
    }

    /// Finds the functions in this process. Each returned address is executable memory of the object that contains the anchor,
    /// and that is the object that [`OwnEntry::of`] found in the leader, with the same segments. So no address is null.
    ///
    /// # Errors
    /// The reason why this process refuses to run them.
    pub(crate) fn locate(&self) -> Result<Functions, Refusal> {
        let object = object().map_err(Refusal::Unidentified)?;
        if !object.identity().is(&self.object) {
            return Err(Refusal::OtherObject);
        }
        let address = |offset: &Offset| {
            let address = anchor_address().wrapping_add(offset.0);
            match object.locate(address) {
                Located::Code => Ok(address),
                Located::Data | Located::Elsewhere => Err(Refusal::NotCode(offset.0)),
            }
        };
        Ok(Functions {
            main: address(&self.main)?,
            op_type: self.op_type,
            op: self.op.iter().map(address).collect::<Result<_, _>>()?,
        })
    }
}

/// Describes functions of this program so that equal descriptions mean equal code, also in other processes and at other times: where
/// they are, in which build.
///
/// # Errors
/// [`PoolError::EntryInOtherLibrary`] if one is not in the object that this crate is linked into.
pub(crate) fn describe(op_type: OpType, addresses: &[usize]) -> Result<String, PoolError> {
    let own = OwnEntry::of(anchor_address(), op_type, addresses)?;
    let offsets: Vec<String> = own.op.iter().map(|offset| format!("{:x}", offset.0)).collect();
    Ok(format!("{} at {}", own.object.describe(), offsets.join(" ")))
}

/// The addresses in this process of the functions of an [`OwnEntry`].
#[derive(Debug)]
pub(crate) struct Functions {
    pub(crate) main: usize,
    pub(crate) op_type: OpType,
    pub(crate) op: Vec<usize>,
}

/// The function from which all distances are measured.
#[inline(never)]
fn anchor() {}

fn anchor_address() -> usize {
    anchor as fn() as usize
}

/// Returns the object that contains the anchor.
fn object() -> io::Result<&'static LoadedObject> {
    static OBJECT: OnceLock<LoadedObject> = OnceLock::new();
    if let Some(object) = OBJECT.get() {
        return Ok(object);
    }
    let object = LoadedObject::containing(anchor_address())?;
    Ok(OBJECT.get_or_init(|| object))
}

/// Finds the object that contains the anchor, and remembers its identity. It is done early, because some systems know the
/// object's file only by its path, where another file may be later.
///
/// # Errors
/// When nothing identifies the object; then no pool can be built.
pub(crate) fn identify() -> io::Result<()> {
    object().map(drop)
}

#[cfg(test)]
#[allow(unsafe_code, reason = "looks a library function up")]
pub(crate) mod tests {
    use super::*;

    fn main() {}

    fn double(n: u64) -> u64 {
        2 * n
    }

    fn own() -> OwnEntry {
        let double = double as fn(u64) -> u64;
        let op_type = OpType::of::<fn(u64) -> u64>();
        let functions = [double as usize, main as fn() as usize];
        OwnEntry::of(main as fn() as usize, op_type, &functions)
            .expect("the functions are in this executable")
    }

    #[test]
    fn another_object_is_refused() {
        let mut other = own();
        let library = LoadedObject::containing(libc_function());
        let object = library.map(|library| library.identity().clone());
        other.object = object.expect("the library is loaded from a file");
        let refused = other.locate().expect_err("another object");
        assert!(matches!(refused, Refusal::OtherObject), "{refused}");
    }

    /// The address of a function in another object than this crate's.
    pub(crate) fn libc_function() -> usize {
        #[cfg(unix)]
        {
            let name = c"getpid";
            // SAFETY: the name is a C string; any function of that name will do.
            let address = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
            address as usize
        }
        #[cfg(windows)]
        {
            use windows_sys::Win32::System::LibraryLoader::{GetModuleHandleA, GetProcAddress};
            // SAFETY: the name ends with a null byte; every process has this module, and keeps it.
            let module = unsafe { GetModuleHandleA(c"kernel32.dll".as_ptr().cast()) };
            // SAFETY: as above.
            let function = unsafe { GetProcAddress(module, c"GetCurrentProcess".as_ptr().cast()) };
            function.expect("the module has it") as usize
        }
    }

    #[test]
    fn distances_to_anything_but_code_are_refused() {
        static DATA: [u8; 4] = [1; 4];
        let from_anchor = |address: usize| Offset(address.wrapping_sub(anchor_address()));
        let local = 0u8;
        for offset in [
            from_anchor(DATA.as_ptr() as usize),
            from_anchor(&raw const local as usize),
            from_anchor(libc_function()),
            from_anchor(0),
            Offset(usize::MAX / 2),
        ] {
            let mut main = own();
            main.main = offset;
            let mut op = own();
            op.op[1] = offset;
            for wrong in [main, op] {
                let refused = wrong.locate().expect_err("no code");
                assert!(
                    matches!(refused, Refusal::NotCode(distance) if distance == offset.0),
                    "{refused}"
                );
            }
        }
    }

    /// For such a program, the system reports the loader as the executable.
    #[cfg(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu"))]
    #[test]
    fn a_program_started_through_its_loader_is_the_same_object() {
        const SHOW: &str = "ENTRY_SHOW_OBJECT";
        let object = object().expect("the test is loaded from a file");
        let shown = format!("{:?}", object.identity());
        if std::env::var_os(SHOW).is_some() {
            return println!("{shown}");
        }
        let name = std::thread::current().name().map(str::to_owned);
        let output = std::process::Command::new("/lib64/ld-linux-x86-64.so.2")
            .arg(std::env::current_exe().expect("the test has a path"))
            .args([
                &*name.expect("tests have names"),
                "--exact",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(SHOW, "1")
            .output()
            .expect("the loader can be started");
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert!(stdout.contains(&shown), "{shown} is not in {stdout}");
    }
}

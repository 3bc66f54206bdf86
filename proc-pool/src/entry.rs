//! The worker's entry point and op: how the leader says which functions a worker runs.
//!
//! A worker program of its own knows its ops by name: see [`Registry`]. As for workers that are the leader's own
//! program:
//!
//! A function pointer means nothing in another process: address spaces are randomized. But where the same executable or
//! library is loaded, the distance between two functions of it is the same. What crosses is the distance of each
//! function from an anchor, and the identity of the object that holds the anchor. A worker goes there only if the same
//! object holds its own anchor, and executable memory of that object is at the distance.
//!
//! The object is the executable, or the library that this crate is linked into: it is found by the anchor, not by the
//! program's name, so that programs which were started through their loader and pools in libraries are right as well.
#![allow(unsafe_code)]

use std::io;
use std::mem::transmute;
use std::ptr::with_exposed_provenance;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use crate::codec::Codec;
use crate::error::PoolError;
use crate::op::{Code, Kind};
use crate::os::object::{Identity, Loaded, Located};
use crate::registry::{Named, Registry};
use crate::service::{Service, Typed, Worker};
use crate::worker::{Bootstrap, serve};

/// What a worker process runs instead of `main`.
pub(crate) type Main = fn(Bootstrap) -> !;

/// Code of this process for a worker: its entry point, and the op that it expects.
///
/// The two always come from one type of worker: only the constructors put them together, and [`Entry::resolve`] those
/// that one of them had put together in the leader.
#[derive(Debug, Clone)]
pub(crate) struct Routine {
    pub(crate) main: Main,
    pub(crate) code: Code,
}

impl Routine {
    /// A worker of bytes; it has no op.
    pub(crate) fn service<S: Service>() -> Self {
        Self {
            main: serve::<S>,
            code: Code::of(()),
        }
    }

    /// A worker of values, with its op.
    pub(crate) fn worker<W, CT, CR>(op: W::Op) -> Self
    where
        W: Worker,
        CT: Codec<W::Task>,
        CR: Codec<W::Output>,
    {
        Self {
            main: serve::<Typed<W, CT, CR>>,
            code: Code::of(op),
        }
    }
}

/// The code of a worker, in a form that crosses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Entry {
    Own(Own),
    Named(Named),
}

/// Functions of the object that this crate is linked into.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Own {
    object: Identity,
    main: Place,
    kind: Kind,
    op: Vec<Place>,
}

/// Where a function is: its distance from the anchor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Place(usize);

/// Why a worker does not go where its leader wants it to.
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
    Named(String),
}

impl Entry {
    /// Where the functions of `routine` are in this program.
    ///
    /// # Errors
    /// [`PoolError::EntryOutsideImage`] if one is not in the object that this crate is linked into.
    pub(crate) fn own(routine: &Routine) -> Result<Self, PoolError> {
        let object = object().map_err(PoolError::io("identify the program's executable"))?;
        let place = |address| match object.locate(address) {
            Located::Code => Ok(Place(address.wrapping_sub(anchor_address()))),
            Located::Data | Located::Elsewhere => Err(PoolError::EntryOutsideImage),
        };
        let op = routine.code.addresses().iter();
        Ok(Self::Own(Own {
            object: object.identity().clone(),
            main: place(routine.main as usize)?,
            kind: routine.code.kind(),
            op: op.map(|address| place(*address)).collect::<Result<_, _>>()?,
        }))
    }

    /// Finds the functions in this process, whose ops by name are those of `registry`.
    ///
    /// # Errors
    /// The reason for which this process refuses to run them.
    pub(crate) fn resolve(&self, registry: Option<&Registry>) -> Result<Routine, Refusal> {
        match (self, registry) {
            (Self::Own(own), _) => own.resolve(),
            (Self::Named(op), Some(registry)) => registry.find(op).cloned().map_err(Refusal::Named),
            (Self::Named(_), None) => Err(Refusal::Named(
                "has no ops by name: its program called `init` before `Registry::serve`".to_owned(),
            )),
        }
    }
}

impl Own {
    fn resolve(&self) -> Result<Routine, Refusal> {
        let object = object().map_err(Refusal::Unidentified)?;
        if !object.identity().is(&self.object) {
            return Err(Refusal::OtherObject);
        }
        let address = |place: &Place| {
            let address = anchor_address().wrapping_add(place.0);
            match object.locate(address) {
                Located::Code => Ok(address),
                Located::Data | Located::Elsewhere => Err(Refusal::NotCode(place.0)),
            }
        };
        let main = address(&self.main)?;
        let op = self.op.iter().map(address).collect::<Result<_, _>>()?;
        // SAFETY: a `Main` is at the address. `self` comes from this process's leader: the introduction in `worker` accepts
        // a welcome from the parent process only. The leader made it by `Entry::own`, from a `Main` that lies in the
        // object which holds its anchor. The object that holds our anchor is the same (checked above: the same file or
        // the same build id, with the same segments). The segments of an object keep their distances wherever it is
        // loaded, and so do its functions. It follows that the address is executable memory of the object, and not
        // null; the check above refuses the address where a broken promise would lead elsewhere.
        let main = unsafe { transmute::<*const (), Main>(with_exposed_provenance(main)) };
        // SAFETY: in the same way, the functions of the leader's op are at these addresses, in number and order as in the
        // `Code` from which `Entry::own` took them and the kind. A kind stands for the same type in both processes:
        // the compiler made both from one crate graph, as they are one object.
        let code = unsafe { Code::from_parts(self.kind, op) };
        Ok(Routine { main, code })
    }
}

#[inline(never)]
fn anchor() {}

fn anchor_address() -> usize {
    anchor as fn() as usize
}

/// The object that holds the anchor.
fn object() -> io::Result<&'static Loaded> {
    static OBJECT: OnceLock<Loaded> = OnceLock::new();
    if let Some(object) = OBJECT.get() {
        return Ok(object);
    }
    let object = Loaded::holding(anchor_address())?;
    Ok(OBJECT.get_or_init(|| object))
}

/// Finds out which object this is, and remembers it: some systems know its file by the path only, where another one may be
/// later.
///
/// # Errors
/// When nothing identifies it; no pool can then be built.
pub(crate) fn identify() -> io::Result<()> {
    object().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::ByRef;
    use crate::service::decode;

    fn one(_: Bootstrap) -> ! {
        unreachable!("only its address matters")
    }

    fn double(n: u64) -> u64 {
        2 * n
    }

    type Double = (fn(u64) -> u64, ByRef<u64, u64>);

    fn routine() -> Routine {
        Routine {
            main: one,
            code: Code::of((double as fn(u64) -> u64, ByRef(|n: &u64| n + 1))),
        }
    }

    fn own() -> Own {
        match Entry::own(&routine()).expect("it is in this executable") {
            Entry::Own(own) => own,
            Entry::Named(_) => unreachable!("it was made from functions"),
        }
    }

    #[test]
    fn functions_are_found_where_they_were() {
        let mut bytes = Vec::new();
        crate::service::encode(&Entry::Own(own()), &mut bytes).expect("it can be encoded");
        let entry: Entry = decode(&bytes).expect("it can be decoded");
        let resolved = entry.resolve(None).expect("it is the same object");
        assert_eq!(resolved.main as usize, routine().main as usize);
        assert_eq!(resolved.code, routine().code);
        let (double, ByRef(next)) = resolved.code.op::<Double>().expect("it is one");
        assert_eq!((double(4), next(&4)), (8, 5));
    }

    #[test]
    fn another_object_is_refused() {
        let mut other = own();
        let library = Loaded::holding(libc_function());
        let object = library.map(|library| library.identity().clone());
        other.object = object.expect("it is loaded from a file");
        let refused = other.resolve().expect_err("another object");
        assert!(matches!(refused, Refusal::OtherObject), "{refused}");
    }

    /// The address of a function in another object than this crate's.
    fn libc_function() -> usize {
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
    fn distances_that_lead_to_no_code_are_refused() {
        static DATA: [u8; 4] = [1; 4];
        let from_anchor = |address: usize| Place(address.wrapping_sub(anchor_address()));
        let local = 0u8;
        for place in [
            from_anchor(DATA.as_ptr() as usize),
            from_anchor(&raw const local as usize),
            from_anchor(libc_function()),
            from_anchor(0),
            Place(usize::MAX / 2),
        ] {
            let mut main = own();
            main.main = place;
            let mut op = own();
            op.op[1] = place;
            for wrong in [main, op] {
                let refused = wrong.resolve().expect_err("no code");
                assert!(
                    matches!(refused, Refusal::NotCode(at) if at == place.0),
                    "{refused}"
                );
            }
        }
    }

    #[test]
    fn an_op_outside_of_the_object_is_refused_by_the_leader() {
        let mut outside = routine();
        // SAFETY: it is not called.
        outside.code = unsafe { Code::from_parts(outside.code.kind(), vec![libc_function()]) };
        let refused = Entry::own(&outside).expect_err("it is in a library");
        assert!(matches!(refused, PoolError::EntryOutsideImage), "{refused}");
    }

    #[test]
    fn an_op_of_another_type_is_refused() {
        let mut other = own();
        other.kind = Code::of(double as fn(u64) -> u64).kind();
        let resolved = other.resolve().expect("its functions are code");
        assert!(resolved.code.op::<Double>().is_err());
        assert!(resolved.code.op::<fn(u64) -> u64>().is_err());
    }

    /// The loader is then the program that the system knows.
    #[cfg(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu"))]
    #[test]
    fn a_program_started_by_its_loader_is_the_same_object() {
        const SHOW: &str = "ENTRY_SHOW_OBJECT";
        let object = object().expect("it is loaded from a file");
        let shown = format!("{:?}", object.identity());
        if std::env::var_os(SHOW).is_some() {
            return println!("{shown}");
        }
        let name = std::thread::current().name().map(str::to_owned);
        let output = std::process::Command::new("/lib64/ld-linux-x86-64.so.2")
            .arg(std::env::current_exe().expect("it has a path"))
            .args([
                &*name.expect("tests have names"),
                "--exact",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(SHOW, "1")
            .output()
            .expect("it can be started");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains(&shown), "{shown} is not in {said}");
    }
}

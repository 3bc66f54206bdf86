//! The worker's entry point: how the leader says which function a worker runs.
//!
//! A worker program of its own knows its ops by name: see [`Registry`]. As for workers that are the leader's own
//! program:
//!
//! A function pointer means nothing in another process: address spaces are randomized. But where the same executable or
//! library is loaded, the distance between two functions of it is the same. What crosses is the distance of the
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

use crate::error::PoolError;
use crate::os::object::{Identity, Loaded, Located};
use crate::registry::{Named, Registry};
use crate::worker::Bootstrap;

/// What a worker process runs instead of `main`.
pub(crate) type Main = fn(Bootstrap) -> !;

/// The code of a worker, in a form that crosses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Entry {
    Own(Own),
    Named(Named),
}

/// A function of the object that this crate is linked into.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Own {
    object: Identity,
    main: Place,
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
    /// Where `main` is in this program.
    ///
    /// # Errors
    /// [`PoolError::EntryOutsideImage`] if it is not in the object that this crate is linked into.
    pub(crate) fn own(main: Main) -> Result<Self, PoolError> {
        let object = object().map_err(PoolError::io("identify the program's executable"))?;
        let place = |address| match object.locate(address) {
            Located::Code => Ok(Place(address.wrapping_sub(anchor_address()))),
            Located::Data | Located::Elsewhere => Err(PoolError::EntryOutsideImage),
        };
        Ok(Self::Own(Own {
            object: object.identity().clone(),
            main: place(main as usize)?,
        }))
    }

    /// Finds the function in this process, whose ops by name are those of `registry`.
    ///
    /// # Errors
    /// The reason for which this process refuses to run it.
    pub(crate) fn resolve(&self, registry: Option<&Registry>) -> Result<Main, Refusal> {
        match (self, registry) {
            (Self::Own(own), _) => own.resolve(),
            (Self::Named(op), Some(registry)) => registry.find(op).map_err(Refusal::Named),
            (Self::Named(_), None) => Err(Refusal::Named(
                "has no ops by name: its program called `init` before `Registry::serve`".to_owned(),
            )),
        }
    }
}

impl Own {
    fn resolve(&self) -> Result<Main, Refusal> {
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
        // SAFETY: a `Main` is at the address. `self` comes from this process's leader: the introduction in `worker` accepts
        // a welcome from the parent process only. The leader made it by `Entry::own`, from a `Main` that lies in the
        // object which holds its anchor. The object that holds our anchor is the same (checked above: the same file or
        // the same build id, with the same segments). The segments of an object keep their distances wherever it is
        // loaded, and so do its functions. It follows that the address is executable memory of the object, and not
        // null; the check above refuses the address where a broken promise would lead elsewhere.
        Ok(unsafe { transmute::<*const (), Main>(with_exposed_provenance(main)) })
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
    use crate::service::decode;

    fn one(_: Bootstrap) -> ! {
        unreachable!("only its address matters")
    }

    fn own() -> Own {
        match Entry::own(one).expect("it is in this executable") {
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
        assert_eq!(resolved as usize, one as Main as usize);
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
            let mut wrong = own();
            wrong.main = place;
            let refused = wrong.resolve().expect_err("no code");
            assert!(
                matches!(refused, Refusal::NotCode(at) if at == place.0),
                "{refused}"
            );
        }
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

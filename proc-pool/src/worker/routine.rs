//! [`Routine`]: the functions that a worker process runs, made from an `entry_point` and converted to and from a
//! `wire::entry`.
#![allow(unsafe_code, reason = "turns a checked address into the entry point")]

use std::mem::transmute;
use std::ptr::with_exposed_provenance;

use crate::error::PoolError;
use crate::wire::codec::Codec;
use crate::wire::entry::{Entry, OwnEntry, Refusal};
use crate::worker::bootstrap::Bootstrap;
use crate::worker::main_loop::serve;
use crate::worker::op::ErasedOp;
use crate::worker::service::{ByteRunner, Service, TypedRunner, Worker};

/// The function that a worker process runs instead of the rest of `main`.
pub(crate) type Main = fn(Bootstrap) -> !;

/// Functions of this process that a worker runs: its main function, and the op that this function expects.
///
/// The two always belong to the same type of worker: only the constructors combine them, and [`Routine::resolve`] restores
/// a combination that a constructor made in the leader.
#[derive(Debug, Clone)]
pub struct Routine {
    pub(crate) main: Main,
    pub(crate) op: ErasedOp,
}

impl Routine {
    /// Makes the routine of a service. It has no op.
    pub(crate) fn service<S: Service>() -> Self {
        Self {
            main: serve::<ByteRunner<S>>,
            op: ErasedOp::of(()),
        }
    }

    /// Makes the routine of a worker with its op.
    pub(crate) fn worker<W, CT, CR>(op: W::Op) -> Self
    where
        W: Worker,
        CT: Codec<W::Task>,
        CR: Codec<W::Output>,
    {
        Self {
            main: serve::<TypedRunner<W, CT, CR>>,
            op: ErasedOp::of(op),
        }
    }

    /// Describes where the functions are in this program, for a worker that runs the same program.
    ///
    /// # Errors
    /// [`PoolError::EntryInOtherLibrary`] if one is not in the object that this crate is linked into.
    pub(crate) fn entry(&self) -> Result<Entry, PoolError> {
        let op = &self.op;
        OwnEntry::of(self.main as usize, op.op_type(), op.addresses()).map(Entry::Own)
    }

    /// Finds the functions in this process.
    ///
    /// # Errors
    /// The reason why this process refuses to run them.
    pub(crate) fn resolve(own: &OwnEntry) -> Result<Self, Refusal> {
        let functions = own.locate()?;
        // SAFETY: a `Main` is at the address. `own` comes from this process's leader: `startup` accepts a `Welcome` from the
        // parent process only. The leader made it with `Routine::entry`, from a `Main` in the object that contains the
        // leader's anchor. The object that contains this process's anchor is the same one (`OwnEntry::locate`: the same file
        // or the same build id, with the same segments). The segments of an object keep their distances wherever it is
        // loaded, and so do its functions. Therefore the address is executable memory of the object, and not null. (If a
        // leader broke that promise, the check in `OwnEntry::locate` still refuses an address outside of the object's code.)
        let main = unsafe { transmute::<*const (), Main>(with_exposed_provenance(functions.main)) };
        // SAFETY: in the same way, the functions of the leader's op are at these addresses, in the same number and order as in
        // the `ErasedOp` from which `Routine::entry` took them and the type. An `OpType` stands for the same type in both
        // processes: both run the same object, so the compiler made both from one crate graph.
        let op = unsafe { ErasedOp::from_parts(functions.op_type, functions.op) };
        Ok(Self { main, op })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::encoding::decode;
    use crate::wire::entry::tests::libc_function;
    use crate::worker::op::ByRef;

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
            op: ErasedOp::of((double as fn(u64) -> u64, ByRef(|n: &u64| n + 1))),
        }
    }

    fn own() -> OwnEntry {
        match routine().entry().expect("the functions are in this executable") {
            Entry::Own(own) => own,
            Entry::Named(_) => unreachable!("the entry was made from functions"),
        }
    }

    #[test]
    fn resolve_finds_the_functions_of_an_encoded_entry() {
        let mut bytes = Vec::new();
        crate::wire::encoding::encode(&Entry::Own(own()), &mut bytes).expect("an entry can be encoded");
        let entry: Entry = decode(&bytes).expect("it can be decoded");
        let resolved = match &entry {
            Entry::Own(own) => Routine::resolve(own).expect("it is the same object"),
            Entry::Named(_) => unreachable!("the entry was made from functions"),
        };
        assert_eq!(resolved.main as usize, routine().main as usize);
        assert_eq!(resolved.op, routine().op);
        let (double, ByRef(next)) = resolved.op.downcast::<Double>().expect("the types match");
        assert_eq!((double(4), next(&4)), (8, 5));
    }

    #[test]
    fn entry_refuses_an_op_in_another_object() {
        let mut outside = routine();
        // SAFETY: the op is not called.
        outside.op = unsafe { ErasedOp::from_parts(outside.op.op_type(), vec![libc_function()]) };
        let refused = outside.entry().expect_err("the op is in a library");
        assert!(matches!(refused, PoolError::EntryInOtherLibrary), "{refused}");
    }

    #[test]
    fn an_op_of_another_type_does_not_downcast() {
        let mut other = own();
        other.op_type = ErasedOp::of(double as fn(u64) -> u64).op_type();
        let resolved = Routine::resolve(&other).expect("its functions are op");
        assert!(resolved.op.downcast::<Double>().is_err());
        assert!(resolved.op.downcast::<fn(u64) -> u64>().is_err());
    }
}

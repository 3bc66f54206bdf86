//! [`Op`]: the function pointers that a leader may send to its workers.
//!
//! A function pointer has an address and a type. The leader sends where the function is in the program, which
//! [`entry`](crate::wire::entry) proves to be code in the worker's process as well, and a number that stands for the type.
#![allow(unsafe_code, reason = "turns checked addresses back into function pointers")]

mod by_view;

use std::any::type_name;
use std::fmt;
use std::mem::transmute;
use std::ptr::with_exposed_provenance;

pub use by_view::{ByView, EndView, Family};

use crate::error::PoolError;
use crate::wire::entry::{self, OpType};

/// The code that a leader sends to a [`Worker`](crate::Worker): a function pointer of one of these types, `()` for none, or a
/// pair of ops.
///
/// - `fn(T) -> R`
/// - `fn(&A, T) -> R` and `fn(&mut A, T) -> R`
/// - `fn(&A, &mut B, T) -> R`
/// - [`ByRef`], a wrapped `fn(&A) -> R`
/// - [`ByView`] and [`EndView`], wrapped functions of an `&A` and a state that borrows from it
///
/// Plain functions, and closures that capture nothing, coerce to function pointers. The values that a closure captures
/// exist in the leader only. That includes values without data, such as a token that proves an event in its process:
///
/// ```compile_fail,E0308
/// struct Token(());
/// let token = Token(());
/// let pool = proc_pool::Builder::new().build_op(move |n: u64| {
///     let _proof = &token;
///     n
/// });
/// ```
///
/// This trait is sealed: other crates can't implement it.
pub trait Op: sealed::Sealed + Copy + Send + Sync + 'static {}

/// Describes the functions of an op so that equal descriptions mean equal code, also in other processes and at other times.
///
/// # Errors
/// [`PoolError::EntryInOtherLibrary`] if a function is in another shared library than this crate.
pub fn describe_code<O: Op>(op: O) -> Result<String, PoolError> {
    let mut addresses = Vec::new();
    op.decompose(&mut addresses);
    entry::describe(OpType::of::<O>(), &addresses)
}

mod sealed {
    /// An op that can be decomposed into the addresses of its functions, and composed from them again.
    pub trait Sealed: Copy + Send + Sync + 'static {
        /// Appends the addresses of its functions.
        fn decompose(self, addresses: &mut Vec<usize>);

        /// Composes an op from the next addresses. Returns `None` if there are too few.
        ///
        /// # Safety
        /// The addresses must be those of functions of this process, with the types of the functions whose addresses
        /// `decompose` of the same type appends, in that order.
        unsafe fn compose(addresses: &mut impl Iterator<Item = usize>) -> Option<Self>;
    }
}

use sealed::Sealed;

/// Implements [`Op`] for types of function pointers.
macro_rules! pointers {
    ($($pointer:ty: $($parameter:ident)*;)*) => {$(
        impl<$($parameter: 'static),*> Op for $pointer {}

        impl<$($parameter: 'static),*> Sealed for $pointer {
            fn decompose(self, addresses: &mut Vec<usize>) {
                addresses.push(self as usize);
            }

            unsafe fn compose(addresses: &mut impl Iterator<Item = usize>) -> Option<Self> {
                let function = with_exposed_provenance::<()>(addresses.next()?);
                // SAFETY: the caller promises that a function of exactly this type is at the address. A function pointer has
                // the size of an address, and the address of a function is not zero.
                Some(unsafe { transmute::<*const (), $pointer>(function) })
            }
        }
    )*};
}

pointers! {
    fn(T) -> R: T R;
    for<'a> fn(&'a A, T) -> R: A T R;
    for<'a> fn(&'a mut A, T) -> R: A T R;
    for<'a, 'b> fn(&'a A, &'b mut B, T) -> R: A B T R;
}

/// A `fn(&A) -> R` as an [`Op`].
///
/// It needs this wrapper because a `fn(&A) -> R` also is a `fn(T) -> R`, for one lifetime.
pub struct ByRef<A, R>(
    /// The function.
    pub fn(&A) -> R,
);

impl<A, R> Clone for ByRef<A, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<A, R> Copy for ByRef<A, R> {}

impl<A, R> fmt::Debug for ByRef<A, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ByRef").field(&self.0).finish()
    }
}

impl<A: 'static, R: 'static> Op for ByRef<A, R> {}

impl<A: 'static, R: 'static> Sealed for ByRef<A, R> {
    fn decompose(self, addresses: &mut Vec<usize>) {
        addresses.push(self.0 as usize);
    }

    unsafe fn compose(addresses: &mut impl Iterator<Item = usize>) -> Option<Self> {
        let function = with_exposed_provenance::<()>(addresses.next()?);
        // SAFETY: the caller promises that a function of exactly this type is at the address. A function pointer has the size
        // of an address, and the address of a function is not zero.
        Some(Self(unsafe { transmute::<*const (), fn(&A) -> R>(function) }))
    }
}

impl Op for () {}

impl Sealed for () {
    fn decompose(self, _: &mut Vec<usize>) {}

    unsafe fn compose(_: &mut impl Iterator<Item = usize>) -> Option<Self> {
        Some(())
    }
}

impl<F: Op, G: Op> Op for (F, G) {}

impl<F: Op, G: Op> Sealed for (F, G) {
    fn decompose(self, addresses: &mut Vec<usize>) {
        self.0.decompose(addresses);
        self.1.decompose(addresses);
    }

    unsafe fn compose(addresses: &mut impl Iterator<Item = usize>) -> Option<Self> {
        // SAFETY: the caller promises the addresses in the order of `decompose`, which appends those of the first op first.
        let first = unsafe { F::compose(addresses) }?;
        // SAFETY: as above; the next addresses are those of the second op.
        let second = unsafe { G::compose(addresses) }?;
        Some((first, second))
    }
}

/// An op whose type is known at run time only.
///
/// Invariant: its addresses are those of functions of this process that have the types which `op_type` stands for. It is
/// made [from an op](Self::of), or by `Routine::resolve` from what a leader has made from an op.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ErasedOp {
    op_type: OpType,
    addresses: Vec<usize>,
}

impl ErasedOp {
    pub(crate) fn of<O: Op>(op: O) -> Self {
        let mut addresses = Vec::new();
        op.decompose(&mut addresses);
        Self {
            op_type: OpType::of::<O>(),
            addresses,
        }
    }

    /// Makes an op from its parts.
    ///
    /// # Safety
    /// The addresses must be those of functions of this process, with the number, order and types of those of the op for
    /// which `op_type` was [made](OpType::of).
    pub(crate) unsafe fn from_parts(op_type: OpType, addresses: Vec<usize>) -> Self {
        Self { op_type, addresses }
    }

    pub(crate) fn op_type(&self) -> OpType {
        self.op_type
    }

    pub(crate) fn addresses(&self) -> &[usize] {
        &self.addresses
    }

    /// Returns the op as an `O`.
    ///
    /// # Errors
    /// [`WrongOp`] if it has another type.
    pub(crate) fn downcast<O: Op>(&self) -> Result<O, WrongOp> {
        let mut addresses = self.addresses.iter().copied();
        if self.op_type != OpType::of::<O>() {
            return Err(WrongOp(type_name::<O>()));
        }
        // SAFETY: `op_type` is that of `O`, so the addresses are those of functions with the types of which `O` consists:
        // every `ErasedOp` is made from an op of its type, or by a caller that promised the same. Two types whose numbers
        // collide can't meet here: `op_type` comes from the worker type for which the main function was compiled (see
        // `Routine`), and the main function asks for the op of that type.
        let op = unsafe { O::compose(&mut addresses) };
        op.filter(|_| addresses.next().is_none())
            .ok_or(WrongOp(type_name::<O>()))
    }
}

/// An op does not have the type for which a worker was compiled.
#[derive(Debug, thiserror::Error)]
#[error("its op is not a {0}")]
pub(crate) struct WrongOp(&'static str);

#[cfg(test)]
mod tests {
    use super::*;

    fn double(n: u64) -> u64 {
        2 * n
    }

    type Get = for<'a> fn(&'a Vec<u64>, usize) -> u64;
    type Put = for<'a> fn(&'a mut Vec<u64>, u64) -> usize;
    type Move = for<'a, 'b> fn(&'a Vec<u64>, &'b mut Vec<u64>, usize) -> u64;

    #[test]
    fn downcast_returns_the_op() {
        let op = ErasedOp::of(double as fn(u64) -> u64).downcast::<fn(u64) -> u64>();
        assert_eq!(op.expect("the types match")(21), 42);
        ErasedOp::of(()).downcast::<()>().expect("the types match");
        let get: Get = |all, at| all[at];
        let put: Put = |all, one| {
            all.push(one);
            all.len()
        };
        let shift: Move = |from, to, at| {
            to.push(from[at]);
            from[at]
        };
        let len = ByRef(Vec::<u64>::len);
        let erased = ErasedOp::of(((get, put), (shift, len)));
        assert_eq!(erased.addresses().len(), 4);
        let op = erased.downcast::<((Get, Put), (Move, ByRef<Vec<u64>, usize>))>();
        let ((get, put), (shift, ByRef(len))) = op.expect("the types match");
        let mut all = vec![3];
        assert_eq!(put(&mut all, 4), 2);
        assert_eq!(get(&all, 1), 4);
        let mut others = Vec::new();
        assert_eq!((shift(&all, &mut others, 0), others), (3, vec![3]));
        assert_eq!(len(&all), 2);
    }

    #[test]
    fn an_op_of_another_type_does_not_downcast() {
        let erased = ErasedOp::of(double as fn(u64) -> u64);
        assert!(erased.downcast::<fn(u64) -> i64>().is_err());
        assert!(erased.downcast::<(fn(u64) -> u64, ())>().is_err());
        let refused = erased.downcast::<()>().expect_err("it has a function");
        assert_eq!(refused.to_string(), "its op is not a ()");
        assert!(ErasedOp::of(()).downcast::<fn(u64) -> u64>().is_err());
    }

    #[test]
    fn too_few_or_many_functions_do_not_downcast() {
        let op_type = OpType::of::<fn(u64) -> u64>();
        let address = double as fn(u64) -> u64 as usize;
        for addresses in [vec![], vec![address; 2]] {
            // SAFETY: each address is that of a function of the right type. Only their number is wrong, which `downcast` and
            // `compose` check: none is called.
            let erased = unsafe { ErasedOp::from_parts(op_type, addresses) };
            assert!(erased.downcast::<fn(u64) -> u64>().is_err());
        }
    }
}

//! [`Op`]: function pointers, as the code that a leader gives to its workers.
//!
//! A function pointer has an address and a type. What crosses is where the function lies in the program, which
//! [`entry`](crate::entry) proves to be code in the worker's process as well, and a number for the type.
#![allow(unsafe_code)]

use std::any::{TypeId, type_name};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::mem::transmute;
use std::ptr::with_exposed_provenance;

use serde::{Deserialize, Serialize};

/// The code that a leader gives to a [`Worker`](crate::Worker): a function pointer of one of these types, `()` for none,
/// or a pair of ops.
///
/// - `fn(T) -> R`
/// - `fn(&A, T) -> R` and `fn(&mut A, T) -> R`
/// - `fn(&A, &mut B, T) -> R`
/// - [`ByRef`], a wrapped `fn(&A) -> R`
///
/// Plain functions, and closures that capture nothing, coerce to function pointers. The values that a closure captures
/// exist in the leader only. That includes values without bytes, such as a token that proves an event in its process:
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
/// The trait can't be implemented elsewhere.
pub trait Op: sealed::Sealed + Copy + Send + Sync + 'static {}

mod sealed {
    /// What can be taken apart into the addresses of functions, and put together again.
    pub trait Sealed: Copy + Send + Sync + 'static {
        /// Appends the addresses of its functions.
        fn take_apart(self, addresses: &mut Vec<usize>);

        /// Puts one together from the next addresses; `None` if there are too few.
        ///
        /// # Safety
        /// The addresses are those of functions of this process which have the types of those that `take_apart` of
        /// the same type appends.
        unsafe fn put_together(addresses: &mut impl Iterator<Item = usize>) -> Option<Self>;
    }
}

use sealed::Sealed;

/// Makes each type of function pointer an [`Op`].
macro_rules! pointers {
    ($($pointer:ty: $($parameter:ident)*;)*) => {$(
        impl<$($parameter: 'static),*> Op for $pointer {}

        impl<$($parameter: 'static),*> Sealed for $pointer {
            fn take_apart(self, addresses: &mut Vec<usize>) {
                addresses.push(self as usize);
            }

            unsafe fn put_together(addresses: &mut impl Iterator<Item = usize>) -> Option<Self> {
                let function = with_exposed_provenance::<()>(addresses.next()?);
                // SAFETY: the caller promises that a function of just this type is there. A function pointer has the
                // size of an address, and the address of a function is not zero.
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

/// A `fn(&A) -> R`, for workers whose [`Op`] it is.
///
/// It is wrapped because `fn(&A) -> R` is a `fn(T) -> R` as well, for one lifetime.
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
    fn take_apart(self, addresses: &mut Vec<usize>) {
        addresses.push(self.0 as usize);
    }

    unsafe fn put_together(addresses: &mut impl Iterator<Item = usize>) -> Option<Self> {
        let function = with_exposed_provenance::<()>(addresses.next()?);
        // SAFETY: as for the other pointers.
        Some(Self(unsafe { transmute::<*const (), fn(&A) -> R>(function) }))
    }
}

impl Op for () {}

impl Sealed for () {
    fn take_apart(self, _: &mut Vec<usize>) {}

    unsafe fn put_together(_: &mut impl Iterator<Item = usize>) -> Option<Self> {
        Some(())
    }
}

impl<F: Op, G: Op> Op for (F, G) {}

impl<F: Op, G: Op> Sealed for (F, G) {
    fn take_apart(self, addresses: &mut Vec<usize>) {
        self.0.take_apart(addresses);
        self.1.take_apart(addresses);
    }

    unsafe fn put_together(addresses: &mut impl Iterator<Item = usize>) -> Option<Self> {
        // SAFETY: the first addresses are those of the first part, as the caller promises and `take_apart` has it.
        let first = unsafe { F::put_together(addresses) }?;
        // SAFETY: those that follow are the second part's.
        let second = unsafe { G::put_together(addresses) }?;
        Some((first, second))
    }
}

/// The type of an op, as a number that is the same in all processes of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kind(u64);

impl Kind {
    fn of<O: Op>() -> Self {
        struct Number(u64);

        impl Hasher for Number {
            fn finish(&self) -> u64 {
                self.0
            }

            fn write(&mut self, bytes: &[u8]) {
                for byte in bytes {
                    self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
                }
            }
        }

        let mut number = Number(0xcbf2_9ce4_8422_2325);
        TypeId::of::<O>().hash(&mut number);
        Self(number.finish())
    }
}

/// An op whose type is known at run time only.
///
/// Its addresses are those of functions of this process that have the types which `kind` stands for: it is made
/// [from an op](Self::of), or by [`entry`](crate::entry), from what a leader has made so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Code {
    kind: Kind,
    addresses: Vec<usize>,
}

impl Code {
    pub(crate) fn of<O: Op>(op: O) -> Self {
        let mut addresses = Vec::new();
        op.take_apart(&mut addresses);
        Self {
            kind: Kind::of::<O>(),
            addresses,
        }
    }

    /// # Safety
    /// The addresses are those of functions of this process, in number, order and types as the op that `kind` was
    /// made [of](Kind::of) has them.
    pub(crate) unsafe fn from_parts(kind: Kind, addresses: Vec<usize>) -> Self {
        Self { kind, addresses }
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    pub(crate) fn addresses(&self) -> &[usize] {
        &self.addresses
    }

    /// The op, if it is of this type.
    ///
    /// # Errors
    /// That it is not.
    pub(crate) fn op<O: Op>(&self) -> Result<O, WrongOp> {
        let mut addresses = self.addresses.iter().copied();
        if self.kind != Kind::of::<O>() {
            return Err(WrongOp(type_name::<O>()));
        }
        // SAFETY: `kind` is that of `O`, so that the addresses are those of functions of the types that `O` is made of:
        // every `Code` is made from an op of its kind, or by a caller that promised the same. Two types with one
        // number can't meet here: `kind` comes from the worker type that the entry point was compiled for (see
        // `Routine`), and the entry point asks for the op of that type.
        let op = unsafe { O::put_together(&mut addresses) };
        op.filter(|_| addresses.next().is_none())
            .ok_or(WrongOp(type_name::<O>()))
    }
}

/// An op is not what a worker was compiled for.
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
    fn ops_are_put_together_as_they_were() {
        let op = Code::of(double as fn(u64) -> u64).op::<fn(u64) -> u64>();
        assert_eq!(op.expect("it is one")(21), 42);
        Code::of(()).op::<()>().expect("there is nothing to it");
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
        let code = Code::of(((get, put), (shift, len)));
        assert_eq!(code.addresses().len(), 4);
        let op = code.op::<((Get, Put), (Move, ByRef<Vec<u64>, usize>))>();
        let ((get, put), (shift, ByRef(len))) = op.expect("it is one");
        let mut all = vec![3];
        assert_eq!(put(&mut all, 4), 2);
        assert_eq!(get(&all, 1), 4);
        let mut others = Vec::new();
        assert_eq!((shift(&all, &mut others, 0), others), (3, vec![3]));
        assert_eq!(len(&all), 2);
    }

    #[test]
    fn an_op_of_another_type_is_refused() {
        let code = Code::of(double as fn(u64) -> u64);
        assert!(code.op::<fn(u64) -> i64>().is_err());
        assert!(code.op::<(fn(u64) -> u64, ())>().is_err());
        let refused = code.op::<()>().expect_err("it has a function");
        assert_eq!(refused.to_string(), "its op is not a ()");
        assert!(Code::of(()).op::<fn(u64) -> u64>().is_err());
    }

    #[test]
    fn too_few_or_many_functions_are_refused() {
        let kind = Kind::of::<fn(u64) -> u64>();
        let address = double as fn(u64) -> u64 as usize;
        for addresses in [vec![], vec![address; 2]] {
            // SAFETY: each address is that of a function of the right type; the test is about their number.
            let code = unsafe { Code::from_parts(kind, addresses) };
            assert!(code.op::<fn(u64) -> u64>().is_err());
        }
    }
}

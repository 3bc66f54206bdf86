//! [`ByView`] and [`EndView`]: function pointers that get a value beside a second one which borrows from it.
#![allow(unsafe_code, reason = "turns checked addresses back into function pointers")]

use std::fmt;
use std::mem::transmute;
use std::ptr::with_exposed_provenance;

use super::{Op, Sealed};

/// A type with a lifetime parameter: it names one type for each lifetime.
///
/// ```
/// /// Stands for `&'m [u64]`.
/// struct Slice;
///
/// impl proc_pool::Family for Slice {
///     type Of<'m> = &'m [u64];
/// }
/// ```
pub trait Family: 'static {
    /// The type for the lifetime `'m`.
    type Of<'m>;
}

/// A function of a value `A`, a state that may borrow from that value for as long as it exists, and a task, as an [`Op`].
///
/// It needs this wrapper because one lifetime occurs in two parameters.
pub struct ByView<A: 'static, V: Family, T, R>(
    /// The function.
    pub for<'m, 'v> fn(&'m A, &'v mut V::Of<'m>, T) -> R,
);

/// A function of a value `A` and of a state that may borrow from that value for as long as it exists, as an [`Op`].
pub struct EndView<A: 'static, V: Family>(
    /// The function.
    pub for<'m, 'v> fn(&'m A, &'v mut V::Of<'m>),
);

/// Implements [`Op`] for wrappers of one function pointer.
macro_rules! wrappers {
    ($($wrapper:ident<$($parameter:ident),*>: $function:ty;)*) => {$(
        impl<A: 'static, V: Family, $($parameter),*> Clone for $wrapper<A, V, $($parameter),*> {
            fn clone(&self) -> Self {
                *self
            }
        }

        impl<A: 'static, V: Family, $($parameter),*> Copy for $wrapper<A, V, $($parameter),*> {}

        impl<A: 'static, V: Family, $($parameter),*> fmt::Debug for $wrapper<A, V, $($parameter),*> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($wrapper)).field(&(self.0 as *const ())).finish()
            }
        }

        impl<A: 'static, V: Family, $($parameter: 'static),*> Op for $wrapper<A, V, $($parameter),*> {}

        impl<A: 'static, V: Family, $($parameter: 'static),*> Sealed for $wrapper<A, V, $($parameter),*> {
            fn decompose(self, addresses: &mut Vec<usize>) {
                addresses.push(self.0 as usize);
            }

            unsafe fn compose(addresses: &mut impl Iterator<Item = usize>) -> Option<Self> {
                let function = with_exposed_provenance::<()>(addresses.next()?);
                // SAFETY: the caller promises that a function of exactly this type is at the address. A function pointer has
                // the size of an address, and the address of a function is not zero.
                Some(Self(unsafe { transmute::<*const (), $function>(function) }))
            }
        }
    )*};
}

wrappers! {
    ByView<T, R>: for<'m, 'v> fn(&'m A, &'v mut V::Of<'m>, T) -> R;
    EndView<>: for<'m, 'v> fn(&'m A, &'v mut V::Of<'m>);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::worker::op::ErasedOp;

    struct Chars;

    impl Family for Chars {
        type Of<'m> = std::str::Chars<'m>;
    }

    type Skip = ByView<Arc<str>, Chars, usize, Option<char>>;
    type Exhaust = EndView<Arc<str>, Chars>;

    fn skip<'m>(text: &'m Arc<str>, chars: &mut std::str::Chars<'m>, n: usize) -> Option<char> {
        // The view may be replaced: both have the same lifetime.
        *chars = text.chars();
        chars.nth(n)
    }

    #[test]
    fn views_travel_with_their_functions() {
        let skip = ByView::<Arc<str>, Chars, usize, Option<char>>(skip);
        let exhaust = EndView::<Arc<str>, Chars>(|_, chars| while chars.next().is_some() {});
        let op: (Skip, Exhaust) = (skip, exhaust);
        let erased = ErasedOp::of(op);
        let (ByView(skip), EndView(exhaust)) = erased.downcast::<(Skip, Exhaust)>().expect("the types match");
        let text: Arc<str> = "view".into();
        let mut chars = text.chars();
        assert_eq!(skip(&text, &mut chars, 2), Some('e'));
        exhaust(&text, &mut chars);
        assert_eq!(chars.next(), None);
        assert!(erased.downcast::<(Exhaust, Skip)>().is_err());
        assert_eq!(
            format!("{:?}", op.0),
            format!("ByView({:?})", op.0.0 as *const ())
        );
    }
}

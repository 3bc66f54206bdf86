//! [`WithCauses`]: an error and its causes, as text.

use std::error::Error;
use std::fmt::{self, Write};

/// Displays an error with its causes: the message, then one line for each [`source`](Error::source). With `{:#}`,
/// the messages are separated by colons on one line.
///
/// ```
/// use shm_buffers::{Backing, SegmentMut, WithCauses};
///
/// let error = SegmentMut::create(&Backing::File("no/such".into()), 10).expect_err("a missing directory");
/// let text = WithCauses(&error).to_string();
/// assert!(text.starts_with("cannot create a segment file in no/such; "), "{text}");
/// assert!(text.contains("directory\n\nCaused by:\n    "), "{text}");
/// assert!(format!("{:#}", WithCauses(&error)).contains("directory: "), "{text}");
/// ```
///
/// The public errors of this workspace use it as their `Debug`, so that a `main` that returns an error prints the message with
/// its remedy.
#[derive(Clone, Copy)]
pub struct WithCauses<'a>(
    /// The error.
    pub &'a (dyn Error + 'static),
);

/// Returns an iterator over an error and its causes, the error first.
pub fn error_chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

impl fmt::Display for WithCauses<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let causes = || error_chain(self.0).skip(1);
        if f.alternate() {
            return causes().try_for_each(|cause| write!(f, ": {cause}"));
        }
        let several = causes().nth(1).is_some();
        for (number, cause) in causes().enumerate() {
            if number == 0 {
                f.write_str("\n\nCaused by:")?;
            }
            match several {
                true => write!(f, "\n{number:>5}: ")?,
                false => f.write_str("\n    ")?,
            }
            write!(Indented(f), "{cause}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for WithCauses<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Indents every line but the first.
struct Indented<'a, 'f>(&'a mut fmt::Formatter<'f>);

impl Write for Indented<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for part in text.split_inclusive('\n') {
            self.0.write_str(part)?;
            if part.ends_with('\n') {
                self.0.write_str("       ")?;
            }
        }
        Ok(())
    }
}

/// Implements `Debug` for errors with [`WithCauses`].
#[doc(hidden)]
#[macro_export]
macro_rules! debug_with_causes {
    ($($error:ty),+ $(,)?) => {$(
        impl ::std::fmt::Debug for $error {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                ::std::fmt::Display::fmt(&$crate::WithCauses(self), f)
            }
        }
    )+};
}

/// Panics if a message in the error's chain is empty or contains the message of a later one, which would be printed twice.
#[doc(hidden)]
pub fn assert_said_once(error: &(dyn Error + 'static)) {
    let messages: Vec<String> = error_chain(error).map(ToString::to_string).collect();
    for (index, message) in messages.iter().enumerate() {
        assert!(!message.is_empty(), "{messages:?}");
        for cause in &messages[index + 1..] {
            assert!(!message.contains(&**cause), "{messages:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Link {
        message: &'static str,
        source: Option<Box<Link>>,
    }

    impl fmt::Display for Link {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.message)
        }
    }

    impl Error for Link {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&**self.source.as_ref()?)
        }
    }

    fn chain(messages: &[&'static str]) -> Option<Box<Link>> {
        let (message, rest) = messages.split_first()?;
        let source = chain(rest);
        Some(Box::new(Link { message, source }))
    }

    #[test]
    fn several_causes_are_numbered() {
        let cases: [(&[&str], &str, &str); 3] = [
            (&["a"], "a", "a"),
            (&["a", "b\nc"], "a\n\nCaused by:\n    b\n       c", "a: b\nc"),
            (&["a", "b", "c"], "a\n\nCaused by:\n    0: b\n    1: c", "a: b: c"),
        ];
        for (messages, lines, line) in cases {
            let error = chain(messages).expect("a message");
            assert_eq!(WithCauses(&*error).to_string(), lines);
            assert_eq!(format!("{:#}", WithCauses(&*error)), line);
        }
    }

    #[test]
    #[should_panic(expected = "says b")]
    fn a_message_that_contains_its_cause_panics() {
        assert_said_once(&*chain(&["says b", "b"]).expect("a message"));
    }
}

//! [`Names`]: unique names for the buffers of one image, short enough for a header.

use std::borrow::Cow;
use std::collections::HashMap;

/// The name of the tensor with everything in a model that is not a buffer.
pub(super) const SKELETON: &str = "skeleton";
/// The name of the tensor with the buffers that have no tensor of their own.
pub(super) const PACKED: &str = "packed";
/// The names of tensors that align the ones behind them start with this.
pub(super) const PADDING: &str = "__pad__.";
/// The format's key for everything in a header that is not a tensor.
pub(super) const METADATA: &str = "__metadata__";
/// The most bytes of a path in a name. Keys of a map can make a path of any length.
const MAX_NAME: usize = 240;

/// Assigns each path a unique name.
#[derive(Debug)]
pub(super) struct Names {
    /// Each name that was assigned, with the suffix to try next.
    assigned: HashMap<String, u64>,
}

impl Default for Names {
    fn default() -> Self {
        Self {
            assigned: [SKELETON, PACKED, METADATA]
                .map(|reserved| (reserved.to_owned(), 2))
                .into(),
        }
    }
}

impl Names {
    /// Returns `path` or, if another buffer has that name, `path` with the suffix `#2`, `#3` …
    pub(super) fn unique(&mut self, path: &str) -> String {
        let path = match path {
            "" => Cow::Borrowed("buffer"),
            path if path.starts_with(PADDING) => Cow::Owned(format!("buffer.{path}")),
            path => Cow::Borrowed(path),
        };
        let base = cut(&path);
        let Some(mut suffix) = self.assigned.get(base).copied() else {
            self.assigned.insert(base.to_owned(), 2);
            return base.to_owned();
        };
        loop {
            let name = format!("{base}#{suffix}");
            suffix += 1;
            if !self.assigned.contains_key(&name) {
                self.assigned.insert(base.to_owned(), suffix);
                self.assigned.insert(name.clone(), 2);
                return name;
            }
        }
    }
}

/// Returns the part of `path` that fits into a name, in whole characters.
fn cut(path: &str) -> &str {
    let end = path.len().min(MAX_NAME);
    let end = (0..=end).rev().find(|&end| path.is_char_boundary(end));
    &path[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_assigned_once() {
        let mut names = Names::default();
        let paths = [
            "a",
            "a",
            "a#2",
            "a",
            "",
            "skeleton",
            "__metadata__",
            "packed",
            "__pad__.0",
        ];
        let assigned: Vec<String> = paths.map(|path| names.unique(path)).into();
        assert_eq!(
            assigned,
            [
                "a",
                "a#2",
                "a#2#2",
                "a#3",
                "buffer",
                "skeleton#2",
                "__metadata__#2",
                "packed#2",
                "buffer.__pad__.0"
            ]
        );
    }

    #[test]
    fn long_paths_are_cut_between_characters() {
        let mut names = Names::default();
        let long = "é".repeat(MAX_NAME);
        let (first, second) = (
            names.unique(&format!("x{long}")),
            names.unique(&format!("x{long}")),
        );
        assert!(first.len() <= MAX_NAME && second == format!("{first}#2"));
    }
}

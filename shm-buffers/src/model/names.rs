//! Names of the buffers of one image: unique, and short enough for a header.

use std::collections::HashMap;

/// The tensor that holds what is no buffer.
pub(crate) const SKELETON: &str = "skeleton";
/// Where the format keeps what is no tensor.
pub(crate) const METADATA: &str = "__metadata__";
/// A longer path is cut, since keys of a map can be of any length.
const MAX_NAME: usize = 240;

/// Gives each path a name of its own.
#[derive(Debug)]
pub(crate) struct Names {
    /// Each name that was given, with the suffix to try next.
    given: HashMap<String, u64>,
}

impl Default for Names {
    fn default() -> Self {
        Self {
            given: [SKELETON, METADATA]
                .map(|reserved| (reserved.to_owned(), 2))
                .into(),
        }
    }
}

impl Names {
    /// `path`, or if another buffer has that name, with the suffix `#2`, `#3` …
    pub(crate) fn give(&mut self, path: &str) -> String {
        let base = match path {
            "" => "buffer",
            path => cut(path),
        };
        let Some(mut suffix) = self.given.get(base).copied() else {
            self.given.insert(base.to_owned(), 2);
            return base.to_owned();
        };
        loop {
            let name = format!("{base}#{suffix}");
            suffix += 1;
            if !self.given.contains_key(&name) {
                self.given.insert(base.to_owned(), suffix);
                self.given.insert(name.clone(), 2);
                return name;
            }
        }
    }
}

/// As much of `path` as fits, in whole characters.
fn cut(path: &str) -> &str {
    let end = path.len().min(MAX_NAME);
    let end = (0..=end).rev().find(|&end| path.is_char_boundary(end));
    &path[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_given_once() {
        let mut names = Names::default();
        let given: Vec<String> = ["a", "a", "a#2", "a", "", "skeleton", "__metadata__"]
            .map(|path| names.give(path))
            .into();
        assert_eq!(
            given,
            [
                "a",
                "a#2",
                "a#2#2",
                "a#3",
                "buffer",
                "skeleton#2",
                "__metadata__#2"
            ]
        );
    }

    #[test]
    fn long_paths_are_cut_between_characters() {
        let mut names = Names::default();
        let long = "é".repeat(MAX_NAME);
        let (first, second) = (names.give(&format!("x{long}")), names.give(&format!("x{long}")));
        assert!(first.len() <= MAX_NAME && second == format!("{first}#2"));
    }
}

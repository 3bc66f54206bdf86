//! The output of `cargo tree --prefix none`.

/// Returns the packages of a tree, such as `libc v0.2.1`. Each may occur several times, always as the same text.
pub(crate) fn packages(tree: &str) -> impl Iterator<Item = &str> {
    let lines = tree.lines().map(|line| line.trim_end_matches(" (*)").trim());
    lines.filter(|line| !line.is_empty())
}

/// Returns the name of a package.
pub(crate) fn name(package: &str) -> &str {
    package.split(' ').next().unwrap_or_default()
}

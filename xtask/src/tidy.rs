//! `cargo xtask tidy`: the house rules that code can check.
//!
//! Each rule is a pure function over one file's text or over the workspace's metadata, tested on strings. What is
//! scanned is what git tracks or would track, so that a new file is judged before it is committed.

mod arrows;
mod errors;
mod fences;
mod layout;
mod source;
mod trees;
mod words;

use std::fmt;
use std::fs;
use std::path::Path;

use crate::cmd::Cmd;
use crate::outcome::Error;
use crate::workspace::Workspace;

/// A breach of a rule.
#[derive(Debug, PartialEq)]
struct Problem {
    /// Relative to the workspace's root.
    path: String,
    /// Counted from 1; 0 where the whole file is meant.
    line: usize,
    message: String,
}

impl Problem {
    fn new(path: &str, line: usize, message: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            line,
            message: message.into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path, self.message),
            line => write!(f, "{}:{line}: {}", self.path, self.message),
        }
    }
}

/// A text file of the repository.
#[derive(Debug)]
struct File {
    /// Relative to the workspace's root, with `/` between its parts.
    path: String,
    text: String,
}

pub(crate) fn main(mut args: lexopt::Parser) -> Result<(), Error> {
    if let Some(arg) = args.next()? {
        return Err(arg.unexpected().into());
    }
    run(&Workspace::load()?)
}

/// Checks every rule and prints what it finds.
pub(crate) fn run(workspace: &Workspace) -> Result<(), Error> {
    let files = files(&workspace.root)?;
    let mut problems = arrows::check(workspace);
    for file in &files {
        problems.extend(words::check(file));
        problems.extend(errors::check(file));
        problems.extend(layout::check(file));
    }
    problems.extend(layout::check_manifests(&member_manifests(workspace), &files));
    problems.extend(layout::check_library_roots(&library_roots(workspace), &files));
    problems.extend(fences::check(&files, fences::FENCES));
    problems.extend(trees::check(&trees::all(workspace)?));
    problems.sort_by(|a, b| (&a.path, a.line).cmp(&(&b.path, b.line)));
    for problem in &problems {
        println!("{problem}");
    }
    match problems.len() {
        0 => {
            println!(
                "tidy: {} files and {} crates keep the rules",
                files.len(),
                workspace.members.len()
            );
            Ok(())
        }
        count => Err(Error::failed(format!(
            "tidy: {count} breach(es) of the house rules, listed above"
        ))),
    }
}

fn member_manifests(workspace: &Workspace) -> Vec<String> {
    let manifests = workspace
        .members
        .iter()
        .map(|member| member.dir.join("Cargo.toml"));
    manifests.map(|path| relative(&workspace.root, &path)).collect()
}

fn library_roots(workspace: &Workspace) -> Vec<String> {
    let roots = workspace
        .members
        .iter()
        .filter_map(|member| member.lib.as_deref());
    roots.map(|path| relative(&workspace.root, path)).collect()
}

fn relative(root: &Path, path: &Path) -> String {
    path.strip_prefix(root)
        .unwrap_or(path)
        .to_string_lossy()
        .replace('\\', "/")
}

/// The text files that are tracked, or new and not ignored. Data sets (any `data` directory) are not ours to judge.
fn files(root: &Path) -> Result<Vec<File>, Error> {
    let listed = Cmd::new("git")
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
            "--deduplicate",
        ])
        .current_dir(root)
        .stdout()?;
    let paths = listed
        .split_terminator('\0')
        .filter(|path| !path.split('/').any(|part| part == "data"));
    let mut files = Vec::new();
    for path in paths {
        // A file deleted but not yet committed is still listed; one that is not text holds no rule's words.
        if let Ok(text) = fs::read_to_string(root.join(path)) {
            files.push(File {
                path: path.to_owned(),
                text,
            });
        }
    }
    if files.is_empty() {
        return Err(Error::failed("tidy: git lists no file; is this a clone?"));
    }
    Ok(files)
}

#[cfg(test)]
impl File {
    fn new(path: &str, text: &str) -> Self {
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
        }
    }
}

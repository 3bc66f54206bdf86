//! `cargo xtask tidy`: the house rules that no lint checks.
//!
//! Each rule is a pure function over paths and texts, tested on strings. The rules read every file that git tracks or would
//! track, so that a new file is checked before it is committed.

mod code_lines;
mod crates;
mod cycles;
mod errors;
mod imports;
mod layers;
mod layout;
mod rust;
mod unsafe_code;
mod weight;
mod words;

use std::{fmt, fs};

use anyhow::{Result, ensure};
use cargo_metadata::Package;
use xshell::cmd;

use crate::workspace::{self, Workspace};

pub(crate) use code_lines::{Args as LinesArgs, run as count_lines};
use imports::Imports;
use rust::Source;

/// A breach of a rule.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Problem {
    /// Relative to the workspace's root.
    path: String,
    /// Counted from 1; 0 for the whole file.
    line: usize,
    message: String,
}

impl Problem {
    fn new(path: &str, line: usize, message: impl Into<String>) -> Self {
        let (path, message) = (path.to_owned(), message.into());
        Self { path, line, message }
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

impl File {
    fn new(path: &str, text: &str) -> Self {
        let (path, text) = (path.to_owned(), text.to_owned());
        Self { path, text }
    }
}

/// Checks every rule and prints the problems.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let files = files(workspace)?;
    let mut problems: Vec<Problem> = files.iter().flat_map(words::check).collect();
    let mut sources = Vec::new();
    for file in files.iter().filter(|file| file.path.ends_with(".rs")) {
        match Source::parse(file) {
            Ok(source) => sources.push(source),
            Err(problem) => problems.push(problem),
        }
    }
    for source in &sources {
        problems.extend(layout::check(source));
        problems.extend(errors::check(source));
        problems.extend(unsafe_code::check(source));
    }
    for member in &workspace.members {
        problems.extend(check_crate(workspace, member, &files, &sources));
    }
    problems.extend(crates::check(workspace)?);
    problems.extend(weight::check(workspace)?);
    problems.sort();
    problems.iter().for_each(|problem| println!("{problem}"));
    let (count, crates) = (problems.len(), workspace.members.len());
    ensure!(count == 0, "tidy: {count} problems, listed above");
    println!("tidy: {} files and {crates} crates keep the rules", files.len());
    Ok(())
}

fn check_crate(
    workspace: &Workspace,
    member: &Package,
    files: &[File],
    sources: &[Source<'_>],
) -> Vec<Problem> {
    let mut problems = Vec::new();
    let manifest = workspace.relative(&member.manifest_path);
    let manifest = files.iter().find(|file| file.path == manifest);
    problems.extend(manifest.and_then(layout::check_manifest));
    for library in member.targets.iter().filter(|target| target.is_lib()) {
        let path = workspace.relative(&library.src_path);
        let root = sources.iter().filter(|source| source.file.path == path);
        problems.extend(root.flat_map(layout::check_library_root));
    }
    let directory = format!("{}/src", workspace.relative(workspace::dir(member)));
    let imports = Imports::of_crate(&directory, sources);
    problems.extend(cycles::check(&imports, cycles::KNOWN));
    for layers in layers::TABLES.iter().filter(|it| it.directory == directory) {
        problems.extend(layers::check(&imports, layers));
    }
    problems
}

/// Returns the text files that are tracked, or new and not ignored. Data sets (any `data` directory) are not checked.
fn files(workspace: &Workspace) -> Result<Vec<File>> {
    let sh = &workspace.sh;
    let new = ["--others", "--exclude-standard", "--deduplicate"];
    let listed = cmd!(sh, "git ls-files -z --cached {new...}").read()?;
    let is_data = |path: &&str| path.split('/').any(|part| part == "data");
    let mut files = Vec::new();
    for path in listed.split_terminator('\0').filter(|path| !is_data(path)) {
        // A file deleted but not yet committed is still listed; one that is not text is not checked.
        if let Ok(text) = fs::read_to_string(workspace.root.join(path)) {
            files.push(File::new(path, &text));
        }
    }
    ensure!(!files.is_empty(), "tidy: git lists no file; is this a clone?");
    Ok(files)
}

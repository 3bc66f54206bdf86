//! Which module of a crate imports which: `crate::`, `super::` and `self::` paths, in `use` and anywhere else in the code.
//!
//! Test modules may import anything and are left out.

use std::collections::BTreeMap;

use proc_macro2::{Delimiter, TokenTree};

use super::rust::{Item, Source, is_ident, is_punct, items};

/// The imports within a crate. Modules are named from its root, which itself is "".
#[derive(Default)]
pub(super) struct Imports {
    /// The directory of its root, such as `progress/src`.
    pub(super) directory: String,
    /// Every module that has a file, and the file.
    pub(super) modules: BTreeMap<String, String>,
    pub(super) list: Vec<Import>,
    /// The meaning of each name that `use` brings into a module.
    names: BTreeMap<(String, String), Vec<String>>,
}

/// A file uses another module of its crate.
pub(super) struct Import {
    pub(super) from: String,
    /// Where the named thing is defined, as far as re-exports show.
    pub(super) to: String,
    pub(super) path: String,
    pub(super) line: usize,
}

impl Imports {
    /// Reads the files below `directory` that belong to the crate's library.
    pub(super) fn of_crate(directory: &str, sources: &[Source<'_>]) -> Self {
        let mut imports = Self::default();
        directory.clone_into(&mut imports.directory);
        let mut references = Vec::new();
        for source in sources.iter().filter(|source| !source.is_test()) {
            let path = &source.file.path;
            if let Some(module) = module(directory, path) {
                imports.modules.insert(module.clone(), path.clone());
                let before = references.len();
                find_in_items(&source.items, &module, &mut references);
                references[before..].iter_mut().for_each(|it| it.file = path);
            }
        }
        // A path that starts with another name is that of a submodule, or of another crate.
        references.retain(|it| it.is_absolute || imports.modules.contains_key(&it.first_module()));
        for it in &references {
            let name = (it.module.clone(), it.alias.clone());
            imports.names.insert(name, it.target.clone());
        }
        for it in references {
            if let Some(to) = imports.resolve(&it.target, 8) {
                imports.list.push(Import {
                    from: module(directory, it.file).unwrap_or_default(),
                    to,
                    path: it.file.to_owned(),
                    line: it.line,
                });
            }
        }
        imports
    }

    /// Follows re-exports to the module that defines `target`; `None` for the crate's root and what cannot be found.
    fn resolve(&self, target: &[String], depth: usize) -> Option<String> {
        let is_module = |end: &usize| self.modules.contains_key(&target[..*end].join("::"));
        let end = (1..=target.len()).take_while(is_module).last().unwrap_or(0);
        let module = target[..end].join("::");
        if let Some((name, rest)) = target[end..].split_first() {
            let alias = self.names.get(&(module.clone(), name.clone()));
            if let Some(meaning) = alias.filter(|_| depth > 0) {
                return self.resolve(&[meaning, rest].concat(), depth - 1);
            }
        }
        Some(module).filter(|module| !module.is_empty())
    }
}

/// Returns the module of a file, if it belongs to the library whose root is in `directory`.
fn module(directory: &str, path: &str) -> Option<String> {
    let inside = path.strip_prefix(directory)?.strip_prefix('/')?;
    let module = inside.strip_suffix(".rs")?;
    let module = module.strip_suffix("/mod").unwrap_or(module);
    match module {
        "lib" | "main" => Some(String::new()),
        _ if module.starts_with("bin/") => None,
        _ => Some(module.replace('/', "::")),
    }
}

/// A path in the code.
struct Reference<'a> {
    /// The module that contains it, which may be inline.
    module: String,
    /// The names from the crate's root.
    target: Vec<String>,
    /// It starts with `crate`, `super` or `self`.
    is_absolute: bool,
    /// The name that it has in the module, if this is a `use`.
    alias: String,
    file: &'a str,
    line: usize,
}

impl Reference<'_> {
    /// The submodule that a path may start with.
    fn first_module(&self) -> String {
        let depth = self.module.split("::").filter(|name| !name.is_empty()).count();
        self.target[..self.target.len().min(depth + 1)].join("::")
    }
}

fn find_in_items(items: &[Item], module: &str, found: &mut Vec<Reference<'_>>) {
    for item in items.iter().filter(|item| !item.is_for_tests()) {
        match (item.after("mod"), item.body()) {
            (Some([TokenTree::Ident(name), ..]), Some(body)) => {
                let inner = format!("{module}::{name}");
                find_in_items(&self::items(body.stream()), inner.trim_start_matches(':'), found);
            }
            _ => find(&item.tokens, module, found),
        }
    }
}

/// The first names of paths within the crate.
const ROOTS: [&str; 3] = ["crate", "super", "self"];

/// Finds paths in code, macros' arguments included.
fn find(tokens: &[TokenTree], module: &str, found: &mut Vec<Reference<'_>>) {
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        let is_root = ROOTS.iter().any(|name| is_ident(token, name));
        if is_ident(token, "use") {
            at += 1 + read_path(&tokens[at + 1..], &[], module, found);
        } else if is_root && is_separator(&tokens[at + 1..]) {
            at += read_path(&tokens[at..], &[], module, found);
        } else {
            if let TokenTree::Group(group) = token {
                find(&group.stream().into_iter().collect::<Vec<_>>(), module, found);
            }
            at += 1;
        }
    }
}

fn is_separator(tokens: &[TokenTree]) -> bool {
    is_punct(tokens.first(), ':') && is_punct(tokens.get(1), ':')
}

/// Reads a path such as `a::{b, c::d as e}` behind the names of `prefix`, and returns the number of tokens read.
fn read_path(tokens: &[TokenTree], prefix: &[String], module: &str, found: &mut Vec<Reference<'_>>) -> usize {
    let (mut at, mut names, mut line) = (0, prefix.to_vec(), 0);
    while let Some(token) = tokens.get(at) {
        match token {
            TokenTree::Ident(name) => names.push(name.to_string()),
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
                let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                for branch in inner.split(|token| is_punct(Some(token), ',')) {
                    read_path(branch, &names, module, found);
                }
                return at + 1;
            }
            _ => break,
        }
        line = token.span().start().line;
        at += 1;
        if !is_separator(&tokens[at..]) {
            break;
        }
        at += 2;
    }
    let alias = match tokens.get(at..at + 2) {
        Some([word, TokenTree::Ident(alias)]) if is_ident(word, "as") => alias.to_string(),
        _ => names.last().cloned().unwrap_or_default(),
    };
    if let Some(first) = names.first().filter(|_| line > 0) {
        let mut target: Vec<String> = module.split("::").map(str::to_owned).collect();
        target.retain(|name| !name.is_empty() && first != "crate");
        for name in &names {
            match name.as_str() {
                // `use a::{self}` names `a`.
                "crate" | "self" => {}
                "super" => drop(target.pop()),
                _ => target.push(name.clone()),
            }
        }
        let is_absolute = ROOTS.contains(&first.as_str());
        let (module, file) = (module.to_owned(), "");
        found.push(Reference {
            module,
            target,
            is_absolute,
            alias,
            file,
            line,
        });
    }
    at
}

#[cfg(test)]
impl Imports {
    /// Reads files with these paths below `directory` and texts.
    pub(super) fn of_texts(directory: &str, files: &[(&str, &str)]) -> Self {
        let file = |(path, text): &(&str, &str)| super::File::new(&format!("{directory}/{path}"), text);
        let files: Vec<super::File> = files.iter().map(file).collect();
        let sources = files.iter().map(|file| Source::parse(file).expect("it is Rust"));
        Self::of_crate(directory, &sources.collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The imports of `files`, beside a module `b` and its submodule `b::c`, each as `line from -> to`.
    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let files = [files, &[("b/mod.rs", "pub use self::c::C;"), ("b/c.rs", "")]].concat();
        let imports = Imports::of_texts("x/src", &files);
        let others = imports.list.iter().filter(|it| it.path != "x/src/b/mod.rs");
        let shown = |it: &Import| format!("{} {} -> {}", it.line, it.from, it.to);
        others.map(shown).collect()
    }

    #[test]
    fn use_trees_are_read() {
        let text = "use std::fs;\npub use crate::{\n  b::{self, X},\n  b::c::*,\n};\n";
        assert_eq!(found(&[("a.rs", text)]), ["3 a -> b", "3 a -> b", "4 a -> b::c"]);
    }

    #[test]
    fn inline_paths_are_found_in_bodies_types_and_macros() {
        let text = "fn f(x: crate::b::X) {\n  assert!(matches!(x, crate::b::c::Y { a: 1 }));\n  use crate::b::Z;\n}\n\
                    pub(in crate) const S: &str = \"crate::b::X\"; // crate::b\n";
        assert_eq!(found(&[("a.rs", text)]), ["1 a -> b", "2 a -> b::c", "3 a -> b"]);
    }

    #[test]
    fn super_is_resolved_against_the_file_and_inline_modules() {
        let text = "use super::super::b::X;\nmod e { use super::super::Y; fn f() { super::g() } }";
        let found = found(&[("a.rs", ""), ("a/d.rs", text)]);
        assert_eq!(found, ["1 a::d -> b", "2 a::d -> a", "2 a::d -> a::d"]);
    }

    #[test]
    fn reexports_are_followed() {
        let lib = ("lib.rs", "mod a;\npub use b::{C as D};\n");
        let a = ("a.rs", "use crate::D;\nuse crate::b::C;\nuse crate::a_macro;");
        assert_eq!(found(&[lib, a]), ["2  -> b::c", "1 a -> b::c", "2 a -> b::c"]);
    }

    #[test]
    fn tests_and_other_programs_are_left_out() {
        let text =
            "#[cfg(test)]\nmod tests {\n use crate::b::X;\n}\n#[cfg(all(test, unix))]\nuse crate::b;\n";
        let (tests, program) = (("a/tests.rs", "use crate::b;"), ("bin/y.rs", "use crate::b;"));
        assert_eq!(found(&[("a.rs", text), tests, program]), [""; 0]);
    }
}

//! Import directions within a crate: modules form layers, and a layer imports only those below it.

use super::Problem;
use super::imports::Imports;

/// The layers of a crate.
pub(super) struct Layers {
    /// The directory of the crate's root, which may import all layers.
    pub(super) directory: &'static str,
    /// From the top down.
    layers: &'static [Layer],
    /// The table holds once this module exists: then every top-level module must be in a layer.
    since: &'static str,
}

/// The name of a layer, its top-level modules, and the names of the layers below it that it must not import either.
type Layer = (&'static str, &'static [&'static str], &'static [&'static str]);

pub(super) const TABLES: &[Layers] = &[Layers {
    directory: "proc-pool/src",
    layers: &[
        // Leader and worker are different programs: only the pool, which starts workers, knows both.
        ("pool", &["pool", "facade", "fuzzing"], &[]),
        ("process", &["process"], &["worker"]),
        ("leader", &["leader"], &["worker"]),
        ("worker", &["worker"], &["observer"]),
        ("observer", &["observer"], &[]),
        ("metrics", &["metrics"], &[]),
        ("wire", &["wire"], &[]),
        ("os", &["os"], &[]),
        (
            "ground",
            &["error", "last_panics", "message", "panics", "spin"],
            &[],
        ),
    ],
    since: "leader",
}];

pub(super) fn check(imports: &Imports, table: &Layers) -> Vec<Problem> {
    let position = |module: &str| {
        let top_level = module.split("::").next().unwrap_or_default();
        let mut layers = table.layers.iter();
        layers.position(|(_, modules, _)| modules.contains(&top_level))
    };
    let mut problems = Vec::new();
    if !imports.modules.contains_key(table.since) {
        return problems;
    }
    for (module, path) in imports.modules.iter().filter(|(module, _)| !module.is_empty()) {
        if position(module).is_none() {
            let message = format!("`{module}` is in no layer: move it into one, or add it to tidy's TABLES");
            problems.push(Problem::new(path, 0, message));
        }
    }
    for import in &imports.list {
        if let (Some(from), Some(to)) = (position(&import.from), position(&import.to)) {
            let ((importer, _, forbidden), (imported, ..)) = (table.layers[from], table.layers[to]);
            if to < from || forbidden.contains(&imported) {
                let message = format!("layer `{importer}` must not import layer `{imported}`");
                problems.push(Problem::new(&import.path, import.line, message));
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The problems of a file of proc-pool beside an empty module of each layer, and a root that re-exports.
    fn found(path: &str, text: &str) -> Vec<String> {
        let root = "mod worker;\npub use worker::Service;\npub use leader::History;";
        let mut files = vec![(path.to_owned(), text), ("lib.rs".to_owned(), root)];
        let modules = TABLES[0].layers.iter().flat_map(|(_, modules, _)| *modules);
        files.extend(modules.map(|module| (format!("{module}.rs"), "")));
        let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (&**path, *text)).collect();
        let problems = check(&Imports::of_texts(TABLES[0].directory, &files), &TABLES[0]);
        problems.into_iter().map(|problem| problem.message).collect()
    }

    #[test]
    fn only_downward_imports_are_allowed() {
        for (path, text, forbidden) in [
            ("pool/map.rs", "use crate::{leader::Map, worker, wire};", ""),
            ("pool/map.rs", "use super::Pool; use crate::observer;", ""),
            ("process/manager.rs", "use crate::leader::Command;", ""),
            ("leader/core.rs", "use super::x; use crate::metrics::X;", ""),
            ("worker/init.rs", "use crate::{metrics::X, os::y, spin};", ""),
            ("leader/core.rs", "use crate::worker::main;", "worker"),
            ("leader/core.rs", "use crate::Service;", "worker"),
            ("worker/init.rs", "fn f() { crate::leader::g() }", "leader"),
            ("worker/init.rs", "use crate::History;", "leader"),
            ("worker/init.rs", "use crate::observer::Observer;", "observer"),
            ("wire/ticket.rs", "use super::super::leader::Core;", "leader"),
            ("process/spawn.rs", "use crate::{worker::main, os};", "worker"),
            ("leader/tasks/window.rs", "use crate::pool::Pool;", "pool"),
            ("metrics/times.rs", "use crate::observer::Observer;", "observer"),
            ("os/unix/x.rs", "f!(super::super::super::wire::X);", "wire"),
        ] {
            let layer = path.split('/').next().unwrap_or_default();
            let found = found(path, text).join("\n");
            let expected = format!("layer `{layer}` must not import layer `{forbidden}`");
            assert!(
                found == expected || (found + forbidden).is_empty(),
                "{path}: {text}"
            );
        }
    }

    #[test]
    fn tests_may_import_anything() {
        let text = "#[cfg(test)]\nmod tests { use crate::worker::main; }";
        assert_eq!(found("leader/core.rs", text), [""; 0]);
    }

    #[test]
    fn every_module_is_in_a_layer() {
        let found = found("clock.rs", "use crate::pool::Pool;");
        assert!(found[0].starts_with("`clock` is in no layer"), "{found:?}");
    }
}

//! Callsites that tests make at run time.
#![cfg(test)]

use std::sync::OnceLock;

use tracing_core::callsite::Callsite;
use tracing_core::field::FieldSet;
use tracing_core::{Interest, Kind, Level, Metadata, identify_callsite};

struct TestCallsite(OnceLock<Metadata<'static>>);

impl Callsite for TestCallsite {
    fn set_interest(&self, _: Interest) {}

    fn metadata(&self) -> &Metadata<'_> {
        self.0.get().expect("a callsite has metadata")
    }
}

/// Returns the metadata of a new callsite: a WARN event in line `line` of `file`, with the fields `message` and `a`.
pub(crate) fn leak_metadata(line: u32) -> &'static Metadata<'static> {
    let callsite: &'static TestCallsite = Box::leak(Box::new(TestCallsite(OnceLock::new())));
    let fields = FieldSet::new(&["message", "a"], identify_callsite!(callsite));
    callsite.0.get_or_init(|| {
        Metadata::new(
            "name",
            "target",
            Level::WARN,
            Some("file"),
            Some(line),
            None,
            fields,
            Kind::EVENT,
        )
    })
}

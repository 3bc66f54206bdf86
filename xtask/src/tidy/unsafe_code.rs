//! Where `unsafe` is permitted. The lint `unsafe_code` denies it elsewhere, and `allow_attributes_without_reason` asks for the
//! reason; this rule finds permissions that nothing needs, and permissions in code that this machine does not compile.

use proc_macro2::TokenTree;

use super::Problem;
use super::rust::{Source, is_ident};

pub(super) fn check(source: &Source<'_>) -> Vec<Problem> {
    let has_unsafe = source.items.iter().any(|item| {
        let mut attributes = item.attributes.iter();
        item.tokens.iter().any(contains_unsafe) || attributes.any(|it| it.starts_with("unsafe("))
    });
    let mut problems = Vec::new();
    for item in &source.items {
        let permits = |it: &&String| {
            it.contains("unsafe_code") && ["allow(", "expect("].iter().any(|level| it.contains(level))
        };
        for attribute in item.attributes.iter().filter(permits) {
            let mut report =
                |message| problems.push(Problem::new(&source.file.path, item.first_line, message));
            if !has_unsafe {
                report("permits `unsafe_code` but has none; permit it inside the module that needs it");
            }
            if !attribute.contains("reason=") {
                report("permits `unsafe_code` without a `reason`");
            }
        }
    }
    problems
}

fn contains_unsafe(token: &TokenTree) -> bool {
    match token {
        TokenTree::Group(group) => group.stream().into_iter().any(|token| contains_unsafe(&token)),
        token => is_ident(token, "unsafe"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permission_has_a_reason_and_is_needed() {
        let lines = |text: &str| super::super::rust::lines(check, "a/src/os.rs", text);
        let text =
            "//! Calls.\n#![allow(unsafe_code, reason = \"system calls\")]\nfn f() { unsafe { g() } }\n";
        assert_eq!(lines(text), [0; 0]);
        assert_eq!(lines(&text.replace("unsafe {", "{")), [2]);
        assert_eq!(lines(&text.replace(", reason = \"system calls\"", "")), [2]);
        assert_eq!(lines("#![cfg_attr(unix, allow(unsafe_code))]\nfn f() {}"), [1, 1]);
        let text = "#![allow(unsafe_code, reason = \"\")]\n#[unsafe(no_mangle)]\nfn f() {}";
        assert_eq!(lines(text), [0; 0]);
        assert_eq!(lines("//! unsafe\n#![deny(unsafe_code)]\nfn f() {}"), [0; 0]);
    }
}

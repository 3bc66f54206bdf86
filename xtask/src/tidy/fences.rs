//! Where `unsafe` may be written: the modules of one table, each with its reason.

use super::{File, Problem, source};

/// A module that may use `unsafe`.
#[derive(Debug)]
pub(super) struct Fence {
    /// Relative to the workspace's root.
    pub(super) path: &'static str,
    /// What it does that has no safe way.
    pub(super) reason: &'static str,
}

/// Every file with `unsafe` in it, submodules and tests too.
pub(super) const FENCES: &[Fence] = &[
    Fence {
        path: "invoker/examples/crashing_c.rs",
        reason: "crashes on purpose, in C",
    },
    Fence {
        path: "invoker/tests/it/forks.rs",
        reason: "forks, as other code in a leader may",
    },
    Fence {
        path: "invoker/tests/it/mapped.rs",
        reason: "maps a file that the test made",
    },
    Fence {
        path: "proc-pool/benches/pool/allocations.rs",
        reason: "counts what the allocator is asked for",
    },
    Fence {
        path: "proc-pool/src/entry.rs",
        reason: "turns a distance within the loaded object back into a function",
    },
    Fence {
        path: "proc-pool/src/init.rs",
        reason: "places a constructor in test binaries",
    },
    Fence {
        path: "proc-pool/src/op.rs",
        reason: "turns proven addresses of functions back into function pointers",
    },
    Fence {
        path: "proc-pool/src/os/console.rs",
        reason: "the console control handler",
    },
    Fence {
        path: "proc-pool/src/os/fork.rs",
        reason: "has the C library count forks",
    },
    Fence {
        path: "proc-pool/src/os/signals.rs",
        reason: "signal handlers",
    },
    Fence {
        path: "proc-pool/src/os/stack.rs",
        reason: "walks the stack in a signal handler",
    },
    Fence {
        path: "proc-pool/src/os/unix.rs",
        reason: "_exit, and how signals are treated",
    },
    Fence {
        path: "proc-pool/src/os/unix/elf.rs",
        reason: "reads what the dynamic linker reports of a loaded object",
    },
    Fence {
        path: "proc-pool/src/os/unix/mach_o.rs",
        reason: "reads the header of a loaded image",
    },
    Fence {
        path: "proc-pool/src/os/unix/credentials.rs",
        reason: "asks the system about privileges, and about the process behind a socket",
    },
    Fence {
        path: "proc-pool/src/os/unix/group.rs",
        reason: "kills the worker's own process group, and has the system do so when the leader dies",
    },
    Fence {
        path: "proc-pool/src/os/unix/introduction.rs",
        reason: "takes over and closes descriptors that this process has inherited",
    },
    Fence {
        path: "proc-pool/src/os/windows.rs",
        reason: "asks the system about clocks and processes, and ends this one",
    },
    Fence {
        path: "proc-pool/src/os/windows/introduction.rs",
        reason: "reads the standard input that it has inherited, and asks for its parent",
    },
    Fence {
        path: "proc-pool/src/os/windows/job.rs",
        reason: "the job that ends a worker with its leader, and what it started with the worker",
    },
    Fence {
        path: "proc-pool/src/os/windows/module.rs",
        reason: "asks the system about a module, its memory and its file",
    },
    Fence {
        path: "proc-pool/tests/it/crash.rs",
        reason: "crashes and forks on purpose",
    },
    Fence {
        path: "proc-pool/tests/it/crash/elsewhere.rs",
        reason: "crashes on purpose, kills and waits for processes",
    },
    Fence {
        path: "proc-pool/tests/it/trip.rs",
        reason: "takes pages and system calls away, and handles the signals that come of it",
    },
    Fence {
        path: "progress/src/tty.rs",
        reason: "blocks a signal for a thread; makes a console of Windows understand escape sequences",
    },
    Fence {
        path: "shm-buffers/src/buffer.rs",
        reason: "a typed slice that owns its memory through a shared pointer",
    },
    Fence {
        path: "shm-buffers/src/mapped.rs",
        reason: "maps files that others could change, on the caller's word that nobody does",
    },
    Fence {
        path: "shm-buffers/src/os/descriptors.rs",
        reason: "duplicates a descriptor whose number a handle has",
    },
    Fence {
        path: "shm-buffers/src/os/futex.rs",
        reason: "gives the system the address of half a word",
    },
    Fence {
        path: "shm-buffers/src/os/mapping.rs",
        reason: "turns mapped memory into slices and atomics; moves a mapping that grows",
    },
    Fence {
        path: "shm-buffers/src/os/unix.rs",
        reason: "gives pages of exclusive memory back to the system",
    },
    Fence {
        path: "shm-buffers/src/region.rs",
        reason: "sees shared writable memory as atomic words",
    },
    Fence {
        path: "shm-buffers/src/os/windows.rs",
        reason: "named mappings, what the system has left, and which file is which",
    },
    Fence {
        path: "shm-buffers/src/segment.rs",
        reason: "sees frozen memory as a slice",
    },
    Fence {
        path: "shm-buffers/tests/it/mapped.rs",
        reason: "maps files that the tests made",
    },
    Fence {
        path: "shm-buffers/tests/it/windows.rs",
        reason: "writes a model through a stray pointer, to see that it faults",
    },
    Fence {
        path: "shm-buffers/tests/it/faults.rs",
        reason: "writes a model through a stray pointer, to see that it faults; forks",
    },
];

pub(super) fn check(files: &[File], fences: &[Fence]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for file in files.iter().filter(|file| file.path.ends_with(".rs")) {
        let code = source::code(&file.text);
        let keyword = source::words(&code, "unsafe").next();
        let lint = ["allow", "expect", "warn"]
            .iter()
            .flat_map(|level| source::words(&code, level))
            .find(|&at| attribute_names(&code, at, "unsafe_code"));
        let listed = fences.iter().find(|fence| fence.path == file.path);
        let mut report = |at: usize, message: &str| {
            problems.push(Problem::new(&file.path, source::line_of(&code, at), message));
        };
        match (keyword, lint, listed) {
            (Some(at), _, None) => {
                report(
                    at,
                    "`unsafe` outside the modules made for it (tidy's FENCES lists them)",
                );
            }
            (None, Some(at), _) => {
                report(
                    at,
                    "allows `unsafe_code` but has none; allow it inside the module that needs it",
                );
            }
            (None, None, Some(_)) => report(0, "is listed in tidy's FENCES but has no `unsafe`; take it off"),
            (Some(_), _, Some(_)) | (None, None, None) => {}
        }
    }
    for fence in fences {
        if !files.iter().any(|file| file.path == fence.path) {
            problems.push(Problem::new(
                fence.path,
                0,
                "is listed in tidy's FENCES but does not exist",
            ));
        }
        if fence.reason.trim().is_empty() {
            problems.push(Problem::new(
                fence.path,
                0,
                "is listed in tidy's FENCES without a reason",
            ));
        }
    }
    problems
}

/// Whether the word at `at` is followed by a parenthesis that names `lint`.
fn attribute_names(code: &str, at: usize, lint: &str) -> bool {
    match code[at..].find('(') {
        Some(open) if code[at..at + open].chars().all(|c| c.is_ascii_alphabetic()) => {
            let end = source::group_end(code, at + open);
            source::words(&code[at + open..end], lint).next().is_some()
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FENCE: &[Fence] = &[Fence {
        path: "a/src/os.rs",
        reason: "system calls",
    }];
    const FENCED: &str = "//! Calls.\n#![allow(unsafe_code)]\nfn f() { unsafe { g() } }\n";

    fn said(path: &str, text: &str, fences: &[Fence]) -> Vec<String> {
        check(&[File::new(path, text)], fences)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn a_listed_module_may_be_unsafe_and_others_may_speak_of_it() {
        assert_eq!(said("a/src/os.rs", FENCED, FENCE), [""; 0]);
        let plain =
            "//! No unsafe.\n#![deny(unsafe_code, unsafe_op_in_unsafe_fn)]\nconst S: &str = \"unsafe\";\n";
        assert_eq!(said("a/src/lib.rs", plain, &[]), [""; 0]);
    }

    #[test]
    fn unsafe_elsewhere_is_told_with_its_line() {
        let said = said("a/src/lib.rs", FENCED, &[]);
        assert!(
            said.len() == 1 && said[0].starts_with("a/src/lib.rs:3: `unsafe` outside"),
            "{said:?}"
        );
    }

    #[test]
    fn permission_is_given_inside_the_module_that_needs_it() {
        let text = "//! Root.\n#[allow(dead_code, unsafe_code)]\nmod os;\n";
        let said = said("a/src/lib.rs", text, &[]);
        assert!(
            said.len() == 1 && said[0].starts_with("a/src/lib.rs:2: allows"),
            "{said:?}"
        );
    }

    #[test]
    fn the_table_holds_nothing_stale_or_unexplained() {
        let said_of_plain = said("a/src/os.rs", "//! Calls.\n", FENCE);
        assert!(
            said_of_plain.len() == 1 && said_of_plain[0].contains("take it off"),
            "{said_of_plain:?}"
        );
        let said_of_absent = said("a/src/lib.rs", "//! Root.\n", FENCE);
        assert!(
            said_of_absent.len() == 1 && said_of_absent[0].contains("does not exist"),
            "{said_of_absent:?}"
        );
        let unexplained = [Fence {
            path: "a/src/os.rs",
            reason: " ",
        }];
        let said_of_unexplained = said("a/src/os.rs", FENCED, &unexplained);
        assert!(said_of_unexplained.len() == 1 && said_of_unexplained[0].contains("reason"));
    }
}

//! [`doctor`]: checks what this machine offers, before a job depends on it.

mod diagnosis;
mod facts;
mod rules;

pub use diagnosis::{Advice, Diagnosis, Finding, Verdict};

use facts::Facts;

/// Checks what this machine offers the process here and now: cores, memory, `/dev/shm`, files, the environment. Inside a
/// container it reports the limits of the container. It allocates one page of shared memory, and starts nothing.
///
/// ```
/// use invoker::{Verdict, doctor};
///
/// let diagnosis = doctor();
/// println!("{diagnosis}");
/// if diagnosis.worst() == Verdict::Broken {
///     eprintln!("jobs may not run here");
/// }
/// ```
///
/// The example `doctor` prints it: `cargo run -p invoker --example doctor`, with `--json` for programs.
pub fn doctor() -> Diagnosis {
    Diagnosis {
        findings: rules::findings(&Facts::now()),
    }
}

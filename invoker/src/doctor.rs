//! [`doctor`]: what this machine will allow, asked before a job finds out.

mod rules;

use std::fmt;
use std::io::IsTerminal;

use proc_pool::Surroundings;
use serde::Serialize;
use shm_buffers::{Backing, Buffer, Image, Room};

use crate::settings;

/// What [`doctor`] found. Displayed, it is a table.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Diagnosis {
    /// One for each thing that was looked at.
    pub findings: Vec<Finding>,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// What: a short name that does not change, as `open-files`.
    pub name: &'static str,
    /// How it is, for people.
    pub found: String,
    /// How it is as a number, where there is one: a count, or bytes.
    pub number: Option<f64>,
    /// Whether that is enough.
    pub verdict: Verdict,
    /// If not, what does not work, or not as it could, and what to do.
    pub advice: Option<Advice>,
}

/// What follows from something that is not as it could be.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Advice {
    /// Which feature is broken or limited.
    pub feature: String,
    /// What helps.
    pub remedy: String,
}

/// Whether something is as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Verdict {
    /// Nothing is to be feared.
    Fine,
    /// Something works less well than it could, or not beyond a limit.
    Limited,
    /// Something does not work.
    Broken,
}

/// Looks at what this machine allows the process here and now: cores, memory, `/dev/shm`, files, the temporary directory,
/// the environment; also inside containers. It makes one page of shared memory, and starts nothing.
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
    let facts = Facts {
        room: Room::now(),
        around: Surroundings::now(),
        sharing: try_sharing(),
        terminal: std::io::stderr().is_terminal(),
        backtrace: std::env::var("RUST_BACKTRACE").ok(),
        variables: settings::variables(&settings::environment),
    };
    Diagnosis {
        findings: rules::findings(&facts),
    }
}

/// All that findings are made from.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    room: Room,
    around: Surroundings,
    /// Whether anonymous memory can be made, sealed, and reached from elsewhere; the reason if not.
    sharing: Result<(), String>,
    terminal: bool,
    backtrace: Option<String>,
    /// The variables that are set, and what is wrong with them.
    variables: Result<Vec<(&'static str, String)>, String>,
}

/// Shares a page and attaches it again as another process would.
fn try_sharing() -> Result<(), String> {
    let in_full = |error: &(dyn std::error::Error + 'static)| format!("{:#}", shm_buffers::WithCauses(error));
    let page: Buffer<u8> = vec![7; 4096].into();
    let image = shm_buffers::share(&page, &Backing::Anonymous).map_err(|e| in_full(&e))?;
    let handle = image.handle().map_err(|e| in_full(&e))?;
    let attached = Image::attach(&handle).map_err(|e| in_full(&e))?;
    match attached.load::<Buffer<u8>>() {
        Ok(attached) if attached == page => Ok(()),
        Ok(_) => Err("what was read is not what was written".to_owned()),
        Err(e) => Err(in_full(&e)),
    }
}

impl Diagnosis {
    /// The worst verdict of all findings.
    pub fn worst(&self) -> Verdict {
        let verdicts = self.findings.iter().map(|finding| finding.verdict);
        verdicts.max().unwrap_or(Verdict::Fine)
    }

    /// The finding of that name.
    pub fn get(&self, name: &str) -> Option<&Finding> {
        self.findings.iter().find(|finding| finding.name == name)
    }

    /// As one JSON object.
    pub fn to_json(&self) -> String {
        // Its types are numbers, texts and lists of them.
        serde_json::to_string(self).unwrap_or_else(|e| unreachable!("a diagnosis is JSON: {e}"))
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Fine => "fine",
            Self::Limited => "limited",
            Self::Broken => "BROKEN",
        })
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<14} {:<8} found", "what", "verdict")?;
        for finding in &self.findings {
            let Finding {
                name, found, verdict, ..
            } = finding;
            write!(f, "\n{name:<14} {verdict:<8} {found}")?;
            if let Some(Advice { feature, remedy }) = &finding.advice {
                write!(f, "\n{:23} {feature}; {remedy}", "")?;
            }
        }
        Ok(())
    }
}

//! [`Diagnosis`]: the findings of the doctor.

use std::fmt;

use serde::Serialize;

/// The findings of [`doctor`](crate::doctor()). `Display` prints a table.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[must_use]
#[non_exhaustive]
pub struct Diagnosis {
    /// One finding per check.
    pub findings: Vec<Finding>,
}

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// A short, stable name of the check, such as `open-files`.
    pub name: &'static str,
    /// The result as text.
    pub found: String,
    /// The result as a number, where there is one: a count, or bytes.
    pub number: Option<f64>,
    /// Whether the result is sufficient.
    pub verdict: Verdict,
    /// If it is not: the consequence and the remedy.
    pub advice: Option<Advice>,
}

/// The consequence of an insufficient result, and the remedy.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Advice {
    /// The broken or limited feature, and the consequence.
    pub feature: String,
    /// What to do about it.
    pub remedy: String,
}

/// Whether a result is sufficient. Ordered from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Verdict {
    /// No problem found.
    Fine,
    /// A feature is slower than it could be, or works up to a limit.
    Limited,
    /// A feature does not work.
    Broken,
}

impl Diagnosis {
    /// Returns the worst verdict of all findings.
    pub fn worst(&self) -> Verdict {
        let verdicts = self.findings.iter().map(|finding| finding.verdict);
        verdicts.max().unwrap_or(Verdict::Fine)
    }

    /// Returns the finding of this name.
    pub fn get(&self, name: &str) -> Option<&Finding> {
        self.findings.iter().find(|finding| finding.name == name)
    }

    /// Returns the diagnosis as one JSON object.
    pub fn to_json(&self) -> String {
        // Numbers, strings and lists of them always serialize.
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

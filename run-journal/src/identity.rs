//! [`Identity`]: the job that a journal belongs to. Another job is refused.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::JournalError;

/// Everything that outputs depend on, beside the tasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The op, or its [name](crate::Journal::op).
    pub op: String,
    /// The type of tasks.
    pub task_type: String,
    /// The type of outputs.
    pub output_type: String,
    /// The codec of tasks and outputs.
    pub codec: String,
    /// The type of the model.
    pub model_type: String,
    /// The model, or its [name](crate::Journal::model).
    pub model: String,
    /// The root seed.
    pub seed: String,
    /// The value that all tasks of a run have.
    pub context: String,
}

/// The remedy for a difference in each part of an [`Identity`], in their order: types of tasks and outputs, codec, op, type of the model,
/// model, seed, context.
pub type Remedies = [&'static str; 8];

/// The description of something that has a name.
pub(crate) fn named(name: &str) -> String {
    format!("named {name:?}")
}

impl Identity {
    /// Describes a codec of this name, whose encodings are those of a machine with this byte order.
    pub fn describe_codec(name: &str) -> String {
        match cfg!(target_endian = "little") {
            true => format!("{name}, little-endian"),
            false => format!("{name}, big-endian"),
        }
    }

    /// Describes a root seed.
    pub fn describe_seed(seed: Option<u64>) -> String {
        seed.map_or_else(|| "none".to_owned(), |seed| seed.to_string())
    }

    pub(crate) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings can be written as JSON")
    }

    pub(crate) fn from_json(json: &[u8], path: &Path) -> Result<Self, JournalError> {
        serde_json::from_slice(json).map_err(|error| JournalError::NotAJournal {
            path: path.to_owned(),
            reason: format!("it does not describe its job ({error})"),
        })
    }

    /// Returns names and descriptions.
    pub(crate) fn rows(&self) -> [(&'static str, String); 8] {
        [
            ("the type of tasks", self.task_type.clone()),
            ("the type of outputs", self.output_type.clone()),
            ("the codec", self.codec.clone()),
            ("the op", self.op.clone()),
            ("the type of the model", self.model_type.clone()),
            ("the model", self.model.clone()),
            ("the seed", self.seed.clone()),
            ("the context", self.context.clone()),
        ]
    }

    /// Refuses a journal, with `self`, that is not of the job `current`.
    pub(crate) fn check(&self, current: &Self, remedies: &Remedies, path: &Path) -> Result<(), JournalError> {
        let pairs = self.rows().into_iter().zip(current.rows());
        let different = pairs.zip(*remedies);
        let mut different = different.filter(|(((_, stored), (_, current)), _)| stored != current);
        match different.next() {
            None => Ok(()),
            Some((((what, stored), (_, current)), remedy)) => Err(JournalError::Differs {
                path: path.to_owned(),
                what,
                stored,
                current,
                remedy,
            }),
        }
    }
}

//! [`Identity`]: the job that a journal belongs to. Another job is refused.

use std::any::type_name;
use std::path::Path;

use proc_pool::facade::describe_code;
use proc_pool::{BoxError, Native};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::options::Journal;
use crate::error::Error;
use crate::journal_error::JournalError;
use crate::model_source::ModelSource;
use crate::op::Op;
use crate::task_hash::task_hash;

/// Everything that outputs depend on, beside the tasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    pub(super) op: String,
    pub(super) task_type: String,
    pub(super) output_type: String,
    pub(super) codec: String,
    pub(super) model_type: String,
    pub(super) model: String,
    pub(super) seed: String,
    pub(super) context: String,
}

/// The remedy for a difference in each of [`Identity::rows`].
const REMEDIES: [&str; 8] = [
    "use the same type",
    "use the same type",
    "use the same version on the same kind of machine",
    "if another build of it computes the same, name it with `invoker-journal salvage --op NAME` and `Journal::op`",
    "use the same type",
    "if it is the same (a `HashMap` has another order in each process), name it with `invoker-journal salvage --model NAME` and \
     `Journal::model`",
    "set it as before",
    "set it, and the first value of a fold, as before",
];

/// The description of something that has a name.
pub(super) fn named(name: &str) -> String {
    format!("named {name:?}")
}

impl Identity {
    /// Describes a job.
    pub(super) fn of<F, M, T, R>(
        journal: &Journal,
        op: &F,
        model: &ModelSource<'_, M>,
        seed: Option<u64>,
    ) -> Result<Self, Error>
    where
        F: Op<M, T, R>,
        M: Serialize + DeserializeOwned,
    {
        let failed = |step| {
            move |error: BoxError| Error::Os {
                step,
                source: std::io::Error::other(error),
            }
        };
        let mut context = Vec::new();
        op.encode_values(&mut context)
            .map_err(failed("encode the context for the journal"))?;
        Ok(Self {
            op: match &journal.op {
                Some(name) => named(name),
                None => describe_code(op.clone().split().0)?,
            },
            task_type: type_name::<T>().to_owned(),
            output_type: type_name::<R>().to_owned(),
            codec: format!(
                "{}, {}",
                type_name::<Native>(),
                if cfg!(target_endian = "little") {
                    "little-endian"
                } else {
                    "big-endian"
                }
            ),
            model_type: type_name::<M>().to_owned(),
            model: match &journal.model {
                Some(name) => named(name),
                None => format!("{:016x}", model.fingerprint()?),
            },
            seed: seed.map_or_else(|| "none".to_owned(), |seed| seed.to_string()),
            context: format!("{:016x}", task_hash(&context)),
        })
    }

    pub(super) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings can be written as JSON")
    }

    pub(super) fn from_json(json: &[u8], path: &Path) -> Result<Self, JournalError> {
        serde_json::from_slice(json).map_err(|error| JournalError::NotAJournal {
            path: path.to_owned(),
            reason: format!("it does not describe its job ({error})"),
        })
    }

    /// Returns names and descriptions.
    pub(super) fn rows(&self) -> [(&'static str, String); 8] {
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
    pub(super) fn check(&self, current: &Self, path: &Path) -> Result<(), JournalError> {
        let pairs = self.rows().into_iter().zip(current.rows());
        let different = pairs.zip(REMEDIES);
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

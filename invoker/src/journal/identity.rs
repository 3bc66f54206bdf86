//! Describes the job of an invoker, to which its journal belongs.

use std::any::type_name;
use std::sync::Arc;

use proc_pool::facade::describe_code;
use proc_pool::{BoxError, Native};
use run_journal::{Identity, Journal, OpenJournal, Remedies, task_hash};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Error;
use crate::model_source::ModelSource;
use crate::op::Op;

const REMEDIES: Remedies = [
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

/// Opens the journal for a job, or creates it.
pub(crate) fn open<F, M, T, R>(
    journal: Journal,
    op: &F,
    model: &ModelSource<'_, M>,
    seed: Option<u64>,
) -> Result<Arc<OpenJournal>, Error>
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
    let identity = Identity {
        op: match journal.described_op() {
            Some(name) => name,
            None => describe_code(op.clone().split().0)?,
        },
        task_type: type_name::<T>().to_owned(),
        output_type: type_name::<R>().to_owned(),
        codec: Identity::describe_codec(type_name::<Native>()),
        model_type: type_name::<M>().to_owned(),
        model: match journal.described_model() {
            Some(name) => name,
            None => format!("{:016x}", model.fingerprint()?),
        },
        seed: Identity::describe_seed(seed),
        context: format!("{:016x}", task_hash(&context)),
    };
    Ok(Arc::new(OpenJournal::open(journal, &identity, &REMEDIES)?))
}

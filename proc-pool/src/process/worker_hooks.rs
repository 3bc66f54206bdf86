//! [`WorkerHooks`]: the user's code that makes values and environment variables for each process, before its start.

use std::any::{Any, type_name};
use std::ffi::OsString;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use shm_buffers::descriptors::{Descriptors, collect};

use crate::error::{BoxError, WorkerId, chain};
use crate::leader::start_failure::StartFailure;
use crate::panics::guarded;
use crate::wire::encoding::encode;
use crate::wire::value::PreparedValue;
use crate::wire::worker_values::WorkerValue;

type MakeValue = dyn Fn(WorkerId) -> Result<MadeValue, BoxError> + Send + Sync;
type MakeVariables = dyn Fn(WorkerId) -> Vec<(OsString, OsString)> + Send + Sync;

/// A value for one process.
struct MadeValue {
    encoded: WorkerValue,
    /// The descriptors that handles in the value refer to.
    descriptors: Descriptors,
    /// The value itself, which lives as long as the process.
    value: Box<dyn Any + Send>,
}

/// The user's code that is called before the start of each process.
#[derive(Clone, Default)]
pub(crate) struct WorkerHooks {
    /// Each hook, beside the name of its value's type. No two have the same type.
    values: Vec<(&'static str, Arc<MakeValue>)>,
    variables: Vec<Arc<MakeVariables>>,
}

impl fmt::Debug for WorkerHooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let types = self.values.iter().map(|(type_name, _)| type_name);
        f.debug_list().entries(types).finish()
    }
}

/// The values and variables of one process. This keeps the values until it is dropped, after the end of the process.
pub(crate) struct ProcessValues {
    pub(crate) variables: Vec<(OsString, OsString)>,
    /// The values, as encoded [`WorkerValue`]s.
    pub(crate) encoded: PreparedValue,
    pub(crate) descriptors: Vec<Descriptors>,
    _values: KeptValues,
}

impl WorkerHooks {
    /// Adds a hook that makes a value. It replaces the hook for the same type.
    pub(crate) fn add_value<V, E>(&mut self, make: impl Fn(WorkerId) -> Result<V, E> + Send + Sync + 'static)
    where
        V: Serialize + Send + 'static,
        E: Into<BoxError>,
    {
        let make = move |worker| {
            let value = make(worker).map_err(Into::into)?;
            let (encoded, descriptors) = collect(|| WorkerValue::encoded(&value));
            Ok(MadeValue {
                encoded: encoded?,
                descriptors,
                value: Box::new(value),
            })
        };
        self.values
            .retain(|(type_name, _)| *type_name != std::any::type_name::<V>());
        self.values.push((type_name::<V>(), Arc::new(make)));
    }

    /// Adds a hook that makes environment variables.
    pub(crate) fn add_variables(
        &mut self,
        make: impl Fn(WorkerId) -> Vec<(OsString, OsString)> + Send + Sync + 'static,
    ) {
        self.variables.push(Arc::new(make));
    }

    /// Calls the hooks for a process of `worker`.
    pub(crate) fn call(&self, worker: WorkerId) -> Result<ProcessValues, StartFailure> {
        let mut variables = Vec::new();
        for make in &self.variables {
            let made = guarded(|| make(worker)).map_err(|panic| {
                StartFailure::Failed(format!("had no environment: `worker_env` panicked: {panic}"))
            })?;
            variables.extend(made);
        }
        let (mut encoded, mut descriptors) = (Vec::new(), Vec::new());
        let mut kept = KeptValues::default();
        for (type_name, make) in &self.values {
            let failed = |why| StartFailure::Failed(format!("had no value of the type `{type_name}`: {why}"));
            let made = guarded(|| make(worker))
                .map_err(|panic| failed(format!("`worker_value` panicked: {panic}")))?
                .map_err(|e| failed(chain(&*e)))?;
            encoded.push(made.encoded);
            descriptors.push(made.descriptors);
            kept.0.push(made.value);
        }
        let mut bytes = Vec::new();
        encode(&encoded, &mut bytes).map_err(|e| StartFailure::Failed(e.to_string()))?;
        Ok(ProcessValues {
            variables,
            encoded: PreparedValue::new(bytes).map_err(StartFailure::Failed)?,
            descriptors,
            _values: kept,
        })
    }
}

/// The values of one process. A panic of a value's drop is caught.
#[derive(Default)]
struct KeptValues(Vec<Box<dyn Any + Send>>);

impl Drop for KeptValues {
    fn drop(&mut self) {
        for value in self.0.drain(..) {
            let _ = guarded(|| drop(value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::value::{MAX_IN_HANDSHAKE, ValuePayload};

    #[test]
    fn each_process_gets_values_that_are_made_for_it_and_kept() {
        let alive = Arc::new(());
        let mut hooks = WorkerHooks::default();
        hooks.add_value(|worker| Ok::<u32, BoxError>(worker.0));
        let counted = alive.clone();
        hooks.add_value(move |worker| Ok::<_, BoxError>((worker.0 * 10, Counted(counted.clone()))));
        hooks.add_value(|worker| Ok::<u32, BoxError>(worker.0 + 1));
        hooks.add_variables(|worker| vec![("N".into(), worker.to_string().into())]);
        let made = hooks.call(WorkerId(4)).expect("no hook fails");
        let ValuePayload::Inline(bytes) = made.encoded.payload() else {
            panic!("the values are small")
        };
        let values: Vec<WorkerValue> = crate::wire::encoding::decode(&bytes).expect("they are encoded");
        assert_eq!(
            WorkerValue::find::<u32>(&values),
            Ok(5),
            "the later hook of a type counts"
        );
        assert_eq!(values.len(), 2);
        assert_eq!(made.variables, [(OsString::from("N"), OsString::from("4"))]);
        // The test, the hook and the value.
        assert_eq!(Arc::strong_count(&alive), 3);
        drop(made);
        assert_eq!(Arc::strong_count(&alive), 2);
    }

    struct Counted(#[expect(dead_code, reason = "counted")] Arc<()>);

    impl Serialize for Counted {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_unit()
        }
    }

    #[test]
    fn large_values_get_a_segment() {
        let mut hooks = WorkerHooks::default();
        hooks.add_value(|_| Ok::<_, BoxError>(vec![1u8; MAX_IN_HANDSHAKE + 1]));
        let made = hooks.call(WorkerId(0)).expect("no hook fails");
        assert!(matches!(made.encoded.payload(), ValuePayload::Segment(_)));
    }
}

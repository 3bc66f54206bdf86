//! [`WorkerValue`]: a value that the leader has made for one worker process, in the handshake.

use std::any::type_name;

use serde::{Deserialize, Serialize};

use super::encoding::{decode, encode};

/// A value that the leader has made for one worker process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WorkerValue {
    /// The name of the value's type. A worker has at most one value of each type.
    type_name: String,
    bytes: Vec<u8>,
}

/// Why a worker has no value of a type: see [`WorkerContext::worker_value`](crate::WorkerContext::worker_value).
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerValueError {
    /// The leader made no value of this type.
    #[error(
        "the worker has no value of the type `{wanted}`; it has {}; set one with `Builder::worker_value`",
        list(available)
    )]
    Missing {
        /// The type that the worker asked for.
        wanted: String,
        /// The types of the values that the leader made.
        available: Vec<String>,
    },
    /// The value cannot be decoded: leader and worker program define the type differently.
    #[error(
        "the worker cannot decode its value of the type `{wanted}`: {reason}; build leader and worker program with one definition of \
         the type"
    )]
    Decode {
        /// The type that the worker asked for.
        wanted: String,
        /// Why the value cannot be decoded.
        reason: String,
    },
}

shm_buffers::debug_with_causes!(WorkerValueError);

fn list(types: &[String]) -> String {
    match types {
        [] => "no values".to_owned(),
        types => format!("`{}`", types.join("`, `")),
    }
}

impl WorkerValue {
    pub(crate) fn encoded<V: Serialize>(value: &V) -> Result<Self, String> {
        let mut bytes = Vec::new();
        encode(value, &mut bytes).map_err(|e| e.to_string())?;
        Ok(Self {
            type_name: type_name::<V>().to_owned(),
            bytes,
        })
    }

    /// Decodes the value of type `V` among `values`.
    pub(crate) fn find<V: serde::de::DeserializeOwned>(values: &[Self]) -> Result<V, WorkerValueError> {
        let wanted = type_name::<V>().to_owned();
        match values.iter().find(|value| value.type_name == wanted) {
            Some(value) => decode(&value.bytes).map_err(|e| WorkerValueError::Decode {
                wanted,
                reason: e.to_string(),
            }),
            None => Err(WorkerValueError::Missing {
                wanted,
                available: values.iter().map(|value| value.type_name.clone()).collect(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_type() {
        let values = [
            WorkerValue::encoded(&7u32).expect("it can be encoded"),
            WorkerValue::encoded(&"seven".to_owned()).expect("it can be encoded"),
        ];
        assert_eq!(WorkerValue::find::<u32>(&values), Ok(7));
        assert_eq!(WorkerValue::find::<String>(&values), Ok("seven".to_owned()));
        let error = WorkerValue::find::<u64>(&values).expect_err("there is none");
        let text = error.to_string();
        assert!(
            text.contains("type `u64`; it has `u32`, `alloc::string::String`;"),
            "{text}"
        );
        let none = WorkerValue::find::<u64>(&[])
            .expect_err("there is none")
            .to_string();
        assert!(none.contains("it has no values"), "{none}");
    }

    #[test]
    fn value_that_does_not_decode_is_an_error_that_names_its_type() {
        let mut value = WorkerValue::encoded(&"seven".to_owned()).expect("it can be encoded");
        value.bytes.truncate(2);
        let error = WorkerValue::find::<String>(&[value]).expect_err("it is cut");
        assert!(
            matches!(&error, WorkerValueError::Decode { wanted, .. } if wanted.ends_with("String")),
            "{error}"
        );
    }
}

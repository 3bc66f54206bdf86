//! [`Value`]: what tasks and outputs can be.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// What goes to other processes: serde types. All types that can be a [`Value`] are.
pub trait Value: Serialize + DeserializeOwned + Send + 'static {}

impl<V: Serialize + DeserializeOwned + Send + 'static> Value for V {}

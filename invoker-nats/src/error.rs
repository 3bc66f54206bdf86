//! [`Error`]: why a cluster could not be joined, led or finished.

use std::time::Duration;

use async_nats::ConnectErrorKind;
use invoker::StageError;

/// The error of a leader or of a node. (The error of a single task is a [`TaskError`](invoker::TaskError).)
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Tasks and outputs would cross a network unprotected, or a server that anyone may use.
    #[error(
        "refusing `{url}`: {reason}; use a `tls://` URL and credentials, or `.insecure()` in a network that you trust"
    )]
    Insecure {
        /// The server's URL, without a password.
        url: String,
        /// The missing protection.
        reason: &'static str,
    },
    /// The server cannot be reached, or refuses the connection.
    #[error("cannot connect to the NATS server {url}; check INVOKER_NATS, and that the server runs")]
    Connect {
        /// The server's URL, without a password.
        url: String,
        /// The client's error.
        source: async_nats::Error,
    },
    /// The server is not the one that the certificates belong to, or one side does not accept the other's certificate.
    #[error(
        "no trusted connection to the NATS server {url}; check INVOKER_NATS_CA, INVOKER_NATS_CERT and INVOKER_NATS_KEY"
    )]
    Untrusted {
        /// The server's URL, without a password.
        url: String,
        /// The client's error.
        source: async_nats::Error,
    },
    /// The server does not accept the user.
    #[error(
        "the NATS server {url} refuses the user; check INVOKER_NATS_CREDS, or name and password in INVOKER_NATS"
    )]
    Unauthorized {
        /// The server's URL, without a password.
        url: String,
        /// The client's error.
        source: async_nats::Error,
    },
    /// The user may not do what the run needs.
    #[error(
        "the NATS server denies run `{run}`: {reason}; give its user the permissions that the guide lists"
    )]
    Denied {
        /// The name of the run.
        run: String,
        /// The server's reason, with the subject.
        reason: String,
    },
    /// The server is too old.
    #[error("the NATS server {url} has version {version}; start version 2.9 or later")]
    OldServer {
        /// The server's URL, without a password.
        url: String,
        /// Its version.
        version: String,
    },
    /// The server refuses a request.
    #[error(
        "the NATS server cannot {step}; it needs JetStream (`nats-server --jetstream`) and permission for this run"
    )]
    Server {
        /// The request.
        step: &'static str,
        /// The client's error.
        source: async_nats::Error,
    },
    /// Another leader leads the run.
    #[error("run `{run}` has a leader already; wait for its end, or choose another INVOKER_RUN")]
    HasLeader {
        /// The name of the run.
        run: String,
    },
    /// No leader was found.
    #[error("run `{run}` had no leader for {waited:?}; start one with the same INVOKER_NATS and INVOKER_RUN")]
    NoLeader {
        /// The name of the run.
        run: String,
        /// How long the node has waited.
        waited: Duration,
    },
    /// The leader refuses the node, because it would compute something else.
    #[error(
        "the leader of run `{run}` refuses this node: {reason}; start the same program with the same model"
    )]
    Refused {
        /// The name of the run.
        run: String,
        /// The difference, with both values.
        reason: String,
    },
    /// The run of that name cannot be resumed.
    #[error(
        "cannot resume run `{run}`: {reason}; finish it with the program that began it, or choose another name"
    )]
    Resume {
        /// The name of the run.
        run: String,
        /// The difference, with both values.
        reason: String,
    },
    /// The values of the op cannot be encoded, or are too large to be sent to each node.
    #[error("cannot send the op's context to nodes: {0}; put large values into the model")]
    Context(String),
    /// The server has no model.
    #[error(
        "run `{run}` had no model in the server for {waited:?}; call `publish_model` with the same INVOKER_RUN"
    )]
    NoModel {
        /// The name of the run.
        run: String,
        /// How long the node has waited.
        waited: Duration,
    },
    /// The file of the model cannot be staged, or is damaged.
    #[error(transparent)]
    Stage(#[from] StageError),
    /// A setting is invalid, the node's own invoker failed, or what this crate has in common with it.
    #[error(transparent)]
    Invoker(#[from] invoker::Error),
}

impl Error {
    /// The error of a connection that was not made.
    pub(crate) fn connect(url: String, error: async_nats::ConnectError) -> Self {
        let (kind, source) = (error.kind(), error.into());
        match kind {
            ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
                Self::Unauthorized { url, source }
            }
            ConnectErrorKind::Tls => Self::Untrusted { url, source },
            _ if is_about_trust(&*source) => Self::Untrusted { url, source },
            _ => Self::Connect { url, source },
        }
    }

    /// The error of an operating system call.
    pub(crate) fn os(step: &'static str, source: std::io::Error) -> Self {
        Self::Invoker(invoker::Error::Os { step, source })
    }

    pub(crate) fn server<E: Into<async_nats::Error>>(step: &'static str) -> impl FnOnce(E) -> Self {
        move |error| Self::Server {
            step,
            source: error.into(),
        }
    }
}

/// Returns whether TLS has failed. The client has that as an error of input and output.
fn is_about_trust(error: &(dyn std::error::Error + 'static)) -> bool {
    let inner = error
        .downcast_ref::<std::io::Error>()
        .and_then(std::io::Error::get_ref);
    inner.is_some_and(|inner| inner.is::<async_nats::rustls::Error>())
        || error.source().is_some_and(is_about_trust)
}

invoker::shm_buffers::debug_with_causes!(Error);

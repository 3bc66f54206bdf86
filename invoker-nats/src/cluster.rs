//! [`Cluster`]: how to reach the server, from the environment or in code, and under which conditions.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use async_nats::ConnectOptions;
use invoker::Origin;
use log_bridge::relay::Relay;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::error::Error;
use crate::hidden_thread::HiddenThread;
use crate::link::Link;

/// The environment variable with the server's URL, as `nats://127.0.0.1:4222` or `tls://nats.example.org`; several are separated by
/// commas.
pub const URL_VARIABLE: &str = "INVOKER_NATS";
/// The environment variable with the name of the run, which leader and nodes have in common.
pub const RUN_VARIABLE: &str = "INVOKER_RUN";
/// The environment variable with the path of a credentials file (JWT and key).
pub const CREDENTIALS_VARIABLE: &str = "INVOKER_NATS_CREDS";
/// The environment variable with the path of the certificate authority (PEM), if it is not the system's.
pub const CA_VARIABLE: &str = "INVOKER_NATS_CA";
/// The environment variables with the paths of a client certificate and its key (PEM).
pub const CERTIFICATE_VARIABLE: &str = "INVOKER_NATS_CERT";
/// See [`CERTIFICATE_VARIABLE`].
pub const KEY_VARIABLE: &str = "INVOKER_NATS_KEY";

/// The oldest version of the server: the tests run with 2.9.10, the one of Debian 12.
const OLDEST_SERVER: (i64, i64) = (2, 9);
const DEFAULT_URL: &str = "nats://127.0.0.1:4222";
const DEFAULT_RUN: &str = "default";
const URLS: &str = "URLs of NATS servers, separated by commas, as in nats://127.0.0.1:4222";
const NAME: &str = "letters, digits, `-` and `_`, at most 64";

/// A run on several machines, and how to reach the NATS server that connects them: the start of a [leader](Self::lead) and of a
/// [node](Self::serve).
///
/// `Display` prints the settings and where each comes from.
///
/// ```
/// use invoker_nats::Cluster;
///
/// let cluster = Cluster::new("nats://127.0.0.1:4222", "eval-7")?;
/// assert_eq!(cluster.run(), "eval-7");
/// let refused = Cluster::new("nats://nats.example.org", "eval-7").expect_err("it is plain text");
/// assert!(refused.to_string().contains("`.insecure()`"));
/// # Ok::<(), invoker_nats::Error>(())
/// ```
#[derive(Clone)]
pub struct Cluster {
    urls: Vec<async_nats::ServerAddr>,
    pub(crate) run: String,
    credentials: Option<PathBuf>,
    ca: Option<PathBuf>,
    identity: Option<(PathBuf, PathBuf)>,
    /// The names of all settings, their values, and where these come from.
    settings: Vec<(&'static str, String, Origin)>,
    pub(crate) wait: Duration,
    pub(crate) relay: Relay,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cluster({}, run {})", self.url(), self.run)
    }
}

impl fmt::Display for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<19} {:<33} origin", "setting", "value")?;
        let mut rows = self.settings.iter();
        rows.try_for_each(|(name, value, origin)| writeln!(f, "{name:<19} {value:<33} {origin}"))
    }
}

/// The values of the environment. A parameter, so that tests need not change the process's own.
type Environment<'a> = &'a dyn Fn(&'static str) -> Option<OsString>;

impl Cluster {
    /// Reads the settings from the environment: [`INVOKER_NATS`](URL_VARIABLE) (default: a server on this machine),
    /// [`INVOKER_RUN`](RUN_VARIABLE) (default: `default`), and the paths of [credentials](CREDENTIALS_VARIABLE) and
    /// [certificates](CA_VARIABLE). It does not connect yet.
    ///
    /// # Errors
    /// [`Environment`](invoker::Error::Environment) if a variable is invalid, [`Error::Insecure`] if the server is on another machine, and the connection is
    /// not encrypted or not authenticated.
    pub fn from_env() -> Result<Self, Error> {
        Self::from_variables(std::env::var_os)
    }

    /// Like [`from_env`](Self::from_env), with the values that `variable` returns for the names of the variables.
    ///
    /// # Errors
    /// Those of [`from_env`](Self::from_env).
    pub fn from_variables(variable: impl Fn(&'static str) -> Option<OsString>) -> Result<Self, Error> {
        Self::read(&variable, None)?.checked()
    }

    /// Like [`from_env`](Self::from_env), for any network and server: everything that can reach the server can read tasks and outputs
    /// and forge them. For networks that are trusted as a whole, such as those inside of many HPC clusters.
    ///
    /// # Errors
    /// [`Environment`](invoker::Error::Environment).
    pub fn from_env_insecure() -> Result<Self, Error> {
        Self::read(&|name| std::env::var_os(name), None)
    }

    /// Uses this server and this name of a run; [credentials](CREDENTIALS_VARIABLE) and [certificates](CA_VARIABLE) come from the
    /// environment.
    ///
    /// # Errors
    /// Those of [`from_env`](Self::from_env).
    pub fn new(url: &str, run: &str) -> Result<Self, Error> {
        Self::read(&|name| std::env::var_os(name), Some((url, run)))?.checked()
    }

    fn read(environment: Environment<'_>, code: Option<(&str, &str)>) -> Result<Self, Error> {
        let mut settings = Vec::new();
        let mut setting = |name, value: String, origin| settings.push((name, value, origin));
        let text = |variable, code: Option<&str>, default: &str| match (code, environment(variable)) {
            (Some(code), _) => (code.to_owned(), Origin::Code),
            (None, None) => (default.to_owned(), Origin::Default),
            (None, Some(value)) => (value.display().to_string(), Origin::Environment(variable)),
        };
        let (text_of_urls, origin) = text(URL_VARIABLE, code.map(|it| it.0), DEFAULT_URL);
        let urls: Result<Vec<async_nats::ServerAddr>, _> = text_of_urls.split(',').map(str::parse).collect();
        // The value may contain a password.
        let urls = urls.map_err(|_| invalid(URL_VARIABLE, "not a URL", URLS))?;
        setting("url", without_passwords(&urls), origin);
        let (run, origin) = text(RUN_VARIABLE, code.map(|it| it.1), DEFAULT_RUN);
        let is_name = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
        if run.is_empty() || run.len() > 64 || !run.bytes().all(is_name) {
            return Err(invalid(RUN_VARIABLE, &run, NAME));
        }
        setting("run", run.clone(), origin);
        let mut path = |name, variable| {
            let path = environment(variable)
                .filter(|path| !path.is_empty())
                .map(PathBuf::from);
            match &path {
                Some(path) => setting(name, path.display().to_string(), Origin::Environment(variable)),
                None => setting(name, "none".to_owned(), Origin::Default),
            }
            path
        };
        let (credentials, ca) = (path("credentials", CREDENTIALS_VARIABLE), path("ca", CA_VARIABLE));
        let identity = (
            path("certificate", CERTIFICATE_VARIABLE),
            path("key", KEY_VARIABLE),
        );
        let together = "a path: certificate and key belong together";
        let identity = match identity {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, _) => return Err(invalid(CERTIFICATE_VARIABLE, "", together)),
            (_, None) => return Err(invalid(KEY_VARIABLE, "", together)),
        };
        Ok(Self {
            urls,
            run,
            credentials,
            ca,
            identity,
            settings,
            wait: Duration::from_secs(300),
            // To send a record makes events of the client.
            relay: Relay::new().except("async_nats"),
        })
    }

    /// Checks that tasks and outputs are safe on their way.
    fn checked(self) -> Result<Self, Error> {
        for url in &self.urls {
            let host = url.host().trim_matches(['[', ']']);
            let is_local = host == "localhost"
                || host
                    .parse::<std::net::IpAddr>()
                    .is_ok_and(|address| address.is_loopback());
            let authenticated = self.credentials.is_some()
                || self.identity.is_some()
                || url.username().is_some_and(|name| !name.is_empty());
            let encrypted = url.tls_required() || self.ca.is_some() || self.identity.is_some();
            let reason = match (is_local, encrypted, authenticated) {
                (true, ..) | (_, true, true) => continue,
                (_, false, _) => "the connection to another machine would not be encrypted",
                (_, true, false) => "there are no credentials for a server on another machine",
            };
            let url = self.url();
            return Err(Error::Insecure { url, reason });
        }
        Ok(self)
    }

    /// Sets how long a node waits for the leader before its run (default: five minutes).
    #[must_use]
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// Returns a layer for the subscriber of a node, which sends the events of the node and its workers to the leader. There, its own
    /// subscriber gets them with the target `log_bridge::relay`. The [report](crate::NodeRow::logs_missing) counts what was dropped or
    /// lost, and has the last records of a lost node.
    ///
    /// ```no_run
    /// use tracing_subscriber::prelude::*;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let cluster = invoker_nats::Cluster::from_env()?;
    /// tracing_subscriber::registry().with(cluster.relay()).init(); // in a node
    /// # Ok(()) }
    /// ```
    pub fn relay(&self) -> Relay {
        self.relay.clone()
    }

    /// Returns the name of the run.
    pub fn run(&self) -> &str {
        &self.run
    }

    /// Returns the servers without passwords, for messages.
    fn url(&self) -> String {
        without_passwords(&self.urls)
    }

    /// Starts the hidden thread and connects.
    pub(crate) fn connect(&self, name: &str) -> Result<(HiddenThread, Link), Error> {
        let thread = HiddenThread::start()?;
        let link = thread.wait(self.connect_here(name))?;
        Ok((thread, link))
    }

    async fn connect_here(&self, name: &str) -> Result<Link, Error> {
        let (connections, mut connected) = watch::channel(0_u64);
        let (deny, denied) = watch::channel(None);
        let mut options = ConnectOptions::new()
            .event_callback(move |event| {
                match event {
                    async_nats::Event::Connected => connections.send_modify(|count| *count += 1),
                    async_nats::Event::ServerError(async_nats::ServerError::Other(text))
                        if text.to_ascii_lowercase().contains("permissions violation") =>
                    {
                        deny.send_replace(Some(text));
                    }
                    _ => {}
                }
                std::future::ready(())
            })
            .name(format!("invoker {name} of run {}", self.run))
            // Replies of other runs cannot be read with the permissions for one.
            .custom_inbox_prefix(format!("_INBOX.{}", self.run))
            .ping_interval(Duration::from_secs(5))
            .request_timeout(Some(Duration::from_secs(5)))
            .reconnect_delay_callback(|attempts| Duration::from_millis(50 << attempts.min(4)))
            // A few large batches may wait to be written.
            .client_capacity(256)
            .subscription_capacity(1 << 16);
        // The client does not look for them in the URL.
        let mut users = self
            .urls
            .iter()
            .filter_map(|url| url.username().zip(url.password()));
        if let Some((user, password)) = users.next() {
            options = options.user_and_password(user.to_owned(), password.to_owned());
        }
        if let Some(path) = &self.credentials {
            let loaded = options.credentials_file(path).await;
            options = loaded.map_err(|error| Error::Connect {
                url: self.url(),
                source: error.into(),
            })?;
        }
        if let Some(path) = &self.ca {
            options = options.add_root_certificates(path.clone()).require_tls(true);
        }
        if let Some((certificate, key)) = self.identity.clone() {
            options = options.add_client_certificate(certificate, key).require_tls(true);
        }
        let client = options.connect(&self.urls[..]).await;
        let client = client.map_err(|error| Error::connect(self.url(), error))?;
        if !client.is_server_compatible(OLDEST_SERVER.0, OLDEST_SERVER.1, 0) {
            let (url, version) = (self.url(), client.server_info().version);
            return Err(Error::OldServer { url, version });
        }
        // A later event means that the client has connected again.
        let _ = timeout(Duration::from_secs(1), connected.wait_for(|count| *count > 0)).await;
        Ok(Link::new(client, &self.run, connected, denied))
    }
}

fn without_passwords(urls: &[async_nats::ServerAddr]) -> String {
    let urls = urls.iter().map(|url| format!("{}:{}", url.host(), url.port()));
    urls.collect::<Vec<_>>().join(",")
}

fn invalid(variable: &'static str, value: &str, wanted: &'static str) -> Error {
    let value = value.to_owned();
    Error::Invoker(invoker::Error::Environment {
        variable,
        value,
        wanted,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&'static str, &str)]) -> Result<Cluster, Error> {
        let find = |name| {
            variables
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| (*value).into())
        };
        Cluster::read(&find, None)?.checked()
    }

    #[test]
    fn settings_come_from_the_environment_and_name_their_origin() {
        let cluster =
            read(&[(URL_VARIABLE, "nats://localhost:4333"), (CA_VARIABLE, "ca.pem")]).expect("valid");
        let text = cluster.to_string();
        let has = |row: &str| {
            text.lines()
                .any(|line| line.split_whitespace().eq(row.split_whitespace()))
        };
        assert!(has("url localhost:4333 INVOKER_NATS"), "{text}");
        assert!(
            has("run default default") && has("ca ca.pem INVOKER_NATS_CA"),
            "{text}"
        );
        for run in ["a.b", "a b", "*", "", &"x".repeat(65)] {
            let error = read(&[(RUN_VARIABLE, run)]).expect_err(run);
            assert!(error.to_string().starts_with("INVOKER_RUN is"), "{error}");
        }
        let error = read(&[(KEY_VARIABLE, "key.pem")]).expect_err("no certificate");
        assert!(error.to_string().starts_with("INVOKER_NATS_CERT is"), "{error}");
    }

    #[test]
    fn other_machines_need_encryption_and_credentials() {
        for url in [
            "nats://127.0.0.1",
            "nats://[::1]:4222",
            "nats://localhost",
            "127.9.9.9:1",
        ] {
            assert!(read(&[(URL_VARIABLE, url)]).is_ok(), "{url}");
        }
        for (variables, part) in [
            (&[(URL_VARIABLE, "nats://10.0.0.1")][..], "not be encrypted"),
            (&[(URL_VARIABLE, "nats://a:b@10.0.0.1")], "not be encrypted"),
            (
                &[(URL_VARIABLE, "nats://127.0.0.1,nats://10.0.0.1")],
                "not be encrypted",
            ),
            (&[(URL_VARIABLE, "tls://10.0.0.1")], "no credentials"),
            (&[(URL_VARIABLE, "nats://localhost.evil.org")], "not be encrypted"),
        ] {
            let error = read(variables).expect_err(part).to_string();
            assert!(error.contains(part) && !error.contains("a:b"), "{error}");
        }
        let creds = (CREDENTIALS_VARIABLE, "user.creds");
        assert!(read(&[(URL_VARIABLE, "tls://10.0.0.1"), creds]).is_ok());
        assert!(read(&[(URL_VARIABLE, "tls://user:password@10.0.0.1")]).is_ok());
    }
}

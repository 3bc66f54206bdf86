//! [`Cluster`]: how to reach the server, from the environment or in code, and under which conditions.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use async_nats::ConnectOptions;
use invoker::Origin;
use log_bridge::relay::Relay;
use tokio::sync::watch;

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

/// The oldest version of the server. With 2.9, which ended its support in 2023, a run with large batches can stand still.
const OLDEST_SERVER: (i64, i64) = (2, 10);
const DEFAULT_URL: &str = "nats://127.0.0.1:4222";
const DEFAULT_RUN: &str = "default";
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
    pub(crate) urls: Vec<async_nats::ServerAddr>,
    url_origin: Origin,
    pub(crate) run: String,
    run_origin: Origin,
    credentials: Option<PathBuf>,
    ca: Option<PathBuf>,
    identity: Option<(PathBuf, PathBuf)>,
    pub(crate) wait: Duration,
    pub(crate) relay: Relay,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = self.url();
        f.debug_struct("Cluster")
            .field("url", &url)
            .field("run", &self.run)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |name: &str, value: &dyn fmt::Display, origin: &dyn fmt::Display| {
            writeln!(f, "{name:<19} {value:<33} {origin}", value = value.to_string())
        };
        row("setting", &"value", &"origin")?;
        row("url", &self.url(), &self.url_origin)?;
        row("run", &self.run, &self.run_origin)?;
        let mut path = |name, path: Option<&PathBuf>, variable| match path {
            Some(path) => row(name, &path.display(), &variable),
            None => row(name, &"none", &Origin::Default),
        };
        path("credentials", self.credentials.as_ref(), CREDENTIALS_VARIABLE)?;
        path("ca", self.ca.as_ref(), CA_VARIABLE)?;
        let (certificate, key) = self.identity.as_ref().map(|(pem, key)| (pem, key)).unzip();
        path("certificate", certificate, CERTIFICATE_VARIABLE)?;
        path("key", key, KEY_VARIABLE)
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
    /// [`Error::Environment`] if a variable is invalid, [`Error::Insecure`] if the server is on another machine, and the connection is
    /// not encrypted or not authenticated.
    pub fn from_env() -> Result<Self, Error> {
        Self::from_variables(std::env::var_os)
    }

    /// Like [`from_env`](Self::from_env), with the values that `variable` returns for the names of the variables.
    ///
    /// # Errors
    /// Those of [`from_env`](Self::from_env).
    pub fn from_variables(variable: impl Fn(&'static str) -> Option<OsString>) -> Result<Self, Error> {
        let cluster = Self::read(&variable)?;
        cluster.check()?;
        Ok(cluster)
    }

    /// Like [`from_env`](Self::from_env), for any network and server: everything that can reach the server can read tasks and outputs
    /// and forge them. For networks that are trusted as a whole, such as those inside of many HPC clusters.
    ///
    /// # Errors
    /// [`Error::Environment`].
    pub fn from_env_insecure() -> Result<Self, Error> {
        Self::read(&|name| std::env::var_os(name))
    }

    /// Uses this server and this name of a run; [credentials](CREDENTIALS_VARIABLE) and [certificates](CA_VARIABLE) come from the
    /// environment.
    ///
    /// # Errors
    /// Those of [`from_env`](Self::from_env).
    pub fn new(url: &str, run: &str) -> Result<Self, Error> {
        let mut cluster = Self::read(&|name| match name {
            URL_VARIABLE => Some(url.into()),
            RUN_VARIABLE => Some(run.into()),
            name => std::env::var_os(name),
        })?;
        (cluster.url_origin, cluster.run_origin) = (Origin::Code, Origin::Code);
        cluster.check()?;
        Ok(cluster)
    }

    fn read(environment: Environment<'_>) -> Result<Self, Error> {
        let text = |variable, wanted| match environment(variable).map(OsString::into_string) {
            None => Ok(None),
            Some(Ok(value)) if !value.is_empty() => Ok(Some(value)),
            Some(value) => {
                let value = value.unwrap_or_else(|value| value.display().to_string());
                Err(invalid(variable, &value, wanted))
            }
        };
        let origin = |variable, value: &Option<String>| match value {
            Some(_) => Origin::Environment(variable),
            None => Origin::Default,
        };
        let wanted = "URLs of NATS servers, separated by commas, as in nats://127.0.0.1:4222";
        let url = text(URL_VARIABLE, wanted)?;
        let url_origin = origin(URL_VARIABLE, &url);
        let url = url.unwrap_or_else(|| DEFAULT_URL.to_owned());
        let urls: Result<Vec<async_nats::ServerAddr>, _> = url.split(',').map(str::parse).collect();
        // The value may contain a password.
        let urls = urls.map_err(|_| invalid(URL_VARIABLE, "not a URL", wanted))?;
        let run = text(RUN_VARIABLE, NAME)?;
        let run_origin = origin(RUN_VARIABLE, &run);
        let run = run.unwrap_or_else(|| DEFAULT_RUN.to_owned());
        let is_name = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
        if run.is_empty() || run.len() > 64 || !run.bytes().all(is_name) {
            return Err(invalid(RUN_VARIABLE, &run, NAME));
        }
        let path = |variable| {
            environment(variable)
                .filter(|path| !path.is_empty())
                .map(PathBuf::from)
        };
        let together = "a path: certificate and key belong together";
        let identity = match (path(CERTIFICATE_VARIABLE), path(KEY_VARIABLE)) {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, _) => return Err(invalid(CERTIFICATE_VARIABLE, "", together)),
            (_, None) => return Err(invalid(KEY_VARIABLE, "", together)),
        };
        Ok(Self {
            urls,
            url_origin,
            run,
            run_origin,
            credentials: path(CREDENTIALS_VARIABLE),
            ca: path(CA_VARIABLE),
            identity,
            wait: Duration::from_secs(300),
            // To send a record makes events of the client.
            relay: Relay::new().except("async_nats"),
        })
    }

    /// Checks that tasks and outputs are safe on their way.
    fn check(&self) -> Result<(), Error> {
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
            return Err(Error::Insecure {
                url: self.url(),
                reason,
            });
        }
        Ok(())
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
    pub(crate) fn url(&self) -> String {
        let urls = self
            .urls
            .iter()
            .map(|url| format!("{}:{}", url.host(), url.port()));
        urls.collect::<Vec<_>>().join(",")
    }

    /// Starts the hidden thread and connects.
    pub(crate) fn connect(&self, name: &str) -> Result<(HiddenThread, Link), Error> {
        let thread = HiddenThread::start()?;
        let (cluster, name) = (self.clone(), name.to_owned());
        let link = thread.run(async move { cluster.connect_here(&name).await })?;
        Ok((thread, link))
    }

    async fn connect_here(&self, name: &str) -> Result<Link, Error> {
        let failed = |source: async_nats::Error| Error::Connect {
            url: self.url(),
            source,
        };
        let (connections, connected) = watch::channel(0_u64);
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
        let with_user = self
            .urls
            .iter()
            .find_map(|url| Some((url.username()?, url.password()?)));
        if let Some((user, password)) = with_user {
            options = options.user_and_password(user.to_owned(), password.to_owned());
        }
        if let Some(path) = &self.credentials {
            options = options
                .credentials_file(path)
                .await
                .map_err(|e| failed(e.into()))?;
        }
        if let Some(path) = &self.ca {
            options = options.add_root_certificates(path.clone()).require_tls(true);
        }
        if let Some((certificate, key)) = &self.identity {
            options = options
                .add_client_certificate(certificate.clone(), key.clone())
                .require_tls(true);
        }
        let client = options
            .connect(&self.urls[..])
            .await
            .map_err(|e| Error::connect(self.url(), e))?;
        if !client.is_server_compatible(OLDEST_SERVER.0, OLDEST_SERVER.1, 0) {
            let version = client.server_info().version;
            return Err(Error::OldServer {
                url: self.url(),
                version,
            });
        }
        Ok(Link::new(client, &self.run, connected, denied))
    }
}

fn invalid(variable: &'static str, value: &str, wanted: &'static str) -> Error {
    let value = value.to_owned();
    Error::Environment {
        variable,
        value,
        wanted,
    }
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
        let cluster = Cluster::read(&find)?;
        cluster.check()?;
        Ok(cluster)
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

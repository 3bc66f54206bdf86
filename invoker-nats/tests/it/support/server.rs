//! [`Server`]: a NATS server on a free port of the loopback interface, with a directory of its own.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use invoker_nats::Cluster;

use super::wait_until;

pub(crate) struct Server {
    program: PathBuf,
    dir: tempfile::TempDir,
    port: u16,
    /// A shell that kills the server when its standard input is closed, which the system does when this process dies.
    guard: Option<Child>,
    options: Vec<String>,
}

/// Finds the server's program: `NATS_SERVER`, what `cargo xtask cluster install` has installed, or the one in `PATH`.
fn program() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("NATS_SERVER") {
        return Some(path.into());
    }
    let installed = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../nats-server/bin/nats-server");
    let in_path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&in_path).map(|dir| dir.join("nats-server"));
    std::iter::once(installed)
        .chain(in_path)
        .find(|path| path.is_file())
}

impl Server {
    /// Starts a server. Without its program, says so and returns `None`; with `NATS_REQUIRED` set, that is a failure.
    pub(crate) fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    pub(crate) fn start_with(options: &[&str]) -> Option<Self> {
        let Some(program) = program() else {
            let missing = "no NATS server; `cargo xtask cluster install` installs one, or set NATS_SERVER";
            assert!(std::env::var_os("NATS_REQUIRED").is_none(), "{missing}");
            eprintln!("skipped: {missing}");
            return None;
        };
        let dir = tempfile::tempdir().expect("a directory");
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        let mut server = Self {
            program,
            dir,
            port: 0,
            guard: None,
            options,
        };
        server.run();
        Some(server)
    }

    /// Starts the process, on the port that it had before.
    pub(crate) fn run(&mut self) {
        let path = |name: &str| self.dir.path().join(name).display().to_string();
        let port = if self.port == 0 {
            "-1".to_owned()
        } else {
            self.port.to_string()
        };
        let script = r#""$@" & pid=$!; read -r _; kill -9 $pid; wait $pid"#;
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]).arg(&self.program);
        command.args(["--jetstream", "--addr", "127.0.0.1", "--port", &port]);
        command.args([
            "--store_dir",
            &path("store"),
            "--ports_file_dir",
            &path(""),
            "--log",
            &path("log"),
        ]);
        command.args(["--pid", &path("pid")]).args(&self.options);
        self.guard = Some(
            command
                .stdin(Stdio::piped())
                .stderr(fs::File::create(path("stderr")).expect("a writable directory"))
                .spawn()
                .expect("sh"),
        );
        let (mut found, started) = (None, std::time::Instant::now());
        wait_until("the server's port", || {
            found = if self.port == 0 {
                self.port_in_file()
            } else {
                Some(self.port)
            };
            // It logs to its file, and complains about its configuration here.
            let error = fs::read_to_string(path("stderr")).unwrap_or_default();
            let log = || fs::read_to_string(path("log")).unwrap_or_default();
            assert!(
                error.is_empty() && started.elapsed().as_secs() < 30,
                "{error}{}",
                log()
            );
            found.is_some_and(|port| TcpStream::connect(("127.0.0.1", port)).is_ok())
        });
        self.port = found.expect("just found");
    }

    /// Reads the port from the file that the server writes.
    fn port_in_file(&self) -> Option<u16> {
        let mut files = fs::read_dir(self.dir.path()).ok()?.flatten();
        let file = files.find(|file| file.path().extension().is_some_and(|it| it == "ports"))?;
        let text = fs::read_to_string(file.path()).ok()?;
        let (_, rest) = text.split_once("127.0.0.1:")?;
        let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
        digits.parse().ok()
    }

    /// Returns the size of the server's memory in bytes.
    #[cfg(target_os = "linux")]
    pub(crate) fn memory(&self) -> u64 {
        let pid = fs::read_to_string(self.dir.path().join("pid")).expect("the server's process id");
        super::resident(pid.trim().parse().expect("a number"))
    }

    /// Kills the process.
    pub(crate) fn kill(&mut self) {
        if let Some(mut guard) = self.guard.take() {
            drop(guard.stdin.take());
            let _ = guard.wait();
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    pub(crate) fn cluster(&self, run: &str) -> Cluster {
        Cluster::new(&self.url(), run).expect("a valid URL and name")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

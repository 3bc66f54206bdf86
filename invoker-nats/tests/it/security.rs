//! Servers with TLS, client certificates, credentials, and permissions for one run: `docs/clusters/nats-server.conf`.
//!
//! Certificates are made by `openssl`; without it, the tests say so and do nothing.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use invoker::Invoker;
use invoker_nats::{
    CA_VARIABLE, CERTIFICATE_VARIABLE, CREDENTIALS_VARIABLE, Cluster, Error, KEY_VARIABLE, RUN_VARIABLE,
    URL_VARIABLE,
};

use crate::ops::{self, Output, Task, Work};
use crate::runs::local;
use crate::support::{Process, Role, Server, share};
use crate::watchdog::watchdog;

/// The configuration of the guide.
const CONFIGURATION: &str = include_str!("../../../docs/clusters/nats-server.conf");

fn openssl(dir: &Path, arguments: &[&str]) -> bool {
    let mut command = Command::new("openssl");
    command.args(arguments).current_dir(dir).stdin(Stdio::null());
    command.output().is_ok_and(|output| {
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        true
    })
}

/// Makes `name.pem` and `name.key`, signed by an authority, or by themselves.
fn certificate(dir: &Path, name: &str, authority: Option<&str>) -> bool {
    let (key, pem, subject) = (
        format!("{name}.key"),
        format!("{name}.pem"),
        format!("/CN={name}"),
    );
    let constraint = match authority {
        Some(_) => "basicConstraints=critical,CA:FALSE",
        None => "basicConstraints=critical,CA:TRUE",
    };
    let mut arguments = vec!["req", "-x509", "-config", "openssl.cnf", "-newkey", "ec"];
    arguments.extend(["-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"]);
    arguments.extend(["-subj", &subject, "-keyout", &key, "-out", &pem]);
    arguments.extend(["-addext", constraint]);
    let authority = authority.map(|name| (format!("{name}.pem"), format!("{name}.key")));
    if let Some((pem, key)) = &authority {
        arguments.extend(["-CA", pem, "-CAkey", key]);
        arguments.extend(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]);
    }
    openssl(dir, &arguments)
}

/// A directory with two authorities, the server's certificate, those of both users, and a stranger's.
fn certificates() -> Option<tempfile::TempDir> {
    let dir = tempfile::tempdir().expect("a directory");
    let minimal = "[req]\ndistinguished_name = name\n[name]\n";
    fs::write(dir.path().join("openssl.cnf"), minimal).expect("a writable directory");
    let made = certificate(dir.path(), "ca", None)
        && certificate(dir.path(), "other-ca", None)
        && ["server", "leader", "node"]
            .iter()
            .all(|name| certificate(dir.path(), name, Some("ca")))
        && certificate(dir.path(), "stranger", Some("other-ca"));
    if !made {
        eprintln!("skipped: there is no `openssl`, which makes certificates");
    }
    made.then_some(dir)
}

/// The variables of a program, with a user's certificate.
fn variables(
    server: &Server,
    dir: &Path,
    run: &str,
    user: Option<&str>,
    ca: &str,
) -> Vec<(&'static str, String)> {
    let file = |name: String| dir.join(name).display().to_string();
    let url = server.url().replace("nats://127.0.0.1", "tls://localhost");
    let mut variables = vec![
        (URL_VARIABLE, url),
        (RUN_VARIABLE, run.to_owned()),
        (CA_VARIABLE, file(format!("{ca}.pem"))),
    ];
    if let Some(user) = user {
        variables.push((CERTIFICATE_VARIABLE, file(format!("{user}.pem"))));
        variables.push((KEY_VARIABLE, file(format!("{user}.key"))));
    }
    variables
}

fn cluster(variables: &[(&'static str, String)]) -> Cluster {
    let value = |name| {
        let found = variables.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| OsString::from(value))
    };
    Cluster::from_variables(value).expect("valid settings")
}

/// Starts a leader, and returns its error.
fn refusal(cluster: &Cluster) -> Error {
    let op = Invoker::builder(ops::op).context(7_u64);
    let leader = cluster.lead_op(op).build();
    leader.expect_err("the server or its user must be refused")
}

fn run_all(cluster: &Cluster, node: &[(&'static str, String)], server: &Server, run: &str) {
    let op = Invoker::builder(ops::op).context(7_u64);
    let leader = cluster.lead_op(op).seed(1).build().expect("a leader");
    let pairs: Vec<(&str, &str)> = node.iter().map(|(name, value)| (*name, &**value)).collect();
    let _node = Process::start(Role::Node, server, run, &pairs);
    let tasks = || {
        let large = Task {
            number: 500,
            work: Work::Output(3 << 20),
            payload: vec![7; 2 << 20],
        };
        ops::numbers(500, Work::None).chain([large])
    };
    let outputs: Vec<Output> = leader
        .map(tasks())
        .collect::<Result<_, _>>()
        .expect("no task fails");
    assert!(outputs == local(tasks()));
    let report = leader.finish().expect("a report");
    assert_eq!((report.delivered, report.nodes_lost), (501, 0), "{report}");
}

#[test]
fn tls_certificates_and_permissions_for_one_run() {
    let _turn = share(180);
    let Some(dir) = certificates() else { return };
    let configuration = CONFIGURATION
        .replace("/etc/nats/", &format!("{}/", dir.path().display()))
        .replace("eval-7", "secured")
        // The test has another directory.
        .replace("jetstream {", "# jetstream {");
    let path = dir.path().join("nats-server.conf");
    fs::write(&path, configuration).expect("a writable directory");
    let options = ["--config", &path.display().to_string()];
    let Some(server) = Server::start_with(&options) else {
        return;
    };
    let of = |run, user, ca| variables(&server, dir.path(), run, user, ca);

    run_all(
        &cluster(&of("secured", Some("leader"), "ca")),
        &of("secured", Some("node"), "ca"),
        &server,
        "secured",
    );

    let error = refusal(&cluster(&of("secured", Some("leader"), "other-ca")));
    assert!(
        matches!(error, Error::Untrusted { .. }),
        "another authority: {error:?}"
    );
    assert!(error.to_string().contains("INVOKER_NATS_CA"), "{error}");
    let error = refusal(&cluster(&of("secured", Some("stranger"), "ca")));
    assert!(matches!(error, Error::Untrusted { .. }), "a stranger: {error:?}");
    let error = refusal(&cluster(&of("secured", None, "ca")));
    assert!(
        matches!(error, Error::Untrusted { .. }),
        "no certificate: {error:?}"
    );

    // Another run, and a node that wants to lead.
    let error = refusal(&cluster(&of("other", Some("leader"), "ca")));
    assert!(matches!(error, Error::Denied { .. }), "another run: {error:?}");
    let error = refusal(&cluster(&of("secured", Some("node"), "ca")));
    assert!(matches!(error, Error::Denied { .. }), "a node: {error:?}");
}

/// A run with user and password, as `docs/clusters/slurm.sh` has it.
#[test]
fn user_and_password_are_those_of_the_url() {
    let _turn = share(180);
    let Some(server) = Server::start_with(&["--user", "me", "--pass", "20a34693c2"]) else {
        return;
    };
    let with = |user: &str| {
        let url = server.url().replace("127", &format!("{user}@127"));
        vec![(URL_VARIABLE, url), (RUN_VARIABLE, "password".to_owned())]
    };
    let right = with("me:20a34693c2");
    run_all(&cluster(&right), &right, &server, "password");
    for wrong in ["me:other", "you:20a34693c2"] {
        let error = refusal(&cluster(&with(wrong)));
        assert!(matches!(error, Error::Unauthorized { .. }), "{wrong}: {error:?}");
        assert!(!error.to_string().contains("20a"), "{error}");
    }
}

/// A token of JSON claims, signed by `issuer`.
fn token(issuer: &nkeys::KeyPair, subject: &str, nats: &serde_json::Value) -> String {
    use data_encoding::BASE64URL_NOPAD;

    let header = r#"{"typ":"JWT","alg":"ed25519-nkey"}"#;
    let claims = serde_json::json!({
        "jti": subject, "iat": 1_600_000_000, "iss": issuer.public_key(), "name": "test", "sub": subject, "nats": nats,
    });
    let encode = |text: &str| BASE64URL_NOPAD.encode(text.as_bytes());
    let signed = format!("{}.{}", encode(header), encode(&claims.to_string()));
    let signature = issuer.sign(signed.as_bytes()).expect("it has a seed");
    format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature))
}

#[test]
fn credentials_of_an_operator_are_accepted_and_others_are_not() {
    let _turn = share(180);
    let dir = tempfile::tempdir().expect("a directory");
    let [operator, system, account, user, other] = [
        nkeys::KeyPair::new_operator(),
        nkeys::KeyPair::new_account(),
        nkeys::KeyPair::new_account(),
        nkeys::KeyPair::new_user(),
        nkeys::KeyPair::new_account(),
    ];
    let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("it is JSON");
    let no_limits = r#"{"type":"account","version":2,"limits":{"subs":-1,"data":-1,"payload":-1,"imports":-1,"exports":-1,
        "wildcards":true,"conn":-1,"leaf":-1,"mem_storage":-1,"disk_storage":-1,"streams":-1,"consumer":-1}}"#;
    let of_operator = token(
        &operator,
        &operator.public_key(),
        &json(r#"{"type":"operator","version":2}"#),
    );
    let of_account = token(&operator, &account.public_key(), &json(no_limits));
    let of_system = token(
        &operator,
        &system.public_key(),
        &json(r#"{"type":"account","version":2}"#),
    );
    let of_user = |issuer| {
        let claims =
            json(r#"{"type":"user","version":2,"subs":-1,"data":-1,"payload":-1,"pub":{},"sub":{}}"#);
        token(issuer, &user.public_key(), &claims)
    };
    let configuration = format!(
        "operator: {of_operator}\nsystem_account: {}\nresolver: MEMORY\n\
         resolver_preload: {{ {}: {of_system}, {}: {of_account} }}\n",
        system.public_key(),
        system.public_key(),
        account.public_key()
    );
    let path = dir.path().join("nats-server.conf");
    fs::write(&path, configuration).expect("a writable directory");
    let options = ["--config", &path.display().to_string()];
    let Some(server) = Server::start_with(&options) else {
        return;
    };
    let with = |issuer| {
        let seed = user.seed().expect("it has a seed");
        let credentials = format!(
            "-----BEGIN NATS USER JWT-----\n{}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n",
            of_user(issuer)
        );
        let path = dir.path().join("user.creds");
        fs::write(&path, credentials).expect("a writable directory");
        vec![
            (URL_VARIABLE, server.url()),
            (RUN_VARIABLE, "creds".to_owned()),
            (CREDENTIALS_VARIABLE, path.display().to_string()),
        ]
    };
    let variables = with(&account);
    run_all(&cluster(&variables), &variables, &server, "creds");
    let error = refusal(&cluster(&with(&other)));
    assert!(matches!(error, Error::Unauthorized { .. }), "{error:?}");
    let error = refusal(&cluster(&with(&other)[..2]));
    assert!(
        matches!(error, Error::Unauthorized { .. }),
        "no credentials: {error:?}"
    );
}

/// A server that greets as version 2.8.4.
#[test]
fn a_server_that_is_too_old_is_refused() {
    use std::io::{BufRead, BufReader, Write};

    let _watchdog = watchdog(60);
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = listener.local_addr().expect("it listens").port();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let information = r#"INFO {"server_id":"S","server_name":"s","version":"2.8.4","go":"go","host":"127.0.0.1","port":4222,
            "headers":true,"max_payload":1048576,"proto":1,"client_id":1}"#;
        let line = information.replace('\n', " ") + "\r\n";
        stream.write_all(line.as_bytes()).expect("a client");
        let lines = BufReader::new(stream.try_clone().expect("a descriptor")).lines();
        for line in lines.map_while(Result::ok) {
            if line == "PING" {
                let _ = stream.write_all(b"PONG\r\n");
            }
        }
    });
    let cluster = Cluster::new(&format!("nats://127.0.0.1:{port}"), "old").expect("valid settings");
    let error = refusal(&cluster);
    assert!(
        matches!(&error, Error::OldServer { version, .. } if version == "2.8.4"),
        "{error:?}"
    );
    assert!(error.to_string().contains("2.9 or later"), "{error}");
    server.join().expect("no panic");
}

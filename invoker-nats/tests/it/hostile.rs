//! Messages that no leader and no node sends: they are counted and ignored.

use std::time::Duration;

use crate::ops::{self, Output, Work};
use crate::runs::{lead, local};
use crate::support::{Process, Server, alone, wait_for_nodes};

/// Any program that reaches the server can publish anything: here random bytes, and genuine answers with each of their bytes changed.
#[test]
fn forged_answers_and_requests_are_ignored_and_counted() {
    let _turn = alone(120);
    let Some(server) = Server::start() else { return };
    let leader = lead(&server, "hostile");
    let nodes = [(); 2].map(|()| Process::node(&server, "hostile"));
    wait_for_nodes(&leader, &nodes);
    let (url, stop) = (
        server.url(),
        std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false)),
    );
    let stopped = stop.clone();
    let forger = std::thread::spawn(move || forge(&url, &stopped));
    let tasks = || ops::numbers(3000, Work::Sleep(Duration::from_millis(1)));
    let outputs: Vec<Output> = leader
        .map(tasks())
        .collect::<Result<_, _>>()
        .expect("no task fails");
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let forged = forger.join().expect("no panic");
    assert!(outputs == local(ops::numbers(3000, Work::None)));
    let report = leader.finish().expect("a report");
    println!("{forged} forged messages: {report}");
    assert!(
        forged > 100 && report.invalid > 0 && report.foreign > 0,
        "{report}"
    );
    assert_eq!(report.delivered, 3000);
}

/// Sends forged messages until it is stopped. Returns their number.
fn forge(url: &str, stopped: &std::sync::atomic::AtomicBool) -> u64 {
    use futures_util::StreamExt;

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let client = async_nats::connect(url).await.expect("the server");
        let mut genuine = client
            .subscribe("invoker.hostile.>")
            .await
            .expect("a subscription");
        let mut forged = 0_u64;
        let headers = || {
            let mut headers = async_nats::HeaderMap::new();
            headers.insert("forged", "yes");
            headers
        };
        while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
            let next = tokio::time::timeout(Duration::from_millis(20), genuine.next());
            let Ok(Some(message)) = next.await else { continue };
            // Its own messages come back, too: only those of others are changed, so that there are not more and more.
            if message
                .headers
                .as_ref()
                .is_some_and(|headers| headers.get("forged").is_some())
            {
                continue;
            }
            // Bytes that are no message, to the leader and to its nodes.
            for subject in [
                "invoker.hostile.leader",
                "invoker.hostile.logs",
                "invoker.hostile.tasks",
            ] {
                let garbage = forged.to_le_bytes().repeat(1 + forged as usize % 9).into();
                client
                    .publish_with_headers(subject, headers(), garbage)
                    .await
                    .expect("a connection");
            }
            // A program that may send tasks may choose them; an answer must be to one of them.
            if !message.subject.ends_with(".answers") {
                continue;
            }
            // The session and what follows, the node, the job, the index, the hash, the length, the output.
            for at in (0..message.payload.len().min(60)).step_by(1 + forged as usize % 5) {
                let mut bytes = message.payload.to_vec();
                bytes[at] ^= 1 << (forged % 8);
                client
                    .publish_with_headers(message.subject.clone(), headers(), bytes.into())
                    .await
                    .expect("a connection");
                forged += 1;
            }
        }
        forged
    })
}

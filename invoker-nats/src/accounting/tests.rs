//! Tests of the accounting, with a clock that they set.

use super::*;
use crate::wire::task_hash;

const ACK_WAIT: Duration = Duration::from_secs(5);
const JOB: u32 = 3;

fn joined(accounting: &mut Accounting, node: u64, now: Instant) {
    let name = format!("n{node}");
    let (workers, checksum, model_bytes) = (2, 0, 0);
    accounting.join(
        Join {
            node,
            name,
            workers,
            checksum,
            model_bytes,
        },
        now,
    );
}

/// An accounting with nodes 1 to 3, and ten tasks in one batch.
fn ten_tasks(node_losses: u32) -> (Accounting, u64, Instant) {
    with_tasks(10, node_losses)
}

fn done(sequence: u64, released: bool) -> Finished {
    Finished { sequence, released }
}

/// Tasks of two bytes each.
fn draft(first: u64, count: u64) -> Draft {
    let mut draft = Draft::default();
    for index in first..first + count {
        draft.encoded.extend([2 * index as u8, 2 * index as u8 + 1]);
        draft.end_task();
    }
    draft
}

fn with_tasks(count: u8, node_losses: u32) -> (Accounting, u64, Instant) {
    let now = Instant::now();
    let mut accounting = Accounting::new(node_losses, ACK_WAIT, 100);
    for node in 1..=3 {
        joined(&mut accounting, node, now);
    }
    let batch = accounting.open(JOB, draft(0, count.into()));
    accounting.sent(batch, now);
    assert_eq!(accounting.tick(now, 0), []);
    (accounting, batch, now)
}

fn hash(index: u64) -> u64 {
    task_hash(&[2 * index as u8, 2 * index as u8 + 1])
}

/// Ticks often, as a leader does that is not stopped, and beats for the nodes that live.
fn pass(
    accounting: &mut Accounting,
    from: Instant,
    time: Duration,
    alive: &[(u64, &[u64])],
) -> (Vec<Action>, Instant) {
    let (mut now, mut actions) = (from, Vec::new());
    while now < from + time {
        now += Duration::from_millis(100);
        for (node, held) in alive {
            assert!(accounting.beat(*node, held, NodeCounts::default(), now));
        }
        actions.extend(accounting.tick(now, 0));
    }
    (actions, now)
}

/// How an answer counts.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    First,
    Duplicate,
    Wrong,
}

fn answer(accounting: &mut Accounting, node: u64, job: u32, index: u64, hash: u64) -> Verdict {
    let before = accounting.counts;
    let mut first = 0;
    accounting.answer(node, job, [(index, hash)].into_iter(), |at| first += 1 + at);
    let counts = accounting.counts;
    let counted = |after: u64, before: u64| after - before;
    match (
        first,
        counted(counts.duplicates, before.duplicates),
        counted(counts.invalid, before.invalid),
    ) {
        (1, 0, 0) => Verdict::First,
        (0, 1, 0) => Verdict::Duplicate,
        (0, 0, 1) => Verdict::Wrong,
        other => panic!("{other:?}"),
    }
}

#[test]
fn answers_of_one_message_are_counted_one_by_one() {
    let (mut accounting, _, _) = ten_tasks(2);
    accounting.open(JOB, draft(10, 3));
    let answers = [
        (8, hash(8)),
        (9, hash(9)),
        (10, hash(10)),
        (11, 7),
        (9, hash(9)),
        (12, hash(12)),
        (13, 0),
    ];
    let mut first = Vec::new();
    accounting.answer(1, JOB, answers.into_iter(), |at| first.push(at));
    assert_eq!(first, [0, 1, 2, 5]);
    assert_eq!((accounting.counts.duplicates, accounting.counts.invalid), (1, 2));
    assert_eq!((accounting.delivered, accounting.nodes[&1].delivered), (4, 4));
}

fn sent(actions: &[Action]) -> Vec<u64> {
    let batch = |action: &Action| match action {
        Action::Send(batch) => Some(*batch),
        Action::Fail { .. } => None,
    };
    actions.iter().filter_map(batch).collect()
}

fn indices(accounting: &Accounting, batch: u64) -> Vec<u64> {
    let indices = |tasks: &Tasks<'_>| {
        let items: Vec<(u64, &[u8])> = tasks.items().expect("it is valid").collect();
        assert!(items.iter().all(|(index, task)| task_hash(task) == hash(*index)));
        items.into_iter().map(|(index, _)| index).collect()
    };
    accounting.contents(batch, indices).expect("it is open")
}

#[test]
fn the_first_valid_answer_wins_and_others_are_counted() {
    let (mut accounting, batch, now) = ten_tasks(2);
    assert_eq!(accounting.begin(1, batch, 0..10, now).0, Grant::All);
    assert_eq!(answer(&mut accounting, 1, JOB, 4, hash(4)), Verdict::First);
    assert_eq!(answer(&mut accounting, 2, JOB, 4, hash(4)), Verdict::Duplicate);
    for (job, index, hash) in [
        (JOB, 5, hash(6)),
        (JOB, 10, hash(9)),
        (JOB + 1, 0, hash(0)),
        (JOB, u64::MAX, 0),
    ] {
        assert_eq!(
            answer(&mut accounting, 1, job, index, hash),
            Verdict::Wrong,
            "{job} {index}"
        );
    }
    for index in (0..10).filter(|index| *index != 4) {
        assert_eq!(
            answer(&mut accounting, 9, JOB, index, hash(index)),
            Verdict::First
        );
    }
    assert_eq!(
        answer(&mut accounting, 1, JOB, 0, hash(0)),
        Verdict::Duplicate,
        "the range is closed"
    );
    assert_eq!(accounting.begin(2, batch, 0..10, now).0, Grant::Drop);
    assert_eq!((accounting.open_ranges(), accounting.delivered), (0, 10));
    assert_eq!((accounting.counts.duplicates, accounting.counts.invalid), (2, 4));
    assert_eq!(accounting.nodes[&1].delivered, 1);
}

#[test]
fn a_lost_node_costs_only_what_it_had_started_and_suspects_run_alone() {
    let (mut accounting, batch, now) = ten_tasks(2);
    accounting.begin(1, batch, 0..4, now);
    answer(&mut accounting, 1, JOB, 1, hash(1));
    let (actions, now) = pass(
        &mut accounting,
        now,
        ACK_WAIT + Duration::from_millis(200),
        &[(2, &[]), (3, &[])],
    );
    let batches = sent(&actions);
    assert_eq!(batches.len(), actions.len());
    let tasks: Vec<(Vec<u64>, bool)> = batches
        .iter()
        .map(|batch| {
            (
                indices(&accounting, *batch),
                accounting.kind(*batch).expect("it is open").1,
            )
        })
        .collect();
    let alone = |index| (vec![index], true);
    assert_eq!(tasks, [alone(0), alone(2), alone(3), ((4..10).collect(), false)]);
    assert_eq!(
        (accounting.nodes[&1].state, accounting.counts.nodes_lost),
        (NodeEnd::Lost, 1)
    );
    // The culprit's second node: that task fails, and only that.
    for batch in &batches[..2] {
        accounting.begin(2, *batch, 0..1, now);
    }
    answer(&mut accounting, 2, JOB, 0, hash(0));
    let (actions, _) = pass(
        &mut accounting,
        now,
        ACK_WAIT + Duration::from_millis(200),
        &[(3, &[])],
    );
    let node = "n2".to_owned();
    assert_eq!(
        actions,
        [Action::Fail {
            job: JOB,
            index: 2,
            node,
            losses: 2
        }]
    );
    assert_eq!(
        answer(&mut accounting, 2, JOB, 2, hash(2)),
        Verdict::Duplicate,
        "it has failed"
    );
    for index in [3, 4, 5, 6, 7, 8, 9] {
        assert_eq!(
            answer(&mut accounting, 3, JOB, index, hash(index)),
            Verdict::First
        );
    }
    assert_eq!(accounting.open_ranges(), 0);
}

#[test]
fn many_suspects_share_a_batch_and_only_the_one_in_progress_is_charged() {
    let (mut accounting, batch, now) = with_tasks(120, 2);
    accounting.begin(1, batch, 0..0, now);
    accounting.begin(1, batch, 0..100, now);
    let long = ACK_WAIT + Duration::from_millis(200);
    let (actions, now) = pass(&mut accounting, now, long, &[(2, &[]), (3, &[])]);
    let batches = sent(&actions);
    // Three for each of two nodes.
    let sizes: Vec<usize> = batches
        .iter()
        .map(|batch| indices(&accounting, *batch).len())
        .collect();
    assert_eq!(sizes, [16, 16, 16, 16, 16, 16, 4, 20]);
    assert!(
        batches[..7]
            .iter()
            .all(|batch| accounting.kind(*batch) == Some((JOB, true)))
    );
    // The node announces each of them, and dies with the third one. The outputs of the two before are lost with it.
    let suspects = indices(&accounting, batches[0]);
    for at in 0..3 {
        assert_eq!(accounting.begin(2, batches[0], at..at + 1, now).0, Grant::All);
    }
    let (actions, _) = pass(&mut accounting, now, long, &[(3, &[])]);
    let failed = |action: &Action| match action {
        Action::Fail { index, losses: 2, .. } => Some(*index),
        _ => None,
    };
    assert_eq!(
        actions.iter().filter_map(failed).collect::<Vec<_>>(),
        [suspects[2]]
    );
    let again = sent(&actions);
    assert_eq!(again.len(), 1);
    assert_eq!(accounting.kind(again[0]), Some((JOB, true)));
    let rest: Vec<u64> = suspects.iter().copied().filter(|it| *it != suspects[2]).collect();
    assert_eq!(indices(&accounting, again[0]), rest);
}

#[test]
fn without_node_losses_begun_tasks_fail_and_others_run() {
    for node_losses in [0, 1] {
        let (mut accounting, batch, now) = ten_tasks(node_losses);
        accounting.begin(1, batch, 0..2, now);
        let (actions, _) = pass(&mut accounting, now, 2 * ACK_WAIT, &[]);
        let failed = actions
            .iter()
            .filter(|action| matches!(action, Action::Fail { losses: 1, .. }));
        assert_eq!((failed.count(), actions.len()), (2, 3));
        assert_eq!(
            indices(&accounting, sent(&actions)[0]),
            (2..10).collect::<Vec<_>>()
        );
    }
}

#[test]
fn a_node_that_reports_keeps_its_batch_whatever_the_stream_does() {
    let (mut accounting, batch, now) = ten_tasks(2);
    accounting.begin(1, batch, 0..10, now);
    let (actions, now) = pass(&mut accounting, now, 4 * ACK_WAIT, &[(1, &[batch])]);
    assert_eq!(actions, []);
    assert_eq!(accounting.begin(2, batch, 0..10, now), (Grant::Drop, Vec::new()));
    assert_eq!(accounting.begin(1, batch, 0..10, now).0, Grant::All);
}

#[test]
fn time_in_which_the_leader_was_stopped_does_not_count() {
    let (mut accounting, batch, now) = ten_tasks(2);
    accounting.begin(1, batch, 0..10, now);
    let later = now + Duration::from_secs(3600);
    assert_eq!(accounting.tick(later, 0), []);
    let (actions, _) = pass(&mut accounting, later, ACK_WAIT / 2, &[]);
    assert_eq!((actions, accounting.counts.nodes_lost), (Vec::new(), 0));
}

#[test]
fn a_batch_that_is_done_waits_for_its_answers_to_be_read() {
    let (mut accounting, batch, now) = ten_tasks(2);
    accounting.begin(1, batch, 0..10, now);
    accounting.finished(1, batch, done(70, false));
    let (actions, now) = pass(&mut accounting, now, 3 * ACK_WAIT, &[]);
    assert_eq!(actions, [], "answers up to 70 were not read");
    for index in 0..9 {
        answer(&mut accounting, 1, JOB, index, hash(index));
    }
    // An answer is missing although it should be there.
    let actions = accounting.tick(now, 70);
    assert_eq!(indices(&accounting, sent(&actions)[0]), [9]);
}

#[test]
fn a_node_that_leaves_gives_back_its_tasks_and_costs_nothing() {
    let (mut accounting, batch, now) = ten_tasks(1);
    accounting.begin(1, batch, 0..10, now);
    answer(&mut accounting, 1, JOB, 0, hash(0));
    accounting.finished(1, batch, done(1, true));
    let actions = accounting.tick(now, 1);
    assert_eq!(actions.len(), 1, "one batch, no failure: {actions:?}");
    let batch = sent(&actions)[0];
    assert_eq!(indices(&accounting, batch), (1..10).collect::<Vec<_>>());
    assert_eq!(accounting.begin(2, batch, 0..9, now).0, Grant::All);
}

#[test]
fn a_second_undecodable_output_is_the_tasks_error() {
    let (mut accounting, batch, now) = ten_tasks(2);
    accounting.begin(1, batch, 0..10, now);
    assert_eq!(
        accounting.undecodable(JOB, 2, 0),
        (false, Vec::new()),
        "the hash is wrong"
    );
    let (fails, actions) = accounting.undecodable(JOB, 2, hash(2));
    assert!(!fails);
    assert_eq!(indices(&accounting, sent(&actions)[0]), [2]);
    assert_eq!(accounting.undecodable(JOB, 2, hash(2)), (true, Vec::new()));
    assert_eq!(answer(&mut accounting, 1, JOB, 2, hash(2)), Verdict::Duplicate);
    assert_eq!(accounting.counts.invalid, 3);
}

#[test]
fn a_redelivered_batch_runs_only_its_open_tasks() {
    let (mut accounting, batch, now) = ten_tasks(2);
    answer(&mut accounting, 1, JOB, 0, hash(0));
    answer(&mut accounting, 1, JOB, 7, hash(7));
    let (grant, _) = accounting.begin(2, batch, 0..10, now);
    assert_eq!(grant, Grant::Only(vec![1, 2, 3, 4, 5, 6, 8, 9]));
}

#[test]
fn batches_without_a_node_are_found_and_an_abandoned_job_is_forgotten() {
    let (mut accounting, batch, now) = ten_tasks(2);
    let later = now + Duration::from_secs(1);
    assert!(accounting.unclaimed(now).is_empty());
    assert_eq!(accounting.unclaimed(later), [batch]);
    accounting.resend(&[batch]);
    assert!(accounting.unclaimed(later).is_empty(), "it is under way");
    accounting.sent(batch, now);
    accounting.begin(1, batch, 0..1, now);
    assert!(accounting.unclaimed(later).is_empty());
    accounting.abandon(JOB);
    assert!(accounting.kind(batch).is_none() && !accounting.is_open(JOB));
    assert_eq!(answer(&mut accounting, 1, JOB, 1, hash(1)), Verdict::Duplicate);
}

/// Random losses, answers and redeliveries: every task ends exactly once.
#[test]
fn every_task_is_answered_or_fails_exactly_once_whatever_happens() {
    for seed in 0..200_u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut random = |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        let (mut accounting, first, mut now) = ten_tasks(random(4) as u32);
        let (mut queue, mut ends) = (vec![first], [0_u32; 10]);
        for _ in 0..10_000 {
            now += Duration::from_millis(100 + 200 * random(10));
            let mut actions = accounting.tick(now, u64::MAX);
            let node = 1 + random(3);
            let at = random(queue.len().max(1) as u64) as usize;
            if let Some(&batch) = queue.get(at) {
                let (grant, more) = accounting.begin(node, batch, 0..1 + random(10) as usize, now);
                actions.extend(more);
                match random(3) {
                    0 if grant != Grant::Drop => accounting.finished(node, batch, done(0, random(2) == 0)),
                    _ => drop(queue.swap_remove(at)),
                }
            }
            if random(3) == 0 {
                let index = random(10);
                if answer(&mut accounting, node, JOB, index, hash(index)) == Verdict::First {
                    ends[index as usize] += 1;
                }
            }
            for action in actions {
                match action {
                    Action::Send(batch) => queue.push(batch),
                    Action::Fail { index, .. } => ends[index as usize] += 1,
                }
            }
            if accounting.open_ranges() == 0 {
                break;
            }
        }
        assert_eq!(ends, [1; 10], "seed {seed}");
    }
}

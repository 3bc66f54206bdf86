//! Tests of the accounting, with a clock that they set.

use super::*;
use crate::messages::{Outcome, split, task_hash};

const ACK_WAIT: Duration = Duration::from_secs(5);
const JOB: u32 = 3;

fn joined(accounting: &mut Accounting, node: u64, now: Instant) {
    let name = format!("n{node}");
    let (session, workers, checksum, model_bytes) = (0, 2, 0, 0);
    let join = Join {
        session,
        node,
        name,
        workers,
        checksum,
        model_bytes,
    };
    accounting.join(join, now);
}

/// An accounting with nodes 1 to 3, and ten tasks in one batch.
fn ten_tasks(node_losses: u32) -> (Accounting, BatchId, Instant) {
    with_tasks(10, node_losses)
}

/// Tasks of two bytes each.
fn draft(first: u64, count: u64) -> Draft {
    let mut draft = Draft::default();
    for index in first..first + count {
        draft.push(&mut vec![2 * index as u8, 2 * index as u8 + 1]);
    }
    draft
}

fn with_tasks(count: u8, node_losses: u32) -> (Accounting, BatchId, Instant) {
    let now = Instant::now();
    let mut accounting = Accounting::new(node_losses, ACK_WAIT, 100);
    for node in 1..=3 {
        joined(&mut accounting, node, now);
    }
    accounting.open(JOB, draft(0, count.into()));
    let [batch] = sent(&mut accounting)[..] else {
        panic!("one batch");
    };
    accounting.sent(&batch, now);
    accounting.tick(now);
    assert_eq!(sent(&mut accounting), []);
    (accounting, batch, now)
}

fn hash(index: u64) -> u64 {
    task_hash(&[2 * index as u8, 2 * index as u8 + 1])
}

/// The requests of the accounting since the last look: batches to send, and failed tasks.
fn actions(accounting: &mut Accounting) -> (Vec<BatchId>, Vec<(u64, Fault)>) {
    let (mut batches, mut failed) = (Vec::new(), Vec::new());
    for action in std::mem::take(&mut accounting.actions) {
        match action {
            Action::Send(batch) => batches.push(batch),
            Action::Fail { job, index, fault } => {
                assert_eq!(job, JOB);
                failed.push((index, fault));
            }
        }
    }
    (batches, failed)
}

/// The batches to send, when no task has failed.
fn sent(accounting: &mut Accounting) -> Vec<BatchId> {
    let (batches, failed) = actions(accounting);
    assert!(failed.is_empty(), "{failed:?}");
    batches
}

/// Ticks often, as a leader does that is not stopped, and beats for the nodes that live.
fn pass(accounting: &mut Accounting, from: Instant, time: Duration, alive: &[u64]) -> Instant {
    let mut now = from;
    while now < from + time {
        now += Duration::from_millis(100);
        for node in alive {
            assert!(accounting.beat(*node, Some(NodeCounts::default()), now));
        }
        accounting.tick(now);
    }
    now
}

/// An answer of a node to tasks of a job, by their indices and hashes.
fn message(batch: BatchId, tasks: &[(u64, u64)], end: Option<End>) -> Answer {
    let outcome = |&(index, hash): &(u64, u64)| Outcome {
        at: (index - batch.first) as u32,
        hash,
        is_fault: false,
        len: 0,
    };
    Answer {
        batch,
        took_ns: 0,
        end,
        outcomes: tasks.iter().map(outcome).collect(),
    }
}

fn end(accounting: &mut Accounting, node: u64, batch: BatchId, end: End) {
    let answer = message(batch, &[], Some(end));
    accounting.answer(node, &answer, |_| unreachable!("it has no outcomes"));
}

/// How an answer counts.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    First,
    Duplicate,
    Wrong,
}

fn answer(accounting: &mut Accounting, node: u64, job: u32, index: u64, hash: u64) -> Verdict {
    let counts = |accounting: &Accounting| (accounting.report.duplicates, accounting.report.invalid);
    let before = counts(accounting);
    let (mut first, number) = (0, 0);
    let batch = BatchId {
        job,
        first: index,
        number,
    };
    let deliver = |position| {
        assert_eq!(position, 0);
        first += 1;
        Ok(())
    };
    accounting.answer(node, &message(batch, &[(index, hash)], None), deliver);
    let after = counts(accounting);
    match (first, after.0 - before.0, after.1 - before.1) {
        (1, 0, 0) => Verdict::First,
        (0, 1, 0) => Verdict::Duplicate,
        (0, 0, 1) => Verdict::Wrong,
        other => panic!("{other:?}"),
    }
}

#[test]
fn answers_of_one_message_are_counted_one_by_one() {
    let (mut accounting, batch, _) = ten_tasks(2);
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
    accounting.answer(1, &message(batch, &answers, None), |at| {
        first.push(at);
        Ok(())
    });
    assert_eq!(first, [0, 1, 2, 5]);
    let report = &accounting.report;
    assert_eq!((report.duplicates, report.invalid), (1, 2));
    assert_eq!((report.delivered, report.nodes[0].delivered), (4, 4));
}

#[test]
fn outcomes_of_successive_tasks_count_up_to_one_that_is_undecodable_and_behind_it() {
    let (mut accounting, batch, _) = ten_tasks(2);
    let all: Vec<_> = (0..10).map(|index| (index, hash(index))).collect();
    let mut accepted = Vec::new();
    for (from, upto) in [(0, 8), (0, 8), (6, 10)] {
        accounting.answer(1, &message(batch, &all[from..upto], None), |at| {
            if from + at == 3 && accepted.len() < 8 {
                return Err("no".to_owned());
            }
            accepted.push(from + at);
            Ok(())
        });
    }
    assert_eq!(accepted, [0, 1, 2, 4, 5, 6, 7, 8, 9]);
    let report = &accounting.report;
    assert_eq!((report.delivered, report.duplicates, report.invalid), (9, 9, 2));
    accounting.answer(1, &message(batch, &all[3..4], None), |_| Ok(()));
    assert_eq!((accounting.report.delivered, accounting.open_batches()), (10, 0));
}

/// The tasks of a batch, and whether they run alone.
fn tasks(accounting: &mut Accounting, id: BatchId) -> (Vec<u64>, bool) {
    let batch = accounting.batch(&id).expect("it is open");
    let items = split(&batch.tasks.encoded, &batch.tasks.lengths).expect("it is valid");
    let indices = id.first..id.first + items.len() as u64;
    assert!(
        indices
            .clone()
            .zip(items.iter())
            .all(|(index, task)| task_hash(task) == hash(index))
    );
    (indices.collect(), batch.alone)
}

#[test]
fn the_first_valid_answer_wins_and_others_are_counted() {
    let (mut accounting, batch, _) = ten_tasks(2);
    assert!(accounting.begin(1, batch, 0..10));
    assert_eq!(answer(&mut accounting, 1, JOB, 4, hash(4)), Verdict::First);
    assert_eq!(answer(&mut accounting, 2, JOB, 4, hash(4)), Verdict::Duplicate);
    for (job, index, hash) in [
        (JOB, 5, hash(6)),
        (JOB, 10, hash(9)),
        (JOB + 1, 0, hash(0)),
        (JOB, u64::MAX, 0),
    ] {
        let verdict = answer(&mut accounting, 1, job, index, hash);
        assert_eq!(verdict, Verdict::Wrong, "{job} {index}");
    }
    for index in (0..10).filter(|index| *index != 4) {
        let verdict = answer(&mut accounting, 9, JOB, index, hash(index));
        assert_eq!(verdict, Verdict::First);
    }
    let verdict = answer(&mut accounting, 1, JOB, 0, hash(0));
    assert_eq!(verdict, Verdict::Duplicate, "the batch is closed");
    assert!(!accounting.begin(2, batch, 0..10));
    assert!(!accounting.is_known(9) && accounting.is_known(2));
    let report = &accounting.report;
    assert_eq!((accounting.open_batches(), report.delivered), (0, 10));
    assert_eq!((report.duplicates, report.invalid), (2, 4));
    assert_eq!(report.nodes[0].delivered, 1);
}

#[test]
fn a_lost_node_costs_only_what_it_had_started_and_suspects_run_alone() {
    let (mut accounting, batch, now) = ten_tasks(2);
    accounting.begin(1, batch, 0..4);
    answer(&mut accounting, 1, JOB, 1, hash(1));
    let long = ACK_WAIT + Duration::from_millis(200);
    let now = pass(&mut accounting, now, long, &[2, 3]);
    let batches = sent(&mut accounting);
    let all: Vec<_> = batches.iter().map(|it| tasks(&mut accounting, *it)).collect();
    let alone = |index| (vec![index], true);
    assert_eq!(all, [alone(0), alone(2), alone(3), ((4..10).collect(), false)]);
    let report = &accounting.report;
    assert_eq!((report.nodes[0].end, report.nodes_lost), (NodeEnd::Lost, 1));
    // The culprit's second node: that task fails, and only that.
    for batch in &batches[..2] {
        accounting.begin(2, *batch, 0..1);
    }
    answer(&mut accounting, 2, JOB, 0, hash(0));
    pass(&mut accounting, now, long, &[3]);
    let (batches, failed) = actions(&mut accounting);
    assert_eq!((batches.len(), failed.len()), (0, 1));
    let (index, Fault::NodeLost { node, losses: 2 }) = &failed[0] else {
        panic!("{failed:?}");
    };
    assert_eq!((*index, &**node), (2, "n2"));
    let verdict = answer(&mut accounting, 2, JOB, 2, hash(2));
    assert_eq!(verdict, Verdict::Duplicate, "it has failed");
    for index in [3, 4, 5, 6, 7, 8, 9] {
        let verdict = answer(&mut accounting, 3, JOB, index, hash(index));
        assert_eq!(verdict, Verdict::First);
    }
    assert_eq!(accounting.open_batches(), 0);
}

#[test]
fn many_suspects_share_a_batch_and_only_the_one_in_progress_is_charged() {
    let (mut accounting, batch, now) = with_tasks(120, 2);
    accounting.begin(1, batch, 0..0);
    accounting.begin(1, batch, 0..100);
    let long = ACK_WAIT + Duration::from_millis(200);
    let now = pass(&mut accounting, now, long, &[2, 3]);
    let batches = sent(&mut accounting);
    let all: Vec<_> = batches.iter().map(|it| tasks(&mut accounting, *it)).collect();
    // Three for each of two nodes.
    let sizes: Vec<usize> = all.iter().map(|it| it.0.len()).collect();
    assert_eq!(sizes, [16, 16, 16, 16, 16, 16, 4, 20]);
    assert!(all[..7].iter().all(|it| it.1) && !all[7].1);
    // The node announces each of them, and dies with the third one. The outputs of the two before are lost with it.
    for at in 0..3 {
        assert!(accounting.begin(2, batches[0], at..at + 1));
    }
    pass(&mut accounting, now, long, &[3]);
    let (again, failed) = actions(&mut accounting);
    assert!(
        matches!(failed[..], [(2, Fault::NodeLost { losses: 2, .. })]),
        "{failed:?}"
    );
    let again: Vec<_> = again.iter().map(|it| tasks(&mut accounting, *it)).collect();
    assert_eq!(again, [((0..2).collect(), true), ((3..16).collect(), true)]);
}

#[test]
fn without_node_losses_begun_tasks_fail_and_others_run() {
    for node_losses in [0, 1] {
        let (mut accounting, batch, now) = ten_tasks(node_losses);
        accounting.begin(1, batch, 0..2);
        pass(&mut accounting, now, 2 * ACK_WAIT, &[]);
        let (again, failed) = actions(&mut accounting);
        assert!(
            failed
                .iter()
                .all(|it| matches!(it.1, Fault::NodeLost { losses: 1, .. }))
        );
        assert_eq!((again.len(), failed.len()), (1, 2));
        assert_eq!(tasks(&mut accounting, again[0]), ((2..10).collect(), false));
    }
}

#[test]
fn a_node_that_reports_keeps_its_batch_whatever_the_stream_does() {
    let (mut accounting, batch, now) = ten_tasks(2);
    accounting.begin(1, batch, 0..10);
    pass(&mut accounting, now, 4 * ACK_WAIT, &[1]);
    assert_eq!(sent(&mut accounting), []);
    assert!(!accounting.begin(2, batch, 0..10));
    assert!(accounting.begin(1, batch, 0..10));
}

#[test]
fn time_in_which_the_leader_was_stopped_does_not_count() {
    let (mut accounting, batch, now) = ten_tasks(2);
    accounting.begin(1, batch, 0..10);
    let later = now + Duration::from_secs(3600);
    accounting.tick(later);
    pass(&mut accounting, later, ACK_WAIT / 2, &[]);
    assert_eq!((sent(&mut accounting), accounting.report.nodes_lost), (vec![], 0));
}

#[test]
fn a_task_without_an_answer_runs_again_when_its_node_has_ended_the_batch() {
    let (mut accounting, batch, _) = ten_tasks(2);
    accounting.begin(1, batch, 0..10);
    for index in 0..9 {
        answer(&mut accounting, 1, JOB, index, hash(index));
    }
    end(&mut accounting, 2, batch, End::Done);
    assert_eq!(sent(&mut accounting), [], "another node has it");
    end(&mut accounting, 1, batch, End::Done);
    let again = sent(&mut accounting);
    assert_eq!(tasks(&mut accounting, again[0]), (vec![9], true));
}

#[test]
fn a_node_that_leaves_gives_back_its_tasks_and_costs_nothing() {
    let (mut accounting, batch, now) = ten_tasks(1);
    accounting.begin(1, batch, 0..10);
    answer(&mut accounting, 1, JOB, 0, hash(0));
    end(&mut accounting, 1, batch, End::Released);
    accounting.leave(1);
    let again = sent(&mut accounting);
    assert_eq!(again.len(), 1, "one batch, no failure");
    assert_eq!(tasks(&mut accounting, again[0]), ((1..10).collect(), false));
    assert!(accounting.begin(2, again[0], 0..9));
    pass(&mut accounting, now, 2 * ACK_WAIT, &[2, 3]);
    let report = &accounting.report;
    assert_eq!((report.nodes[0].end, report.nodes_lost), (NodeEnd::Left, 0));
}

#[test]
fn a_second_undecodable_output_is_the_tasks_error() {
    let (mut accounting, first, _) = ten_tasks(2);
    let mut batch = first;
    for attempt in 1..=2 {
        accounting.begin(1, batch, 0..1);
        let wrong = message(batch, &[(2, 0)], None);
        accounting.answer(1, &wrong, |_| unreachable!("its hash is wrong"));
        let others: Vec<(u64, u64)> = (0..10).map(|index| (index, hash(index))).collect();
        let answers = match attempt {
            1 => &others[..],
            _ => &others[2..3],
        };
        let malformed = |at: usize| match answers[at].0 {
            2 => Err("too short".to_owned()),
            _ => Ok(()),
        };
        accounting.answer(1, &message(batch, answers, Some(End::Done)), malformed);
        let (again, failed) = actions(&mut accounting);
        if attempt == 1 {
            assert!(failed.is_empty(), "{failed:?}");
            assert_eq!(tasks(&mut accounting, again[0]), (vec![2], true));
            batch = again[0];
        } else {
            let [(2, Fault::Output(reason))] = &failed[..] else {
                panic!("{failed:?}");
            };
            assert_eq!((&**reason, again.len()), ("too short", 0));
        }
    }
    let verdict = answer(&mut accounting, 1, JOB, 2, hash(2));
    assert_eq!(verdict, Verdict::Duplicate);
    assert_eq!(accounting.report.invalid, 4);
}

#[test]
fn a_redelivered_batch_runs_only_its_open_tasks() {
    let (mut accounting, batch, _) = ten_tasks(2);
    answer(&mut accounting, 1, JOB, 0, hash(0));
    answer(&mut accounting, 1, JOB, 7, hash(7));
    assert!(!accounting.begin(2, batch, 0..10));
    let again = sent(&mut accounting);
    let again: Vec<_> = again.iter().map(|it| tasks(&mut accounting, *it)).collect();
    assert_eq!(again, [((1..7).collect(), false), (vec![8, 9], false)]);
}

#[test]
fn batches_without_a_node_are_found_and_an_abandoned_job_is_forgotten() {
    let (mut accounting, batch, now) = ten_tasks(2);
    let later = now + Duration::from_secs(1);
    let resent = |accounting: &mut Accounting, since| {
        accounting.resend_unclaimed(since);
        sent(accounting)
    };
    assert_eq!(resent(&mut accounting, now), [], "it may be on its way to a node");
    assert_eq!(resent(&mut accounting, later), [batch]);
    assert_eq!(resent(&mut accounting, later), [], "it is under way");
    accounting.sent(&batch, now);
    accounting.begin(1, batch, 0..1);
    assert_eq!(resent(&mut accounting, later), [], "a node has it");
    accounting.abandon(JOB);
    assert!(accounting.batch(&batch).is_none() && accounting.open_batches() == 0);
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
            accounting.tick(now);
            let node = 1 + random(3);
            if random(2) == 0 {
                accounting.beat(node, None, now);
            }
            let at = random(queue.len().max(1) as u64) as usize;
            if let Some(&batch) = queue.get(at) {
                let may = accounting.begin(node, batch, 0..1 + random(10) as usize);
                match random(3) {
                    0 if may => {
                        let how = [End::Done, End::Released][random(2) as usize];
                        end(&mut accounting, node, batch, how);
                    }
                    _ => drop(queue.swap_remove(at)),
                }
            }
            if random(3) == 0 {
                let index = random(10);
                if answer(&mut accounting, node, JOB, index, hash(index)) == Verdict::First {
                    ends[index as usize] += 1;
                }
            }
            let (batches, failed) = actions(&mut accounting);
            queue.extend(batches);
            for (index, _) in failed {
                ends[index as usize] += 1;
            }
            if accounting.open_batches() == 0 {
                break;
            }
        }
        assert_eq!(ends, [1; 10], "seed {seed}");
    }
}

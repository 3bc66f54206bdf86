//! Tests of damage: whatever happens to the bytes of a journal, no output changes.

use std::path::Path;

use crate::error::JournalError;
use crate::format::{Kind, Record, first_bytes, write_blocks};
use crate::format::{PID_AT, PROLOGUE};
use crate::fuzzing::{Outputs, journal, read, salvage};
use crate::identity::named;
use crate::identity::{Identity, Remedies};
use crate::scan::OnDamage;
use crate::{Journal, OpenJournal, scan, tool};

/// The generator SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

const REMEDIES: Remedies = [""; 8];

fn identity() -> Identity {
    let text = String::new;
    Identity {
        op: named("double"),
        task_type: text(),
        output_type: text(),
        codec: text(),
        model_type: text(),
        model: text(),
        seed: text(),
        context: text(),
    }
}

/// Writes a journal of several batches, of which all but the last two were synced. Returns its bytes, and the length that was.
fn sample(batches: u64) -> (Vec<u8>, u64) {
    let mut bytes = first_bytes(&identity().to_json(), 7);
    let mut synced = bytes.len() as u64;
    for batch in 0..batches {
        let outputs: Vec<u8> = (0..200).map(|n| (n * 7 + batch) as u8).collect();
        let mut records: Vec<Record> = (0..20)
            .map(|n| Record {
                run: batch / 4,
                workers: 2,
                task: 20 * batch + n,
                hash: (batch << 8 | n).wrapping_mul(0x9e37_79b9_7f4a_7c15),
                start: n as usize * 3,
                len: n as usize % 5,
                kind: if n == 11 { Kind::Fault } else { Kind::Output },
            })
            .collect();
        // The fault of the batch before has an output now.
        if batch % 4 > 0 {
            records.push(Record {
                task: 20 * batch - 9,
                kind: Kind::Again,
                len: 50,
                ..records[0]
            });
        }
        let before = bytes.len() as u64;
        if batch < batches - 2 {
            synced = before;
        }
        let mut blocks = Vec::new();
        write_blocks(&mut records, &outputs, synced, before, &mut blocks);
        bytes.extend(blocks);
    }
    (bytes, synced)
}

/// Checks that a damaged journal has no wrong output: it is refused, or its outputs are some of the right ones, and so are those of a
/// salvaged copy.
fn check(damaged: &[u8], right: &Outputs) -> &'static str {
    // An older record of a task is right, too, if the newer one is lost: the fault before the output.
    let is_right = |outputs: &Outputs| {
        outputs.iter().all(|(task, (is_fault, output))| {
            right.get(task).is_some_and(|(now_fault, now)| {
                (is_fault, output) == (now_fault, now) || (*is_fault && !now_fault)
            })
        })
    };
    journal(damaged);
    let result = match read(damaged, OnDamage::Fail) {
        Ok(outputs) => {
            assert!(is_right(&outputs));
            match outputs.len() == right.len() {
                true => "equal",
                false => "cut",
            }
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            "refused"
        }
    };
    if let Ok(copy) = salvage(damaged) {
        let outputs = read(&copy, OnDamage::Fail).expect("a copy is intact");
        assert!(is_right(&outputs));
    }
    result
}

#[test]
fn a_journal_that_is_cut_at_any_byte_has_the_outputs_before_that() {
    let (bytes, _) = sample(8);
    let right = read(&bytes, OnDamage::Fail).expect("it is intact");
    assert_eq!(right.len(), 160);
    assert_eq!(right.values().filter(|(is_fault, _)| *is_fault).count(), 2);
    let first = first_bytes(&identity().to_json(), 7).len();
    let mut before = 0;
    for len in 0..bytes.len() {
        let cut = &bytes[..len];
        match check(cut, &right) {
            "refused" => assert!(len < first, "{len}"),
            _ => {
                let found = read(cut, OnDamage::Fail).expect("it was read").len();
                assert!(found >= before && len >= first, "{len}");
                before = found;
            }
        }
    }
    assert!(before >= 140, "{before}");
}

#[test]
fn ten_thousand_random_corruptions_change_no_output() {
    let (bytes, synced) = sample(8);
    let right = read(&bytes, OnDamage::Fail).expect("it is intact");
    let time = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("after 1970");
    let seed = time.as_nanos() as u64;
    println!("seed {seed}");
    let mut random = Random(seed);
    let mut counts = [0; 3];
    for _ in 0..10_000 {
        let mut damaged = bytes.clone();
        let at = random.below(damaged.len());
        let most = 1 + random.below(64);
        let range = at..(at + most).min(damaged.len());
        match random.below(6) {
            0 => damaged[at] ^= 1 << random.below(8),
            1 => damaged[range]
                .iter_mut()
                .for_each(|byte| *byte = random.next() as u8),
            2 => damaged[range].fill(0),
            3 => drop(damaged.drain(range)),
            4 => {
                let copied = damaged[range].to_vec();
                let to = random.below(damaged.len());
                damaged.splice(to..to, copied);
            }
            _ => {
                damaged[at] ^= 1 << random.below(8);
                let at = random.below(damaged.len());
                damaged[at] ^= 1 << random.below(8);
                damaged.truncate(random.below(damaged.len()).max(at));
            }
        }
        match check(&damaged, &right) {
            "refused" => counts[0] += 1,
            "cut" => counts[1] += 1,
            _ => counts[2] += 1,
        }
    }
    println!(
        "{} refused, {} cut, {} equal; {synced} of {} bytes synced",
        counts[0],
        counts[1],
        counts[2],
        bytes.len()
    );
    assert!(counts[0] > 3000 && counts[1] > 500, "{counts:?}");
}

#[test]
fn damage_before_the_synced_length_is_refused_and_after_it_cut() {
    let (bytes, synced) = sample(8);
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        let result = read(&damaged, OnDamage::Fail);
        let is_pid = (PID_AT as usize..PROLOGUE).contains(&at);
        let should_fail = (at as u64) < synced && !is_pid;
        match result {
            Err(JournalError::Damaged { .. }) => assert!(should_fail && at >= PROLOGUE, "{at}"),
            Err(JournalError::NotAJournal { .. }) => assert!(at < 8, "{at}"),
            Err(JournalError::Version { .. }) => assert!((8..12).contains(&at), "{at}"),
            Err(error) => panic!("{error}"),
            Ok(_) => assert!(!should_fail, "{at}"),
        }
    }
}

#[test]
fn a_torn_end_is_cut_and_the_next_run_goes_on_behind_it() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("journal");
    let (bytes, _) = sample(3);
    let first = first_bytes(&identity().to_json(), 7).len();
    for len in [0, 1, 15, first - 1, first, bytes.len() - 1, bytes.len()] {
        std::fs::write(&path, &bytes[..len]).expect("it is writable");
        let journal = OpenJournal::open(Journal::new(&path), &identity(), &REMEDIES).expect("it goes on");
        let (run, index) = journal.start_run();
        assert_eq!(run, 0);
        journal.writer.append(crate::writer::Finished {
            run,
            workers: 2,
            task: 1000,
            hash: 5,
            kind: Kind::Output,
            bytes: b"the last one",
        });
        journal.close().expect("there is room");
        assert_eq!(journal.written().0, 1);
        let bytes = std::fs::read(&path).expect("it is readable");
        let outputs = read(&bytes, OnDamage::Fail).expect("it is intact");
        assert_eq!(outputs.len() as u64, index.tasks() + 1, "{len}");
        assert_eq!(outputs[&(0, 1000)], (false, b"the last one".to_vec()));
        assert_eq!(scan::pid(&&*bytes), std::process::id());
    }
    std::fs::write(&path, &bytes[..first - 1]).expect("it is writable");
    let other = Identity {
        seed: "1".to_owned(),
        ..identity()
    };
    let error =
        OpenJournal::open(Journal::new(&path), &other, &REMEDIES).expect_err("the start is another one");
    assert!(
        matches!(error, JournalError::Damaged { offset: 16, .. }),
        "{error}"
    );
    let left = std::fs::read(&path).expect("it is readable");
    assert_eq!(left, bytes[..first - 1], "it is left alone");
}

#[test]
fn a_journal_inside_of_outputs_is_not_found() {
    let (inner, _) = sample(2);
    let mut bytes = first_bytes(&identity().to_json(), 7);
    let mut records = [Record {
        run: 0,
        workers: 1,
        task: 0,
        hash: 1,
        start: 0,
        len: inner.len(),
        kind: Kind::Output,
    }];
    let mut block = Vec::new();
    let position = bytes.len();
    write_blocks(&mut records, &inner, 0, position as u64, &mut block);
    bytes.extend(block);
    let outputs = read(&bytes, OnDamage::Fail).expect("it is intact");
    assert_eq!(outputs.len(), 1);
    bytes[position] ^= 1;
    let damaged = read(&bytes, OnDamage::Skip).expect("it has a start");
    assert_eq!(damaged.len(), 0);
    let info = tool::info(&&*bytes, Path::new("j")).expect("it has a start");
    assert_eq!((info.torn as usize, info.damaged), (bytes.len() - position, 0));
}

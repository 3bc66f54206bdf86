//! The function that the fuzz target calls, and the tests of damage.

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::JournalError;
use crate::format::{PROLOGUE, first_bytes, push_any};
use crate::index::Index;
use crate::replay::OutputReader;
use crate::scan::{OnDamage, scan};
use crate::tool::{Salvage, info};

/// The outputs of a journal, or the texts of faults, by run and task.
pub(crate) type Outputs = BTreeMap<(u64, u64), (bool, Vec<u8>)>;

/// Reads all outputs of a journal.
pub(crate) fn read(bytes: &[u8], on_damage: OnDamage) -> Result<Outputs, JournalError> {
    let path = Path::new("journal");
    let mut index = Index::default();
    scan(&bytes, path, on_damage, |block, _, position| {
        index.add(&block, position);
        Ok(())
    })?;
    index.finish(path)?;
    let mut reader = OutputReader::new(bytes);
    let mut outputs = Outputs::new();
    for (number, run) in index.runs() {
        for group in &run.groups {
            for task in group.first..group.end() {
                let (record, position) = run.record(group, task);
                let output = reader.read(&record, position).expect("it was found intact");
                outputs.insert((number, task), (record.is_fault, output.to_vec()));
            }
        }
    }
    Ok(outputs)
}

/// Copies what is intact.
pub(crate) fn salvage(bytes: &[u8]) -> Result<Vec<u8>, JournalError> {
    let mut copy = Vec::new();
    Salvage::new().copy_to(&bytes, Path::new("journal"), &mut copy)?;
    Ok(copy)
}

/// Uses bytes as a journal: as they are, and as the payloads of blocks with valid checksums.
///
/// # Panics
/// If a salvaged copy has other outputs than the journal, or is damaged.
pub fn journal(bytes: &[u8]) {
    check(bytes);
    let identity = br#"{"op":"","task_type":"","output_type":"","codec":"","model_type":"","model":"","seed":"","context":""}"#;
    let mut sealed = first_bytes(identity, 1);
    debug_assert!(sealed.len() > PROLOGUE, "it has the first block");
    let mut rest = bytes;
    while let Some((&len, after)) = rest.split_first() {
        let (payload, after) = after.split_at(usize::from(len).min(after.len()));
        rest = after;
        push_any(&mut sealed, 0, payload);
        // Some blocks are damaged.
        if len % 5 == 4 {
            let last = sealed.len() - 1;
            sealed[last] ^= 1;
        }
    }
    check(&sealed);
}

fn check(bytes: &[u8]) {
    let intact = read(bytes, OnDamage::Skip);
    if let (Ok(strict), Ok(intact)) = (read(bytes, OnDamage::Fail), &intact) {
        // Behind a torn end there may be blocks that were written later.
        assert!(strict.iter().all(|(task, _)| intact.contains_key(task)));
    }
    let _ = info(&bytes, Path::new("journal"));
    let Ok(copy) = salvage(bytes) else {
        return;
    };
    if let Ok(intact) = intact {
        let again = read(&copy, OnDamage::Fail).expect("a copy is intact");
        assert!(again == intact, "the copy has other outputs");
    }
}

//! Models by reference, in shared memory and in files.

#[cfg(unix)]
use invoker::share;
use invoker::{Backing, Buffer, Executor, Invoker};
use shm_buffers::BufferMut;

use crate::executors::EXECUTORS;
#[cfg(unix)]
use crate::mapped;

fn at(model: &Buffer<u64>, n: usize) -> u64 {
    model[n]
}

#[test]
fn a_model_by_reference_stays_usable() {
    let _watchdog = crate::watchdog::watchdog(120);
    let model: Buffer<u64> = (0..1000).map(|n| n * n).collect();
    for (executor, workers) in EXECUTORS {
        let builder = Invoker::builder(at).model_ref(&model).executor(executor);
        let invoker = builder.workers(workers).build().expect("the invoker builds");
        let outputs = invoker.map(0..1000).map(|out| out.expect("no task fails"));
        assert!(outputs.eq(model.iter().copied()), "{executor:?}");
        assert_eq!(invoker.model(), &model);
    }
}

#[test]
fn the_report_counts_all_bytes_of_the_model() {
    let _watchdog = crate::watchdog::watchdog(120);
    const LEN: usize = 200_000;
    let built = BufferMut::from_fn(&Backing::Auto, LEN, |n| n as u64).expect("there is room");
    let model = built.freeze().expect("it freezes");
    let builder = Invoker::builder(at).model(model).executor(Executor::Processes);
    let invoker = builder.workers(1).build().expect("the invoker builds");
    assert_eq!(
        invoker
            .map([7])
            .next()
            .expect("an output")
            .expect("no task fails"),
        7
    );
    let bytes = invoker
        .finish()
        .expect("no error")
        .model
        .expect("a shared model")
        .bytes;
    assert!(
        (8 * LEN as u64..8 * LEN as u64 + 4096).contains(&bytes),
        "{bytes}"
    );
}

#[cfg(unix)]
fn fragile(model: &Buffer<u64>, n: usize) -> u64 {
    if n.is_multiple_of(10) {
        std::process::abort();
    }
    model[n]
}

/// A replaced worker attaches the file that the leader has mapped, even if its name or times have changed. Where no descriptor
/// refers to the file (macOS), the name must stay.
#[cfg(unix)]
#[test]
fn a_mapped_model_file_may_be_renamed_replaced_or_removed() {
    let _watchdog = crate::watchdog::watchdog(120);
    type Change = fn(&std::path::Path);
    let touched: Change = |path| {
        let file = std::fs::File::options()
            .write(true)
            .open(path)
            .expect("the file exists");
        file.set_modified(std::time::SystemTime::UNIX_EPOCH)
            .expect("owned by this user");
    };
    let unlinked: Change = |path| std::fs::remove_file(path).expect("the file exists");
    let renamed: Change = |path| std::fs::rename(path, path.with_extension("old")).expect("the file exists");
    let saved: Change = |path| {
        let other = share(&Buffer::from(vec![0u64; 1000]), &Backing::Auto).expect("there is room");
        other.save(path).expect("writable");
    };
    let changes = match cfg!(target_os = "linux") {
        true => &[touched, unlinked, renamed, saved][..],
        false => &[touched],
    };
    for (which, change) in changes.iter().enumerate() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("model.safetensors");
        let model: Buffer<u64> = (0..1000).map(|n| n * n).collect();
        let image = share(&model, &Backing::Auto).expect("there is room");
        image.save(&path).expect("writable");
        let builder = Invoker::builder(fragile).image(mapped::open(&path));
        let invoker = builder.workers(2).build().expect("the invoker builds");
        change(&path);
        let outputs: Vec<_> = invoker.map(0..60).collect();
        for (n, output) in outputs.into_iter().enumerate() {
            match n.is_multiple_of(10) {
                true => assert!(output.is_err(), "change {which}: task {n} aborts"),
                false => assert_eq!(output.ok(), Some(model[n]), "change {which}: task {n}"),
            }
        }
        let report = invoker.finish().expect("no error");
        assert_eq!(
            report.processes.map(|processes| processes.died),
            Some(6),
            "change {which}"
        );
    }
}

#[cfg(feature = "rkyv")]
mod archives {
    use std::collections::HashMap;

    use invoker::{Copies, Invoker, Processes, SharedArchive};

    #[derive(rkyv::Archive, rkyv::Serialize)]
    struct Words {
        postings: HashMap<String, Vec<u32>>,
    }

    fn sum(words: &SharedArchive<Words>, word: String) -> Option<u32> {
        let list = words.postings.get(&*word)?;
        Some(list.iter().map(|number| number.to_native()).sum())
    }

    /// A map that no worker rebuilds.
    #[test]
    fn a_model_that_derives_archive_is_shared_as_it_is() {
        let _watchdog = crate::watchdog::watchdog(120);
        let postings = (0..50_000).map(|i| (format!("word {i}"), vec![i, 1])).collect();
        let words = SharedArchive::new(&Words { postings }).expect("it can be archived");
        let options = Processes::new().copies(Copies::Refuse);
        let builder = Invoker::builder(sum).model(words).executor(options);
        let invoker = builder.workers(2).build().expect("nothing is copied");
        let words = (0..50_010).step_by(5).map(|i| format!("word {i}"));
        let sums: Vec<Option<u32>> = invoker.map(words).filter_map(Result::ok).collect();
        let expected = (0..50_010).step_by(5).map(|i| (i < 50_000).then_some(i + 1));
        assert!(sums.into_iter().eq(expected));
        let report = invoker.finish().expect("no error");
        assert!(
            report
                .model
                .is_some_and(|model| model.per_worker < 1024 && model.bytes > 1 << 20)
        );
    }
}

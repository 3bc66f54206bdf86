//! A model that is not shared whole is reported, refused or allowed.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};

use invoker::{Buffer, Copies, Error, Image, Invoker, Origin, Processes, Report};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
struct Model {
    means: Buffer<f64>,
    weights: Vec<f32>,
    postings: HashMap<String, Vec<u32>>,
}

fn model() -> Model {
    Model {
        means: vec![0.5; 1_000_000].into(),
        weights: vec![0.5; 1_000_000],
        postings: (0..10_000).map(|i| (format!("word {i}"), vec![i])).collect(),
    }
}

fn weight(model: &Model, n: usize) -> f32 {
    model.weights[n]
}

/// Collects what a subscriber prints.
#[derive(Clone, Default)]
struct Printed(Arc<Mutex<Vec<u8>>>);

impl io::Write for Printed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Runs one task, and returns the report and what was logged.
fn run(options: Processes) -> (Result<Report, Error>, String) {
    let printed = Printed::default();
    let writer = printed.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(move || writer.clone())
        .with_ansi(false)
        .finish();
    let report = tracing::subscriber::with_default(subscriber, || {
        let builder = Invoker::builder(weight).model(model()).executor(options);
        let invoker = builder.workers(2).build()?;
        assert_eq!(invoker.map([7]).filter_map(Result::ok).collect::<Vec<_>>(), [0.5]);
        invoker.finish()
    });
    let printed = printed.0.lock().expect("no panic").clone();
    (report, String::from_utf8(printed).expect("text"))
}

#[test]
fn one_warning_names_the_fields_with_their_bytes_and_the_types_to_use() {
    let _watchdog = crate::watchdog::watchdog(120);
    let (report, printed) = run(Processes::new());
    let lines: Vec<&str> = printed.lines().filter(|line| line.contains("WARN")).collect();
    let [line] = &lines[..] else { panic!("{printed}") };
    assert!(
        line.contains("invoker: the model is not shared whole: each worker rebuilds 5.2 MiB on its heap, 10.4 MiB in 2 workers: "),
        "{line}"
    );
    assert!(
        line.contains("weights: Vec<f32>, 3.8 MiB per worker → Buffer<f32>"),
        "{line}"
    );
    assert!(line.contains("postings: HashMap<String, Vec<u32>>, "), "{line}");
    assert!(
        line.contains("per worker → StringMap<Lists<u32>>; to allow it"),
        "{line}"
    );
    let model = report.expect("no error").model.expect("it was shared");
    assert!(
        model.bytes >= 8_000_000 && model.per_worker >= 5_000_000,
        "{model:?}"
    );
    assert_eq!((model.mapped, model.copied), (0, 0));
}

#[test]
fn copies_are_allowed_without_a_warning() {
    let _watchdog = crate::watchdog::watchdog(120);
    let (report, printed) = run(Processes::new().copies(Copies::Allow));
    assert!(!printed.contains("not shared whole"), "{printed}");
    let report = report.expect("no error").to_string();
    assert!(report.contains(" per worker, moved in"), "{report}");
}

#[test]
fn copies_are_refused_before_any_worker_is_started() {
    let _watchdog = crate::watchdog::watchdog(120);
    let (report, printed) = run(Processes::new().copies(Copies::Refuse));
    assert!(!printed.contains("not shared whole"), "{printed}");
    let error = report.expect_err("it is refused");
    shm_buffers::assert_said_once(&error);
    let Error::Copied(copied) = &error else {
        panic!("{error:?}")
    };
    assert_eq!(copied.workers, 2);
    assert_eq!(copied.memory.fields[0].path, "weights");
    assert!(
        error
            .to_string()
            .contains("weights: Vec<f32>, 3.8 MiB per worker → Buffer<f32>")
    );
}

#[test]
fn an_image_that_was_loaded_is_checked_by_what_each_worker_decodes() {
    let _watchdog = crate::watchdog::watchdog(120);
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("model.safetensors");
    let backing = invoker::Backing::Auto;
    let image = invoker::share(&model(), &backing).expect("there is room");
    image.save(&path).expect("writable");
    let build = |image: Image| {
        let options = Processes::new().copies(Copies::Refuse);
        let builder = Invoker::builder(weight).image(image).executor(options);
        builder.workers(1).build().map(|_| ()).expect_err("it is refused")
    };
    let loaded = Image::load_shared(&path, &backing).expect("just saved");
    assert!(matches!(build(loaded), Error::Copied(copied) if copied.memory.fields.is_empty()));
    assert!(matches!(build(image), Error::Copied(copied) if !copied.memory.fields.is_empty()));
}

#[test]
fn the_setting_is_listed() {
    let options = Processes::new().copies(Copies::Refuse);
    let builder = Invoker::builder(weight).model(model()).executor(options);
    let settings = builder.settings().expect("valid");
    let found = settings.processes.iter().find(|(name, _)| *name == "copies");
    let (_, setting) = found.expect("it is listed");
    assert_eq!((&*setting.value, setting.origin), ("refuse", Origin::Code));
    assert_eq!(settings.model, None);
}

#[test]
fn settings_of_an_invoker_have_the_bytes_of_its_model() {
    let _watchdog = crate::watchdog::watchdog(120);
    let options = Processes::new().copies(Copies::Allow);
    let builder = Invoker::builder(weight).model(model()).executor(options);
    let invoker = builder.workers(1).build().expect("it starts");
    let memory = invoker.settings().model.as_ref().expect("it is shared");
    assert!(
        memory.shared >= 8_000_000 && memory.per_process >= 5_000_000,
        "{memory:?}"
    );
    let text = invoker.settings().to_string();
    for line in [
        "model, shared       1",
        "model, mapped       0 B",
        "model, per worker   5.2 MiB",
    ] {
        assert!(text.contains(line), "{text}");
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Postings {
    lists: Vec<Buffer<u32>>,
}

fn postings(count: u32) -> Postings {
    let lists = (0..count).map(|i| vec![i; 3].into()).collect();
    Postings { lists }
}

fn first_of(model: &Postings, list: usize) -> u32 {
    model.lists[list][0]
}

#[test]
fn very_many_buffers_are_to_become_lists() {
    let _watchdog = crate::watchdog::watchdog(120);
    let build = |image: Image| {
        let options = Processes::new().copies(Copies::Refuse);
        let builder = Invoker::builder(first_of).image(image).executor(options);
        let invoker = builder.workers(1).build()?;
        Ok::<Vec<u32>, Error>(invoker.map([7]).filter_map(Result::ok).collect())
    };
    let share = |count| invoker::share(&postings(count), &invoker::Backing::Auto).expect("there is room");
    let advice = "each worker makes an object for each of 100001 buffers; put small buffers of one type together, into `Lists`";
    let field = "lists: Vec<Buffer<u32>>, 3.1 MiB per worker → Lists<u32>";

    let image = share(100_001);
    let error = build(image.clone()).expect_err("it is refused").to_string();
    assert!(error.contains(advice) && error.contains(field), "{error}");

    // What each worker decodes of an attached image is small. The number of buffers is known, though.
    let handle = image.handle().expect("it can be sent");
    let attached = build(Image::attach(&handle).expect("it is alive"));
    let error = attached.expect_err("it is refused").to_string();
    assert!(error.contains(advice) && !error.contains("rebuilds"), "{error}");

    assert_eq!(build(share(20_000)).expect("that is little"), [7]);
}

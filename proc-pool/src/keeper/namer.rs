//! The helper thread that turns the addresses of a stack into text. It reads debug information, which takes up to
//! seconds; the keeper goes on to watch deadlines and to start and reap processes.

use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

use crate::panics::guarded;

/// How long the end of a process may wait for the text of its stack.
const PATIENCE: Duration = Duration::from_secs(5);

type Work = Box<dyn FnOnce() -> Option<String> + Send>;

/// A request to the thread.
struct Request {
    work: Work,
    /// Nothing waits for the text after this.
    until: Instant,
    answer: Sender<Option<String>>,
}

/// The thread, started with the first request. It ends by itself after the namer is dropped.
#[derive(Default)]
pub(crate) struct Namer {
    requests: Option<Sender<Request>>,
}

/// A text to come.
#[derive(Debug)]
pub(crate) struct Text {
    until: Instant,
    answer: Receiver<Option<String>>,
    text: Option<String>,
}

impl Namer {
    /// Has `work` done in the thread. Without a thread, there is no text.
    pub(crate) fn ask(&mut self, work: impl FnOnce() -> Option<String> + Send + 'static) -> Text {
        let (answer, text) = crossbeam_channel::bounded(1);
        let until = Instant::now() + PATIENCE;
        let request = Request {
            work: Box::new(work),
            until,
            answer,
        };
        if let Some(requests) = self.requests() {
            // It fails if the thread has ended; the text has no sender then.
            let _ = requests.send(request);
        }
        Text {
            until,
            answer: text,
            text: None,
        }
    }

    fn requests(&mut self) -> Option<&Sender<Request>> {
        if self.requests.is_none() {
            let (requests, asked) = crossbeam_channel::unbounded::<Request>();
            let started = thread::Builder::new()
                .name("proc-pool stacks".into())
                .spawn(move || serve(&asked));
            started.ok()?;
            self.requests = Some(requests);
        }
        self.requests.as_ref()
    }
}

fn serve(requests: &Receiver<Request>) {
    for Request { work, until, answer } in requests {
        if Instant::now() < until {
            // The symbolizer may panic on a damaged file; the thread goes on.
            let text = guarded(work).ok().flatten();
            // The process's end may have gone on without it.
            let _ = answer.send(text);
        }
    }
}

impl Text {
    /// Whether there is nothing more to wait for.
    pub(crate) fn is_settled(&mut self) -> bool {
        match self.answer.try_recv() {
            Ok(text) => {
                self.text = text;
                true
            }
            Err(crossbeam_channel::TryRecvError::Disconnected) => true,
            Err(crossbeam_channel::TryRecvError::Empty) => Instant::now() >= self.until,
        }
    }

    /// The text, if it has come.
    pub(crate) fn into_text(mut self) -> Option<String> {
        self.is_settled();
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settle(mut text: Text) -> Option<String> {
        while !text.is_settled() {
            thread::yield_now();
        }
        text.into_text()
    }

    #[test]
    fn a_slow_or_panicking_work_costs_its_own_text_only() {
        let mut namer = Namer::default();
        let (go, wait) = crossbeam_channel::bounded::<()>(0);
        let mut slow = namer.ask(move || {
            let _ = wait.recv();
            Some("slow".to_owned())
        });
        let panics = namer.ask(|| panic!("as asked"));
        let bomb = namer.ask(|| std::panic::panic_any(Bomb));
        let next = namer.ask(|| Some("next".to_owned()));
        // Nothing has waited for it.
        assert!(!slow.is_settled());
        drop(go);
        assert_eq!(settle(slow).as_deref(), Some("slow"));
        assert_eq!(settle(panics), None);
        assert_eq!(settle(bomb), None);
        assert_eq!(settle(next).as_deref(), Some("next"));
    }

    struct Bomb;

    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("the payload's drop panics, too");
        }
    }

    #[test]
    fn a_text_is_not_waited_for_without_end() {
        let mut namer = Namer::default();
        let (_go, wait) = crossbeam_channel::bounded::<()>(0);
        let mut text = namer.ask(move || {
            let _ = wait.recv();
            None
        });
        assert!(!text.is_settled());
        text.until = Instant::now();
        assert!(text.is_settled());
        assert_eq!(text.into_text(), None);
    }
}

//! [`Symbolizer`]: a helper thread that turns the addresses of a stack into text. It reads debug information, which takes up to
//! seconds, during which the manager keeps watching deadlines and starting and reaping processes.

use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

use crate::panics::guarded;

/// How long the end of a process may wait for the text of its stack.
const TIMEOUT: Duration = Duration::from_secs(5);

type Work = Box<dyn FnOnce() -> Option<String> + Send>;

/// A request to the thread.
struct TextRequest {
    work: Work,
    /// After this time, the text is of no use any more.
    until: Instant,
    reply: Sender<Option<String>>,
}

/// The thread, started with the first request. It ends by itself after the symbolizer is dropped.
#[derive(Default)]
pub(crate) struct Symbolizer {
    requests: Option<Sender<TextRequest>>,
}

/// The text of a request.
#[derive(Debug)]
pub(crate) struct PendingText {
    until: Instant,
    reply: Receiver<Option<String>>,
    text: Option<String>,
}

impl Symbolizer {
    /// Runs `work` in the thread. If the thread cannot be started, there is no text.
    pub(crate) fn submit(&mut self, work: impl FnOnce() -> Option<String> + Send + 'static) -> PendingText {
        let (reply, receiver) = crossbeam_channel::bounded(1);
        let until = Instant::now() + TIMEOUT;
        let request = TextRequest {
            work: Box::new(work),
            until,
            reply,
        };
        if let Some(requests) = self.requests() {
            // This fails if the thread has ended. The reply then has no sender, so the text is resolved.
            let _ = requests.send(request);
        }
        PendingText {
            until,
            reply: receiver,
            text: None,
        }
    }

    fn requests(&mut self) -> Option<&Sender<TextRequest>> {
        if self.requests.is_none() {
            let (requests, receiver) = crossbeam_channel::unbounded::<TextRequest>();
            let started = thread::Builder::new()
                .name("proc-pool stacks".into())
                .spawn(move || serve(&receiver));
            started.ok()?;
            self.requests = Some(requests);
        }
        self.requests.as_ref()
    }
}

fn serve(requests: &Receiver<TextRequest>) {
    for TextRequest { work, until, reply } in requests {
        if Instant::now() < until {
            // The symbolizer may panic on a damaged file; the thread keeps running.
            let text = guarded(work).ok().flatten();
            // This fails if the process's end was reported without the text.
            let _ = reply.send(text);
        }
    }
}

impl PendingText {
    /// Returns whether the text is there, or will not be waited for any more.
    pub(crate) fn is_resolved(&mut self) -> bool {
        match self.reply.try_recv() {
            Ok(text) => {
                self.text = text;
                true
            }
            Err(crossbeam_channel::TryRecvError::Disconnected) => true,
            Err(crossbeam_channel::TryRecvError::Empty) => Instant::now() >= self.until,
        }
    }

    /// Returns the text, if it is there by now.
    pub(crate) fn into_text(mut self) -> Option<String> {
        self.is_resolved();
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(mut text: PendingText) -> Option<String> {
        while !text.is_resolved() {
            thread::yield_now();
        }
        text.into_text()
    }

    #[test]
    fn slow_or_panicking_work_costs_only_its_own_text() {
        let mut symbolizer = Symbolizer::default();
        let (release, released) = crossbeam_channel::bounded::<()>(0);
        let mut slow = symbolizer.submit(move || {
            let _ = released.recv();
            Some("slow".to_owned())
        });
        let panics = symbolizer.submit(|| panic!("as requested"));
        let bomb = symbolizer.submit(|| std::panic::panic_any(Bomb));
        let next = symbolizer.submit(|| Some("next".to_owned()));
        // `submit` did not wait.
        assert!(!slow.is_resolved());
        drop(release);
        assert_eq!(wait(slow).as_deref(), Some("slow"));
        assert_eq!(wait(panics), None);
        assert_eq!(wait(bomb), None);
        assert_eq!(wait(next).as_deref(), Some("next"));
    }

    struct Bomb;

    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("the payload's drop panics, too");
        }
    }

    #[test]
    fn text_resolves_to_nothing_after_its_timeout() {
        let mut symbolizer = Symbolizer::default();
        let (_release, released) = crossbeam_channel::bounded::<()>(0);
        let mut text = symbolizer.submit(move || {
            let _ = released.recv();
            None
        });
        assert!(!text.is_resolved());
        text.until = Instant::now();
        assert!(text.is_resolved());
        assert_eq!(text.into_text(), None);
    }
}

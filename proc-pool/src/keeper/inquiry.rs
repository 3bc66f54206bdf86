//! Asking a process for its stack before it is killed, where that was built in and asked for.

#[cfg(not(all(feature = "stacks", target_os = "linux")))]
pub(super) use not_asking::{Inquiry, Namer};
#[cfg(all(feature = "stacks", target_os = "linux"))]
pub(super) use {super::namer::Namer, asking::Inquiry};

#[cfg(all(feature = "stacks", target_os = "linux"))]
mod asking {
    use std::time::Instant;

    use shm_buffers::Region;
    use shm_buffers::slots::Slots;

    use crate::keeper::namer::{Namer, Text};
    use crate::protocol::Sizes;
    use crate::stack::{ANSWER, Question};

    /// Into one process's stack, if it was asked.
    #[derive(Debug, Default)]
    pub(crate) struct Inquiry {
        asked: Option<(Instant, Question)>,
        text: Option<Text>,
    }

    impl Inquiry {
        /// Asks, and tells whether there will be an end of it.
        pub(crate) fn begin(&mut self, pid: u32, region: &Region, sizes: Sizes) -> bool {
            if sizes.stack == 0 {
                return false;
            }
            let slots = Slots::new(region, sizes.map().stack);
            self.asked = Some((Instant::now(), Question::ask(pid, slots)));
            true
        }

        /// Whether the process has answered, or had the time to, now; `true` once. `namer` makes a text of the answer.
        pub(crate) fn is_over(&mut self, namer: &mut Namer) -> bool {
            let over =
                |(at, question): &mut (Instant, Question)| question.is_answered() || at.elapsed() >= ANSWER;
            match self.asked.take_if(over) {
                Some((_, question)) => {
                    let answer = question.answer();
                    self.text = Some(namer.ask(move || answer.text()));
                    true
                }
                None => false,
            }
        }

        /// Whether the text is there, or there will be none.
        pub(crate) fn is_settled(&mut self) -> bool {
            self.text.as_mut().is_none_or(Text::is_settled)
        }

        /// The stack as text, if there is one by now.
        pub(crate) fn text(self) -> Option<String> {
            self.text?.into_text()
        }
    }
}

#[cfg(not(all(feature = "stacks", target_os = "linux")))]
mod not_asking {
    use shm_buffers::Region;

    use crate::protocol::Sizes;

    /// Nothing to do.
    #[derive(Debug, Default)]
    pub(crate) struct Namer(());

    /// None.
    #[derive(Debug, Default)]
    pub(crate) struct Inquiry(());

    impl Inquiry {
        pub(crate) fn begin(&mut self, _: u32, _: &Region, _: Sizes) -> bool {
            false
        }

        pub(crate) fn is_over(&mut self, _: &mut Namer) -> bool {
            false
        }

        pub(crate) fn is_settled(&mut self) -> bool {
            true
        }

        pub(crate) fn text(self) -> Option<String> {
            None
        }
    }
}

//! Asking a process for its stack before it is killed, where that was built in and asked for.

#[cfg(all(feature = "stacks", target_os = "linux"))]
pub(super) use asking::Inquiry;
#[cfg(not(all(feature = "stacks", target_os = "linux")))]
pub(super) use not_asking::Inquiry;

#[cfg(all(feature = "stacks", target_os = "linux"))]
mod asking {
    use std::time::Instant;

    use shm_buffers::Region;
    use shm_buffers::slots::Slots;

    use crate::protocol::Sizes;
    use crate::stack::{ANSWER, Answer, Question};

    /// Into one process's stack, if it was asked.
    #[derive(Debug, Default)]
    pub(crate) struct Inquiry {
        asked: Option<(Instant, Question)>,
        answer: Option<Answer>,
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

        /// Whether it has come to its end now; once.
        pub(crate) fn is_over(&mut self) -> bool {
            let over =
                |(at, question): &mut (Instant, Question)| question.is_answered() || at.elapsed() >= ANSWER;
            match self.asked.take_if(over) {
                Some((_, question)) => {
                    self.answer = Some(question.answer());
                    true
                }
                None => false,
            }
        }

        pub(crate) fn text(&self) -> Option<String> {
            self.answer.as_ref()?.text()
        }
    }
}

#[cfg(not(all(feature = "stacks", target_os = "linux")))]
mod not_asking {
    use shm_buffers::Region;

    use crate::protocol::Sizes;

    /// None.
    #[derive(Debug, Default)]
    pub(crate) struct Inquiry(());

    impl Inquiry {
        pub(crate) fn begin(&mut self, _: u32, _: &Region, _: Sizes) -> bool {
            false
        }

        pub(crate) fn is_over(&mut self) -> bool {
            false
        }

        pub(crate) fn text(&self) -> Option<String> {
            None
        }
    }
}

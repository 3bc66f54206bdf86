//! [`PendingStack`]: the stack of a process that is about to be killed, requested first and then turned into text. Nothing
//! is captured without the feature `stacks`, or if the pool did not ask for stacks.

#[cfg(not(all(feature = "stacks", target_os = "linux")))]
pub(super) use unsupported::{PendingStack, Symbolizer};
#[cfg(all(feature = "stacks", target_os = "linux"))]
pub(super) use {super::symbolizer::Symbolizer, supported::PendingStack};

#[cfg(all(feature = "stacks", target_os = "linux"))]
mod supported {
    use std::time::Instant;

    use shm_buffers::Region;
    use shm_buffers::slots::Slots;

    use crate::process::manager::symbolizer::{PendingText, Symbolizer};
    use crate::process::stack::{REPLY_TIMEOUT, StackRequest};
    use crate::wire::layout::RegionSizes;

    /// The stack of one process, if it was requested.
    #[derive(Debug, Default)]
    pub(crate) struct PendingStack {
        request: Option<(Instant, StackRequest)>,
        text: Option<PendingText>,
    }

    impl PendingStack {
        /// Requests the stack. Returns whether [`poll_capture`](Self::poll_capture) will report the end of the request.
        pub(crate) fn request(&mut self, pid: u32, region: &Region, sizes: RegionSizes) -> bool {
            if sizes.stack == 0 {
                return false;
            }
            let slots = Slots::new(region, sizes.layout().stack);
            self.request = Some((Instant::now(), StackRequest::send(pid, slots)));
            true
        }

        /// Returns `true` once, when the process has replied or had enough time to reply. The reply then goes to `symbolizer`.
        pub(crate) fn poll_capture(&mut self, symbolizer: &mut Symbolizer) -> bool {
            let over = |(at, request): &mut (Instant, StackRequest)| {
                request.is_complete() || at.elapsed() >= REPLY_TIMEOUT
            };
            match self.request.take_if(over) {
                Some((_, request)) => {
                    let capture = request.capture();
                    self.text = Some(symbolizer.submit(move || capture.text()));
                    true
                }
                None => false,
            }
        }

        /// Returns whether the text is there, or there will be none.
        pub(crate) fn is_resolved(&mut self) -> bool {
            self.text.as_mut().is_none_or(PendingText::is_resolved)
        }

        /// Returns the stack as text, if there is one by now.
        pub(crate) fn into_text(self) -> Option<String> {
            self.text?.into_text()
        }
    }
}

#[cfg(not(all(feature = "stacks", target_os = "linux")))]
mod unsupported {
    use shm_buffers::Region;

    use crate::wire::layout::RegionSizes;

    /// Does nothing.
    #[derive(Debug, Default)]
    pub(crate) struct Symbolizer(());

    /// No stack.
    #[derive(Debug, Default)]
    pub(crate) struct PendingStack(());

    impl PendingStack {
        pub(crate) fn request(&mut self, _: u32, _: &Region, _: RegionSizes) -> bool {
            false
        }

        pub(crate) fn poll_capture(&mut self, _: &mut Symbolizer) -> bool {
            false
        }

        pub(crate) fn is_resolved(&mut self) -> bool {
            true
        }

        pub(crate) fn into_text(self) -> Option<String> {
            None
        }
    }
}

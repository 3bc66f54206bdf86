//! Time: the reporter's clock, the end of a bar, rates and ETAs.

pub(crate) mod clock;
pub(crate) mod finish_time;
pub(crate) mod rate;

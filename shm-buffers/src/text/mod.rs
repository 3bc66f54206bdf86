//! Text for people: errors with their causes, numbers of bytes, and text of other processes in lines and safe to print.

mod byte_size;
mod causes;
mod line_splitter;
mod printable;

pub use byte_size::ByteSize;
pub use causes::{WithCauses, assert_said_once, error_chain};
pub use line_splitter::{LineSplitter, OutputLine};
pub use printable::Printable;

//! The bytes of COPY: its options, and lines of text or CSV as they come and as they are written.

pub mod lines;
pub mod options;

pub use lines::Lines;
pub use options::CopyOptions;

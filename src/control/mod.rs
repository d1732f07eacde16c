//! See the codemap in the crate root.

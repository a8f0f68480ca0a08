//! The use cases of Diaspore.

pub mod api;

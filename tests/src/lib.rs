//! What the end-to-end tests share: the deterministic simulation of a whole deployment and its reference model.

pub mod sim;

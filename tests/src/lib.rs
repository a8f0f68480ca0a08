//! What the end-to-end tests share: the deterministic simulation of a whole deployment, its reference model, and the judge of
//! concurrent histories.

pub mod linear;
pub mod sim;

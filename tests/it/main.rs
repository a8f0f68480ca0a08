//! The one integration binary.

mod bad_input;
mod canary;
mod cli;
mod cli_service;
mod kill;
mod localstack;
mod program;
mod sim;
mod traces;
mod trouble;
mod wire;

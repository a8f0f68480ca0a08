//! The one integration binary.

mod cli;
mod cli_service;
mod localstack;
mod program;

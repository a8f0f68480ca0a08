//! Every status and header rule over a running engine: in process, and over real sockets where the wire matters.

mod access;
mod documents;
mod fixture;
mod limits;
mod log;
mod mutations;
mod namespace;
mod reads;
mod sockets;

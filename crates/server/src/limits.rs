//! A bound on everything a peer can make us hold or wait for.

use std::time::Duration;

/// What one service accepts from the network. Defaults suit a small machine; every field is plain data for the configuration file.
///
/// Times count only while the peer is the one we wait for: a sender is never cut because the engine was busy.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Longest request target in bytes (414 beyond). A key of 1024 bytes is 3072 when fully escaped, and a listing carries two.
    pub uri_bytes: usize,
    /// Sum of header names and values of one request in bytes (431 beyond).
    pub header_bytes: usize,
    /// Header fields of one request (431 beyond).
    pub headers: usize,
    /// Longest blob in bytes (413 beyond).
    pub blob_bytes: u64,
    /// Longest JSON document in bytes (413 beyond).
    pub json_bytes: usize,
    /// Open connections; further ones wait in the listen queue.
    pub connections: usize,
    /// Requests being answered, their bodies included (503 `not_accepted` beyond).
    pub requests: usize,
    /// Read buffer of a connection in bytes: what a peer can make us hold before a request is accepted.
    pub buffer_bytes: usize,
    /// Time for the whole request head, and for an idle connection to send its next one.
    pub head_time: Duration,
    /// Time in which a peer has to move `stall_bytes` of a body, in either direction (408, or the connection is cut).
    pub stall_time: Duration,
    /// Bytes a peer has to move in `stall_time`. A body that ends sooner is never cut.
    pub stall_bytes: u64,
    /// How long a closing connection is read to its end, so that the peer sees our answer instead of a reset.
    pub linger_time: Duration,
    /// Bytes read and dropped while a connection closes.
    pub linger_bytes: u64,
    /// How long running requests may go on after shutdown was asked for.
    pub shutdown_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            uri_bytes: 16 << 10,
            header_bytes: 32 << 10,
            headers: 100,
            blob_bytes: 5 << 40,
            json_bytes: 64 << 10,
            connections: 1024,
            requests: 512,
            buffer_bytes: 128 << 10,
            head_time: Duration::from_secs(10),
            stall_time: Duration::from_secs(20),
            stall_bytes: 4 << 10,
            linger_time: Duration::from_secs(1),
            linger_bytes: 1 << 20,
            shutdown_time: Duration::from_secs(30),
        }
    }
}

//! What only shows on the wire: timers, lingering close, 100-continue, keep-alive, shutdown.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::fixture::{House, house};
use crate::{Limits, ServerError, ServerOptions, serve};

const PATIENCE: Duration = Duration::from_secs(20);

struct Server {
    house: House,
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), ServerError>>,
}

async fn server(limits: Limits) -> Server {
    let house = house().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let options = ServerOptions { limits, metrics_text: Some(std::sync::Arc::new(|| "extra_metric 1\n".to_owned())) };
    let task = tokio::spawn(serve(house.engine.clone(), listener, options, async {
        stopped.await.ok();
    }));
    Server { house, address, stop, task }
}

impl Server {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Head of a request of `acme`'s user.
    fn head(&self, request: &str, fields: &str) -> String {
        format!("{request} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n{fields}\r\n", self.house.tokens.user)
    }

    /// Sends `request` on a connection of its own and reads to the end.
    async fn exchange(&self, request: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        rest(&mut stream).await
    }
}

/// Everything up to the end of the connection.
async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("the connection ends").unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Reads until `mark` has come.
async fn until(stream: &mut TcpStream, mark: &str) -> String {
    let mut bytes = Vec::new();
    while !String::from_utf8_lossy(&bytes).contains(mark) {
        let byte = timeout(PATIENCE, stream.read_u8()).await.unwrap_or_else(|_| panic!("{mark} comes: {bytes:?}")).unwrap();
        bytes.push(byte);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_carries_several_requests() {
    let server = server(Limits::default()).await;
    let mut stream = server.connect().await;
    stream.write_all(server.head("PUT /api/v1/blobs/photos/../x", "content-length: 2\r\n").as_bytes()).await.unwrap();
    stream.write_all(b"hi").await.unwrap();
    let put = until(&mut stream, "\"replayed\":false}").await;
    assert!(put.starts_with("HTTP/1.1 201 Created"), "{put}");
    stream.write_all(server.head("GET /api/v1/blobs/photos/../x", "connection: close\r\n").as_bytes()).await.unwrap();
    let got = rest(&mut stream).await;
    assert!(got.starts_with("HTTP/1.1 200 OK") && got.ends_with("\r\n\r\nhi"), "{got}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cautious_sender_is_told_to_go_on_or_not() {
    let server = server(Limits { blob_bytes: 100, ..Limits::default() }).await;
    let mut stream = server.connect().await;
    let fields = "expect: 100-continue\r\ncontent-length: 2\r\nconnection: close\r\n";
    stream.write_all(server.head("PUT /api/v1/blobs/photos/k", fields).as_bytes()).await.unwrap();
    assert_eq!(until(&mut stream, "\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"hi").await.unwrap();
    assert!(rest(&mut stream).await.starts_with("HTTP/1.1 201"));

    let fields = "expect: 100-continue\r\ncontent-length: 101\r\nconnection: close\r\n";
    let refused = server.exchange(&server.head("PUT /api/v1/blobs/photos/k", fields)).await;
    assert!(refused.starts_with("HTTP/1.1 413"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_reaches_a_sender_that_is_still_sending() {
    let server = server(Limits::default()).await;
    let mut stream = server.connect().await;
    stream.write_all(b"PUT /api/v1/blobs/photos/k HTTP/1.1\r\nhost: x\r\ncontent-length: 600000\r\n\r\n").await.unwrap();
    for _ in 0..6 {
        stream.write_all(&vec![0; 100_000]).await.unwrap();
    }
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 401") && answer.contains("\"code\":\"unauthorized\""), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_heads_and_idle_connections_are_cut() {
    let server = server(Limits { head_time: Duration::from_millis(300), ..Limits::default() }).await;
    let start = Instant::now();
    let mut idle = server.connect().await;
    let mut slow = server.connect().await;
    slow.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nx-a: ").await.unwrap();
    // One more byte now and then does not buy time.
    let drip = tokio::spawn(async move {
        let mut tick = tokio::time::interval(Duration::from_millis(50));
        let mut scratch = [0; 512];
        loop {
            tokio::select! {
                _ = tick.tick() => if slow.write_all(b"a").await.is_err() { break },
                read = slow.read(&mut scratch) => if !matches!(read, Ok(1..)) { break },
            }
        }
    });
    assert!(!rest(&mut idle).await.contains("200"));
    timeout(PATIENCE, drip).await.expect("the dripping head is cut").unwrap();
    assert!(start.elapsed() >= Duration::from_millis(300));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_body_is_answered_and_closed() {
    let server = server(Limits { stall_time: Duration::from_millis(200), stall_bytes: 1000, ..Limits::default() }).await;
    let mut stream = server.connect().await;
    stream.write_all(server.head("PUT /api/v1/blobs/photos/k", "content-length: 5000\r\n").as_bytes()).await.unwrap();
    stream.write_all(b"a few bytes").await.unwrap();
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("too_slow"), "{answer}");
    server.house.user("GET", "/api/v1/blobs/photos/k").send().await.is_problem(404, "unknown_key");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_is_cut() {
    let server = server(Limits { stall_time: Duration::from_millis(300), stall_bytes: 1 << 20, ..Limits::default() }).await;
    let size = 24 << 20;
    server.house.user("PUT", "/api/v1/blobs/photos/big").body(vec![7_u8; size]).send().await.is(201);
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 << 10).unwrap();
    let mut stream = socket.connect(server.address).await.unwrap();
    stream.write_all(server.head("GET /api/v1/blobs/photos/big", "").as_bytes()).await.unwrap();
    let scrape = "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let start = Instant::now();
    while !server.exchange(scrape).await.contains("diaspore_http_connections 1\n") || start.elapsed() < Duration::from_millis(300) {
        assert!(start.elapsed() < PATIENCE, "the connection that does not read stays");
    }
    let mut bytes = Vec::new();
    let end = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.unwrap();
    assert!(end.is_err() || bytes.len() < size, "the blob came whole although nobody read");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_breaks_off_leaves_nothing() {
    let server = server(Limits::default()).await;
    let mut stream = server.connect().await;
    stream.write_all(server.head("PUT /api/v1/blobs/photos/k", "content-length: 5000\r\n").as_bytes()).await.unwrap();
    stream.write_all(b"a few bytes").await.unwrap();
    drop(stream);
    let scrape = "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    while !server.exchange(scrape).await.contains("diaspore_http_connections 1\n") {}
    server.house.user("GET", "/api/v1/blobs/photos/k").send().await.is_problem(404, "unknown_key");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_the_limit_wait() {
    let server = server(Limits { connections: 1, ..Limits::default() }).await;
    let mut first = server.connect().await;
    first.write_all(server.head("GET /healthz", "").as_bytes()).await.unwrap();
    until(&mut first, "\"up\"}").await;
    let mut second = server.connect().await;
    second.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    assert!(timeout(Duration::from_millis(200), second.readable()).await.is_err(), "answered beyond the limit");
    drop(first);
    assert!(rest(&mut second).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test(flavor = "multi_thread")]
async fn loopback_reads_metrics_and_proxies_do_not() {
    let server = server(Limits::default()).await;
    let direct = server.exchange("GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(direct.starts_with("HTTP/1.1 200") && direct.contains("extra_metric 1\n"), "{direct}");
    let proxied = server.exchange("GET /metrics HTTP/1.1\r\nhost: x\r\nx-forwarded-for: 203.0.113.9\r\nconnection: close\r\n\r\n").await;
    assert!(proxied.starts_with("HTTP/1.1 401"), "{proxied}");
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_ends_idle_connections_and_finishes_running_requests() {
    let server = server(Limits::default()).await;
    let mut idle = server.connect().await;
    idle.write_all(server.head("GET /healthz", "").as_bytes()).await.unwrap();
    until(&mut idle, "\"up\"}").await;
    let mut running = server.connect().await;
    let fields = "expect: 100-continue\r\ncontent-length: 2\r\n";
    running.write_all(server.head("PUT /api/v1/blobs/photos/k", fields).as_bytes()).await.unwrap();
    until(&mut running, "100 Continue\r\n\r\n").await;

    server.stop.send(()).unwrap();
    assert_eq!(rest(&mut idle).await, "");
    running.write_all(b"hi").await.unwrap();
    assert!(rest(&mut running).await.starts_with("HTTP/1.1 201"));
    timeout(PATIENCE, server.task).await.expect("the server ends").unwrap().unwrap();
    assert!(TcpStream::connect(server.address).await.is_err(), "the port is free");
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_on_the_wire_is_refused() {
    let server = server(Limits { head_time: Duration::from_secs(2), ..Limits::default() }).await;
    for request in ["\0\0\0\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/1.1\r\ncontent-length: a\r\n\r\n", "GET / HTTP/9.9\r\n\r\n"] {
        let answer = server.exchange(request).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{request:?}: {answer}");
    }
    let huge = format!("GET / HTTP/1.1\r\nhost: x\r\nx-a: {}\r\nconnection: close\r\n\r\n", "a".repeat(40_000));
    assert!(server.exchange(&huge).await.starts_with("HTTP/1.1 431"));
}

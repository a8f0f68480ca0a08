//! One HTTP request over a plain socket, byte for byte as written: no library that would tidy a path or finish a body.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A service and the token to act with.
pub(crate) struct Wire {
    address: String,
    token: String,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    #[track_caller]
    pub(crate) fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}\n{}", self.head, String::from_utf8_lossy(&self.body));
        self
    }

    /// RFC 9457 with this code and a sentence; gives the sentence.
    #[track_caller]
    pub(crate) fn problem(self, status: u16, code: &str) -> String {
        let answer = self.is(status);
        assert!(answer.head.to_ascii_lowercase().contains("content-type: application/problem+json"), "{}", answer.head);
        let document = answer.json();
        assert_eq!(document["code"], code, "{document}");
        assert!(document["request_id"].as_str().is_some_and(|id| !id.is_empty()), "{document}");
        let detail = document["detail"].as_str().unwrap_or_default().to_owned();
        assert!(detail.len() > 8, "an error that says nothing: {document}");
        detail
    }
}

impl Wire {
    pub(crate) fn new(url: &str, token: &str) -> Self {
        Self { address: url.trim_start_matches("http://").to_owned(), token: token.trim().to_owned() }
    }

    /// Sends the head and whatever body there is, and reads the answer to its end.
    pub(crate) fn send(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut socket = self.open(method, target, headers, body.len());
        socket.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
        // A refusal may come, and the connection end, before all is sent.
        drop(socket.write_all(body));
        let mut bytes = Vec::new();
        socket.read_to_end(&mut bytes).unwrap();
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap_or_else(|| panic!("no answer to {method} {target}"));
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        assert!(!head.to_ascii_lowercase().contains("transfer-encoding"), "{head}");
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head, body: bytes[end + 4..].to_vec() }
    }

    /// Announces `length` bytes, sends only these, and hangs up.
    pub(crate) fn break_off(&self, target: &str, length: usize, body: &[u8]) {
        let mut socket = self.open("PUT", target, &[], length);
        socket.write_all(body).unwrap();
        socket.flush().unwrap();
    }

    fn open(&self, method: &str, target: &str, headers: &[(&str, &str)], length: usize) -> TcpStream {
        let mut socket = TcpStream::connect(&self.address).unwrap();
        let mut line = |line: &str| socket.write_all(format!("{line}\r\n").as_bytes()).unwrap();
        line(&format!("{method} {target} HTTP/1.1"));
        line(&format!("Host: {}", self.address));
        line("Connection: close");
        line(&format!("Authorization: Bearer {}", self.token));
        line(&format!("Content-Length: {length}"));
        for (name, value) in headers {
            line(&format!("{name}: {value}"));
        }
        line("");
        socket
    }
}

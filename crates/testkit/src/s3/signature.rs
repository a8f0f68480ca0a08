//! AWS Signature Version 4 in the `Authorization` header.
//!
//! Canonical request and string to sign follow "Signature Calculations for the Authorization Header: Transferring
//! Payload in a Single Chunk" of the S3 documentation.

use hmac::{Hmac, KeyInit as _, Mac as _};
use http::request::Parts;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use sha2::{Digest as _, Sha256};

use super::AccessKey;

/// The unreserved characters of RFC 3986 stay, all else is encoded.
pub(super) const STRICT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// The same with slashes kept: a path.
const STRICT_PATH: &AsciiSet = &STRICT.remove(b'/');

/// Why a request is not let in, as an S3 error code and message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// No usable `Authorization` header.
    Unsigned,
    /// Another access key.
    UnknownKey,
    /// The signature is not that of the request under our secret.
    Mismatch,
}

/// Checks the signature of a request's head. The payload is covered through the `x-amz-content-sha256` header, which
/// the upload is compared with later.
pub(super) fn check(parts: &Parts, key: &AccessKey) -> Result<(), Refusal> {
    let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let given = header("authorization").and_then(|value| value.strip_prefix("AWS4-HMAC-SHA256")).ok_or(Refusal::Unsigned)?;
    let field = |name: &str| {
        given
            .split(',')
            .filter_map(|field| field.trim().split_once('='))
            .find_map(|(found, value)| (found == name).then_some(value))
            .ok_or(Refusal::Unsigned)
    };
    let (id, scope) = field("Credential")?.split_once('/').ok_or(Refusal::Unsigned)?;
    if id != key.id {
        return Err(Refusal::UnknownKey);
    }
    let when = header("x-amz-date").ok_or(Refusal::Unsigned)?;
    let payload = header("x-amz-content-sha256").ok_or(Refusal::Unsigned)?;
    let signed = field("SignedHeaders")?;
    if !signed.split(';').any(|name| name == "host") {
        return Err(Refusal::Mismatch);
    }
    let canonical = canonical_request(parts, signed, payload);
    let text = format!("AWS4-HMAC-SHA256\n{when}\n{scope}\n{}", hex::encode(Sha256::digest(canonical)));
    let signature = hex::decode(field("Signature")?).map_err(|_| Refusal::Mismatch)?;
    let mut mac = keyed(&signing_key(&key.secret, scope)).ok_or(Refusal::Mismatch)?;
    mac.update(text.as_bytes());
    mac.verify_slice(&signature).map_err(|_| Refusal::Mismatch)
}

fn canonical_request(parts: &Parts, signed: &str, payload: &str) -> String {
    let decoded = percent_decode_str(parts.uri.path()).collect::<Vec<u8>>();
    let path = percent_encoding::percent_encode(&decoded, STRICT_PATH);
    let mut query: Vec<(String, String)> =
        pairs(parts.uri.query().unwrap_or_default()).map(|(name, value)| (encoded(&name), encoded(&value))).collect();
    query.sort();
    let query: Vec<String> = query.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mut headers = String::new();
    for name in signed.split(';') {
        let values: Vec<String> =
            parts.headers.get_all(name).iter().map(|value| squeezed(&String::from_utf8_lossy(value.as_bytes()))).collect();
        headers.push_str(name);
        headers.push(':');
        headers.push_str(&values.join(","));
        headers.push('\n');
    }
    format!("{}\n{path}\n{}\n{headers}\n{signed}\n{payload}", parts.method, query.join("&"))
}

/// The decoded parameters of a query, in order. `+` is a blank, as S3 has it.
pub(super) fn pairs(query: &str) -> impl Iterator<Item = (String, String)> {
    let decoded = |text: &str| {
        let text = text.replace('+', " ");
        percent_decode_str(&text).decode_utf8_lossy().into_owned()
    };
    query.split('&').filter(|pair| !pair.is_empty()).map(move |pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(name), decoded(value))
    })
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, STRICT).to_string()
}

/// Trims and turns runs of blanks into one.
fn squeezed(value: &str) -> String {
    value.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn keyed(key: &[u8]) -> Option<Hmac<Sha256>> {
    Hmac::<Sha256>::new_from_slice(key).ok()
}

/// HMAC chain over date, region, service and terminator, which make up the scope.
fn signing_key(secret: &str, scope: &str) -> Vec<u8> {
    let mut key = format!("AWS4{secret}").into_bytes();
    for part in scope.split('/') {
        if let Some(mut mac) = keyed(&key) {
            mac.update(part.as_bytes());
            key = mac.finalize().into_bytes().to_vec();
        }
    }
    key
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::{AccessKey, Refusal, check};

    /// The example "GET Object" of the S3 documentation on Signature Version 4.
    fn example(secret: &str) -> Result<(), Refusal> {
        let (parts, ()) = Request::get("/test.txt")
            .header("host", "examplebucket.s3.amazonaws.com")
            .header("range", "bytes=0-9")
            .header("x-amz-content-sha256", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
            .header("x-amz-date", "20130524T000000Z")
            .header(
                "authorization",
                "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,\
                 SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,\
                 Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
            )
            .body(())
            .unwrap()
            .into_parts();
        let key = AccessKey { id: "AKIAIOSFODNN7EXAMPLE".to_owned(), secret: secret.to_owned() };
        check(&parts, &key)
    }

    #[test]
    fn the_documentation_s_example_is_let_in_and_another_secret_is_not() {
        assert_eq!(example("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"), Ok(()));
        assert_eq!(example("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEZ"), Err(Refusal::Mismatch));
    }
}

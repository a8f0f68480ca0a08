//! Request bodies.

use bytes::Bytes;
use http::HeaderMap;
use http_body_util::BodyExt as _;
use hyper::body::Incoming as RequestBody;
use quick_xml::Reader;
use quick_xml::events::Event;
use sha2::{Digest as _, Sha256};

use super::answer::Refused;
use super::service::{Ending, Endpoint};
use super::shelf::Incoming;
use crate::fault::Course;

/// Longest document of a batch delete or a multipart completion.
const MAX_DOCUMENT_LEN: usize = 4 << 20;

/// What the client signed about the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Promise {
    Nothing,
    Hash([u8; 32]),
}

fn promise(headers: &HeaderMap) -> Result<Promise, Refused> {
    let Some(value) = headers.get("x-amz-content-sha256") else {
        return Ok(Promise::Nothing);
    };
    match value.as_bytes() {
        b"UNSIGNED-PAYLOAD" => Ok(Promise::Nothing),
        value if value.starts_with(b"STREAMING-") => Err(Refused::UNKNOWN),
        value => {
            let mut hash = [0; 32];
            hex::decode_to_slice(value, &mut hash).map_err(|_| Refused::ARGUMENT)?;
            Ok(Promise::Hash(hash))
        }
    }
}

/// Moves an object's bytes from the socket to where they will stand, at the pace of the course, and compares them with
/// the hash that was signed.
pub(super) async fn receive(
    endpoint: &Endpoint,
    headers: &HeaderMap,
    mut body: RequestBody,
    course: &Course,
    into: &mut Incoming,
) -> Result<(), Ending> {
    let promise = promise(headers)?;
    let mut hash = Sha256::new();
    while let Some(frame) = body.frame().await {
        // The client went away within the body: there is nobody to answer.
        let Ok(frame) = frame else {
            return Err(Ending::Cut);
        };
        let Ok(piece) = frame.into_data() else {
            continue;
        };
        endpoint.received(piece.len());
        if promise != Promise::Nothing {
            hash.update(&piece);
        }
        let len = piece.len();
        into.push(piece).map_err(Refused::from)?;
        if let Some(rate) = course.throttle {
            tokio::time::sleep_until(endpoint.link().up().book(len, rate)).await;
        }
        if course.drip.is_some() {
            tokio::time::sleep(course.drip_time(len as u64)).await;
        }
    }
    match promise {
        Promise::Hash(hashed) if hash.finalize().as_slice() != hashed.as_slice() => Err(Refused::CONTENT_HASH.into()),
        _ => Ok(()),
    }
}

/// Reads a body to its end and forgets it, so that the client gets to read the refusal.
pub(super) async fn drain(mut body: RequestBody) -> Result<(), Ending> {
    while let Some(frame) = body.frame().await {
        if frame.is_err() {
            return Err(Ending::Cut);
        }
    }
    Ok(())
}

/// Reads a short body.
pub(super) async fn document(body: RequestBody) -> Result<Bytes, Ending> {
    let limited = http_body_util::Limited::new(body, MAX_DOCUMENT_LEN);
    match limited.collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(_) => Err(Refused::XML.into()),
    }
}

/// The texts of all elements of these names, in order, as (index of the name, text).
pub(super) fn elements(document: &[u8], names: &[&str]) -> Result<Vec<(usize, String)>, Refused> {
    let mut reader = Reader::from_reader(document);
    let mut found = Vec::new();
    let mut inside: Option<usize> = None;
    let mut text = String::new();
    loop {
        match reader.read_event().map_err(|_| Refused::XML)? {
            Event::Start(start) => {
                let name = start.local_name();
                inside = names.iter().position(|known| known.as_bytes() == name.as_ref());
                text.clear();
            }
            Event::Text(piece) if inside.is_some() => {
                text.push_str(&piece.decode().map_err(|_| Refused::XML)?);
            }
            Event::CData(piece) if inside.is_some() => {
                text.push_str(&piece.decode().map_err(|_| Refused::XML)?);
            }
            Event::GeneralRef(name) if inside.is_some() => {
                let name = name.decode().map_err(|_| Refused::XML)?;
                let entity = format!("&{name};");
                text.push_str(&quick_xml::escape::unescape(&entity).map_err(|_| Refused::XML)?);
            }
            Event::End(_) => {
                if let Some(name) = inside.take() {
                    found.push((name, std::mem::take(&mut text)));
                }
            }
            Event::Eof => return Ok(found),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::elements;

    #[test]
    fn keys_are_read_with_their_entities() {
        let document = b"<Delete><Object><Key>a&amp;b/&#x41;</Key></Object><Object><Key>c</Key></Object></Delete>";
        assert_eq!(elements(document, &["Key"]).unwrap(), [(0, "a&b/A".to_owned()), (0, "c".to_owned())]);
        elements(b"<Delete><Object><Key>a</Wrong>", &["Key"]).unwrap_err();
    }
}

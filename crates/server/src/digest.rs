//! `Content-Digest` and `Repr-Digest` of RFC 9530, SHA-256 only.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::problem::Problem;

/// Digest of the bytes in this message.
pub(crate) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");
/// Digest of the whole blob, also beside a part of it.
pub(crate) const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");

/// Field value for a SHA-256.
pub(crate) fn value(sha256: &[u8; 32]) -> HeaderValue {
    let text = format!("sha-256=:{}:", STANDARD.encode(sha256));
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("sha-256=::"))
}

/// The SHA-256 an upload declares. The two fields mean the same here since nothing encodes the content.
///
/// A declaration we cannot check is refused: a client that asked for a check must not believe that one took place.
pub(crate) fn declared(headers: &HeaderMap) -> Result<Option<[u8; 32]>, Problem> {
    let mut found = None;
    for name in [CONTENT_DIGEST, REPR_DIGEST] {
        let mut seen = false;
        let mut here = None;
        for field in headers.get_all(&name) {
            seen = true;
            if let Some(digest) = sha256_member(field, &name)? {
                here = Some(digest);
            }
        }
        if seen && here.is_none() {
            return Err(Problem::invalid(format!("{name} has no sha-256 member; only sha-256 is checked here")));
        }
        if let (Some(earlier), Some(here)) = (found, here)
            && earlier != here
        {
            return Err(Problem::invalid("Content-Digest and Repr-Digest differ"));
        }
        found = found.or(here);
    }
    Ok(found)
}

/// The `sha-256` member of a structured-field dictionary of byte sequences; base64 has no comma, so splitting is safe.
fn sha256_member(field: &HeaderValue, name: &HeaderName) -> Result<Option<[u8; 32]>, Problem> {
    let malformed = || Problem::invalid(format!("{name} is not of the form sha-256=:<base64 of 32 bytes>:"));
    let mut found = None;
    for member in field.to_str().map_err(|_| malformed())?.split(',') {
        let (key, value) = member.trim().split_once('=').ok_or_else(malformed)?;
        if key != "sha-256" {
            continue;
        }
        let (value, _parameters) = value.split_once(';').unwrap_or((value, ""));
        let text = value.trim().strip_prefix(':').and_then(|text| text.strip_suffix(':')).ok_or_else(malformed)?;
        let bytes = STANDARD.decode(text).map_err(|_| malformed())?;
        found = Some(<[u8; 32]>::try_from(bytes).map_err(|_| malformed())?);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
    }

    /// SHA-256 of the empty string as RFC 9530 writes it.
    const EMPTY: &str = "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:";

    #[test]
    fn what_we_write_we_read() {
        let digest = [7_u8; 32];
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_DIGEST, value(&digest));
        assert_eq!(declared(&headers).unwrap(), Some(digest));
    }

    #[test]
    fn the_published_form_is_read_among_others() {
        let text = format!("sha-512=:AAAA:, {EMPTY}");
        let digest = declared(&with(&[(CONTENT_DIGEST, &text)])).unwrap().unwrap();
        assert_eq!(digest[..4], [0xe3, 0xb0, 0xc4, 0x42]);
        assert_eq!(declared(&with(&[(REPR_DIGEST, EMPTY)])).unwrap(), Some(digest));
        assert_eq!(declared(&HeaderMap::new()).unwrap(), None);
    }

    #[test]
    fn what_cannot_be_checked_is_refused() {
        for text in ["sha-512=:AAAA:", "sha-256=AAAA", "sha-256=:AAAA:", "sha-256=:***:", "", "sha-256"] {
            assert!(declared(&with(&[(CONTENT_DIGEST, text)])).is_err(), "{text}");
        }
        let other = "sha-256=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:";
        assert!(declared(&with(&[(CONTENT_DIGEST, EMPTY), (REPR_DIGEST, other)])).is_err());
    }
}

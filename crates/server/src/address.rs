//! What a request target names, byte for byte: buckets, keys and query parameters.

use http::Uri;

use crate::problem::Problem;

/// Longest key in bytes, as S3 has it.
pub(crate) const KEY_BYTES: usize = 1024;
/// Path below which blobs live.
pub(crate) const BLOBS: &str = "/api/v1/blobs/";

/// What follows `/api/v1/blobs/`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// A bucket: its listing.
    Bucket(String),
    /// A blob. The key is the decoded remainder of the path, with nothing folded, collapsed or normalised.
    Blob {
        /// Bucket name.
        bucket: String,
        /// Key bytes.
        key: Vec<u8>,
    },
}

impl Address {
    /// Reads the original request target. `bucket/` with nothing behind it means the bucket.
    pub(crate) fn of(uri: &Uri) -> Result<Self, Problem> {
        let rest = uri.path().strip_prefix(BLOBS).ok_or_else(Problem::no_such_route)?;
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        let bucket = String::from_utf8(unescape(bucket, Plus::Literal)?).map_err(|_| Problem::invalid("the bucket name is not text"))?;
        if bucket.is_empty() {
            return Err(Problem::invalid("the path has no bucket name"));
        }
        let key = unescape(key, Plus::Literal)?;
        if key.is_empty() {
            return Ok(Self::Bucket(bucket));
        }
        check_key(&key)?;
        Ok(Self::Blob { bucket, key })
    }
}

fn check_key(key: &[u8]) -> Result<(), Problem> {
    if key.len() > KEY_BYTES {
        return Err(Problem::invalid_key(format!("the key has {} bytes; at most {KEY_BYTES} are allowed", key.len())));
    }
    if key.contains(&0) {
        return Err(Problem::invalid_key("the key contains a NUL byte; choose another name"));
    }
    Ok(())
}

/// Query parameters, each at most once, as bytes. Whoever asks takes what it knows; what remains is refused.
#[derive(Debug)]
pub(crate) struct Query(Vec<(String, Vec<u8>)>);

impl Query {
    /// Splits and unescapes (`+` is a space, as forms have it).
    pub(crate) fn of(uri: &Uri) -> Result<Self, Problem> {
        let mut pairs: Vec<(String, Vec<u8>)> = Vec::new();
        for part in uri.query().unwrap_or("").split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let name =
                String::from_utf8(unescape(name, Plus::Space)?).map_err(|_| Problem::invalid("a query parameter's name is not text"))?;
            if pairs.iter().any(|(earlier, _)| *earlier == name) {
                return Err(Problem::invalid("a query parameter appears twice"));
            }
            pairs.push((name, unescape(value, Plus::Space)?));
        }
        Ok(Self(pairs))
    }

    /// Takes a parameter's bytes.
    pub(crate) fn bytes(&mut self, name: &str) -> Option<Vec<u8>> {
        let at = self.0.iter().position(|(candidate, _)| candidate == name)?;
        Some(self.0.swap_remove(at).1)
    }

    /// Takes a parameter as text.
    pub(crate) fn text(&mut self, name: &str) -> Result<Option<String>, Problem> {
        let Some(bytes) = self.bytes(name) else { return Ok(None) };
        String::from_utf8(bytes).map(Some).map_err(|_| Problem::invalid(format!("{name} is not text")))
    }

    /// Takes a parameter as a whole number.
    pub(crate) fn number(&mut self, name: &str) -> Result<Option<u64>, Problem> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|_| digits).map(Some).ok_or_else(|| Problem::invalid(format!("{name} is not a whole number")))
    }

    /// Whether a switch is on: `true` or `false`; off when absent.
    pub(crate) fn flag(&mut self, name: &str) -> Result<bool, Problem> {
        match self.text(name)?.as_deref() {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(Problem::invalid(format!("{name} is true or false"))),
        }
    }

    /// Refuses what nobody took: an ignored parameter would be a silently different request.
    pub(crate) fn done(self) -> Result<(), Problem> {
        if self.0.is_empty() { Ok(()) } else { Err(Problem::invalid("the query has a parameter that this resource does not know")) }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Plus {
    Literal,
    Space,
}

/// Percent-decodes strictly: a `%` without two hex digits is refused instead of being taken literally.
fn unescape(text: &str, plus: Plus) -> Result<Vec<u8>, Problem> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let high = bytes.next().and_then(nibble);
                let low = bytes.next().and_then(nibble);
                let (Some(high), Some(low)) = (high, low) else {
                    return Err(Problem::invalid("the request target has a % that is not followed by two hex digits; write %25"));
                };
                high << 4 | low
            }
            b'+' if plus == Plus::Space => b' ',
            other => other,
        });
    }
    Ok(out)
}

fn nibble(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(path: &str) -> Result<Address, Problem> {
        Address::of(&path.parse().unwrap())
    }

    fn blob(key: &[u8]) -> Address {
        Address::Blob { bucket: "b".into(), key: key.to_vec() }
    }

    #[test]
    fn keys_are_taken_byte_for_byte() {
        assert_eq!(at("/api/v1/blobs/b/a%2Fb").unwrap(), blob(b"a/b"));
        assert_eq!(at("/api/v1/blobs/b/../x").unwrap(), blob(b"../x"));
        assert_eq!(at("/api/v1/blobs/b/%2e%2e/./x").unwrap(), blob(b".././x"));
        assert_eq!(at("/api/v1/blobs/b//x//").unwrap(), blob(b"/x//"));
        assert_eq!(at("/api/v1/blobs/b/a+b%20c").unwrap(), blob(b"a+b c"));
        assert_eq!(at("/api/v1/blobs/b/%FF%fe").unwrap(), blob(&[0xff, 0xfe]));
    }

    #[test]
    fn unicode_look_alikes_stay_apart() {
        let composed = at("/api/v1/blobs/b/%C3%A9").unwrap();
        let decomposed = at("/api/v1/blobs/b/e%CC%81").unwrap();
        assert_ne!(composed, decomposed);
        assert_eq!(composed, blob("\u{e9}".as_bytes()));
    }

    #[test]
    fn an_empty_remainder_is_the_bucket() {
        assert_eq!(at("/api/v1/blobs/b").unwrap(), Address::Bucket("b".into()));
        assert_eq!(at("/api/v1/blobs/b/").unwrap(), Address::Bucket("b".into()));
        assert!(at("/api/v1/blobs/").is_err());
        assert!(at("/api/v1/blobs//x").is_err());
    }

    #[test]
    fn impossible_keys_are_refused() {
        assert!(at("/api/v1/blobs/b/a%00").is_err());
        assert!(at("/api/v1/blobs/b/a%0").is_err());
        assert!(at("/api/v1/blobs/b/a%zz").is_err());
        assert!(at("/api/v1/blobs/b/%+1").is_err());
        assert!(at(&format!("/api/v1/blobs/b/{}", "k".repeat(1025))).is_err());
        assert_eq!(at(&format!("/api/v1/blobs/b/{}", "%41".repeat(1024))).unwrap(), blob(&[b'A'; 1024]));
    }

    #[test]
    fn queries_are_strict() {
        let query = |text: &str| Query::of(&format!("/x?{text}").parse().unwrap());
        let mut pairs = query("prefix=a%2Fb+c&limit=7").unwrap();
        assert_eq!(pairs.bytes("prefix").unwrap(), b"a/b c");
        assert_eq!(pairs.number("limit").unwrap(), Some(7));
        assert_eq!(pairs.text("absent").unwrap(), None);
        pairs.done().unwrap();
        assert!(query("a=1&a=2").is_err());
        assert!(query("limt=7").unwrap().done().is_err());
        assert!(query("limit=-7").unwrap().number("limit").is_err());
        assert!(query("limit=%2B7").unwrap().number("limit").is_err());
    }

    proptest! {
        #[test]
        fn any_key_survives_escaping(key in proptest::collection::vec(1_u8..=255, 1..=KEY_BYTES)) {
            let escaped = percent_encoding::percent_encode(&key, percent_encoding::NON_ALPHANUMERIC).to_string();
            let address = Address::of(&format!("{BLOBS}b/{escaped}").parse().unwrap()).unwrap();
            prop_assert_eq!(address, Address::Blob { bucket: "b".into(), key });
        }
    }
}

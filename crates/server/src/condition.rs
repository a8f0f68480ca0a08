//! Entity tags and conditional requests of RFC 9110 sections 8.8.3 and 13.

use diaspore_engine::api::{BlobInfo, ETag, Precondition};
use http::header::{IF_MATCH, IF_NONE_MATCH, IF_RANGE};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::problem::Problem;

/// `ETag` field value of a version: always strong.
pub(crate) fn etag_value(etag: ETag) -> HeaderValue {
    HeaderValue::from_str(&format!("\"{etag}\"")).unwrap_or(HeaderValue::from_static("\"\""))
}

/// A list of entity tags, or `*`.
#[derive(Debug, PartialEq, Eq)]
enum Tags {
    Any,
    /// Tags that could be ours: strong ones, and weak ones where weak comparison applies.
    Listed(Vec<ETag>),
}

/// Condition of a request that changes the current version. Both fields at once are refused: no single rule decides them.
pub(crate) fn of_mutation(headers: &HeaderMap) -> Result<Precondition, Problem> {
    match (tags(headers, &IF_MATCH, Comparison::Strong)?, tags(headers, &IF_NONE_MATCH, Comparison::Weak)?) {
        (None, None) => Ok(Precondition::None),
        (Some(Tags::Any), None) => Ok(Precondition::Exists),
        (Some(Tags::Listed(tags)), None) => Ok(Precondition::Match(tags)),
        (None, Some(Tags::Any)) => Ok(Precondition::Absent),
        (None, Some(Tags::Listed(tags))) => Ok(Precondition::NoneMatch(tags)),
        (Some(_), Some(_)) => Err(Problem::invalid("send either If-Match or If-None-Match with a change, not both")),
    }
}

/// What the conditions of a read make of the current version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Answer as asked.
    Proceed,
    /// 304.
    NotModified,
    /// 412.
    Failed,
}

/// Conditions of a read, in the order of RFC 9110 section 13.2.2.
#[derive(Debug, Default)]
pub(crate) struct ReadConditions {
    matches: Option<Tags>,
    none_match: Option<Tags>,
}

impl ReadConditions {
    /// Reads the fields of a request.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        Ok(Self { matches: tags(headers, &IF_MATCH, Comparison::Strong)?, none_match: tags(headers, &IF_NONE_MATCH, Comparison::Weak)? })
    }

    /// True when there is nothing to judge.
    pub(crate) fn is_none(&self) -> bool {
        self.matches.is_none() && self.none_match.is_none()
    }

    /// Judges an existing version.
    pub(crate) fn judge(&self, etag: ETag) -> Verdict {
        let holds = |tags: &Tags| match tags {
            Tags::Any => true,
            Tags::Listed(list) => list.contains(&etag),
        };
        if self.matches.as_ref().is_some_and(|tags| !holds(tags)) {
            return Verdict::Failed;
        }
        if self.none_match.as_ref().is_some_and(holds) {
            return Verdict::NotModified;
        }
        Verdict::Proceed
    }
}

/// `If-Range`: true when a range may be answered as a range. Dates never match: our validator is the entity tag.
pub(crate) fn range_applies(headers: &HeaderMap, blob: &BlobInfo) -> bool {
    headers.get(IF_RANGE).is_none_or(|value| *value == etag_value(blob.etag))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Strong,
    Weak,
}

/// Parses all fields of `name` into one list. Tags that are well formed but cannot be ours match nothing.
fn tags(headers: &HeaderMap, name: &HeaderName, comparison: Comparison) -> Result<Option<Tags>, Problem> {
    let malformed = || Problem::invalid(format!("{name} is not a list of entity tags such as \"0123abcd\", nor *"));
    let mut listed = None;
    for value in headers.get_all(name) {
        let text = std::str::from_utf8(value.as_bytes()).map_err(|_| malformed())?.trim();
        if text == "*" {
            return if headers.get_all(name).iter().count() == 1 { Ok(Some(Tags::Any)) } else { Err(malformed()) };
        }
        parse_list(text, comparison, listed.get_or_insert_with(Vec::new)).ok_or_else(malformed)?;
    }
    Ok(listed.map(Tags::Listed))
}

fn parse_list(text: &str, comparison: Comparison, into: &mut Vec<ETag>) -> Option<()> {
    let mut rest = text;
    loop {
        let weak = rest.starts_with("W/");
        let (tag, after) = rest.strip_prefix("W/").unwrap_or(rest).strip_prefix('"')?.split_once('"')?;
        let mut bytes = [0_u8; 16];
        let ours = tag.len() == 32 && tag.bytes().all(|byte| !byte.is_ascii_uppercase()) && hex::decode_to_slice(tag, &mut bytes).is_ok();
        if ours && !(weak && comparison == Comparison::Strong) {
            into.push(ETag(bytes));
        }
        let after = after.trim_start();
        if after.is_empty() {
            return Some(());
        }
        rest = after.strip_prefix(',')?.trim_start();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "\"000102030405060708090a0b0c0d0e0f\"";

    fn etag() -> ETag {
        ETag([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15])
    }

    fn with(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
    }

    #[test]
    fn etag_text_reads_back() {
        assert_eq!(etag_value(etag()), OURS);
    }

    #[test]
    fn changes_take_one_condition() {
        let of = |pairs: &[(HeaderName, &str)]| of_mutation(&with(pairs));
        assert_eq!(of(&[]).unwrap(), Precondition::None);
        assert_eq!(of(&[(IF_NONE_MATCH, "*")]).unwrap(), Precondition::Absent);
        assert_eq!(of(&[(IF_MATCH, " * ")]).unwrap(), Precondition::Exists);
        assert_eq!(of(&[(IF_MATCH, OURS)]).unwrap(), Precondition::Match(vec![etag()]));
        assert_eq!(of(&[(IF_NONE_MATCH, &format!("\"x,y\" ,{OURS}"))]).unwrap(), Precondition::NoneMatch(vec![etag()]));
        assert!(of(&[(IF_MATCH, OURS), (IF_NONE_MATCH, "*")]).is_err());
    }

    #[test]
    fn a_foreign_tag_matches_nothing_rather_than_everything() {
        assert_eq!(of_mutation(&with(&[(IF_MATCH, "\"somebody-elses\"")])).unwrap(), Precondition::Match(vec![]));
    }

    #[test]
    fn weak_tags_hold_only_weakly() {
        let weak = format!("W/{OURS}");
        assert_eq!(of_mutation(&with(&[(IF_MATCH, &weak)])).unwrap(), Precondition::Match(vec![]));
        let read = ReadConditions::of(&with(&[(IF_NONE_MATCH, &weak)])).unwrap();
        assert_eq!(read.judge(etag()), Verdict::NotModified);
    }

    #[test]
    fn malformed_lists_are_refused() {
        for text in ["abc", "\"open", "\"a\" \"b\"", "\"a\",", "*,\"a\"", ""] {
            assert!(of_mutation(&with(&[(IF_MATCH, text)])).is_err(), "{text}");
        }
    }

    #[test]
    fn if_match_is_judged_before_if_none_match() {
        let read = ReadConditions::of(&with(&[(IF_MATCH, "\"other\""), (IF_NONE_MATCH, OURS)])).unwrap();
        assert_eq!(read.judge(etag()), Verdict::Failed);
        assert_eq!(ReadConditions::default().judge(etag()), Verdict::Proceed);
    }
}

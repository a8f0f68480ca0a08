//! `ListObjectsV2`.

use std::fmt::Write as _;

use percent_encoding::utf8_percent_encode;
use quick_xml::escape::escape;

use super::answer::{Refused, iso_date};
use super::shelf::Meta;
use super::signature::STRICT;

const MAX_KEYS: usize = 1000;

/// What a client asks to see.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) prefix: String,
    delimiter: String,
    start_after: String,
    token: Option<Token>,
    max_keys: usize,
    url_encoding: bool,
}

/// Where the page before ended.
#[derive(Debug)]
enum Token {
    /// After this key.
    Key(String),
    /// After everything below this common prefix.
    Prefix(String),
}

impl Token {
    fn parse(text: &str) -> Option<Self> {
        let text = String::from_utf8(hex::decode(text).ok()?).ok()?;
        match text.split_at_checked(1)? {
            ("k", key) => Some(Self::Key(key.to_owned())),
            ("p", prefix) => Some(Self::Prefix(prefix.to_owned())),
            _ => None,
        }
    }

    fn write(&self) -> String {
        hex::encode(match self {
            Self::Key(key) => format!("k{key}"),
            Self::Prefix(prefix) => format!("p{prefix}"),
        })
    }

    fn passed(&self, key: &str) -> bool {
        match self {
            Self::Key(last) => key <= last.as_str(),
            Self::Prefix(last) => key < last.as_str() || key.starts_with(last.as_str()),
        }
    }
}

/// One line of a page.
enum Line<'a> {
    Object(&'a str, &'a Meta),
    Prefix(&'a str),
}

impl Listing {
    /// Reads the query's parameters.
    pub(super) fn parse(query: &[(String, String)]) -> Result<Self, Refused> {
        let value = |name: &str| query.iter().find(|(found, _)| found == name).map(|(_, value)| value.clone());
        let token = value("continuation-token").map(|text| Token::parse(&text).ok_or(Refused::ARGUMENT));
        let max_keys = value("max-keys").map_or(Ok(MAX_KEYS), |text| text.parse::<usize>().map_err(|_| Refused::ARGUMENT))?;
        Ok(Self {
            prefix: value("prefix").unwrap_or_default(),
            delimiter: value("delimiter").unwrap_or_default(),
            start_after: value("start-after").unwrap_or_default(),
            token: token.transpose()?,
            max_keys: max_keys.min(MAX_KEYS),
            url_encoding: value("encoding-type").as_deref() == Some("url"),
        })
    }

    /// The page of `found` (in byte order) that was asked for, as a document.
    pub(super) fn page(&self, bucket: &str, found: &[(String, Meta)]) -> String {
        let mut lines: Vec<Line<'_>> = Vec::new();
        let mut last: Option<Token> = None;
        let mut truncated = false;
        for (key, meta) in found {
            let passed = match &self.token {
                Some(token) => token.passed(key),
                None => !self.start_after.is_empty() && *key <= self.start_after,
            };
            if passed {
                continue;
            }
            let line = self.common_prefix(key).map_or(Line::Object(key, meta), Line::Prefix);
            if let (Line::Prefix(new), Some(Line::Prefix(old))) = (&line, lines.last())
                && new == old
            {
                continue;
            }
            if lines.len() >= self.max_keys {
                truncated = true;
                break;
            }
            last = Some(match &line {
                Line::Object(key, _) => Token::Key((*key).to_owned()),
                Line::Prefix(prefix) => Token::Prefix((*prefix).to_owned()),
            });
            lines.push(line);
        }
        let next = last.filter(|_| truncated);
        self.document(bucket, &lines, next.as_ref())
    }

    fn common_prefix<'a>(&self, key: &'a str) -> Option<&'a str> {
        if self.delimiter.is_empty() {
            return None;
        }
        let rest = key.get(self.prefix.len()..)?;
        let end = self.prefix.len() + rest.find(&self.delimiter)? + self.delimiter.len();
        key.get(..end)
    }

    fn document(&self, bucket: &str, lines: &[Line<'_>], next: Option<&Token>) -> String {
        let mut out = String::with_capacity(512 + lines.len() * 256);
        let _written = self.write(&mut out, bucket, lines, next);
        out
    }

    fn write(&self, out: &mut String, bucket: &str, lines: &[Line<'_>], next: Option<&Token>) -> std::fmt::Result {
        write!(
            out,
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
             <Name>{bucket}</Name><Prefix>{}</Prefix><KeyCount>{}</KeyCount><MaxKeys>{}</MaxKeys>\
             <IsTruncated>{}</IsTruncated>",
            self.shown(&self.prefix),
            lines.len(),
            self.max_keys,
            next.is_some()
        )?;
        if !self.delimiter.is_empty() {
            write!(out, "<Delimiter>{}</Delimiter>", self.shown(&self.delimiter))?;
        }
        if !self.start_after.is_empty() {
            write!(out, "<StartAfter>{}</StartAfter>", self.shown(&self.start_after))?;
        }
        if self.url_encoding {
            out.push_str("<EncodingType>url</EncodingType>");
        }
        if let Some(token) = &self.token {
            write!(out, "<ContinuationToken>{}</ContinuationToken>", token.write())?;
        }
        if let Some(token) = next {
            write!(out, "<NextContinuationToken>{}</NextContinuationToken>", token.write())?;
        }
        for line in lines {
            match line {
                Line::Object(key, meta) => write!(
                    out,
                    "<Contents><Key>{}</Key><LastModified>{}</LastModified><ETag>{}</ETag>\
                     <Size>{}</Size><StorageClass>STANDARD</StorageClass></Contents>",
                    self.shown(key),
                    iso_date(meta.modified),
                    escape(&meta.tag),
                    meta.len
                )?,
                Line::Prefix(prefix) => write!(out, "<CommonPrefixes><Prefix>{}</Prefix></CommonPrefixes>", self.shown(prefix))?,
            }
        }
        out.push_str("</ListBucketResult>");
        Ok(())
    }

    fn shown(&self, text: &str) -> String {
        if self.url_encoding { utf8_percent_encode(text, STRICT).to_string().replace("%2F", "/") } else { escape(text).into_owned() }
    }
}

//! Points in time on the wire. Inside, time is milliseconds since 1970, UTC.

use http::HeaderValue;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

fn at(ms: u64) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).ok()
}

/// RFC 3339 text in UTC.
pub(crate) fn text(ms: u64) -> String {
    at(ms).and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_default()
}

/// Milliseconds of RFC 3339 text; `None` for other text and for times before 1970.
pub(crate) fn parse(text: &str) -> Option<u64> {
    let at = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    u64::try_from(at.unix_timestamp_nanos() / 1_000_000).ok()
}

/// `IMF-fixdate` of RFC 9110 section 5.6.7.
pub(crate) fn http_date(ms: u64) -> Option<HeaderValue> {
    let at = at(ms)?;
    let (weekday, month) = (at.weekday().to_string(), at.month().to_string());
    let (weekday, month) = (weekday.get(..3)?, month.get(..3)?);
    let (day, year) = (at.day(), at.year());
    let (hour, minute, second) = at.time().as_hms();
    HeaderValue::from_str(&format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_9110() {
        assert_eq!(http_date(784_111_777_000).unwrap(), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(text(784_111_777_000), "1994-11-06T08:49:37Z");
        assert_eq!(parse("1994-11-06T09:49:37.5+01:00"), Some(784_111_777_500));
        assert_eq!(parse("1994-11-06"), None);
        assert_eq!(parse("1960-01-01T00:00:00Z"), None);
    }
}

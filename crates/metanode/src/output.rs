//! Data goes to standard output in the form asked for; everything else goes to standard error.

use std::io::{self, Write};

use clap::ValueEnum;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{ContentArrangement, Table};
use serde::Serialize;

use crate::failure::{Explain, Failure, Outcome};

/// Form of the data on standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// One JSON value, for programs.
    Json,
}

impl Format {
    /// Prints one value: `text` for people or `value` for programs.
    pub(crate) fn print(self, value: &impl Serialize, text: impl FnOnce() -> String) -> Outcome {
        let rendered = match self {
            Self::Table => text(),
            Self::Json => serde_json::to_string_pretty(value).explain(|| "cannot render the answer as JSON".to_owned())?,
        };
        data(rendered.trim_end())
    }
}

/// Writes one piece of data and a line end to standard output.
pub(crate) fn data(text: &str) -> Outcome {
    let mut out = anstream::stdout().lock();
    finish(writeln!(out, "{text}").and_then(|()| out.flush()))
}

/// Writes raw bytes to standard output.
pub(crate) fn raw(bytes: &[u8]) -> Outcome {
    finish(io::stdout().lock().write_all(bytes))
}

/// Writes a line to standard error. A closed standard error is nobody's concern.
pub(crate) fn note(text: &str) {
    let written = writeln!(anstream::stderr().lock(), "{text}");
    drop(written);
}

/// Prints a failure.
pub(crate) fn failure(failure: &Failure) {
    note(&failure.to_string());
}

/// A reader that went away (`| head`) ends the command without a complaint.
fn finish(written: io::Result<()>) -> Outcome {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.explain(|| "cannot write to standard output".to_owned()),
    }
}

/// A table with these column heads.
pub(crate) fn table<const N: usize>(heads: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic).set_header(heads);
    for row in rows {
        table.add_row(row);
    }
    table.to_string()
}

/// `1234567` as `1,234,567`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A byte count for people, in binary units.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let (mut scaled, mut unit) = (as_f64(count), 0);
    while scaled >= 1024.0 && unit + 1 < UNITS.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or("B");
    if unit == 0 { format!("{count} B") } else { format!("{scaled:.1} {name}") }
}

/// A counter for a ratio or rate; counts above 2^52 lose their last digits, which no ratio shows.
#[expect(clippy::cast_precision_loss, reason = "ratios and rates for display")]
pub(crate) fn as_f64(count: u64) -> f64 {
    count as f64
}

/// `over / under`, or `None` when nothing was counted.
pub(crate) fn ratio(over: u64, under: u64) -> Option<f64> {
    (under > 0).then(|| as_f64(over) / as_f64(under))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_three() {
        let cases = [(0, "0"), (7, "7"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567"), (u64::MAX, "18,446,744,073,709,551,615")];
        for (number, text) in cases {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn byte_counts_change_unit_at_1024() {
        for (count, text) in [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (3 << 30, "3.0 GiB")] {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn a_ratio_of_nothing_is_not_a_number_somebody_may_print() {
        assert_eq!(ratio(5, 0), None);
        assert_eq!(ratio(5, 2), Some(2.5));
    }
}

//! The text form of a plan, for command lines and the admin path.
//!
//! One fault per line or `;`: `<what> [arguments] [on <op>,<op>] [always | chance <0..1> | next <count>]`, for example
//! `latency 20ms 5ms on get,put`, `flip 3 chance 0.25`, `down`. Durations are `250us`, `20ms` or `3s`.

use std::fmt;
use std::str::{FromStr, SplitWhitespace};
use std::time::Duration;

use super::{Fault, FaultPlan, Misbehaviour, Op, Ops, When};

/// A line of a plan that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "fault `{line}`: {problem}; write it as `flip 3 on get,head chance 0.25` (what, arguments, \
     `on` operations, then `always`, `chance P` or `next N`)"
)]
pub struct ParseFaultError {
    line: String,
    problem: String,
}

impl FromStr for FaultPlan {
    type Err = ParseFaultError;

    fn from_str(text: &str) -> Result<Self, ParseFaultError> {
        text.split(['\n', ';']).map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).map(Fault::from_str).collect()
    }
}

impl FromStr for Fault {
    type Err = ParseFaultError;

    fn from_str(line: &str) -> Result<Self, ParseFaultError> {
        parse(line).map_err(|problem| ParseFaultError { line: line.trim().to_owned(), problem })
    }
}

fn parse(line: &str) -> Result<Fault, String> {
    let mut words = line.split_whitespace();
    let name = words.next().ok_or("it is empty")?;
    let what = misbehaviour(name, &mut words)?;
    let mut fault = Fault::always(what);
    while let Some(word) = words.next() {
        match word {
            "on" => fault.ops = operations(words.next().ok_or("`on` names no operation")?)?,
            "always" => fault.when = When::Always,
            "chance" => {
                let p: f64 = number(words.next())?;
                if !(0.0..=1.0).contains(&p) {
                    return Err(format!("{p} is no probability"));
                }
                fault.when = When::chance(p);
            }
            "next" => fault.when = When::Next(number(words.next())?),
            other => return Err(format!("`{other}` is not understood")),
        }
    }
    Ok(fault)
}

fn misbehaviour(name: &str, words: &mut SplitWhitespace<'_>) -> Result<Misbehaviour, String> {
    Ok(match name {
        "latency" => Misbehaviour::Latency { fixed: duration(words.next())?, jitter: duration(words.next())? },
        "bandwidth" => Misbehaviour::Bandwidth { bytes_per_s: number(words.next())? },
        "error-before" => Misbehaviour::ErrorBefore,
        "error-after" => Misbehaviour::ErrorAfter,
        "reset" => Misbehaviour::Reset,
        "freeze" => Misbehaviour::Freeze,
        "freeze-mid-body" => Misbehaviour::FreezeMidBody,
        "drip" => Misbehaviour::Drip { bytes: number(words.next())?, every: duration(words.next())? },
        "truncate" => Misbehaviour::Truncate,
        "flip" => Misbehaviour::Flip { bits: number(words.next())? },
        "swap" => Misbehaviour::Swap,
        "roll-back" => Misbehaviour::RollBack,
        "stale-list" => Misbehaviour::StaleList { behind: number(words.next())? },
        "dropped-write" => Misbehaviour::DroppedWrite,
        "endless-body" => Misbehaviour::EndlessBody,
        "down" => Misbehaviour::Down,
        "full" => Misbehaviour::Full,
        "denied" => Misbehaviour::Denied,
        "no-bucket" => Misbehaviour::NoBucket,
        "land-late" => Misbehaviour::LandLate { within: duration(words.next())? },
        other => return Err(format!("no misbehaviour is called `{other}`")),
    })
}

fn number<T: FromStr>(word: Option<&str>) -> Result<T, String> {
    let word = word.ok_or("a number is missing")?;
    word.parse().map_err(|_| format!("`{word}` is no number that fits"))
}

fn duration(word: Option<&str>) -> Result<Duration, String> {
    let word = word.ok_or("a duration is missing")?;
    let (digits, nanos) = [("us", 1_000), ("ms", 1_000_000), ("s", 1_000_000_000)]
        .iter()
        .find_map(|(unit, nanos)| word.strip_suffix(unit).map(|digits| (digits, *nanos)))
        .ok_or_else(|| format!("`{word}` is no duration such as 20ms"))?;
    let count: u64 = number(Some(digits))?;
    Ok(Duration::from_nanos(count.saturating_mul(nanos)))
}

fn operations(list: &str) -> Result<Ops, String> {
    let ops: Result<Vec<Op>, String> = list
        .split(',')
        .map(|name| Op::ALL.into_iter().find(|op| op.name() == name).ok_or_else(|| format!("no operation is called `{name}`")))
        .collect();
    Ok(Ops::of(&ops?))
}

impl fmt::Display for FaultPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for fault in self.faults() {
            writeln!(f, "{fault}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.what)?;
        if self.ops != Ops::ALL {
            let names: Vec<&str> = Op::ALL.into_iter().filter(|op| self.ops.contains(*op)).map(Op::name).collect();
            write!(f, " on {}", names.join(","))?;
        }
        match self.when {
            When::Always => Ok(()),
            When::Chance { ppm } => write!(f, " chance {}", f64::from(ppm) / 1e6),
            When::Next(count) => write!(f, " next {count}"),
        }
    }
}

impl fmt::Display for Misbehaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latency { fixed, jitter } => {
                write!(f, "latency {}us {}us", fixed.as_micros(), jitter.as_micros())
            }
            Self::Bandwidth { bytes_per_s } => write!(f, "bandwidth {bytes_per_s}"),
            Self::ErrorBefore => f.write_str("error-before"),
            Self::ErrorAfter => f.write_str("error-after"),
            Self::Reset => f.write_str("reset"),
            Self::Freeze => f.write_str("freeze"),
            Self::FreezeMidBody => f.write_str("freeze-mid-body"),
            Self::Drip { bytes, every } => write!(f, "drip {bytes} {}us", every.as_micros()),
            Self::Truncate => f.write_str("truncate"),
            Self::Flip { bits } => write!(f, "flip {bits}"),
            Self::Swap => f.write_str("swap"),
            Self::RollBack => f.write_str("roll-back"),
            Self::StaleList { behind } => write!(f, "stale-list {behind}"),
            Self::DroppedWrite => f.write_str("dropped-write"),
            Self::EndlessBody => f.write_str("endless-body"),
            Self::Down => f.write_str("down"),
            Self::Full => f.write_str("full"),
            Self::Denied => f.write_str("denied"),
            Self::NoBucket => f.write_str("no-bucket"),
            Self::LandLate { within } => write!(f, "land-late {}us", within.as_micros()),
        }
    }
}

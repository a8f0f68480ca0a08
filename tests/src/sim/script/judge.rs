//! The judgement of every answer, against the model and what the scenario excuses.

use diaspore_engine::api::{Caller, Error, ErrorKind, ListOptions};

use super::{Scenario, Script};
use crate::sim::client::{Action, Answer, BUCKET, perform};
use crate::sim::deployment::{broken, sound};
use crate::sim::model::Violation;

impl Script {
    pub(super) fn judge(&mut self, action: &Action, answer: Option<Answer>) -> Result<(), Violation> {
        let line = format!("{} -> {}", action.text(), answer.as_ref().map_or_else(|| "cut off".to_owned(), Answer::text));
        self.note(line);
        match (action, answer) {
            (Action::Put { key, value, .. }, Some(Answer::Done)) => {
                self.report.acknowledged += 1;
                self.model.acknowledged(key, Some(*value));
            }
            (Action::Delete { key }, Some(Answer::Done)) => {
                self.report.acknowledged += 1;
                self.model.acknowledged(key, None);
            }
            (Action::Put { key, .. }, Some(Answer::Refused(error))) if error.kind == ErrorKind::PreconditionFailed => {
                if self.model.candidates(key).is_empty() {
                    return Err(Violation(format!("{} is said to exist", String::from_utf8_lossy(key))));
                }
            }
            (Action::Delete { key }, Some(Answer::Refused(error))) if error.kind == ErrorKind::UnknownKey => {
                self.model.observed(key, None, false)?;
            }
            (Action::Put { .. } | Action::Delete { .. }, Some(Answer::Refused(error))) if nothing_happened(error.kind) => {
                self.expect_calm(&error)?;
            }
            (Action::Put { key, value, .. }, answer) => {
                self.model.uncertain(key, Some(*value));
                self.calm_answer(answer)?;
            }
            (Action::Delete { key }, answer) => {
                self.model.uncertain(key, None);
                self.calm_answer(answer)?;
            }
            (Action::Get { key } | Action::Range { key, .. }, Some(Answer::Refused(error))) if error.kind == ErrorKind::UnknownKey => {
                self.report.reads += 1;
                self.model.observed(key, None, false)?;
            }
            (Action::Range { .. }, Some(Answer::Refused(error))) if error.kind == ErrorKind::RangeNotSatisfiable => (),
            (Action::Get { .. } | Action::Range { .. }, Some(Answer::Refused(error))) => self.expect_calm(&error)?,
            (Action::Get { key } | Action::Range { key, .. }, Some(Answer::Bytes { start, size, bytes })) => {
                self.report.reads += 1;
                self.judge_bytes(key, start, size, &bytes)?;
            }
            (Action::Get { .. } | Action::Range { .. }, Some(Answer::Done) | None) => (),
        }
        Ok(())
    }

    /// A slice that was read must be the slice of an allowed value; a whole read pins it down.
    fn judge_bytes(&mut self, key: &[u8], start: u64, size: u64, bytes: &[u8]) -> Result<(), Violation> {
        if start == 0 && size == bytes.len() as u64 {
            let value = self.model.identify(key, bytes)?;
            return self.model.observed(key, Some(value), false);
        }
        let (start, end) = (usize::try_from(start).map_err(broken)?, usize::try_from(start).map_err(broken)? + bytes.len());
        let fits =
            self.model.candidates(key).into_iter().any(|value| value.len as u64 == size && value.bytes().get(start..end) == Some(bytes));
        if fits {
            Ok(())
        } else {
            Err(Violation(format!("a range of {} is no part of anything written there", String::from_utf8_lossy(key))))
        }
    }

    fn calm_answer(&self, answer: Option<Answer>) -> Result<(), Violation> {
        match answer {
            Some(Answer::Refused(error)) => self.expect_calm(&error),
            _ => Ok(()),
        }
    }

    /// An error that this scenario gives no reason for is a violation.
    pub(super) fn expect_calm(&self, error: &Error) -> Result<(), Violation> {
        let source = error.source.as_ref().map(|source| format!(" ({source})")).unwrap_or_default();
        let excused = match self.report.scenario {
            Scenario::Outages => error.is_retryable(),
            // A provider that vanishes and comes back leaves the fence or the window waiting for a moment; data stays readable.
            Scenario::OneLiar => matches!(error.kind, ErrorKind::NotAccepted | ErrorKind::OutcomeUnknown | ErrorKind::TooFewDomains),
            Scenario::Crashes | Scenario::Takeover => false,
        };
        if excused {
            Ok(())
        } else {
            Err(Violation(format!("refused without a reason in this scenario: {:?} {error}{source}", error.kind)))
        }
    }

    /// Reads every key ever touched. `decided`: the process was just started, so what is seen has to stay.
    pub(super) async fn read_everything(&mut self, caller: &Caller, decided: bool) -> Result<(), Violation> {
        let engine = self.engine()?;
        for key in self.model.keys() {
            let answer = perform(engine.clone(), caller.clone(), Action::Get { key: key.clone() }).await;
            let seen = match answer {
                Answer::Bytes { bytes, .. } => Some(self.model.identify(&key, &bytes)?),
                Answer::Refused(error) if error.kind == ErrorKind::UnknownKey => None,
                Answer::Refused(error) => {
                    self.expect_calm(&error)?;
                    continue;
                }
                Answer::Done => continue,
            };
            self.report.reads += 1;
            self.model.observed(&key, seen, decided)?;
        }
        sound(&engine)
    }

    pub(super) async fn listing(&mut self, caller: &Caller) -> Result<(), Violation> {
        let options = ListOptions { limit: 1000, ..ListOptions::default() };
        let page = match self.engine()?.list_blobs(caller, BUCKET, &options).await {
            Ok(page) => page,
            Err(error) => return self.expect_calm(&error),
        };
        let listed: Vec<Vec<u8>> = page.blobs.into_iter().map(|blob| blob.key).collect();
        let (must, may) = self.model.listing();
        self.note(format!("list -> {}", listed.len()));
        if let Some(missing) = must.iter().find(|key| !listed.contains(key)) {
            return Err(Violation(format!("{} is not listed", String::from_utf8_lossy(missing))));
        }
        if let Some(extra) = listed.iter().find(|key| !may.contains(key)) {
            return Err(Violation(format!("{} is listed and should not exist", String::from_utf8_lossy(extra))));
        }
        if listed.is_sorted() { Ok(()) } else { Err(Violation("the listing is not in key order".into())) }
    }
}

/// Kinds that promise that the mutation did not and will not happen.
fn nothing_happened(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::NotAccepted | ErrorKind::TooFewDomains | ErrorKind::ReadOnly | ErrorKind::PreconditionFailed)
}

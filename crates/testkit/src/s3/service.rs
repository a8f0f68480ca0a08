//! One request: its course of faults around its operation.

use std::fmt;
use std::future::pending;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::request::Parts;
use http::{Request, StatusCode};
use hyper::body::Incoming as RequestBody;
use rand_chacha::ChaCha12Rng;

use super::answer::{Answer, Refused, empty, text};
use super::link::Link;
use super::multipart::Uploads;
use super::operation::Call;
use super::route::Route;
use super::shelf::Shelf;
use super::{AccessKey, Counters, Tally, signature, upload};
use crate::fault::{Course, FaultPlan, Op, Stop};

/// How a request ends without its proper answer.
#[derive(Debug)]
pub(super) enum Ending {
    /// With an error document.
    Refused(Refused),
    /// With a reset connection.
    Cut,
}

impl From<Refused> for Ending {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

/// The connection is to be reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the connection is reset on purpose")]
pub(super) struct Reset;

#[derive(Debug)]
struct Dice {
    plan: FaultPlan,
    rng: ChaCha12Rng,
}

/// Everything the connections of one emulator share.
pub(super) struct Endpoint {
    shelf: Shelf,
    uploads: Uploads,
    key: Option<AccessKey>,
    dice: Mutex<Dice>,
    link: Link,
    tally: Tally,
    requests: AtomicU64,
    admin: bool,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("counters", &self.counters()).finish_non_exhaustive()
    }
}

impl Endpoint {
    pub(super) fn new(shelf: Shelf, key: Option<AccessKey>, rng: ChaCha12Rng, admin: bool) -> Self {
        let plan = FaultPlan::honest();
        Self {
            shelf,
            uploads: Uploads::default(),
            key,
            dice: Mutex::new(Dice { plan, rng }),
            link: Link::default(),
            tally: Tally::default(),
            requests: AtomicU64::new(0),
            admin,
        }
    }

    pub(super) const fn shelf(&self) -> &Shelf {
        &self.shelf
    }

    pub(super) const fn uploads(&self) -> &Uploads {
        &self.uploads
    }

    pub(super) const fn link(&self) -> &Link {
        &self.link
    }

    pub(super) fn received(&self, bytes: usize) {
        self.tally.received(bytes);
    }

    pub(super) fn sent(&self, bytes: usize) {
        self.tally.sent(bytes);
    }

    pub(super) fn counters(&self) -> Counters {
        self.tally.read()
    }

    fn dice(&self) -> MutexGuard<'_, Dice> {
        self.dice.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn faults(&self) -> FaultPlan {
        self.dice().plan.clone()
    }

    pub(super) fn set_faults(&self, plan: FaultPlan) {
        self.dice().plan = plan;
    }

    fn course(&self, op: Op) -> Course {
        let mut dice = self.dice();
        let Dice { plan, rng } = &mut *dice;
        let effects = plan.decide(op, rng);
        Course::of(op, &effects)
    }

    /// Answers one request, or says that the connection is to be reset.
    pub(super) async fn answer(self: Arc<Self>, request: Request<RequestBody>, doomed: Arc<AtomicBool>) -> Result<Answer, Reset> {
        let (parts, body) = request.into_parts();
        if self.admin && parts.uri.path().starts_with("/_emulator/") {
            return Ok(self.administer(&parts, body).await);
        }
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        match Self::course_of_request(Arc::clone(&self), &parts, body, doomed).await {
            Ok(answer) => Ok(answer),
            Err(Ending::Refused(refused)) => {
                self.tally.error();
                Ok(refused.answer(parts.uri.path(), number))
            }
            Err(Ending::Cut) => {
                self.tally.error();
                Err(Reset)
            }
        }
    }

    async fn course_of_request(self: Arc<Self>, parts: &Parts, body: RequestBody, doomed: Arc<AtomicBool>) -> Result<Answer, Ending> {
        let route = Route::parse(parts);
        let op = route.as_ref().map_or(Op::Other, |route| route.action.op());
        self.tally.request(op);
        let course = self.course(op);
        if !course.delay.is_zero() {
            tokio::time::sleep(course.delay).await;
        }
        if let Some(stop) = course.before {
            if stop == Stop::Reset || stop == Stop::Refused {
                return Err(Ending::Cut);
            }
            upload::drain(body).await?;
            return Err(self.stopped(stop).await);
        }
        let admitted = route.and_then(|route| {
            if let Some(key) = &self.key {
                signature::check(parts, key)?;
            }
            Ok(route)
        });
        let route = match admitted {
            Ok(route) => route,
            Err(refused) => {
                upload::drain(body).await?;
                return Err(refused.into());
            }
        };
        let call = Call::new(Arc::clone(&self), parts, route, course, doomed);
        let answer = call.run(body).await?;
        match course.after {
            Some(stop) => Err(self.stopped(stop).await),
            None => Ok(answer),
        }
    }

    /// The ending a fault prescribes.
    async fn stopped(&self, stop: Stop) -> Ending {
        match stop {
            Stop::Error => Refused::INTERNAL.into(),
            Stop::Denied => Refused::ACCESS_DENIED.into(),
            Stop::NoBucket => Refused::NO_SUCH_BUCKET.into(),
            Stop::Full => Refused::FULL.into(),
            Stop::Reset | Stop::Refused => Ending::Cut,
            Stop::Frozen => self.freeze().await,
        }
    }

    /// Never answers; the end of the connection ends the wait.
    pub(super) async fn freeze(&self) -> Ending {
        self.tally.error();
        pending().await
    }

    /// The admin path: plans and counters as text.
    async fn administer(&self, parts: &Parts, body: RequestBody) -> Answer {
        let bad = |problem: String| text(StatusCode::BAD_REQUEST, problem + "\n");
        match (parts.method.as_str(), parts.uri.path()) {
            ("GET", "/_emulator/faults") => text(StatusCode::OK, self.faults().to_string()),
            ("DELETE", "/_emulator/faults") => {
                self.set_faults(FaultPlan::honest());
                empty(StatusCode::NO_CONTENT)
            }
            ("PUT", "/_emulator/faults") => {
                let Ok(document) = upload::document(body).await else {
                    return bad("the plan is too long".to_owned());
                };
                match String::from_utf8_lossy(&document).parse::<FaultPlan>() {
                    Ok(plan) => {
                        self.set_faults(plan);
                        empty(StatusCode::NO_CONTENT)
                    }
                    Err(error) => bad(error.to_string()),
                }
            }
            ("GET", "/_emulator/counters") => {
                let count = self.counters();
                let lines = format!(
                    "puts {}\ngets {}\nheads {}\ndeletes {}\nlists {}\nothers {}\nerrors {}\nbytes_in {}\nbytes_out {}\n",
                    count.puts,
                    count.gets,
                    count.heads,
                    count.deletes,
                    count.lists,
                    count.others,
                    count.errors,
                    count.bytes_in,
                    count.bytes_out
                );
                text(StatusCode::OK, lines)
            }
            ("POST", "/_emulator/snapshot") => match self.shelf.take_snapshot() {
                Ok(()) => empty(StatusCode::NO_CONTENT),
                Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
            },
            _ => text(
                StatusCode::NOT_FOUND,
                "GET, PUT or DELETE /_emulator/faults; GET /_emulator/counters; POST /_emulator/snapshot\n".to_owned(),
            ),
        }
    }
}

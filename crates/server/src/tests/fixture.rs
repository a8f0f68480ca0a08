//! A front over an engine, with keys of every kind.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use bytes::Bytes;
use diaspore_engine::api::Caller;
use diaspore_engine::id::{PrincipalId, TenantId};
use diaspore_engine::world::{Entropy, SeededEntropy, SystemClock};
use diaspore_engine::{Engine, EngineConfig};
use diaspore_ledger::{Ledger, MemoryMedium, OpenMode};
use diaspore_policy::Profile;
use diaspore_provider::{Credentials, Fleet, FleetOptions, ProviderId, ProviderSpec};
use http::{HeaderMap, StatusCode};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tower::ServiceExt;

use super::log;
use crate::{Limits, ServerOptions};

/// A real engine over five providers and a disk in memory.
pub(super) async fn engine() -> Engine {
    log::install();
    let entropy: Arc<dyn Entropy> = Arc::new(SeededEntropy::new(1));
    let keyring = Arc::new(diaspore_engine::new_keyring(entropy.as_ref()));
    let accounts: Vec<_> = ["a", "b", "c", "d", "e"].map(|name| ProviderSpec::memory(ProviderId::new(name).unwrap())).into();
    let fleet = Fleet::connect(&accounts, &Credentials::new(), FleetOptions::default()).unwrap();
    let rng = Box::new(StdRng::seed_from_u64(2));
    let ledger = Ledger::open(MemoryMedium::new(), &keyring.ledger, OpenMode::ReadWrite, rng).unwrap();
    Engine::start(EngineConfig::new(Profile::default()), keyring, fleet, ledger, Arc::new(SystemClock), entropy).await.unwrap()
}

/// Tokens of the keys in a [`House`].
#[derive(Clone)]
pub(super) struct Tokens {
    /// Reads and writes in tenant `acme`.
    pub(super) user: String,
    /// Only reads in tenant `acme`.
    pub(super) reader: String,
    /// Reads and writes in tenant `globex`.
    pub(super) stranger: String,
    /// Runs the deployment.
    pub(super) admin: String,
    /// Reads the audit log.
    pub(super) auditor: String,
}

/// A front with two tenants and the bucket `photos` in `acme`.
pub(super) struct House {
    pub(super) engine: Engine,
    pub(super) router: Router,
    pub(super) tokens: Tokens,
}

/// A whole answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Checks the whole form of a problem and its code.
    #[track_caller]
    pub(super) fn is_problem(&self, status: u16, code: &str) {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        assert_eq!(self.header("content-type"), "application/problem+json");
        let document = self.json();
        assert_eq!(document["code"], code, "{self:?}");
        assert_eq!(document["status"], status);
        assert_eq!(document["type"], format!("urn:diaspore:problem:{code}"));
        assert_eq!(document["request_id"], self.header("x-request-id"));
        assert!(!self.header("x-request-id").is_empty() && document["title"].is_string() && document["detail"].is_string());
    }
}

pub(super) async fn house() -> House {
    house_with(Limits::default()).await
}

pub(super) async fn house_with(limits: Limits) -> House {
    let engine = engine().await;
    let acme = engine.create_tenant("acme").await.unwrap().id;
    let globex = engine.create_tenant("globex").await.unwrap().id;
    let operator = Caller { tenant: TenantId::SYSTEM, principal: PrincipalId::NIL };
    let issue = async |tenant, scopes: &[&str]| {
        let scopes = scopes.iter().map(|&scope| scope.to_owned()).collect();
        engine.create_api_key(&operator, tenant, "test", scopes, None).await.unwrap().token
    };
    let tokens = Tokens {
        user: issue(acme, &["read", "write"]).await,
        reader: issue(acme, &["read"]).await,
        stranger: issue(globex, &["read", "write"]).await,
        admin: issue(TenantId::SYSTEM, &["admin"]).await,
        auditor: issue(TenantId::SYSTEM, &["audit"]).await,
    };
    let router = crate::router(engine.clone(), ServerOptions { limits, metrics_text: None });
    let house = House { engine, router, tokens };
    house.user("PUT", "/api/v1/buckets/photos").send().await.is(201);
    house
}

impl House {
    /// A request with the key of `acme`'s user.
    pub(super) fn user(&self, method: &str, target: &str) -> Call {
        self.call(method, target).token(&self.tokens.user)
    }

    /// A request of the operator.
    pub(super) fn admin(&self, method: &str, target: &str) -> Call {
        self.call(method, target).token(&self.tokens.admin)
    }

    /// A request without a key.
    pub(super) fn call(&self, method: &str, target: &str) -> Call {
        Call { router: self.router.clone(), request: Request::builder().method(method).uri(target), body: Body::empty() }
    }

    /// Stores `bytes` under `photos/<key>`.
    pub(super) async fn store(&self, key: &str, bytes: &'static [u8]) -> Answer {
        self.user("PUT", &format!("/api/v1/blobs/photos/{key}")).body(bytes).send().await.is(201)
    }
}

/// A request under construction.
pub(super) struct Call {
    router: Router,
    request: http::request::Builder,
    body: Body,
}

impl Call {
    pub(super) fn token(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    pub(super) fn header(mut self, name: &str, value: &str) -> Self {
        self.request = self.request.header(name, value);
        self
    }

    pub(super) fn body(mut self, body: impl Into<Body>) -> Self {
        self.body = body.into();
        self
    }

    pub(super) fn json(self, document: &serde_json::Value) -> Self {
        self.header("content-type", "application/json").body(document.to_string())
    }

    pub(super) async fn send(self) -> Answer {
        let response = self.router.oneshot(self.request.body(self.body).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        Answer { status: parts.status, headers: parts.headers, body }
    }
}

impl Answer {
    /// Checks the status and hands the answer on.
    #[track_caller]
    pub(super) fn is(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        self
    }
}

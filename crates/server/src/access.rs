//! Who may do what: API keys, deny by default.
//!
//! A handler gets a caller only through [`Access`], whose type names the scope it needs; there is no other way to a `Caller`. The check
//! comes before any lookup, so a refused request learns nothing about what exists.

use std::marker::PhantomData;

use axum::extract::FromRequestParts;
use diaspore_engine::api::{ApiKeyInfo, Caller};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use http::request::Parts;

use crate::problem::Problem;
use crate::router::App;

/// Longest `Authorization` value that is looked at, in bytes.
const AUTHORIZATION_BYTES: usize = 512;

/// A scope as a type.
pub(crate) trait Scope: Send + Sync + 'static {
    /// Scopes any of which suffices; empty when a valid key is enough.
    const ANY_OF: &'static [&'static str];
    /// Whether the call addresses a tenant's namespace, which operator keys do not have.
    const IN_TENANT: bool = false;
    /// What the audit record of a denial says.
    const WHAT: &'static str;
}

macro_rules! scopes {
    ($($(#[$meta:meta])* $name:ident: $any_of:expr, $in_tenant:expr, $what:expr;)*) => {$(
        $(#[$meta])*
        #[derive(Debug)]
        pub(crate) struct $name;
        impl Scope for $name {
            const ANY_OF: &'static [&'static str] = &$any_of;
            const IN_TENANT: bool = $in_tenant;
            const WHAT: &'static str = $what;
        }
    )*};
}

scopes! {
    /// Reads in the key's tenant.
    Read: ["read"], true, "read";
    /// Changes in the key's tenant.
    Write: ["write"], true, "write";
    /// Runs the deployment.
    Admin: ["admin"], false, "admin";
    /// Reads the audit log, which is one for the deployment and holds no names.
    Audit: ["audit", "admin"], false, "audit";
    /// Any valid key: what an unknown resource is told to.
    Known: [], false, "unknown resource";
}

/// Proof that the request carries a key with the scope `S`.
#[derive(Debug)]
pub(crate) struct Access<S> {
    /// The caller to hand to the engine.
    pub(crate) caller: Caller,
    scope: PhantomData<S>,
}

impl<S: Scope> FromRequestParts<App> for Access<S> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let caller = permit::<S>(app, &parts.headers)?;
        Ok(Self { caller, scope: PhantomData })
    }
}

/// Checks the key of a request against `S`; every refusal goes to the audit log.
pub(crate) fn permit<S: Scope>(app: &App, headers: &HeaderMap) -> Result<Caller, Problem> {
    let token = match bearer(headers) {
        Ok(token) => token,
        Err(problem) => {
            app.engine.record_denied(None, S::WHAT);
            return Err(problem);
        }
    };
    let Some(key) = app.engine.authenticate(token) else {
        app.engine.record_denied(None, S::WHAT);
        return Err(Problem::unauthorized(
            "the API key is unknown, revoked or expired",
            r#"Bearer realm="diaspore", error="invalid_token""#,
        ));
    };
    let caller = Caller { tenant: key.tenant, principal: key.id };
    match covers::<S>(&key) {
        Ok(()) => Ok(caller),
        Err(problem) => {
            app.engine.record_denied(Some(&caller), S::WHAT);
            Err(problem)
        }
    }
}

fn covers<S: Scope>(key: &ApiKeyInfo) -> Result<(), Problem> {
    if !S::ANY_OF.is_empty() && !key.scopes.iter().any(|scope| S::ANY_OF.contains(&scope.as_str())) {
        return Err(Problem::forbidden("the API key lacks the scope this call needs"));
    }
    if S::IN_TENANT && key.tenant.is_nil() {
        return Err(Problem::forbidden("an operator key has no namespace; use a key of a tenant"));
    }
    Ok(())
}

/// The token of `Authorization: Bearer`, from the only such field.
fn bearer(headers: &HeaderMap) -> Result<&str, Problem> {
    let missing = || Problem::unauthorized("send Authorization: Bearer with an API key", r#"Bearer realm="diaspore""#);
    let malformed = || {
        Problem::unauthorized("the Authorization field is not a single bearer token", r#"Bearer realm="diaspore", error="invalid_request""#)
    };
    let mut fields = headers.get_all(AUTHORIZATION).iter();
    let field = fields.next().ok_or_else(missing)?;
    if fields.next().is_some() || field.len() > AUTHORIZATION_BYTES {
        return Err(malformed());
    }
    let (scheme, token) = field.to_str().map_err(|_| malformed())?.split_once(' ').ok_or_else(malformed)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(malformed());
    }
    Ok(token.trim())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn with(values: &[&'static str]) -> HeaderMap {
        values.iter().map(|value| (AUTHORIZATION, HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn one_bearer_token_is_read() {
        assert_eq!(bearer(&with(&["Bearer dsp_1_2"])).unwrap(), "dsp_1_2");
        assert_eq!(bearer(&with(&["bearer  dsp_1_2 "])).unwrap(), "dsp_1_2");
    }

    #[test]
    fn anything_else_is_refused() {
        for values in [&[][..], &["Basic dXNlcg=="], &["dsp_1_2"], &["Bearer a", "Bearer b"]] {
            assert!(bearer(&with(values)).is_err(), "{values:?}");
        }
        let long: &'static str = "Bearer ".to_owned().leak();
        assert_eq!(bearer(&with(&[long])).unwrap(), "", "an empty token is for the engine to refuse");
    }
}

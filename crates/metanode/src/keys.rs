//! `keys create|list|revoke`; `keys rotate` is elsewhere.

use std::path::Path;

use diaspore_engine::world::{Clock, SystemClock};
use reqwest::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::cli::{Global, Keys};
use crate::client::{Client, Role, refusal};
use crate::failure::{Explain, Failure, Outcome};
use crate::output::{note, table};
use crate::{rotate, secret};

/// A key as the service shows it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Key {
    pub(crate) id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tenant_id: Option<String>,
    pub(crate) name: String,
    pub(crate) scopes: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) expires: Option<String>,
    /// Only in the answer that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct KeyList {
    keys: Vec<Key>,
}

/// Runs the command.
pub(crate) async fn run(global: &Global, command: &Keys) -> Outcome {
    let service = || Client::connect(global, Role::Operator);
    match command {
        Keys::Rotate { new_key, master_key } => Box::pin(rotate::run(global, new_key, master_key.as_deref())).await,
        Keys::Create { name, tenant, scopes, expires_in_days, out } => {
            let expires = expires_in_days.map(expiry).transpose()?;
            let mut key = create(&service()?, name, tenant, scopes, expires).await?;
            if let Some(path) = out {
                keep(path, &mut key)?;
            } else {
                note("note: the token is shown this once");
            }
            global.output.print(&key, || {
                let token = key.token.as_ref().map_or_else(String::new, |token| format!("\nToken: {token}"));
                format!("Key: {}\nScopes: {}{token}", key.id, key.scopes.join(", "))
            })
        }
        Keys::List => {
            let list: KeyList = service()?.get("/api/v1/keys").await?;
            let row = |key: &Key| {
                let tenant = key.tenant_id.clone().unwrap_or_else(|| "(operator)".to_owned());
                [key.id.clone(), key.name.clone(), tenant, key.scopes.join(","), key.expires.clone().unwrap_or_else(|| "never".to_owned())]
            };
            global.output.print(&list, || table(["id", "name", "tenant", "scopes", "expires"], list.keys.iter().map(row)))
        }
        Keys::Revoke { id } => {
            if !id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-') {
                return Err(Failure::usage(format!("{id:?} is no key id")).hint("metanode keys list shows the ids; a token is not an id"));
            }
            let client = service()?;
            client.send(client.request(Method::DELETE, &format!("/api/v1/keys/{id}"))).await?;
            global.output.print(&serde_json::json!({ "revoked": id }), || format!("Revoked: {id}"))
        }
    }
}

/// Makes a key, and its tenant when that is missing. Keys that only run the deployment belong to no tenant.
pub(crate) async fn create(client: &Client, name: &str, tenant: &str, scopes: &[String], expires: Option<String>) -> Outcome<Key> {
    let in_tenant = scopes.iter().any(|scope| scope == "read" || scope == "write");
    if in_tenant {
        let request = client.request(Method::POST, "/api/v1/tenants").json(&serde_json::json!({ "name": tenant }));
        let response = request.send().await.map_err(|error| client.unreachable(&error))?;
        if !response.status().is_success() && response.status() != StatusCode::CONFLICT {
            return Err(refusal(response).await);
        }
    }
    let mut asked = serde_json::json!({ "name": name, "scopes": scopes });
    if let Some(fields) = asked.as_object_mut() {
        if in_tenant {
            fields.insert("tenant".to_owned(), tenant.into());
        }
        if let Some(expires) = expires {
            fields.insert("expires".to_owned(), expires.into());
        }
    }
    client.json(client.request(Method::POST, "/api/v1/keys").json(&asked)).await
}

/// Moves the token into its file.
fn keep(path: &Path, key: &mut Key) -> Outcome {
    let token = key.token.take().ok_or_else(|| Failure::plain("the service sent no token"))?;
    secret::create_private(path, token.as_bytes())
}

fn expiry(days: u32) -> Outcome<String> {
    let ms = SystemClock.now().0.saturating_add(u64::from(days) * 86_400_000);
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).explain(|| "the expiry is out of range".to_owned())?;
    at.format(&Rfc3339).explain(|| "the expiry has no text".to_owned())
}

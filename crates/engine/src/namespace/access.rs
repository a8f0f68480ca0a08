//! API keys: the ledger keeps a keyed verifier, the token exists only with its owner.

use std::sync::Arc;

use diaspore_block::id::{PrincipalId, Seq, TenantId, Timestamp};
use diaspore_block::record::{ApiKeyCreated, ApiKeyRevoked};
use diaspore_ledger::ApiKeyEntry;

use super::{PAGE, check_label, local, view};
use crate::api::{ApiKeyInfo, Caller, Error, ErrorKind, NewApiKey};
use crate::commit::{CommitRequest, NewRecord};
use crate::shared::Shared;

const SCOPES: [&str; 4] = ["read", "write", "admin", "audit"];
const PREFIX: &str = "dsp_";

/// Makes a key of 256 random bits.
pub(crate) async fn create_api_key(
    shared: &Arc<Shared>,
    caller: &Caller,
    tenant: TenantId,
    name: &str,
    scopes: Vec<String>,
    expires: Option<Timestamp>,
) -> Result<NewApiKey, Error> {
    check_label("the label of an API key", name)?;
    if scopes.is_empty() || scopes.iter().any(|scope| !SCOPES.contains(&scope.as_str())) {
        return Err(Error::new(ErrorKind::Invalid, format!("scopes are one or more of {}", SCOPES.join(", "))));
    }
    shared.check_writable()?;
    if tenant != TenantId::SYSTEM && view(shared)?.tenant(tenant).map_err(local)?.is_none() {
        return Err(Error::new(ErrorKind::Invalid, "no such tenant"));
    }
    let id = PrincipalId::draw(&mut shared.rng());
    let mut secret = [0; 32];
    shared.entropy.draw(&mut secret);
    let verifier = shared.keys.api.verifier(&secret);
    let record = ApiKeyCreated { id, tenant, name: name.to_owned(), verifier, scopes: scopes.clone(), expires };
    let record = NewRecord::system(record).within(tenant).about(id).by(caller.principal);
    shared.committer.submit(CommitRequest::single(record, ()), shared.answer_by()).await?;
    let token = format!("{PREFIX}{}_{}", hex(id.as_bytes()), hex(&secret));
    Ok(NewApiKey { info: ApiKeyInfo { id, tenant, name: name.to_owned(), scopes, verifier, expires }, token })
}

/// Ends a key; it stays listed in the log.
pub(crate) async fn revoke_api_key(shared: &Arc<Shared>, caller: &Caller, id: PrincipalId) -> Result<Seq, Error> {
    shared.check_writable()?;
    let known = view(shared)?.api_key(id).map_err(local)?;
    let Some(known) = known.filter(|key| key.revoked.is_none()) else {
        return Err(Error::new(ErrorKind::Invalid, "no such API key, or revoked already"));
    };
    let record = NewRecord::system(ApiKeyRevoked { id }).within(known.tenant).about(id).by(caller.principal);
    Ok(shared.committer.submit(CommitRequest::single(record, ()), shared.answer_by()).await?.seq)
}

/// All keys that are not revoked.
pub(crate) fn api_keys(shared: &Shared) -> Result<Vec<ApiKeyInfo>, Error> {
    let view = view(shared)?;
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = view.api_keys(after, PAGE).map_err(local)?;
        after = page.last().map(|key| key.id);
        let last = page.len() < PAGE;
        found.extend(page.into_iter().filter(|key| key.revoked.is_none()).map(info));
        if last {
            return Ok(found);
        }
    }
}

fn info(key: ApiKeyEntry) -> ApiKeyInfo {
    ApiKeyInfo { id: key.id, tenant: key.tenant, name: key.name, scopes: key.scopes, verifier: key.verifier, expires: key.expires }
}

/// The key behind a token. Whether the id is known shows in the time taken, the secret does not: verifiers are keyed hashes
/// of the secret and are compared without an early end.
pub(crate) fn authenticate(shared: &Shared, token: &str) -> Option<ApiKeyInfo> {
    let (id, secret) = token.strip_prefix(PREFIX)?.split_once('_')?;
    let id = PrincipalId::from_bytes(unhex::<16>(id)?);
    let verifier = shared.keys.api.verifier(&unhex::<32>(secret)?);
    let key = view(shared).ok()?.api_key(id).ok()??;
    let live = key.revoked.is_none() && key.expires.is_none_or(|expires| shared.clock.now() < expires);
    let difference = key.verifier.iter().zip(verifier).fold(0, |sum, (left, right)| sum | (left ^ right));
    (std::hint::black_box(difference) == 0 && live).then(|| info(key))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        write!(text, "{byte:02x}").ok();
        text
    })
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_round_trips_and_refuses_the_rest() {
        assert_eq!(unhex::<3>(&hex(&[0, 0xab, 255])), Some([0, 0xab, 255]));
        assert_eq!(unhex::<3>("00ab"), None);
        assert_eq!(unhex::<2>("zz00"), None);
    }
}

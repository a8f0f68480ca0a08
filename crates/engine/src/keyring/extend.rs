//! Room for more tenants: the keyring's next version, with more tenants' keys in store.
//!
//! The running service does not hold the master key, so it cannot draw keys when a tenant is created. It is done at a start, by the
//! writer that holds the log, and takes effect with the next one: keys lie at the providers before any record names them.

use std::sync::Arc;

use diaspore_block::key::{Keyring, MasterKey};
use diaspore_block::name::KeyringNames;
use diaspore_block::record::KeyringChanged;
use futures::future::join_all;

use super::{Copy, TENANT_SLOTS, draw_tenants, fork, is_replaced, look, plant, replaced_elsewhere};
use crate::api::{Error, ErrorKind};
use crate::commit::{CommitRequest, NewRecord};
use crate::namespace::local;
use crate::shared::Shared;

/// Fewer free places than this call for the next version.
const FEW: usize = TENANT_SLOTS / 4;

/// Plants the next version if few tenants can still be named; gives the copy for the service's own disk.
///
/// Asks every provider first, and goes on only if each has answered: one that is silent may hold that version from an earlier try, and
/// two different keyrings of one version would be a fork that no recovery could decide.
pub(crate) async fn extend(shared: &Arc<Shared>, master: &MasterKey) -> Result<Option<Vec<u8>>, Error> {
    shared.check_writable()?;
    let names = KeyringNames::new(master);
    for spec in shared.fleet.providers() {
        shared.collector.keyrings_below(&spec.id, names.prefix(spec.id.as_str()));
    }
    let named = shared.ledger.snapshot().and_then(|view| view.tenants(None, usize::MAX)).map_err(local)?.len();
    if shared.keys.tenants.len().saturating_sub(named) >= FEW {
        return Ok(None);
    }
    let version = shared.keys.version.saturating_add(1);
    let looks = shared.fleet.providers().iter().map(async |spec| look(master, &names, &shared.fleet, &spec.id, version).await);
    let mut begun: Option<Keyring> = None;
    for answer in join_all(looks).await {
        match (answer?, &begun) {
            (Copy::Absent, _) => (),
            (Copy::Opened(there), None) if there.deployment == shared.keys.deployment => begun = Some(*there),
            (Copy::Opened(there), Some(other)) if there.is_same(other) => (),
            (Copy::Opened(_), _) => return Err(fork(version)),
            (Copy::Spoiled | Copy::Silent(_), _) => {
                let message = "room for more tenants needs an answer from every provider: a silent one may hold an unfinished keyring";
                return Err(Error::new(ErrorKind::TooFewDomains, message));
            }
        }
    }
    if is_replaced(shared, master).await? {
        return Err(replaced_elsewhere());
    }
    let keyring = match begun {
        Some(keyring) => keyring,
        None => next(&shared.keys, shared)?,
    };
    let sealed = plant(master, &keyring, &shared.fleet, shared.entropy.as_ref()).await?;
    let reason = format!("room for {} tenants, of whom {named} are named", keyring.tenants.len());
    let record = NewRecord::system(KeyringChanged { version: keyring.version, reason });
    shared.committer.submit(CommitRequest::single(record, ()), shared.answer_by()).await?;
    Ok(Some(sealed))
}

fn next(keys: &Keyring, shared: &Shared) -> Result<Keyring, Error> {
    let mut keyring = keys.duplicate().map_err(|error| Error::caused(ErrorKind::Internal, "the keyring does not copy", error))?;
    keyring.version = keyring.version.saturating_add(1);
    draw_tenants(&mut keyring, &mut shared.rng());
    Ok(keyring)
}

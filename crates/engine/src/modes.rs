//! How each provider is to be used: what the log says, at hand for every request.
//!
//! Active, draining, quarantined and dead are decisions and stand in the log (record 28). Suspect is none: it is what the last minutes
//! say about an account, and passes. A dead account is not asked at all; a draining or quarantined one gets nothing new and is read last.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use diaspore_block::id::PrincipalId;
use diaspore_block::record::{ProviderMode, ProviderStateSet};
use diaspore_ledger::Ledger;
use diaspore_policy::ProviderId;

use crate::api::{Error, ErrorKind};
use crate::commit::{CommitRequest, NewRecord};
use crate::layout;
use crate::shared::{Ground, Shared};

/// Proven lies within the last fifteen minutes that put a provider into quarantine.
const LIES: u32 = 5;
/// Below this score an account takes a shard only if nobody better can.
pub(crate) const POOR_SCORE: u8 = 50;

/// Modes other than active, by provider.
#[derive(Debug, Default)]
pub(crate) struct Modes(RwLock<BTreeMap<ProviderId, ProviderMode>>);

impl Modes {
    /// What the log last said; active if nothing.
    pub(crate) fn of(&self, provider: &ProviderId) -> ProviderMode {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(provider).copied().unwrap_or_default()
    }

    /// Whether it may get new shards.
    pub(crate) fn takes_shards(&self, provider: &ProviderId) -> bool {
        self.of(provider) == ProviderMode::Active
    }

    /// Whether the account of this name is being left or gone: what lies there does not stay.
    pub(crate) fn is_left(&self, name: &str) -> bool {
        ProviderId::new(name).is_ok_and(|id| matches!(self.of(&id), ProviderMode::Draining | ProviderMode::Dead))
    }

    fn read(ledger: &Ledger) -> Option<BTreeMap<ProviderId, ProviderMode>> {
        let entries = ledger.snapshot().and_then(|view| view.providers()).ok()?;
        let set = entries.into_iter().filter(|entry| entry.mode != ProviderMode::Active);
        Some(set.filter_map(|entry| Some((ProviderId::new(&entry.provider).ok()?, entry.mode))).collect())
    }
}

/// Takes over what the log says by now.
pub(crate) fn refresh(ground: &Ground) {
    let Some(now) = Modes::read(&ground.ledger) else { return };
    for spec in ground.fleet.providers() {
        ground.fleet.retire(&spec.id, now.get(&spec.id) == Some(&ProviderMode::Dead));
    }
    *ground.modes.0.write().unwrap_or_else(PoisonError::into_inner) = now;
}

/// The name a mode has for people.
pub(crate) const fn name(mode: ProviderMode) -> &'static str {
    match mode {
        ProviderMode::Active => "active",
        ProviderMode::Draining => "draining",
        ProviderMode::Quarantined => "quarantined",
        ProviderMode::Dead => "dead",
    }
}

/// Says in the log how a provider is to be used from here on.
pub(crate) async fn set(
    shared: &Arc<Shared>,
    by: PrincipalId,
    provider: &ProviderId,
    mode: ProviderMode,
    reason: &str,
) -> Result<(), Error> {
    if shared.fleet.provider(provider).is_none() {
        return Err(Error::new(ErrorKind::Invalid, format!("no provider is called {provider}; storage providers list names them")));
    }
    let set = ProviderStateSet { provider: provider.to_string(), mode, reason: reason.chars().take(200).collect() };
    let request = CommitRequest::single(NewRecord::system(set).by(by), ());
    shared.committer.submit(request, shared.answer_by()).await?;
    refresh(shared);
    tracing::warn!(%provider, mode = name(mode), reason, "a provider is used differently from here on");
    Ok(())
}

/// Puts providers that were caught lying again and again into quarantine, as long as enough others are left for whole blocks: where
/// none is to spare, a liar is read last and given shards last, but a block without it could never settle.
pub(crate) async fn quarantine(shared: &Arc<Shared>) {
    for spec in shared.fleet.providers() {
        let lies = shared.fleet.minutes(&spec.id).map_or(0, |minutes| minutes.iter().map(|minute| minute.lies).sum::<u32>());
        if lies < LIES || !shared.modes.takes_shards(&spec.id) {
            continue;
        }
        let others = layout::admitted(shared).into_iter().filter(|domain| *domain != spec.domain);
        let usable = |domain: &diaspore_policy::FailureDomain| {
            shared.fleet.providers().iter().any(|other| other.domain == *domain && shared.modes.takes_shards(&other.id))
        };
        let needed = layout::full(shared).map_or(usize::MAX, |geometry| usize::from(geometry.n()));
        if others.filter(usable).count() < needed {
            continue;
        }
        let reason = format!("{lies} answers within fifteen minutes were proven wrong");
        if let Err(error) = set(shared, PrincipalId::NIL, &spec.id, ProviderMode::Quarantined, &reason).await {
            tracing::warn!(%error, provider = %spec.id, "a liar could not be put into quarantine");
        }
    }
}

//! Heads: where a compacted log is, at every provider, under a prefix that LIST enumerates. Write-once like everything else.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;

use diaspore_block::claim::Head;
use diaspore_block::id::Seq;
use diaspore_block::limits::HEAD_LEN;
use diaspore_block::log::{Checkpoint, KeyName};
use diaspore_block::name::ObjectName;
use diaspore_ledger::CompactionEntry;
use diaspore_policy::{FailureDomain, ProviderId};
use diaspore_provider::{Deadline, ErrorKind as ProviderErrorKind};
use futures::future::join_all;
use futures::stream::{self, StreamExt};

use super::{is_announced, reference_of};
use crate::api::Error;
use crate::namespace::{local, view};
use crate::shared::{Ground, Shared};

/// Sealing adds less than this.
const SEAL_MARGIN: usize = 1024;
/// Heads listed at one provider at most: two stand there, or a few more after crashes.
const MAX_LISTED: usize = 1000;
/// Heads read at once.
const AT_ONCE: usize = 16;

/// What the providers announce.
#[derive(Debug, Default)]
pub(crate) struct Announced {
    /// Distinct ones, newest position first.
    pub(crate) heads: Vec<Head>,
    /// Domains that did not show all of theirs in time.
    pub(crate) silent: BTreeSet<FailureDomain>,
}

impl Announced {
    /// The newest position that a head covers.
    pub(crate) fn covers(&self) -> Seq {
        self.heads.first().map(|head| head.covers).unwrap_or_default()
    }
}

/// Asks every provider for the heads it has.
pub(crate) async fn find(ground: &Ground) -> Announced {
    let asked = ground.fleet.providers().iter().map(async |spec| (spec, listed(ground, &spec.id).await));
    let mut announced = Announced::default();
    let mut heads: BTreeMap<(Seq, [u8; 32]), Head> = BTreeMap::new();
    for (spec, found) in join_all(asked).await {
        if !found.whole {
            announced.silent.insert(spec.domain.clone());
        }
        for (_, head) in found.heads {
            let mark = head.acked_through;
            let known = heads.entry((head.covers, *head.root.manifest_hash.as_bytes())).or_insert(head);
            // The same head may have been put again later, somewhere else.
            known.acked_through = known.acked_through.max(mark);
        }
    }
    announced.heads = heads.into_values().rev().collect();
    announced
}

/// What one provider showed of the heads it has.
#[derive(Debug, Default)]
struct Listed {
    /// Those that open, with their names.
    heads: Vec<(ObjectName, Head)>,
    /// Whether that is everything it lists.
    whole: bool,
}

/// The heads at one provider. However many it lists, and however slowly it gives them, it has one deadline for all.
async fn listed(ground: &Ground, provider: &ProviderId) -> Listed {
    let prefix = ground.names.head_prefix(provider.as_str());
    let limit = ground.config.probe_deadline;
    let mut found = Listed::default();
    let reading = async {
        let Ok(listed) = ground.fleet.list(provider, &prefix, MAX_LISTED, Deadline::new(limit, limit)).await else { return false };
        let names = listed.iter().filter_map(|(path, _)| ObjectName::parse(path).ok());
        let reads: Vec<_> = names.map(async |name| (open(ground, provider, &name).await, name)).collect();
        let mut opened = pin!(stream::iter(reads).buffered(AT_ONCE));
        let mut whole = true;
        while let Some((head, name)) = opened.next().await {
            match head {
                Opened::Head(head) => found.heads.push((name, *head)),
                Opened::Absent => {}
                Opened::Unusable => whole = false,
            }
        }
        whole
    };
    found.whole = tokio::time::timeout(limit, reading).await.unwrap_or(false);
    found
}

/// What stands under a head's name.
enum Opened {
    Head(Box<Head>),
    Absent,
    /// No answer, or bytes that are no head.
    Unusable,
}

async fn open(ground: &Ground, provider: &ProviderId, name: &ObjectName) -> Opened {
    let deadline = Deadline::new(ground.config.probe_deadline, ground.config.probe_deadline);
    let sealed = match ground.fleet.get(provider, name.as_str(), None, (HEAD_LEN + SEAL_MARGIN) as u64, deadline).await {
        Ok(sealed) => sealed,
        Err(error) if error.kind == ProviderErrorKind::NotFound => return Opened::Absent,
        Err(_) => return Opened::Unusable,
    };
    match Head::open(&ground.keys.head, &ground.keys.identity.public(), ground.deployment(), (provider.as_str(), name), &sealed) {
        Ok(head) => Opened::Head(Box::new(head)),
        Err(error) => {
            if ground.unjudged.are_wrong("a head", error) {
                ground.fleet.report_lie(provider, "a head that does not open");
            }
            Opened::Unusable
        }
    }
}

/// Sees to it that every provider has the heads of the kept compacted logs, and removes older ones. Gives how many providers hold the
/// newest.
pub(crate) async fn announce(shared: &Shared) -> Result<u64, Error> {
    let view = view(shared)?;
    let kept = view.kept_compactions(shared.settlement.settled_through()).map_err(local)?;
    let mut newest = None;
    for entry in &kept {
        let Some(head) = head_of(shared, entry)? else { continue };
        let puts = shared.fleet.providers().iter().map(async |spec| (spec.id.clone(), put(shared, &spec.id, &head).await));
        let holders: BTreeSet<ProviderId> = join_all(puts).await.into_iter().filter(|(_, has)| *has).map(|(id, _)| id).collect();
        newest.get_or_insert(holders.len() as u64);
        shared.checkpoints.state().announced.insert(head.covers, holders);
    }
    // Those before go only when both that follow count.
    if let [_, older] = kept.as_slice()
        && kept.iter().all(|entry| is_announced(shared, entry.compacted.covers))
    {
        prune(shared, older.compacted.covers).await;
    }
    Ok(newest.unwrap_or(0))
}

fn head_of(shared: &Shared, entry: &CompactionEntry) -> Result<Option<Head>, Error> {
    let view = view(shared)?;
    let Some(root) = view.block(entry.compacted.root).map_err(local)? else { return Ok(None) };
    let checkpoint =
        Checkpoint { origin: KeyName::of(shared.deployment()), size: entry.compacted.log_size, root: entry.compacted.log_root };
    let acked_through = view.applied_seq().map_err(local)?;
    Ok(Some(Head {
        deployment: shared.deployment(),
        root: reference_of(&root.facts),
        covers: entry.compacted.covers,
        acked_through,
        settled_through: shared.settlement.settled_through().min(acked_through),
        checkpoint: checkpoint.sign(&shared.keys.identity),
    }))
}

/// Puts a head where it is not. Whether it is there now.
async fn put(shared: &Shared, provider: &ProviderId, head: &Head) -> bool {
    let name = shared.names.head(provider.as_str(), head.root.incarnation, head.root.counter);
    match open(shared, provider, &name).await {
        Opened::Head(found) => return found.root == head.root,
        Opened::Absent => {}
        Opened::Unusable => return false,
    }
    let place = (provider.as_str(), &name);
    match head.seal(&shared.keys.head, &shared.keys.identity, place, &mut shared.rng()) {
        Ok(sealed) => shared.fleet.put(provider, name.as_str(), vec![sealed.into()], Deadline::control()).await.is_ok(),
        Err(error) => {
            tracing::error!(%error, "a head could not be sealed");
            false
        }
    }
}

/// Deletes heads of compacted logs that cover less than `oldest`.
async fn prune(shared: &Shared, oldest: Seq) {
    let ids = shared.fleet.providers().iter().map(|spec| &spec.id);
    let found = join_all(ids.map(async |id| (id, listed(shared, id).await.heads))).await;
    let old = |head: &Head| head.covers < oldest;
    if !found.iter().any(|(_, heads)| heads.iter().any(|(_, head)| old(head))) || shared.fence.hold(shared).await.is_err() {
        return;
    }
    for (id, heads) in found {
        for (name, _) in heads.into_iter().filter(|(_, head)| old(head)) {
            if let Err(error) = shared.fleet.delete(id, name.as_str(), Deadline::control()).await {
                tracing::debug!(provider = %id, %error, "an old head stays");
            }
        }
    }
}

//! The face of the engine: one cheap handle, one method per use case.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use diaspore_block::id::{PrincipalId, Seq, TenantId, Timestamp};
use diaspore_block::key::{Keyring, LogPublicKey, MasterKey};
use diaspore_block::record::ProviderMode;
use diaspore_ledger::{IntegrityReport, Ledger};
use diaspore_policy::ProviderId;
use diaspore_provider::Fleet;

use crate::api::{
    ApiKeyInfo, AuditTotals, BlobInfo, BodyStream, BucketInfo, Caller, Error, ErrorKind, GetOptions, GetOutcome, Idempotency, ListOptions,
    ListPage, NewApiKey, Precondition, PutOptions, PutOutcome, Status, TenantInfo,
};
use crate::audit::{self, AuditLine, Event};
use crate::backup::Backup;
use crate::checkpoint::{CheckpointReport, CheckpointState};
use crate::collect::{self, Asked as CollectAsked, Collected, CollectorState};
use crate::config::EngineConfig;
use crate::history::History;
use crate::keyring::{KeyringCopy, ReplacedKeys};
use crate::losses::{self, Losses};
use crate::namespace::local;
use crate::relocate::{self, Errand, Relocated, RelocationState};
use crate::scrub::{self, DrillReport, ScrubReport};
use crate::settle::SettleReport;
use crate::shared::{Ground, Shared};
use crate::succession::Succession;
use crate::world::{Clock, Entropy, cpu};
use crate::{blob, checkpoint, commit, keyring, modes, namespace, reconcile, settle, status};

/// A running engine. Clones share it; it ends with [`Engine::shutdown`].
#[derive(Debug, Clone)]
pub struct Engine {
    line: Arc<Succession>,
}

#[expect(clippy::unused_async, reason = "one shape for all use cases: a caller awaits whether or not one of them asks a provider today")]
impl Engine {
    /// Starts, which is to reconcile (PROTOCOL rules 5 to 11): claims the log, finds its end, carries the tail over, decides,
    /// and only then serves. If too few domains answer to decide, the engine comes back read-only, serves nothing, and tries again
    /// as domains come back. Later it supersedes itself, with a new incarnation, when domains fail or return so that its
    /// commit blocks need another layout.
    ///
    /// # Errors
    /// `RefusedState` for a fork, a living foreign writer or acknowledged data that is missing; the message names sequences
    /// and domains and says what to do. `TooFewDomains`, `LocalStore` as they say.
    pub async fn start(
        config: EngineConfig,
        keys: Arc<Keyring>,
        fleet: Fleet,
        ledger: Ledger,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, Error> {
        let ground = Ground::new(config, keys, fleet, ledger, clock, entropy);
        let first = Box::pin(reconcile::start(ground)).await?;
        Ok(Self { line: Succession::begin(first) })
    }

    pub(crate) fn shared(&self) -> Arc<Shared> {
        self.line.current()
    }

    /// Finds the newest keyring that opens with `master` at any provider; `None` when every provider answered that it has none.
    ///
    /// # Errors
    /// When none was found: `DataUnavailable`, caused by [`crate::Unanswered`], if a provider did not answer; `RefusedState` if one holds
    /// bytes that do not open. `RefusedState` also when two keyrings of one version differ, or a newer version of this software wrote one.
    pub async fn find_keyring(master: &MasterKey, fleet: &Fleet) -> Result<Option<Keyring>, Error> {
        keyring::find(master, fleet).await
    }

    /// Puts a new deployment's keyring, write-once under its version, on every provider that has none of that version. Returns the sealed
    /// bytes for the local copy.
    ///
    /// # Errors
    /// `RefusedState` when a provider holds another keyring of that version, or the deployment is not new and none holds this one;
    /// `TooFewDomains` when fewer providers than a claim
    /// quorum hold it afterwards.
    pub async fn plant_keyring(master: &MasterKey, keyring: &Keyring, fleet: &Fleet, entropy: &dyn Entropy) -> Result<Vec<u8>, Error> {
        keyring::plant_new(master, keyring, fleet, entropy).await
    }

    /// Makes room for more tenants when few can still be named: plants the keyring's next version and returns its sealed bytes for
    /// the local copy. It counts from the next start on. `None` while there is room enough.
    ///
    /// # Errors
    /// `TooFewDomains` unless every provider answered; `RefusedState` for a fork; the engine goes on with the keyring it has.
    pub async fn extend_keyring(&self, master: &MasterKey) -> Result<Option<Vec<u8>>, Error> {
        keyring::extend(&self.shared(), master).await
    }

    /// Looks at every account that is not being left, and puts the present keyring where there is none; says how each was found. To be
    /// called at every start: an account that joined after the first one has no copy otherwise, and none is certified as left while too
    /// few others are known to hold it.
    ///
    /// # Errors
    /// `ReadOnly` and the like unless the log is held; `RefusedState` for a fork, or a key that was replaced from another machine. The
    /// engine goes on all the same.
    pub async fn spread_keyring(&self, master: &MasterKey) -> Result<BTreeMap<ProviderId, KeyringCopy>, Error> {
        keyring::spread(&self.shared(), master).await
    }

    /// Checks that the keyring may be sealed under another master key: it is the newest under `master`, the one in force.
    ///
    /// # Errors
    /// `RefusedState` when the providers hold another one, or none; `DataUnavailable` when too few answer to tell.
    pub async fn check_keyring(&self, master: &MasterKey) -> Result<(), Error> {
        keyring::check(&self.shared(), master).await
    }

    /// Puts `keyring`, the engine's own under a version of its own, under another master key at the providers, and reads it back. Gives
    /// how many show it.
    ///
    /// # Errors
    /// `TooFewDomains` when fewer than a claim quorum do; `RefusedState` when one holds another of that version. The next try completes it.
    pub async fn reseal_keyring(&self, master: &MasterKey, keyring: &Keyring) -> Result<usize, Error> {
        keyring::reseal(&self.shared(), master, keyring).await
    }

    /// Adds `old` to `replaced`, if copies of the keyring lie under it and this disk does not know: it was lost before they were deleted.
    ///
    /// # Errors
    /// `RefusedState` when what lies there has keys that the engine has not; `DataUnavailable` when too few answer to tell.
    pub async fn recall_replaced_key(&self, old: &MasterKey, replaced: &mut ReplacedKeys) -> Result<bool, Error> {
        keyring::recall(&self.shared(), old, replaced).await
    }

    /// Ends the change of a master key: says in the log that `master` is in force, and then deletes the copies of the keyring under
    /// the replaced ones. Gives how many providers show `keyring` under `master`; what is left of the others stays in `replaced`.
    ///
    /// # Errors
    /// `TooFewDomains` when fewer providers than a claim quorum show it under `master`: nothing was deleted. Otherwise as for any change.
    pub async fn finish_rotation(&self, master: &MasterKey, keyring: &Keyring, replaced: &mut ReplacedKeys) -> Result<usize, Error> {
        keyring::finish(&self.shared(), master, keyring, replaced).await
    }

    /// All tenants by name.
    pub async fn tenants(&self) -> Result<Vec<TenantInfo>, Error> {
        namespace::tenants(&self.shared())
    }

    /// Gives a name to one of the keyring's free tenant slots.
    pub async fn create_tenant(&self, name: &str) -> Result<TenantInfo, Error> {
        namespace::create_tenant(&self.shared(), name).await
    }

    /// The tenant of this name.
    pub async fn tenant(&self, name: &str) -> Result<Option<TenantInfo>, Error> {
        namespace::tenant(&self.shared(), name)
    }

    /// Creates a bucket in the caller's tenant.
    pub async fn create_bucket(&self, caller: &Caller, name: &str) -> Result<BucketInfo, Error> {
        namespace::create_bucket(&self.shared(), caller, name).await
    }

    /// Deletes an empty bucket.
    pub async fn delete_bucket(&self, caller: &Caller, name: &str) -> Result<Seq, Error> {
        namespace::delete_bucket(&self.shared(), caller, name).await
    }

    /// One bucket.
    pub async fn bucket(&self, caller: &Caller, name: &str) -> Result<BucketInfo, Error> {
        namespace::bucket_info(&self.shared(), caller.tenant, name)
    }

    /// The tenant's buckets in name order.
    pub async fn list_buckets(&self, caller: &Caller) -> Result<Vec<BucketInfo>, Error> {
        namespace::list_buckets(&self.shared(), caller.tenant)
    }

    /// Stores a blob; the outcome is final when this returns `Ok`.
    pub async fn put_blob(
        &self,
        caller: &Caller,
        bucket: &str,
        key: &[u8],
        options: PutOptions,
        body: BodyStream,
    ) -> Result<PutOutcome, Error> {
        Box::pin(blob::put(&self.shared(), caller, bucket, key, options, body)).await
    }

    /// What is stored under a key.
    pub async fn head_blob(&self, caller: &Caller, bucket: &str, key: &[u8], options: &GetOptions) -> Result<BlobInfo, Error> {
        blob::head(&self.shared(), caller, bucket, key, options).await
    }

    /// Reads a blob or a range of it.
    pub async fn get_blob(&self, caller: &Caller, bucket: &str, key: &[u8], options: &GetOptions) -> Result<GetOutcome, Error> {
        Box::pin(blob::get(&self.shared(), caller, bucket, key, options)).await
    }

    /// Deletes the current version.
    pub async fn delete_blob(
        &self,
        caller: &Caller,
        bucket: &str,
        key: &[u8],
        precondition: Precondition,
        idempotency: Option<Idempotency>,
    ) -> Result<Seq, Error> {
        Box::pin(blob::delete(&self.shared(), caller, bucket, key, precondition, idempotency)).await
    }

    /// One page of a bucket's keys.
    pub async fn list_blobs(&self, caller: &Caller, bucket: &str, options: &ListOptions) -> Result<ListPage, Error> {
        blob::list(&self.shared(), caller, bucket, options).await
    }

    /// Makes an API key for a tenant; the token is in the answer and nowhere else.
    pub async fn create_api_key(
        &self,
        caller: &Caller,
        tenant: TenantId,
        name: &str,
        scopes: Vec<String>,
        expires: Option<Timestamp>,
    ) -> Result<NewApiKey, Error> {
        namespace::create_api_key(&self.shared(), caller, tenant, name, scopes, expires).await
    }

    /// Ends an API key.
    pub async fn revoke_api_key(&self, caller: &Caller, id: PrincipalId) -> Result<Seq, Error> {
        namespace::revoke_api_key(&self.shared(), caller, id).await
    }

    /// All API keys.
    pub async fn api_keys(&self) -> Result<Vec<ApiKeyInfo>, Error> {
        namespace::api_keys(&self.shared())
    }

    /// The key behind a token, unless unknown, revoked or expired. Compares in constant time.
    pub fn authenticate(&self, token: &str) -> Option<ApiKeyInfo> {
        namespace::authenticate(&self.shared(), token)
    }

    /// Notes in the audit log that somebody was turned away.
    pub fn record_denied(&self, caller: Option<&Caller>, what: &str) {
        let (tenant, principal) = caller.map_or((TenantId::SYSTEM, PrincipalId::NIL), |caller| (caller.tenant, caller.principal));
        self.shared().audit.note(Event::AccessDenied { tenant, principal, what: what.chars().take(128).collect() });
    }

    /// Waits until every released block is settled, at most for `timeout`.
    pub async fn settle_wait(&self, timeout: Duration) -> Result<SettleReport, Error> {
        settle::wait(&self.shared(), timeout).await
    }

    /// Compacts the log now: writes what the ledger knows as a checkpoint, waits until it is settled, and announces it at every provider.
    /// Waits as long as a domain is down that holds something unsettled; whoever drops the call gives it up.
    pub async fn checkpoint_log(&self) -> Result<CheckpointReport, Error> {
        checkpoint::make(&self.shared()).await
    }

    /// Begins [`Engine::checkpoint_log`] and lets it go on by itself; gives its number, or that of the one that was asked for before.
    pub fn begin_checkpoint(&self) -> Result<u64, Error> {
        checkpoint::begin(&self.shared())
    }

    /// How the checkpoints that were begun go.
    pub fn checkpoint_state(&self) -> CheckpointState {
        checkpoint::state(&self.shared())
    }

    /// Whether reads are served.
    pub fn is_readable(&self) -> bool {
        self.shared().check_readable().is_ok()
    }

    /// What was acknowledged and cannot be read back now, by ids. Asks every provider about every block.
    pub async fn losses(&self) -> Result<Losses, Error> {
        losses::find(&self.shared()).await
    }

    /// Collects garbage (docs/decisions/0013-garbage-collection.md) and waits for the end of it.
    ///
    /// # Errors
    /// `NotAccepted` while a collection runs; otherwise what ended it early.
    pub async fn collect(&self, asked: CollectAsked) -> Result<Collected, Error> {
        Box::pin(collect::collect(&self.shared(), asked)).await
    }

    /// Starts a collection; gives its number, by which [`Engine::collector`] tells how it went.
    ///
    /// # Errors
    /// `NotAccepted` while a collection runs.
    pub fn begin_collecting(&self, asked: CollectAsked) -> Result<u64, Error> {
        collect::begin(&self.shared(), asked).map(|begun| begun.number)
    }

    /// Collections of this process.
    pub fn collector(&self) -> CollectorState {
        self.shared().collector.state()
    }

    /// Starts a scrub of everything unless one runs: every shard's header is asked for, or the whole shard when `deep`, and what is missing
    /// or wrong is repaired. Gives the report so far.
    pub fn scrub(&self, deep: bool) -> Result<ScrubReport, Error> {
        scrub::start(&self.shared(), deep)
    }

    /// Waits until the scrub that runs has ended, at most for `limit`; gives the report as it is then.
    pub async fn scrub_wait(&self, limit: Duration) -> ScrubReport {
        scrub::wait(&self.shared(), limit).await
    }

    /// Rebuilds sampled blocks from every set of k providers, or as many as one drill takes, and puts the outcome into the log.
    pub async fn drill(&self) -> Result<DrillReport, Error> {
        Box::pin(scrub::drill_now(&self.shared())).await
    }

    /// The last drill of this process with its signed report.
    pub fn last_drill(&self) -> Option<DrillReport> {
        self.shared().scrub.last_drill()
    }

    /// Says in the log how a provider is to be used from here on.
    ///
    /// # Errors
    /// `Invalid` for a provider that is not configured.
    pub async fn set_provider_mode(&self, caller: &Caller, provider: &str, mode: ProviderMode, reason: &str) -> Result<(), Error> {
        let id = ProviderId::new(provider).map_err(|error| Error::new(ErrorKind::Invalid, error.to_string()))?;
        modes::set(&self.shared(), caller.principal, &id, mode, reason).await
    }

    /// Moves shards between providers and waits for the end of it.
    ///
    /// # Errors
    /// `NotAccepted` while shards are being moved; `Invalid` for a provider that is not configured, or a price above the bound.
    pub async fn relocate(&self, errand: Errand) -> Result<Relocated, Error> {
        Box::pin(relocate::run(&self.shared(), errand)).await
    }

    /// Starts moving shards; gives its number, by which [`Engine::relocations`] tells how it went.
    ///
    /// # Errors
    /// `NotAccepted` while shards are being moved.
    pub fn begin_relocating(&self, errand: Errand) -> Result<u64, Error> {
        relocate::begin(&self.shared(), errand).map(|begun| begun.number)
    }

    /// Moves of this process.
    pub fn relocations(&self) -> RelocationState {
        self.shared().relocations.state()
    }

    /// Looks over the whole local ledger: every value, every journal entry, the log from its leaves. Slow, beside everything else; writes
    /// nothing but the mark by which the next start makes a view anew that was found damaged.
    pub fn integrity(&self) -> Result<IntegrityReport, Error> {
        cpu(|| self.shared().ledger.integrity()).map_err(local)
    }

    /// Makes the local ledger's view durable now instead of at the next turn, and drops what it keeps of blocks that are settled.
    /// Nothing acknowledged depends on it.
    pub fn flush(&self) -> Result<(), Error> {
        cpu(|| self.shared().ledger.flush_view()).map_err(local)
    }

    /// A sealed copy of the local ledger as it is now.
    pub fn backup(&self) -> Result<Backup, Error> {
        Backup::begin(self.shared())
    }

    /// State and counters.
    pub fn status(&self) -> Status {
        status::status(&self.shared())
    }

    /// The last sequence of the state that is served, and when the newest entry of its log was written, by the writer's clock; none in an
    /// empty log.
    pub fn ends_at(&self) -> Result<(Seq, Option<Timestamp>), Error> {
        status::ends_at(&self.shared())
    }

    /// Counts of the last two days, for the next run's [`EngineConfig::history`].
    pub fn history(&self) -> History {
        status::last_day(&self.shared());
        self.shared().recorder.history()
    }

    /// The engine's share of the exit decision: set once it has stopped for good.
    pub fn stopped(&self) -> Option<String> {
        status::stopped(&self.shared())
    }

    /// Totals of the audit log.
    pub fn audit_totals(&self) -> Result<AuditTotals, Error> {
        status::audit_totals(&self.shared())
    }

    /// Public parts from leaf `from` on, each with its inclusion proof under the log's present root.
    pub async fn audit_export(&self, caller: &Caller, from: u64, limit: usize) -> Result<Vec<AuditLine>, Error> {
        audit::export(&self.shared(), caller, from, limit)
    }

    /// The signed note over the released log (C2SP tlog-checkpoint).
    pub fn checkpoint(&self) -> Result<String, Error> {
        audit::checkpoint(&self.shared())
    }

    /// The key that signed every manifest and checkpoint.
    pub fn log_public_key(&self) -> LogPublicKey {
        self.shared().keys.identity.public()
    }

    /// Ends without a word, as a crash would: every task of this engine is aborted where it stands.
    pub fn abort(&self) {
        self.line.end();
        self.shared().abort();
    }

    /// Why mutations are refused at present, for `status` and the operator's log; `None` while the engine serves everything.
    pub fn why_read_only(&self) -> Option<String> {
        self.shared().check_writable().err().map(|refusal| refusal.message)
    }

    /// Stops taking work, waits for what was accepted, notes the stop in the log and ends background work.
    pub async fn shutdown(&self) -> Result<(), Error> {
        self.line.end();
        let last = self.shared();
        let outcome = commit::shutdown(&last).await;
        // A successor that was under way ends here too.
        last.ground.abort();
        outcome
    }
}

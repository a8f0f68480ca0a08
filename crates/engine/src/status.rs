//! State and counters for operators. Every figure comes from a counter that something real moves.

use std::time::Duration;

use diaspore_block::id::{Seq, Timestamp};
use diaspore_block::record::{ProviderMode, RecordKind};
use diaspore_policy::plan_geometry;
use diaspore_provider::{Counters, HealthState};

use crate::api::{AuditTotals, Error, IntegrityStatus, LastDrill, ModeSince, ProviderStatus, Status};
use crate::checkpoint;
use crate::history::Counts;
use crate::layout;
use crate::modes;
use crate::namespace::{local, view};
use crate::scrub::Census;
use crate::shared::{Meters, Shared, Stage};

/// Everything at a glance. Figures that cannot be had stay zero.
pub(crate) fn status(shared: &Shared) -> Status {
    let mut status = Status {
        state: state(shared),
        incarnation: shared.writer.incarnation.to_string(),
        epoch: shared.writer.epoch.0,
        integrity_faults: Meters::read(&shared.meters.integrity_faults),
        failovers: Meters::read(&shared.meters.failovers),
        coalesced_reads: Meters::read(&shared.meters.coalesced_reads),
        puts: Meters::read(&shared.meters.puts),
        gets: Meters::read(&shared.meters.gets),
        deletes: Meters::read(&shared.meters.deletes),
        proofs: proofs(shared),
        last_day: last_day(shared),
        uptime_ms: millis(shared.uptime()),
        storage: shared.ledger.metrics(),
        ..Status::default()
    };
    (status.read_requests, status.hedged_requests) = shared.data.pace.requests();
    fleet(shared, &mut status);
    if let Err(error) = ledger(shared, &mut status) {
        tracing::warn!(%error, "status without the ledger's figures");
    }
    let backlog = shared.settlement.backlog();
    status.unsettled_blocks = backlog.blocks;
    status.unsettled_bytes = backlog.bytes;
    status.unsettled_age_ms = backlog.oldest.map_or(0, |oldest| shared.clock.now().0.saturating_sub(oldest.0));
    status.recovery_point_seq = shared.settlement.settled_through().0;
    status.recovery_point_age_ms = status.unsettled_age_ms;
    status.integrity = integrity(shared);
    status.relocation = shared.relocations.state();
    status
}

/// What is known about the integrity of what is stored; what is not known stays absent.
fn integrity(shared: &Shared) -> IntegrityStatus {
    let repairs = shared.settlement.repairs();
    let last_drill = shared.ledger.snapshot().and_then(|view| view.last_drill()).ok().flatten();
    IntegrityStatus {
        census: shared.scrub.census().map(|census| Census::clone(&census)),
        audits: shared.scrub.audits(),
        repairs_waiting: repairs.blocks,
        repairs_failed: repairs.failed,
        repair_bytes_waiting: repairs.bytes,
        repaired_shards: Meters::read(&shared.meters.repaired_shards),
        repaired_bytes: Meters::read(&shared.meters.repaired_bytes),
        last_drill: last_drill.map(|last| LastDrill {
            time_ms: last.time.0,
            sets: last.subsets,
            sets_total: last.subsets_total,
            blocks: last.blocks,
            failures: last.failures,
        }),
    }
}

fn state(shared: &Shared) -> String {
    match shared.stage.get() {
        Stage::Active => "active",
        Stage::ReadOnly(_) | Stage::Undetermined(_) => "read-only",
        Stage::Starting => "starting",
        Stage::Stopped(_) | Stage::Closed => "stopped",
    }
    .to_owned()
}

fn proofs(shared: &Shared) -> u64 {
    Meters::read(&shared.meters.leaves).saturating_add(Meters::read(&shared.meters.signatures))
}

/// Takes the counters' growth down; gives the counts of the last 24 hours.
pub(crate) fn last_day(shared: &Shared) -> Counts {
    let requests = |id| shared.fleet.counters(id).map_or(0, |counters| requests(&counters));
    let since_start = Counts {
        running_ms: millis(shared.uptime()),
        puts: Meters::read(&shared.meters.puts),
        gets: Meters::read(&shared.meters.gets),
        deletes: Meters::read(&shared.meters.deletes),
        proofs: proofs(shared),
        failovers: Meters::read(&shared.meters.failovers),
        failed_reads: Meters::read(&shared.meters.failed_reads),
        provider_requests: shared.fleet.providers().iter().map(|spec| requests(&spec.id)).sum(),
    };
    shared.recorder.note(shared.clock.now(), since_start)
}

fn requests(counters: &Counters) -> u64 {
    counters.puts + counters.gets + counters.deletes + counters.lists + counters.heads
}

/// Why the engine does not serve everything, if so.
pub(crate) fn stopped(shared: &Shared) -> Option<String> {
    match shared.stage.get() {
        Stage::Stopped(why) => Some(why),
        _ => None,
    }
}

/// The last sequence of the state that is served, and when the newest entry of its log was written; none in an empty log.
pub(crate) fn ends_at(shared: &Shared) -> Result<(Seq, Option<Timestamp>), Error> {
    let view = shared.ledger.snapshot().map_err(local)?;
    let last = view.log_size().map_err(local)?.saturating_sub(1);
    let newest = view.leaves(last, 1).map_err(local)?.pop();
    Ok((view.applied_seq().map_err(local)?, newest.map(|entry| entry.time)))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn fleet(shared: &Shared, status: &mut Status) {
    status.domains = shared.fleet.domains().len();
    status.healthy_domains = shared.fleet.healthy_domains().len();
    status.writes_refused = shared.check_writable().err().map(|refusal| refusal.message);
    let usable = layout::usable(shared).len();
    if let Ok(full) = plan_geometry(&shared.config.profile, usable, usable) {
        let now = plan_geometry(&shared.config.profile, usable, layout::healthy(shared).len());
        (status.k, status.n) = now.map_or((full.k, full.n), |now| (now.k, now.n));
        status.restart_survives_down = usize::from(full.restart_tolerates_down());
    }
    if let Some(layout) = &shared.layout {
        status.restart_survives_down = usize::from(layout.geometry.k().saturating_sub(1));
        if let Some((healthy, of, needed)) = layout.shortfall(&layout::healthy(shared)) {
            status.writes_refused.get_or_insert_with(|| format!("{healthy} of {of} failure domains healthy, {needed} needed"));
        }
    }
    let (mut latency, mut measured) = (0.0, 0.0);
    for spec in shared.fleet.providers() {
        let (Some(health), Some(counters)) = (shared.fleet.health(&spec.id), shared.fleet.counters(&spec.id)) else { continue };
        let latency_ms = health.latency_ewma.as_secs_f64() * 1000.0;
        if latency_ms > 0.0 {
            latency += latency_ms;
            measured += 1.0;
        }
        status.providers.push(ProviderStatus {
            id: spec.id.to_string(),
            domain: spec.domain.to_string(),
            state: match health.state {
                HealthState::Healthy | HealthState::Suspect if !health.takes_writes => "read-only",
                HealthState::Healthy => "healthy",
                HealthState::Suspect => "suspect",
                HealthState::Down => "down",
            }
            .to_owned(),
            latency_ms,
            requests: requests(&counters),
            errors: counters.errors,
            bytes_up: counters.bytes_up,
            bytes_down: counters.bytes_down,
            lies: counters.lies,
            mode: modes::name(shared.modes.of(&spec.id)).to_owned(),
            score: health.score,
            down_ms: health.down_for.map(millis),
            keyring: shared.holders.of(&spec.id).map(|copy| copy.name().to_owned()),
            mode_since: None,
        });
    }
    if measured > 0.0 {
        status.average_latency_ms = latency / measured;
    }
}

fn ledger(shared: &Shared, status: &mut Status) -> Result<(), Error> {
    let view = shared.ledger.snapshot().map_err(local)?;
    let totals = view.totals().map_err(local)?;
    status.buckets = totals.buckets;
    status.blobs = totals.blobs;
    status.blocks = totals.bulk_blocks + totals.commit_blocks;
    status.logical_bytes = totals.logical_bytes;
    status.unique_bytes = totals.unique_bytes;
    status.compressed_bytes = totals.compressed_bytes;
    status.sealed_bytes = totals.sealed_bytes;
    status.stored_bytes = totals.stored_bytes;
    status.ledger_bytes = shared.ledger.size_on_disk().map_err(local)?;
    status.ledger_rows = shared.ledger.table_rows().map_err(local)?;
    status.released_seq = view.applied_seq().map_err(local)?.0;
    status.log_size = view.log_size().map_err(local)?;
    status.log_root = view.log_root(status.log_size).map_err(local)?.to_string();
    status.checkpoint = checkpoint::status(shared, &view).map_err(local)?;
    let age = |at: Timestamp| shared.clock.now().0.saturating_sub(at.0);
    for entry in view.providers().map_err(local)?.into_iter().filter(|entry| entry.mode != ProviderMode::Active) {
        // A certificate speaks of the time before it was last taken into use again.
        let certified = entry.evacuated.filter(|(at, _)| *at >= entry.since).map(|(at, _)| age(at));
        let since = ModeSince { age_ms: age(entry.since), reason: entry.reason, certified_age_ms: certified };
        if let Some(provider) = status.providers.iter_mut().find(|provider| provider.id == entry.provider) {
            provider.mode_since = Some(since);
        }
    }
    Ok(())
}

/// Records by family.
pub(crate) fn audit_totals(shared: &Shared) -> Result<AuditTotals, Error> {
    let totals = view(shared)?.totals().map_err(local)?;
    let of = |kind: RecordKind| totals.records_of(kind);
    let total: u64 = totals.records.iter().map(|(_, count)| *count).sum();
    let mut audit = AuditTotals {
        total,
        storage: of(RecordKind::BlobPut),
        retrieval: of(RecordKind::BlobRead),
        deletion: of(RecordKind::BlobDeleted),
        denied: of(RecordKind::AccessDenied),
        integrity_violations: of(RecordKind::IntegrityFault),
        administration: 0,
    };
    let named = audit.storage + audit.retrieval + audit.deletion + audit.denied + audit.integrity_violations;
    audit.administration = total.saturating_sub(named);
    Ok(audit)
}

//! How an incarnation lays out its commit blocks, fixed when it claims the log.
//!
//! The full (k, n) of the policy as long as k + 1 domains can acknowledge it. With fewer, an incarnation may begin on the domains
//! that answer, with n' = h and k' = h - f: as many losses survived, more bytes stored. Its claim names the smaller k floor and
//! the domains its commit blocks may lie on, so that whoever starts next counts the silence of those domains alone (PROTOCOL
//! rules 5, 8 and 11).

use std::collections::BTreeSet;

use diaspore_block::geometry::Geometry;
use diaspore_policy::{FailureDomain, GeometryPlan, plan_geometry};
use diaspore_provider::HealthState;

use crate::api::{Error, ErrorKind};
use crate::shared::{Ground, Shared};

/// Geometry and homes of one incarnation's commit blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) geometry: Geometry,
    /// Domains that commit blocks may lie on.
    pub(crate) members: BTreeSet<FailureDomain>,
    /// Whether this is what the policy wants with every domain healthy.
    pub(crate) full: bool,
}

impl Layout {
    /// The layout of an incarnation that begins while `answering` domains do. With too few for any, or fewer than the claim
    /// `quorum`, the full one: the start then waits for domains to come back.
    pub(crate) fn choose(ground: &Ground, answering: &BTreeSet<FailureDomain>, quorum: usize) -> Result<Self, Error> {
        // Accounts that were left for good are no part of any layout, unless without them there is none.
        let all = Some(usable(ground)).filter(|all| plan(ground, all.len(), all.len()).is_ok()).unwrap_or_else(|| admitted(ground));
        let full = plan(ground, all.len(), all.len())?;
        let up: BTreeSet<FailureDomain> = all.intersection(answering).cloned().collect();
        let present = plan(ground, all.len(), up.len()).ok().filter(|_| up.len() >= quorum);
        let (k, n) = present.map_or((full.k, full.n), |plan| plan.commit_layout(up.len()));
        let geometry = Geometry::new(k, n).map_err(|error| Error::caused(ErrorKind::Internal, "geometry out of range", error))?;
        let full = (k, n) == (full.k, full.n);
        Ok(Self { geometry, members: if full { all } else { up }, full })
    }

    /// Whether so many of its domains are in `up` that a block can be acknowledged.
    pub(crate) fn is_served_by(&self, up: &BTreeSet<FailureDomain>) -> bool {
        self.shortfall(up).is_none()
    }

    /// How many of its domains are in `up`, of how many, and how many a commit needs: when those are too few.
    pub(crate) fn shortfall(&self, up: &BTreeSet<FailureDomain>) -> Option<(usize, usize, usize)> {
        let (answering, needed) = (self.members.intersection(up).count(), usize::from(self.geometry.k()).saturating_add(1));
        (answering < needed).then_some((answering, self.members.len(), needed))
    }

    /// Whether a block of this layout has more shards than there are domains for, now and for good.
    pub(crate) fn is_too_wide(&self, ground: &Ground) -> bool {
        self.members.intersection(&usable(ground)).count() < usize::from(self.geometry.n())
    }

    /// Refuses with the arithmetic when the healthy domains cannot acknowledge a block.
    pub(crate) fn check(&self, ground: &Ground) -> Result<(), Error> {
        let Some((answering, of, needed)) = self.shortfall(&healthy(ground)) else { return Ok(()) };
        Err(Error::new(
            ErrorKind::TooFewDomains,
            format!(
                "not accepted: {answering} of {of} failure domains answer and take writes; a commit needs k + 1 = {needed} of them (k = {}, n = {}); bring back {} more",
                self.geometry.k(),
                self.geometry.n(),
                needed.saturating_sub(answering)
            ),
        ))
    }
}

/// Domains on which the policy lets shards lie.
pub(crate) fn admitted(ground: &Ground) -> BTreeSet<FailureDomain> {
    let admitted = ground.fleet.providers().iter().filter(|spec| spec.weight > 0 && ground.config.profile.admits(spec));
    admitted.map(|spec| spec.domain.clone()).collect()
}

/// Those of them with an account that is used for everything, whether or not it answers now.
pub(crate) fn usable(ground: &Ground) -> BTreeSet<FailureDomain> {
    let admitted = ground.fleet.providers().iter().filter(|spec| spec.weight > 0 && ground.config.profile.admits(spec));
    admitted.filter(|spec| ground.modes.takes_shards(&spec.id)).map(|spec| spec.domain.clone()).collect()
}

/// Those of them that take new shards: not known to be down or to refuse writes, and used for everything.
pub(crate) fn healthy(ground: &Ground) -> BTreeSet<FailureDomain> {
    let admitted = ground.fleet.providers().iter().filter(|spec| spec.weight > 0 && ground.config.profile.admits(spec));
    let up = admitted
        .filter(|spec| ground.modes.takes_shards(&spec.id))
        .filter(|spec| ground.fleet.health(&spec.id).is_some_and(|health| health.state != HealthState::Down && health.takes_writes));
    up.map(|spec| spec.domain.clone()).collect()
}

/// Domains that are known to take no writes, whether or not they answer.
pub(crate) fn read_only(ground: &Ground) -> BTreeSet<FailureDomain> {
    let writable = ground.fleet.providers().iter().filter(|spec| ground.fleet.health(&spec.id).is_some_and(|health| health.takes_writes));
    let writable: BTreeSet<&FailureDomain> = writable.map(|spec| &spec.domain).collect();
    ground.fleet.domains().into_iter().filter(|domain| !writable.contains(domain)).collect()
}

/// The layout of commit blocks with every domain healthy.
pub(crate) fn full(ground: &Ground) -> Option<Geometry> {
    let all = admitted(ground).len();
    let plan = plan(ground, all, all).ok()?;
    Geometry::new(plan.k, plan.n).ok()
}

/// What new bulk blocks get now.
pub(crate) fn of_bulk_blocks(ground: &Ground) -> Result<GeometryPlan, Error> {
    plan(ground, usable(ground).len(), healthy(ground).len())
}

/// What commit blocks of this incarnation get, unless too few of its domains answer.
pub(crate) fn of_commit_blocks(shared: &Shared) -> Result<Geometry, Error> {
    let layout = shared.layout.as_ref().ok_or_else(|| Error::new(ErrorKind::ReadOnly, "this engine does not write"))?;
    layout.check(shared)?;
    Ok(layout.geometry)
}

fn plan(ground: &Ground, all: usize, healthy: usize) -> Result<GeometryPlan, Error> {
    plan_geometry(&ground.config.profile, all, healthy).map_err(|few| Error::new(ErrorKind::TooFewDomains, few.to_string()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use diaspore_block::record::ProviderMode;
    use diaspore_policy::{ProviderId, ProviderSpec};
    use diaspore_provider::{Deadline, Fleet, FleetOptions};
    use diaspore_testkit::{Fault, FaultPlan, Misbehaviour};

    use super::*;
    use crate::blob::tests::fixture::Fixture;

    #[test]
    fn a_layout_is_served_by_k_plus_one_of_its_own_domains() {
        let domains = |names: &[&str]| names.iter().map(|name| FailureDomain::new(name)).collect::<BTreeSet<_>>();
        let layout = Layout { geometry: Geometry::new(2, 4).unwrap(), members: domains(&["a", "b", "c", "d"]), full: true };
        assert_eq!(layout.shortfall(&domains(&["a", "b", "x", "y"])), Some((2, 4, 3)), "strangers do not count");
        assert!(!layout.is_served_by(&domains(&["a", "b", "x", "y"])));
        assert_eq!(layout.shortfall(&domains(&["a", "b", "c"])), None);
        assert!(layout.is_served_by(&domains(&["a", "b", "c"])));
    }
    /// Six accounts: one without weight, one that is being left, one in quarantine, one that is down.
    #[tokio::test(start_paused = true)]
    async fn who_gets_shards_is_a_matter_of_weight_and_mode_and_for_new_ones_of_health() {
        let fx = Fixture::start(6).await;
        let shared = fx.engine.shared();
        let id = |at: usize| ProviderId::new(&format!("p{at}")).unwrap();
        for (at, mode) in [(1, ProviderMode::Draining), (2, ProviderMode::Quarantined)] {
            crate::modes::set(&shared, diaspore_block::id::PrincipalId::NIL, &id(at), mode, "a test").await.unwrap();
        }
        let mut ground = shared.ground.clone();
        let store = |at: usize| {
            let weight = if at == 0 { 0 } else { 100 };
            (ProviderSpec { weight, ..ProviderSpec::memory(id(at)) }, Arc::new(fx.stores[at].clone()) as _)
        };
        ground.fleet = Fleet::from_stores((0..6).map(store).collect(), FleetOptions::default());
        fx.stores[3].set_faults(FaultPlan::down());
        while ground.fleet.health(&id(3)).unwrap().state != HealthState::Down {
            let _none = ground.fleet.exists(&id(3), "x", Deadline::control()).await;
        }
        let domains = |of: &[usize]| of.iter().map(|at| ground.fleet.provider(&id(*at)).unwrap().domain.clone()).collect::<BTreeSet<_>>();
        assert_eq!(admitted(&ground), domains(&[1, 2, 3, 4, 5]));
        assert_eq!(usable(&ground), domains(&[3, 4, 5]));
        assert_eq!(healthy(&ground), domains(&[4, 5]));
    }

    /// A claim that names a domain which takes no writes would be one that no block of it can be acknowledged by.
    #[tokio::test(start_paused = true)]
    async fn a_domain_is_read_only_once_none_of_its_accounts_takes_writes() {
        let fx = Fixture::start(6).await;
        let mut ground = fx.engine.shared().ground.clone();
        let id = |at: usize| ProviderId::new(&format!("p{at}")).unwrap();
        let (pair, single) = (FailureDomain::new("pair"), FailureDomain::new("single"));
        let store = |at: usize| {
            let domain = if at < 2 { pair.clone() } else { single.clone() };
            (ProviderSpec { domain, ..ProviderSpec::memory(id(at)) }, Arc::new(fx.stores[at].clone()) as _)
        };
        ground.fleet = Fleet::from_stores((0..3).map(store).collect(), FleetOptions::default());
        let fill_up = async |at: usize| {
            fx.stores[at].set_faults(FaultPlan::from(Fault::always(Misbehaviour::Full)));
            while ground.fleet.health(&id(at)).unwrap().takes_writes {
                let _none = ground.fleet.put(&id(at), "x", vec![vec![1].into()], Deadline::control()).await;
            }
        };
        assert!(read_only(&ground).is_empty());
        fill_up(0).await;
        assert!(read_only(&ground).is_empty(), "there is another account");
        fill_up(2).await;
        assert_eq!(read_only(&ground), BTreeSet::from([single.clone()]), "though it answers");
        fill_up(1).await;
        assert_eq!(read_only(&ground), BTreeSet::from([pair, single]));
    }

    /// Five of six, and one may be lost: k + 1 are all of them. With fewer the layout is as narrow as they are, and survives the same.
    #[tokio::test(start_paused = true)]
    async fn a_layout_is_full_while_k_plus_one_answer_and_as_narrow_as_they_are_otherwise() {
        let fx = Fixture::start(6).await;
        let shared = fx.engine.shared();
        let mut ground = shared.ground.clone();
        let id = |at: usize| ProviderId::new(&format!("p{at}")).unwrap();
        let domain = |at: usize| shared.fleet.provider(&id(at)).unwrap().domain.clone();
        let domains = |of: std::ops::Range<usize>| of.map(domain).collect::<BTreeSet<_>>();
        let chosen = |ground: &Ground, answering: &BTreeSet<FailureDomain>, quorum| {
            let layout = Layout::choose(ground, answering, quorum).unwrap();
            ((layout.geometry.k(), layout.geometry.n()), layout.members, layout.full)
        };
        assert_eq!(chosen(&ground, &domains(0..4), 4), ((3, 5), domains(0..6), true), "four of six acknowledge a block of 3");
        ground.config.profile.replication_factor = 2;
        ground.config.profile.max_cloud_providers = 6;
        for (answering, quorum, expected) in [
            (0..6, 4, ((5, 6), domains(0..6), true)),
            (0..5, 4, ((4, 5), domains(0..5), false)),
            (1..5, 4, ((3, 4), domains(1..5), false)),
            (1..5, 5, ((5, 6), domains(0..6), true)),
            (0..3, 3, ((2, 3), domains(0..3), false)),
            (0..2, 2, ((5, 6), domains(0..6), true)),
        ] {
            assert_eq!(chosen(&ground, &domains(answering.clone()), quorum), expected, "{answering:?} answer, {quorum} needed");
        }
        let mut more = domains(0..4);
        more.insert(FailureDomain::new("elsewhere"));
        assert_eq!(chosen(&ground, &more, 4), ((3, 4), domains(0..4), false), "strangers are no part of it");
        assert_eq!(full(&ground), Geometry::new(5, 6).ok());
        let wide = Layout::choose(&ground, &domains(0..6), 4).unwrap();
        let narrow = Layout::choose(&ground, &domains(1..6), 4).unwrap();
        wide.check(&ground).unwrap();
        assert!(!wide.is_too_wide(&ground) && !narrow.is_too_wide(&ground));
        crate::modes::set(&shared, diaspore_block::id::PrincipalId::NIL, &id(0), ProviderMode::Draining, "a test").await.unwrap();
        assert!(wide.is_too_wide(&ground) && !narrow.is_too_wide(&ground), "one is left for good");
        assert_eq!(chosen(&ground, &domains(0..6), 4), ((4, 5), domains(1..6), true), "and no part of a new one");
        narrow.check(&ground).unwrap();
        let few = wide.check(&ground).unwrap_err();
        assert_eq!(few.kind, ErrorKind::TooFewDomains);
        assert!(
            few.message.contains("5 of 6 failure domains")
                && few.message.contains("k + 1 = 6")
                && few.message.contains("bring back 1 more")
        );
    }
}

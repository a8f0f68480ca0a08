//! From "survive r - 1 lost providers" to (k, n): the arithmetic, and what restart and claims need.

use crate::profile::Profile;

/// Largest n the block format knows.
pub const MAX_SHARDS: usize = 32;

/// A layout for new blocks: any `k` of `n` shards rebuild, each shard on its own failure domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GeometryPlan {
    /// Shards needed to rebuild.
    pub k: u8,
    /// Shards written.
    pub n: u8,
    /// Shards needed at full size, with every configured domain healthy.
    pub full_k: u8,
    /// Shards written at full size.
    pub full_n: u8,
}

impl GeometryPlan {
    /// Losses the layout survives: n - k. Shrinking keeps it.
    pub fn losses_survived(self) -> u8 {
        self.n - self.k
    }

    /// True when domains are down and the layout is narrower than configured (same f, more overhead).
    pub fn is_shrunk(self) -> bool {
        self.n < self.full_n
    }

    /// Verified acknowledgements a `quorum` release needs: k + 1.
    pub fn quorum(self) -> u8 {
        self.k + 1
    }

    /// Whether commit blocks of the full layout can reach their k + 1 with so many healthy domains.
    pub fn commit_possible(self, healthy_domains: usize) -> bool {
        healthy_domains > usize::from(self.full_k)
    }

    /// (k, n) of the commit blocks of an incarnation that begins with so many healthy domains: the full layout as long as k + 1 of
    /// them can acknowledge it, else this one (PROTOCOL rule 11: going below the k floor takes a new incarnation).
    pub fn commit_layout(self, healthy_domains: usize) -> (u8, u8) {
        if self.commit_possible(healthy_domains) { (self.full_k, self.full_n) } else { (self.k, self.n) }
    }

    /// Domains that may be down while a restart can still decide the end of the log on its own: u <= k floor - 1 (PROTOCOL rule 11).
    pub fn restart_tolerates_down(self) -> u8 {
        self.full_k - 1
    }

    /// Whether the service restarts by itself with f domains down: k >= f + 1 (PROTOCOL rule 11). 3-of-5 and 2-of-3 do, 2-of-4 does not.
    pub fn restart_survives_down(self) -> bool {
        self.full_k > self.full_n - self.full_k
    }

    /// Bytes stored per sealed payload byte in thousandths: 1667 for 3-of-5.
    pub fn overhead_permille(self) -> u32 {
        (u32::from(self.n) * 1000).div_ceil(u32::from(self.k))
    }
}

/// No layout survives what the profile demands. The text is the arithmetic, so an operator sees which number to change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.arithmetic())]
pub struct TooFew {
    /// Domains configured and admitted by the profile.
    pub configured_domains: usize,
    /// Domains answering now.
    pub healthy_domains: usize,
    /// The profile's replication factor r.
    pub replication_factor: u8,
    /// The profile's cap on providers per block.
    pub max_cloud_providers: u8,
    /// Smallest k the profile allows.
    pub min_k: u8,
}

impl TooFew {
    /// Domains that would do.
    pub fn needed_domains(&self) -> usize {
        usize::from(self.replication_factor.saturating_sub(1)) + usize::from(self.min_k)
    }

    fn arithmetic(&self) -> String {
        let f = usize::from(self.replication_factor.saturating_sub(1));
        let n = self.healthy_domains.min(usize::from(self.max_cloud_providers)).min(MAX_SHARDS);
        let k = i64::try_from(n).unwrap_or(i64::MAX) - i64::try_from(f).unwrap_or(i64::MAX);
        let needed = self.needed_domains();
        let (r, cap, min_k) = (self.replication_factor, self.max_cloud_providers, self.min_k);
        let remedy = if usize::from(cap).min(MAX_SHARDS) < needed {
            format!("raise max_cloud_providers to at least {needed} or lower the replication factor")
        } else if self.configured_domains < needed {
            format!("configure {} more failure domain(s) or lower the replication factor", needed - self.configured_domains)
        } else {
            format!("bring back {} of the domains that are down", needed - self.healthy_domains.min(needed))
        };
        format!(
            "too few providers: replication factor {r} means surviving f = {r} - 1 = {f} lost domains; \
             n = min({} healthy of {} configured, max {cap}) = {n}, k = n - f = {n} - {f} = {k}, but k must be at least min_k = {min_k}; \
             {needed} domains are needed: {remedy}",
            self.healthy_domains, self.configured_domains
        )
    }
}

/// Layout for new blocks under `profile` with `configured_domains` admitted failure domains, of which `healthy_domains` answer.
///
/// Full size: f = r - 1, n = min(configured, max), k = n - f. With h < n healthy domains n' = h, k' = h - f while k' >= `min_k`:
/// f is kept and overhead rises. Otherwise [`TooFew`]; a layout is never squeezed below its promise.
pub fn plan_geometry(profile: &Profile, configured_domains: usize, healthy_domains: usize) -> Result<GeometryPlan, TooFew> {
    let too_few = |healthy: usize| TooFew {
        configured_domains,
        healthy_domains: healthy,
        replication_factor: profile.replication_factor,
        max_cloud_providers: profile.max_cloud_providers,
        min_k: profile.min_k,
    };
    let healthy = healthy_domains.min(configured_domains);
    let cut = |domains: usize| -> Option<(u8, u8)> {
        let f = profile.replication_factor.checked_sub(1)?;
        let n = u8::try_from(domains.min(MAX_SHARDS)).ok()?.min(profile.max_cloud_providers);
        let k = n.checked_sub(f)?;
        (k >= profile.min_k.max(1) && f >= 1).then_some((k, n))
    };
    let (full_k, full_n) = cut(configured_domains).ok_or_else(|| too_few(healthy))?;
    let (k, n) = cut(healthy).ok_or_else(|| too_few(healthy))?;
    Ok(GeometryPlan { k, n, full_k, full_n })
}

/// Domains that must acknowledge a claim before it counts: floor((P + 3) / 2), so that two claims meet in a domain that does not
/// lie even if one does (PROTOCOL rule 5). P = 3 needs 3, P = 4 needs 3, P = 5 needs 4.
pub fn claim_quorum(domains: usize) -> usize {
    domains.midpoint(3)
}

#[cfg(test)]
mod tests;

//! Claims and heads: what an incarnation says about itself at every provider, sealed, signed and write-once.

use rand::CryptoRng;

use crate::codec::{Field, Reader, fields};
use crate::compacted::BlockRef;
use crate::error::{BlockError, Result};
use crate::geometry::Geometry;
use crate::id::{Attempt, DeploymentId, Epoch, IncarnationId, Seq, Timestamp};
use crate::key::{HeadKey, LogIdentity, LogPublicKey};
use crate::limits::{CLAIM_VERSION, HEAD_LEN, MAX_CLAIM, MAX_CLAIM_NAMES, MAX_PROVIDER_ID};
use crate::name::ObjectName;
use crate::seal::{Context, Salt, SealType, open_object, seal_object};

fields! {
    /// An incarnation's first act (PROTOCOL rule 5).
    pub struct Claim {
        /// Which deployment.
        pub deployment: DeploymentId,
        /// Highest epoch seen, plus one.
        pub epoch: Epoch,
        /// Who claims.
        pub incarnation: IncarnationId,
        /// When, by its clock.
        pub started: Timestamp,
        /// How long a fence check holds, in milliseconds; what a successor waits out.
        pub lease_ms: u64,
        /// Domains that must acknowledge the claim.
        pub claim_quorum: u8,
        /// Claims seen before this one.
        pub claims_seen: Vec<(Epoch, IncarnationId)>,
        /// The operator's names of the provider accounts it writes to.
        pub providers: Vec<String>,
        /// Geometry of its commit blocks.
        pub geometry: Geometry,
        /// Smallest k it may use.
        pub k_floor: u8,
        /// Commit blocks it may have in flight.
        pub window: u32,
    }
}
fields! {
    /// Where a compacted log is, and what was acknowledged when it was announced: a place to look, a witness, never a proof of an end.
    pub struct Head {
        /// Which deployment.
        pub deployment: DeploymentId,
        /// The root block; the head is named by its incarnation and counter.
        pub root: BlockRef,
        /// The compacted log stands for every record up to here.
        pub covers: Seq,
        /// Every sequence up to here is acknowledged.
        pub acked_through: Seq,
        /// Every sequence up to here is settled.
        pub settled_through: Seq,
        /// Signed-note checkpoint of the log at `covers`.
        pub checkpoint: String,
    }
}

/// What distinguishes a claim from a head on the wire.
trait Parked: Field {
    const SEAL: SealType;
    const DOMAIN: &'static str;
    const WHAT: &'static str;
    /// Plain length of every one of them.
    const LEN: usize;
    fn deployment(&self) -> DeploymentId;
    fn is_plausible(&self) -> bool;
}

impl Parked for Claim {
    const SEAL: SealType = SealType::Claim;
    const DOMAIN: &'static str = "diaspore/v1/claim";
    const WHAT: &'static str = "claim";
    const LEN: usize = MAX_CLAIM;
    fn deployment(&self) -> DeploymentId {
        self.deployment
    }
    fn is_plausible(&self) -> bool {
        let quorum = usize::from(self.claim_quorum);
        self.epoch.0 > 0
            && self.window > 0
            && (1..=self.geometry.k()).contains(&self.k_floor)
            && (1..=self.providers.len()).contains(&quorum)
            && self.providers.len() <= MAX_CLAIM_NAMES
            && self.claims_seen.len() <= MAX_CLAIM_NAMES
            && self.providers.iter().all(|name| (1..=MAX_PROVIDER_ID).contains(&name.len()))
            && self.claims_seen.iter().all(|(epoch, _)| *epoch < self.epoch)
    }
}

impl Parked for Head {
    const SEAL: SealType = SealType::Head;
    const DOMAIN: &'static str = "diaspore/v1/head";
    const WHAT: &'static str = "head";
    const LEN: usize = HEAD_LEN;
    fn deployment(&self) -> DeploymentId {
        self.deployment
    }
    fn is_plausible(&self) -> bool {
        let marks = self.covers <= self.settled_through && self.settled_through <= self.acked_through;
        self.covers > Seq(0) && marks && self.root.attempt.0 < Attempt::COUNT
    }
}

macro_rules! parked {
    ($($name:ident),*) => {$(
        impl $name {
            /// The object for one provider.
            pub fn seal(
                &self,
                key: &HeadKey,
                identity: &LogIdentity,
                place: (&str, &ObjectName),
                rng: &mut (impl CryptoRng + ?Sized),
            ) -> Result<Vec<u8>> {
                seal(self, key, identity, place, rng)
            }

            /// Opens what a provider returned for the name, and checks seal, signature and deployment.
            pub fn open(
                key: &HeadKey,
                public: &LogPublicKey,
                deployment: DeploymentId,
                place: (&str, &ObjectName),
                sealed: &[u8],
            ) -> Result<Self> {
                open(key, public, deployment, place, sealed)
            }
        }
    )*};
}
parked!(Claim, Head);

impl Claim {
    /// What decides between two claims: the higher wins.
    pub const fn rank(&self) -> (Epoch, IncarnationId) {
        (self.epoch, self.incarnation)
    }
}

fn context<T: Parked>(deployment: DeploymentId, (provider, name): (&str, &ObjectName)) -> Context {
    Context::new(T::SEAL, deployment).text(provider).text(name.as_str())
}

/// Plaintext: version, length, body, signature, zeros up to the one length of its kind.
fn seal<T: Parked>(
    value: &T,
    key: &HeadKey,
    identity: &LogIdentity,
    place: (&str, &ObjectName),
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<Vec<u8>> {
    let body = crate::codec::encode(value);
    let mut plain = vec![CLAIM_VERSION];
    crate::codec::length(body.len()).put(&mut plain);
    plain.extend_from_slice(&body);
    identity.sign(T::DOMAIN, &body).put(&mut plain);
    if plain.len() > T::LEN || !value.is_plausible() {
        return Err(BlockError::Invalid { what: T::WHAT });
    }
    plain.resize(T::LEN, 0);
    seal_object(key.expose(), Salt::draw(rng), &context::<T>(value.deployment(), place), &plain)
}

fn open<T: Parked>(key: &HeadKey, public: &LogPublicKey, deployment: DeploymentId, place: (&str, &ObjectName), sealed: &[u8]) -> Result<T> {
    let plain = open_object(key.expose(), &context::<T>(deployment, place), sealed, MAX_CLAIM.max(T::LEN), T::WHAT)?;
    let mut r = Reader::new(&plain, T::WHAT);
    let version: u8 = r.value()?;
    if version != CLAIM_VERSION {
        return Err(if version > CLAIM_VERSION { BlockError::Unsupported { what: T::WHAT, version } } else { r.malformed() });
    }
    let len = r.value::<u32>()? as usize;
    let body = r.take(len)?;
    let signature = r.array()?;
    if plain.len() != T::LEN {
        return Err(r.malformed());
    }
    r.zeros_to_end()?;
    public.verify(T::DOMAIN, body, &signature, T::WHAT)?;
    let value: T = crate::codec::decode(body, T::WHAT)?;
    if value.deployment() == deployment && value.is_plausible() { Ok(value) } else { Err(BlockError::NotAuthentic { what: T::WHAT }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{BlockId, Counter, Hash32};
    use crate::test_world::World;

    fn claim(world: &World) -> Claim {
        Claim {
            deployment: world.keys.deployment,
            epoch: Epoch(2),
            incarnation: IncarnationId::from_bytes([1; 16]),
            started: Timestamp(5),
            lease_ms: 3000,
            claim_quorum: 2,
            claims_seen: vec![(Epoch(1), IncarnationId::from_bytes([2; 16]))],
            providers: vec!["alpha".into(), "beta".into()],
            geometry: Geometry::new(3, 5).unwrap(),
            k_floor: 3,
            window: 4,
        }
    }

    #[test]
    fn a_claim_opens_only_where_it_was_parked() {
        let mut world = World::new(1);
        let claim = claim(&world);
        let names = world.names();
        let name = names.claim("alpha", claim.incarnation, claim.epoch);
        assert!(name.as_str().starts_with(&names.claim_prefix("alpha")));
        let keys = &world.keys;
        let sealed = claim.seal(&keys.head, &keys.identity, ("alpha", &name), &mut world.rng).unwrap();
        let public = keys.identity.public();
        let open =
            |provider: &str, name: &ObjectName, bytes: &[u8]| Claim::open(&keys.head, &public, keys.deployment, (provider, name), bytes);
        assert_eq!(open("alpha", &name, &sealed).unwrap(), claim);
        assert_eq!(sealed.len(), MAX_CLAIM + 56 + 16, "one size, whatever it names");
        assert!(open("beta", &name, &sealed).is_err());
        let other = names.claim("alpha", claim.incarnation, Epoch(3));
        assert!(open("alpha", &other, &sealed).is_err());
        assert!(Head::open(&keys.head, &public, keys.deployment, ("alpha", &name), &sealed).is_err());
        for at in (0..sealed.len()).step_by(611) {
            let mut flipped = sealed.clone();
            flipped[at] ^= 1;
            assert!(open("alpha", &name, &flipped).is_err());
        }
        let stranger = World::new(2).keys.identity;
        let forged = claim.seal(&keys.head, &stranger, ("alpha", &name), &mut world.rng).unwrap();
        assert_eq!(open("alpha", &name, &forged), Err(BlockError::NotAuthentic { what: "claim" }));
    }

    #[test]
    fn claims_and_heads_whose_numbers_do_not_fit_are_refused() {
        let mut world = World::new(3);
        let good = claim(&world);
        assert!(good.is_plausible());
        let refused = |change: &dyn Fn(&mut Claim)| {
            let mut changed = good.clone();
            change(&mut changed);
            !changed.is_plausible()
        };
        assert!(refused(&|c| c.k_floor = 4));
        assert!(refused(&|c| c.k_floor = 0));
        assert!(refused(&|c| c.claim_quorum = 3));
        assert!(refused(&|c| c.claim_quorum = 0));
        assert!(refused(&|c| c.providers[0].clear()));
        assert!(refused(&|c| c.providers[0] = "x".repeat(256)));
        assert!(refused(&|c| c.claims_seen[0].0 = Epoch(2)));
        assert!(refused(&|c| c.window = 0));
        assert!(refused(&|c| c.epoch = Epoch(0)));
        let root = BlockRef {
            block: BlockId::from_bytes([3; 16]),
            incarnation: good.incarnation,
            counter: Counter(1),
            attempt: Attempt(0),
            geometry: good.geometry,
            manifest_hash: Hash32::from_bytes([4; 32]),
        };
        let head = |covers, settled, acked| Head {
            deployment: good.deployment,
            root: root.clone(),
            covers: Seq(covers),
            acked_through: Seq(acked),
            settled_through: Seq(settled),
            checkpoint: String::new(),
        };
        assert!(head(5, 5, 5).is_plausible() && head(5, 6, 7).is_plausible());
        for wrong in [head(5, 4, 7), head(5, 6, 5), head(0, 0, 0)] {
            assert!(!wrong.is_plausible());
        }
        let fourth = Head { root: BlockRef { attempt: Attempt(4), ..root.clone() }, ..head(5, 5, 5) };
        assert!(!fourth.is_plausible());
        // What is not plausible is neither sealed nor taken from somebody who did seal it.
        let name = world.names().claim("alpha", good.incarnation, good.epoch);
        let keys = &world.keys;
        let wrong = Claim { window: 0, ..good };
        assert!(wrong.seal(&keys.head, &keys.identity, ("alpha", &name), &mut world.rng).is_err());
    }
}

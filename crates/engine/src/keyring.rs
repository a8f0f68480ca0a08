//! The keyring at the providers: write-once per version, found with nothing but the master key.

use diaspore_block::key::{Keyring, MasterKey};
use diaspore_block::limits::MAX_KEYRING;
use diaspore_block::name::KeyringNames;
use diaspore_block::seal::Salt;
use diaspore_policy::claim_quorum;
use diaspore_provider::{Deadline, Fleet};
use futures::future::join_all;

use crate::api::{Error, ErrorKind};
use crate::world::{Draw, Entropy};

/// Versions probed upward beyond the last one found: a keyring that reached few providers is still found.
const PROBE: u64 = 8;
/// Sealing adds less than this.
const SEAL_MARGIN: usize = 1 << 16;

/// The newest version that opens, from any provider. A lying provider can hide or spoil its copies, not forge one.
pub(crate) async fn find(master: &MasterKey, fleet: &Fleet) -> Result<(Keyring, Vec<u8>), Error> {
    let names = KeyringNames::new(master);
    let (mut newest, mut spoiled, mut version): (Option<(Keyring, Vec<u8>)>, usize, u64) = (None, 0, 1);
    let mut silent = 0;
    while version <= newest.as_ref().map_or(0, |(keyring, _)| keyring.version) + PROBE {
        let asked = fleet.providers().iter().map(async |spec| {
            let name = names.keyring(spec.id.as_str(), version);
            (spec, fleet.get(&spec.id, name.as_str(), None, (MAX_KEYRING + SEAL_MARGIN) as u64, Deadline::control()).await)
        });
        silent = 0;
        for (spec, answer) in join_all(asked).await {
            match answer.map(|sealed| (Keyring::open(master, &sealed), sealed)) {
                Ok((Ok(keyring), sealed)) if keyring.version == version => newest = Some((keyring, sealed.to_vec())),
                Ok(_) => {
                    spoiled += 1;
                    fleet.report_lie(&spec.id, "a keyring that does not open");
                }
                Err(error) if error.kind == diaspore_provider::ErrorKind::NotFound => (),
                Err(_) => silent += 1,
            }
        }
        version += 1;
    }
    newest.ok_or_else(|| {
        let message = if silent * 2 >= fleet.providers().len() {
            format!(
                "no keyring was found, but {silent} of {} providers did not answer: check credentials and network",
                fleet.providers().len()
            )
        } else if spoiled > 0 {
            "what the providers hold as keyring does not open: it was altered, or this is not the master key".to_owned()
        } else {
            "no provider holds a keyring for this master key: check that it is the right key file and the right accounts".to_owned()
        };
        Error::new(ErrorKind::RefusedState, message)
    })
}

/// Puts `keyring` on every provider under its version.
pub(crate) async fn plant(master: &MasterKey, keyring: &Keyring, fleet: &Fleet, entropy: &dyn Entropy) -> Result<Vec<u8>, Error> {
    let sealed = keyring
        .seal(master, Salt::draw(&mut Draw(entropy)))
        .map_err(|error| Error::caused(ErrorKind::Internal, "the keyring could not be sealed", error))?;
    let names = KeyringNames::new(master);
    let puts = fleet.providers().iter().map(async |spec| {
        let name = names.keyring(spec.id.as_str(), keyring.version);
        let put = fleet.put(&spec.id, name.as_str(), vec![sealed.clone().into()], Deadline::control()).await;
        if let Err(error) = &put {
            tracing::warn!(provider = %spec.id, %error, "a provider did not take the keyring");
        }
        put.is_ok()
    });
    let stored = join_all(puts).await.into_iter().filter(|stored| *stored).count();
    let needed = claim_quorum(fleet.domains().len());
    if stored < needed {
        return Err(Error::new(
            ErrorKind::TooFewDomains,
            format!(
                "{stored} of {} providers took the keyring, {needed} are needed: check their credentials and try again",
                fleet.providers().len()
            ),
        ));
    }
    Ok(sealed)
}

//! Copies of the keyring: one on every account, looked after at every start, which is when the master key is at hand; and the one on the
//! service's own disk, which nothing that is found elsewhere may set back.

use diaspore_block::key::{Keyring, KeyringPlace, MasterKey};
use diaspore_engine::{Engine, KeyringCopy};

use crate::failure::{Explain, Outcome};
use crate::home::Home;
use crate::output::note;
use crate::service::{Parts, entropy};
use crate::{init, secret};

/// Puts the keyring on every account that has none, and says what was found. Nothing that fails here keeps the service from serving.
pub(crate) async fn spread(parts: &Parts, engine: &Engine) {
    let copies = match engine.spread_keyring(&parts.master).await {
        Ok(copies) => copies,
        Err(error) => {
            tracing::warn!(%error, "it was not looked at which accounts hold the keyring; the next start does");
            return;
        }
    };
    for (provider, copy) in copies {
        match copy {
            KeyringCopy::Held => {}
            KeyringCopy::Planted => note(&format!("the keyring was copied to {provider}, which had none")),
            KeyringCopy::Spoiled => note(&format!(
                "warning: the keyring's copy at {provider} does not open: it was altered there. Recovery goes by the other copies; \
                 an account that alters what it stores should be left (storage providers evacuate {provider})"
            )),
            KeyringCopy::Unknown(why) => {
                note(&format!("warning: whether {provider} holds the keyring is not known, the next start looks again: {why}"));
            }
        }
    }
}

/// Puts a keyring that was found elsewhere on the disk, unless a later version of it is there already; gives the one to go on with. What
/// has to give way, another deployment's or one that this master key does not open, is kept beside it.
pub(crate) fn adopt(home: &Home, master: &MasterKey, found: Keyring) -> Outcome<Keyring> {
    let path = home.keyring();
    if path.exists() {
        let sealed = std::fs::read(&path).explain(|| format!("cannot read {}", path.display()))?;
        match Keyring::open(master, &KeyringPlace::OwnDisk, &sealed) {
            Ok(own) if own.deployment == found.deployment && own.version > found.version => {
                note(&format!(
                    "version {} of the keyring was found, version {} is on this disk: that one stays",
                    found.version, own.version
                ));
                init::publish_log_key(home, &own)?;
                return Ok(own);
            }
            Ok(own) if own.deployment == found.deployment && (own.version < found.version || own.is_same(&found)) => {}
            Ok(_) | Err(_) => {
                let beside = home.keyring_beside();
                secret::create_private(&beside, &sealed)?;
                note(&format!("warning: another keyring was on this disk: it is kept as {}", beside.display()));
            }
        }
    }
    secret::replace_private(&path, &init::seal_keyring(master, &found, *entropy()?)?)?;
    init::publish_log_key(home, &found)?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use diaspore_engine::new_keyring;

    use super::*;

    fn sealed_at(home: &Home, master: &MasterKey, keyring: &Keyring) -> Vec<u8> {
        let sealed = init::seal_keyring(master, keyring, *entropy().unwrap()).unwrap();
        secret::replace_private(&home.keyring(), &sealed).unwrap();
        sealed
    }

    /// Another keyring of the same deployment.
    fn version(of: &Keyring, version: u64) -> Keyring {
        let mut next = of.duplicate().unwrap();
        next.version = version;
        next
    }

    #[test]
    fn an_older_keyring_never_takes_the_place_of_a_newer_one() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::find(Some(folder.path()), None).unwrap();
        home.create().unwrap();
        let master = MasterKey::from_bytes([5; 32]);
        let first = new_keyring(entropy().unwrap());
        assert!(adopt(&home, &master, first.duplicate().unwrap()).unwrap().is_same(&first), "an empty disk takes what was found");
        for newest in [3, 2, 1, 4] {
            let gone_on_with = adopt(&home, &master, version(&first, newest)).unwrap();
            assert_eq!(gone_on_with.version, newest.max(3));
            assert!(init::open_keyring(&home, &master).unwrap().is_same(&gone_on_with));
        }
        assert!(home.keyring_beside().ends_with("keyring.beside-1"), "nothing had to give way");
    }

    #[test]
    fn a_keyring_that_has_to_give_way_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::find(Some(folder.path()), None).unwrap();
        home.create().unwrap();
        let (master, other) = (MasterKey::from_bytes([5; 32]), MasterKey::from_bytes([6; 32]));
        let (first, second) = (new_keyring(entropy().unwrap()), new_keyring(entropy().unwrap()));
        let strange = sealed_at(&home, &other, &version(&first, 9));
        assert!(adopt(&home, &master, first.duplicate().unwrap()).unwrap().is_same(&first));
        assert_eq!(std::fs::read(home.data().join("keyring.beside-1")).unwrap(), strange);
        let before = std::fs::read(home.keyring()).unwrap();
        assert!(adopt(&home, &master, version(&second, 1)).unwrap().is_same(&second));
        assert_eq!(std::fs::read(home.data().join("keyring.beside-2")).unwrap(), before);
    }
}

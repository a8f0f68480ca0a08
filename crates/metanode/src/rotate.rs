//! `keys rotate`: another master key for everything that is stored, without touching a block.
//!
//! Files in `data/`: `keyring` opens under the key in force, `keyring.next` under the one that is to follow, and `keyring.replaced` says
//! where copies under earlier ones may lie. Whatever moment the process dies at, the key in `master.key` opens one of the first two; a
//! start under the new key ends what was begun, one under the old key leaves it as it is.

use std::fs;
use std::path::Path;
use std::str::FromStr;

use diaspore_block::key::{Keyring, KeyringPlace, MasterKey};
use diaspore_engine::api::ErrorKind;
use diaspore_engine::{Engine, Mode, ReplacedKeys};
use serde::Serialize;

use crate::cli::Global;
use crate::cli::storage::Serve;
use crate::failure::{Exit, Explain, Failure, Outcome};
use crate::home::Home;
use crate::init;
use crate::output::note;
use crate::secret::{self, SecretSource};
use crate::service::{self, Parts, engine_failure, entropy};

/// What came of it.
#[derive(Debug, Serialize)]
struct Report {
    holders: usize,
    providers: usize,
    /// Providers that may still hold a copy under a replaced key.
    left: Vec<String>,
}

/// Runs the command.
pub(crate) async fn run(global: &Global, new_key: &str, master_key: Option<&str>) -> Outcome {
    let source = SecretSource::from_str(new_key)?;
    if let SecretSource::File(path) = &source {
        if !path.exists() {
            return draw(global, path);
        }
        secret::make_durable(path)?;
    }
    let new = MasterKey::from_bytes(*source.read_key()?);
    let serve = Serve { port: None, listen: None, master_key: master_key.map(str::to_owned) };
    let (home, config, parts) = service::prepare(global, &serve)?;
    if config.insecure {
        return Err(Failure::usage("this deployment is sealed under a published key, which cannot be replaced").hint("begin a new one"));
    }
    if !home.ledger().exists() {
        return Err(Failure::usage(format!("there is no ledger at {}", home.ledger().display()))
            .hint("metanode storage distributed recover makes it; for a service that runs --in-memory do so in another home folder"));
    }
    let own = config.service.master_key.is_none() && master_key.is_none();
    let key = if sealed_under(&home.keyring(), &new)?.is_some() { &new } else { &parts.master };
    let mut keyring = init::open_keyring(&home, key)?;
    let running = Box::pin(service::bring_up(&parts, copy(&keyring)?, Mode::Start)).await?;
    let changed = async {
        service::require_active(&running.engine)?;
        promote(&home, key)?;
        if sealed_under(&home.keyring(), &new)?.is_some() {
            // Under the old key too, if that one was given: the disk that knew of it may be lost.
            let mut replaced = load(&home, &keyring)?;
            let known = parts.master.expose() == new.expose() || replaced.holds(&parts.master);
            if !known && running.engine.recall_replaced_key(&parts.master, &mut replaced).await.map_err(engine_failure)? {
                save(&home, &keyring, &new, &replaced)?;
            }
            if replaced.is_done(&new) {
                return Ok(None);
            }
        } else {
            keyring = change(&parts, &running.engine, &keyring, &new, own.then(|| home.master_key()).as_deref()).await?;
        }
        let finished = finish(&home, &running.engine, &new, &keyring).await.map_err(|failure| {
            failure.hint("the new key is in force; the next start, or the same command again, deletes what lies under the old one")
        })?;
        Ok(Some(finished))
    };
    let outcome = Box::pin(changed).await;
    running.engine.shutdown().await.map_err(engine_failure)?;
    let Some((holders, left)) = outcome? else {
        let unchanged = serde_json::json!({ "in_force": true, "left": [] });
        return global.output.print(&unchanged, || {
            "This key is in force already, and nothing is known to lie under another: nothing was changed".to_owned()
        });
    };
    let report = Report { holders, providers: parts.specs.len(), left };
    global.output.print(&report, || text(&report))?;
    if own {
        note(&format!("hint: {} holds the new key now; keep its copy in the safe place, and there alone", home.master_key().display()));
    } else {
        note("hint: from now on the service starts with the new key: service.master_key in the configuration, or --master-key");
    }
    note(
        "hint: destroy every copy of the old key, and the backups made under it; make a new one: metanode storage distributed backup export FILE",
    );
    if report.left.is_empty() {
        return Ok(());
    }
    Err(Failure::new(Exit::Unavailable, "the old key still opens what is left: every start tries again, and so does this command"))
}

fn text(report: &Report) -> String {
    let left = if report.left.is_empty() { "none left".to_owned() } else { format!("may be left at {}", report.left.join(", ")) };
    let Report { holders, providers, .. } = report;
    format!("Keyring Under The New Key: at {holders} of {providers} providers\nCopies Under Replaced Keys: {left}")
}

/// A new key in a new file, and nothing else: a key that lies on this disk alone must never be the only one.
fn draw(global: &Global, path: &Path) -> Outcome {
    init::draw_master_key(path)?;
    global.output.print(&serde_json::json!({ "drawn": path }), || format!("Drawn: a new master key, in {}", path.display()))?;
    note(
        "hint: nothing else was changed. Copy it to where the copy of the present one is kept, stop the service, and run the same command again",
    );
    Ok(())
}

/// From the key in force to the new one, on the disk and at a claim quorum. Gives the keyring as it is sealed under the new one.
async fn change(parts: &Parts, engine: &Engine, keyring: &Keyring, new: &MasterKey, own_key: Option<&Path>) -> Outcome<Keyring> {
    let home = &parts.home;
    let mut replaced = load(home, keyring)?;
    if replaced.holds(new) && sealed_under(&home.next_keyring(), new)?.is_none() {
        return Err(
            Failure::usage("this key was replaced or given up before").hint("name a file that does not exist: a key is drawn into it")
        );
    }
    engine.check_keyring(&parts.master).await.map_err(|error| {
        engine_failure(error)
            .hint("a newer one that was begun: metanode storage distributed start completes it, recover fetches it")
            .hint("a key that was replaced from another machine: metanode storage distributed recover with the new one")
    })?;
    // Known before anything is sealed under the new key: whichever of the two is in force at a later start, what lies under the other goes.
    let providers = || parts.specs.iter().map(|spec| &spec.id);
    replaced.add(&parts.master, keyring, providers());
    save(home, keyring, new, &replaced)?;
    let next = planned(home, keyring, new)?;
    replaced.add(new, &next, providers());
    save(home, keyring, new, &replaced)?;
    engine.reseal_keyring(new, &next).await.map_err(|error| {
        let fork = error.kind == ErrorKind::RefusedState;
        let failure = engine_failure(error).hint("the old key is in force as before; the same command again completes what is missing");
        if fork {
            failure.hint("if another disk was to change to this very key, and was lost: take a key that was never used")
        } else {
            failure
        }
    })?;
    if let Some(path) = own_key {
        secret::replace_private(path, init::key_text(new).as_bytes())?;
    }
    secret::rename(&home.next_keyring(), &home.keyring())?;
    Ok(next)
}

/// The keyring that is to lie under the new key, noted on the disk before any provider sees it: versions count from 1 under each master
/// key, and one that was begun with other keys in it is never given to anything else.
fn planned(home: &Home, keyring: &Keyring, new: &MasterKey) -> Outcome<Keyring> {
    let path = home.next_keyring();
    let mut next = copy(keyring)?;
    next.version = 1;
    if path.exists() {
        let begun = sealed_under(&path, new)?.ok_or_else(|| {
            Failure::new(Exit::Refused, "a change to another new key was begun")
                .hint("give that key, to end it")
                .hint(format!("if that key is lost: delete {}, and begin anew", path.display()))
        })?;
        next.version = begun.version;
        if next.is_same(&begun) {
            return Ok(next);
        }
        next.version = begun.version.saturating_add(1);
    }
    secret::replace_private(&path, &init::seal_keyring(new, &next, *entropy()?)?)?;
    Ok(next)
}

/// Takes up the keyring under `master`, when the change to it was cut off behind the point of no return. Only who holds the ledger does.
pub(crate) fn promote(home: &Home, master: &MasterKey) -> Outcome {
    let next = home.next_keyring();
    if !next.exists() || sealed_under(&next, master)?.is_none() {
        return Ok(());
    }
    if sealed_under(&home.keyring(), master)?.is_some() {
        // A recovery fetched it meanwhile.
        return fs::remove_file(&next).explain(|| format!("cannot remove {}", next.display()));
    }
    secret::rename(&next, &home.keyring())
}

/// At a start: ends what is left of earlier changes. What cannot be ended now is tried by the next start. False while a change is cut off
/// before the new key was in force: what lies under either stays, and the keyring must not grow.
pub(crate) async fn finish_at_start(home: &Home, engine: &Engine, master: &MasterKey, keyring: &Keyring) -> Outcome<bool> {
    if home.next_keyring().exists() {
        note("warning: a change of the master key was cut off, the old one is in force: metanode keys rotate ends it");
        return Ok(false);
    }
    if load(home, keyring)?.is_done(master) {
        return Ok(true);
    }
    match finish(home, engine, master, keyring).await {
        Ok((_, left)) if left.is_empty() => note("the master key was replaced: no copy of the keyring is left under the one before"),
        Ok((_, left)) => note(&format!("warning: a replaced master key may still open copies of the keyring at {}", left.join(", "))),
        Err(failure) => note(&format!("warning: what lies under a replaced master key was not deleted: {}", failure.message)),
    }
    Ok(true)
}

/// Gives how many providers show the keyring under `master`, and those where a copy may be left under an earlier key.
async fn finish(home: &Home, engine: &Engine, master: &MasterKey, keyring: &Keyring) -> Outcome<(usize, Vec<String>)> {
    let mut replaced = load(home, keyring)?;
    let holders = engine.finish_rotation(master, keyring, &mut replaced).await.map_err(engine_failure)?;
    save(home, keyring, master, &replaced)?;
    Ok((holders, replaced.left(master).into_iter().collect()))
}

fn load(home: &Home, keyring: &Keyring) -> Outcome<ReplacedKeys> {
    let path = home.replaced_keys();
    if !path.exists() {
        return Ok(ReplacedKeys::default());
    }
    let sealed = fs::read(&path).explain(|| format!("cannot read {}", path.display()))?;
    ReplacedKeys::open(keyring, &sealed).map_err(|error| {
        Failure::new(Exit::Integrity, format!("{} does not open: {error}", path.display()))
            .hint("it says where copies of the keyring lie under replaced master keys; without it these stay there: move it away")
    })
}

fn save(home: &Home, keyring: &Keyring, master: &MasterKey, replaced: &ReplacedKeys) -> Outcome {
    let path = home.replaced_keys();
    if replaced.is_done(master) {
        return match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).explain(|| format!("cannot remove {}", path.display()))
            }
            _ => Ok(()),
        };
    }
    let sealed = replaced.seal(keyring, entropy()?).explain(|| "cannot seal the list of replaced keys".to_owned())?;
    secret::replace_private(&path, &sealed)
}

/// The keyring in this file, if it is there and `master` opens it.
pub(crate) fn sealed_under(path: &Path, master: &MasterKey) -> Outcome<Option<Keyring>> {
    match fs::read(path) {
        Ok(sealed) => Ok(Keyring::open(master, &KeyringPlace::OwnDisk, &sealed).ok()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).explain(|| format!("cannot read {}", path.display())),
    }
}

/// A keyring of one's own, to be changed or given away.
pub(crate) fn copy(keyring: &Keyring) -> Outcome<Keyring> {
    keyring.duplicate().explain(|| "the keyring does not copy".to_owned())
}

#[cfg(test)]
mod tests {
    use diaspore_engine::new_keyring;

    use super::*;

    struct Disk {
        home: Home,
        keyring: Keyring,
        keys: [MasterKey; 3],
        _folder: tempfile::TempDir,
    }

    /// A keyring on the disk, under the first key.
    fn disk() -> Disk {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::find(Some(folder.path()), None).unwrap();
        home.create().unwrap();
        let keyring = new_keyring(entropy().unwrap());
        let keys = [5, 6, 7].map(|byte| MasterKey::from_bytes([byte; 32]));
        let sealed = init::seal_keyring(&keys[0], &keyring, *entropy().unwrap()).unwrap();
        secret::replace_private(&home.keyring(), &sealed).unwrap();
        Disk { home, keyring, keys, _folder: folder }
    }

    #[test]
    fn a_plan_is_kept_until_the_keys_are_others() {
        let Disk { home, mut keyring, keys, _folder } = disk();
        keyring.version = 20;
        let planned_version = |keyring: &Keyring| planned(&home, keyring, &keys[1]).unwrap().version;
        assert_eq!((planned_version(&keyring), planned_version(&keyring)), (1, 1));
        keyring.tenants.pop_first();
        assert_eq!((planned_version(&keyring), planned_version(&keyring)), (2, 2));
        let refused = planned(&home, &keyring, &keys[2]).unwrap_err();
        assert_eq!(refused.exit, Exit::Refused, "{refused}");
        assert!(init::open_keyring(&home, &keys[0]).unwrap().version == 1, "the key in force opens what it opened before");
        assert!(init::open_keyring(&home, &keys[1]).unwrap().is_same(&planned(&home, &keyring, &keys[1]).unwrap()));
    }

    #[test]
    fn whichever_key_is_in_force_opens_what_a_change_left() {
        let Disk { home, keyring, keys, _folder } = disk();
        planned(&home, &keyring, &keys[1]).unwrap();
        for _ in 0..2 {
            promote(&home, &keys[0]).unwrap();
            assert!(home.next_keyring().exists() && sealed_under(&home.keyring(), &keys[0]).unwrap().is_some());
        }
        for _ in 0..2 {
            promote(&home, &keys[1]).unwrap();
            assert!(!home.next_keyring().exists() && sealed_under(&home.keyring(), &keys[1]).unwrap().is_some());
        }
        // A recovery under the new key fetched the same keyring.
        planned(&home, &keyring, &keys[1]).unwrap();
        promote(&home, &keys[1]).unwrap();
        assert!(!home.next_keyring().exists() && sealed_under(&home.keyring(), &keys[1]).unwrap().is_some());
    }

    #[test]
    fn replaced_keys_are_noted_sealed_until_nothing_is_left() {
        let Disk { home, keyring, keys, _folder } = disk();
        let mut replaced = load(&home, &keyring).unwrap();
        replaced.add(&keys[0], &keyring, []);
        save(&home, &keyring, &keys[1], &replaced).unwrap();
        assert!(load(&home, &keyring).unwrap().holds(&keys[0]) && !load(&home, &keyring).unwrap().holds(&keys[1]));
        assert_eq!(load(&home, &new_keyring(entropy().unwrap())).unwrap_err().exit, Exit::Integrity);
        save(&home, &keyring, &keys[0], &replaced).unwrap();
        assert!(!home.replaced_keys().exists());
    }
}

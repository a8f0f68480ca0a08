//! What the quickstart stores: a real folder, or what every machine that built this has lying around.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use walkdir::WalkDir;

use crate::blob::{Folder, PutFile};
use crate::failure::{Explain, Failure, Outcome};

/// Folders that are made, not written.
const LEFT_OUT: [&str; 3] = [".git", "target", "node_modules"];

/// Copies up to `cap` bytes of real files into `into`, so that nobody changes them while they are compared.
pub(super) fn gather(asked: Option<&Path>, cap: u64, into: &Path) -> Outcome<Folder> {
    let roots = match asked {
        Some(path) if path.is_dir() => vec![("data", path.to_path_buf())],
        Some(path) => return Err(Failure::usage(format!("{} is no folder", path.display())).hint("--data takes a folder")),
        None => usual_roots(),
    };
    let (mut folder, mut left, mut names) = (Folder::default(), cap, BTreeSet::new());
    let count = u64::try_from(roots.len()).unwrap_or(1);
    for (at, (name, root)) in roots.iter().enumerate() {
        // Every root gets a fair share of what is left, so that the mix stays a mix.
        let behind = count.saturating_sub(u64::try_from(at).unwrap_or_default()).max(1);
        let share = left / behind;
        let taken = take(root, name, share, into, &mut names, &mut folder.files)?;
        left = left.saturating_sub(taken);
    }
    if folder.files.is_empty() {
        return Err(Failure::plain("there is no data to store").hint("--data FOLDER names some"));
    }
    Ok(folder)
}

/// The project's checkout, the toolchain's documentation, the sources that cargo fetched.
fn usual_roots() -> Vec<(&'static str, PathBuf)> {
    let mut roots = Vec::new();
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    roots.extend(checkout.map(|path| ("checkout", path.to_path_buf())));
    let printed = Command::new("rustc").args(["--print", "sysroot"]).output().ok().filter(|output| output.status.success());
    if let Some(sysroot) = printed.and_then(|output| String::from_utf8(output.stdout).ok()) {
        let sysroot = PathBuf::from(sysroot.trim());
        roots.push(("toolchain-doc", sysroot.join("share/doc")));
        roots.push(("toolchain-src", sysroot.join("lib/rustlib/src")));
    }
    let cargo = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    roots.extend(cargo.map(|cargo| ("cargo-src", cargo.join("registry/src"))));
    roots.retain(|(_, path)| path.is_dir());
    roots
}

/// Takes files of one root in name order until `share` bytes are reached. Returns the bytes taken.
fn take(root: &Path, name: &str, share: u64, into: &Path, names: &mut BTreeSet<PathBuf>, files: &mut Vec<PutFile>) -> Outcome<u64> {
    let wanted = |entry: &walkdir::DirEntry| {
        let left_out =
            entry.depth() > 0 && entry.file_type().is_dir() && entry.file_name().to_str().is_some_and(|name| LEFT_OUT.contains(&name));
        !left_out
    };
    let mut taken = 0;
    for entry in WalkDir::new(root).sort_by_file_name().into_iter().filter_entry(wanted).flatten() {
        if !entry.file_type().is_file() {
            continue;
        }
        let Ok(size) = entry.metadata().map(|metadata| metadata.len()) else { continue };
        if taken + size > share {
            continue;
        }
        let Ok(relative) = entry.path().strip_prefix(root) else { continue };
        let named = Path::new(name).join(relative);
        let copy = into.join(&named);
        if !names.insert(named.clone()) {
            continue;
        }
        if let Some(parent) = copy.parent() {
            std::fs::create_dir_all(parent).explain(|| format!("cannot make {}", parent.display()))?;
        }
        // A file that cannot be read is somebody else's; the data set does without it.
        let Ok(copied) = std::fs::copy(entry.path(), &copy) else { continue };
        taken += copied;
        files.push(PutFile { key: std::os::unix::ffi::OsStrExt::as_bytes(named.as_os_str()).to_vec(), path: copy, size: copied });
    }
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cap_holds_and_made_folders_stay_out() {
        let (from, into) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for (name, size) in [("a", 100), ("b/c", 200), ("target/x", 10), (".git/y", 10), ("z", 900)] {
            let path = from.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, vec![1; size]).unwrap();
        }
        let folder = gather(Some(from.path()), 500, into.path()).unwrap();
        let keys: Vec<&[u8]> = folder.files.iter().map(|file| file.key.as_slice()).collect();
        assert_eq!(keys, [&b"data/a"[..], b"data/b/c"]);
        assert_eq!(folder.bytes(), 300);
        assert!(gather(Some(Path::new("/nowhere")), 500, into.path()).is_err());
    }
}

//! Tenants, buckets and API keys: names in the log, decided one after the other under the locks of [`locks`].

mod access;
mod locks;

use std::sync::Arc;

use diaspore_block::id::{BucketId, Seq, TenantId};
use diaspore_block::record::{BucketCreated, BucketDeleted, TenantCreated};
use diaspore_ledger::{BucketEntry, LedgerError, Snapshot};

use crate::api::{BucketInfo, Caller, Error, ErrorKind, TenantInfo};
use crate::commit::{CommitRequest, NewRecord};
use crate::shared::{Ground, Shared};

pub(crate) use access::{api_keys, authenticate, create_api_key, revoke_api_key};
pub(crate) use locks::KeyLocks;

/// Entries read from the ledger at once.
const PAGE: usize = 1000;
/// Longest tenant name and API key label in bytes.
const MAX_LABEL: usize = 128;

/// What a failing local store means to a caller.
pub(crate) fn local(error: LedgerError) -> Error {
    if matches!(error, LedgerError::Full) {
        return disk_full();
    }
    if matches!(error, LedgerError::ReadOnly) {
        return Error::new(ErrorKind::ReadOnly, "the service is read-only: nothing is written");
    }
    Error::caused(ErrorKind::LocalStore, "the local store failed; see the service's log", error)
}

/// The refusal of every change while the disk is full.
pub(crate) fn disk_full() -> Error {
    let what =
        "not accepted: the service's own disk is full; free space there: changes are taken again within seconds, reads go on meanwhile";
    Error::new(ErrorKind::InsufficientStorage, what)
}

/// The newest state, if it may be shown.
pub(crate) fn view(shared: &Shared) -> Result<Snapshot, Error> {
    shared.check_readable()?;
    shared.ledger.snapshot().map_err(local)
}

fn check_label(what: &str, name: &str) -> Result<(), Error> {
    if name.is_empty() || name.len() > MAX_LABEL || name.chars().any(char::is_control) {
        return Err(Error::new(ErrorKind::Invalid, format!("{what} must have 1 to {MAX_LABEL} bytes without control characters")));
    }
    Ok(())
}

/// All tenants in name order.
pub(crate) fn tenants(shared: &Shared) -> Result<Vec<TenantInfo>, Error> {
    let view = view(shared)?;
    let mut found: Vec<TenantInfo> = Vec::new();
    loop {
        let page = view.tenants(found.last().map(|tenant| tenant.id), PAGE).map_err(local)?;
        let last = page.len() < PAGE;
        found.extend(page.into_iter().map(|entry| TenantInfo { name: entry.name, id: entry.id }));
        if last {
            break;
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// The tenant of a name.
pub(crate) fn tenant(shared: &Shared, name: &str) -> Result<Option<TenantInfo>, Error> {
    let entry = view(shared)?.tenant_by_name(name).map_err(local)?;
    Ok(entry.map(|entry| TenantInfo { name: entry.name, id: entry.id }))
}

/// Names one of the tenants whose keys the keyring already holds: keys come first, so that no record is ever sealed under
/// keys that only this process knows.
pub(crate) async fn create_tenant(shared: &Arc<Shared>, name: &str) -> Result<TenantInfo, Error> {
    check_label("a tenant name", name)?;
    shared.check_writable()?;
    let by = shared.answer_by();
    let guard = shared.locks.lock_bucket(BucketId::NIL, by).await?;
    if tenant(shared, name)?.is_some() {
        return Err(Error::new(ErrorKind::AlreadyExists, "a tenant of this name exists already"));
    }
    let view = view(shared)?;
    let mut free = None;
    for id in shared.keys.tenants.keys() {
        if view.tenant(*id).map_err(local)?.is_none() {
            free = Some(*id);
            break;
        }
    }
    let Some(id) = free else {
        return Err(Error::new(
            ErrorKind::NotAccepted,
            format!(
                "all {} tenants that the running service has keys for are named: a start that finds few left makes room for {} more once \
                 every provider answers, and the start after it has them",
                shared.keys.tenants.len(),
                crate::keyring::TENANT_SLOTS
            ),
        ));
    };
    let record = NewRecord::system(TenantCreated { tenant: id, name: name.to_owned() }).within(id).about(id);
    shared.committer.submit(CommitRequest::single(record, guard), by).await?;
    Ok(TenantInfo { name: name.to_owned(), id })
}

/// The bucket of a name, as the ledger knows it.
pub(crate) fn bucket(shared: &Shared, tenant: TenantId, name: &str) -> Result<BucketEntry, Error> {
    let found = view(shared)?.bucket(tenant, name).map_err(local)?;
    found.ok_or_else(|| Error::new(ErrorKind::UnknownBucket, "no such bucket"))
}

fn info(entry: BucketEntry) -> BucketInfo {
    BucketInfo { name: entry.name, id: entry.id, created: entry.created }
}

/// The same for callers.
pub(crate) fn bucket_info(shared: &Shared, tenant: TenantId, name: &str) -> Result<BucketInfo, Error> {
    bucket(shared, tenant, name).map(info)
}

/// A tenant's buckets in name order.
pub(crate) fn list_buckets(shared: &Shared, tenant: TenantId) -> Result<Vec<BucketInfo>, Error> {
    let view = view(shared)?;
    let mut found: Vec<BucketInfo> = Vec::new();
    loop {
        let after = found.last().map(|bucket| bucket.name.clone());
        let page = view.buckets(tenant, "", after.as_deref(), PAGE).map_err(local)?;
        let last = page.len() < PAGE;
        found.extend(page.into_iter().map(info));
        if last {
            return Ok(found);
        }
    }
}

/// Bucket names as S3 has them: 3 to 63 of `a-z 0-9 . -`, a letter or digit at both ends, no two dots in a row.
fn check_bucket_name(name: &str) -> Result<(), Error> {
    let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let inner = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-'));
    if (3..=63).contains(&name.len()) && inner && edge(name.bytes().next()) && edge(name.bytes().last()) && !name.contains("..") {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Invalid,
        "a bucket name has 3 to 63 characters of a-z, 0-9, '.' and '-', begins and ends with a letter or digit, and has no two dots in a row",
    ))
}

fn known_tenant(ground: &Ground, view: &Snapshot, tenant: TenantId) -> Result<diaspore_block::id::KeyVersion, Error> {
    let unknown = || Error::new(ErrorKind::Invalid, "no such tenant");
    view.tenant(tenant).map_err(local)?.ok_or_else(unknown)?;
    ground.keys.tenant(tenant).map(|keys| keys.current).map_err(|error| Error::caused(ErrorKind::Invalid, "the tenant has no keys", error))
}

/// Creates a bucket.
pub(crate) async fn create_bucket(shared: &Arc<Shared>, caller: &Caller, name: &str) -> Result<BucketInfo, Error> {
    check_bucket_name(name)?;
    shared.check_writable()?;
    let tenant = caller.tenant;
    let by = shared.answer_by();
    let guard = shared.locks.lock(BucketId::NIL, &[tenant.as_bytes().as_slice(), name.as_bytes()].concat(), by).await?;
    let view = view(shared)?;
    let key_version = known_tenant(shared, &view, tenant)?;
    if view.bucket(tenant, name).map_err(local)?.is_some() {
        return Err(Error::new(ErrorKind::AlreadyExists, "a bucket of this name exists already"));
    }
    let bucket = BucketId::draw(&mut shared.rng());
    let record = of(caller, BucketCreated { bucket, name: name.to_owned(), key_version }).about(bucket);
    shared.committer.submit(CommitRequest::single(record, guard), by).await?;
    bucket_info(shared, tenant, name)
}

/// Deletes an empty bucket. Waits for writers in it and keeps new ones away until it is decided.
pub(crate) async fn delete_bucket(shared: &Arc<Shared>, caller: &Caller, name: &str) -> Result<Seq, Error> {
    shared.check_writable()?;
    let tenant = caller.tenant;
    let by = shared.answer_by();
    let by_name = shared.locks.lock(BucketId::NIL, &[tenant.as_bytes().as_slice(), name.as_bytes()].concat(), by).await?;
    let id = bucket(shared, tenant, name)?.id;
    let exclusive = shared.locks.lock_bucket(id, by).await?;
    let entry = bucket(shared, tenant, name)?;
    if entry.blobs > 0 {
        return Err(Error::new(ErrorKind::BucketNotEmpty, format!("the bucket still holds {} blobs: delete them first", entry.blobs)));
    }
    let record = of(caller, BucketDeleted { bucket: id, name: name.to_owned() }).about(id);
    let committed = shared.committer.submit(CommitRequest::single(record, (by_name, exclusive)), by).await?;
    Ok(committed.seq)
}

/// A record of the caller in its tenant's section.
fn of(caller: &Caller, private: impl Into<diaspore_block::record::Private>) -> NewRecord {
    let mut record = NewRecord::system(private).by(caller.principal);
    record.tenant = caller.tenant;
    record
}

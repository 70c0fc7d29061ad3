//! Tending a store: checking all of it, showing it, copying it.

use std::path::Path;

use super::SqliteStore;
use super::layout::{FILE, revision_of};
use super::lock::DirLock;
use super::read::{LogRow, View, with_view};
use crate::{Entry, Error, KeyRange, Result, Revision};

/// What [`SqliteStore::verify`] found in a sound store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    pub revision: Revision,
    pub compacted: Revision,
    pub keys: u64,
    /// Changes in the log, current values included.
    pub changes: u64,
}

impl SqliteStore {
    /// Reads every byte of the closed store in `dir`: SQLite's own structure, each row's checksum, and that keys and history
    /// agree. Error: `Corrupt` with the first thing that is wrong; `Locked` if the store is open.
    pub fn verify(dir: &Path) -> Result<Verified> {
        let _lock = DirLock::take(dir)?;
        with_view(dir, verify)
    }

    /// Shows every entry of the closed store in `dir` as of revision `at` (`None`: the newest), in key order.
    pub fn dump(dir: &Path, at: Option<Revision>, mut show: impl FnMut(&Entry)) -> Result<Revision> {
        let _lock = DirLock::take(dir)?;
        with_view(dir, |view| {
            let mut range = KeyRange::all();
            loop {
                let page = view.scan(&range, at, 1000)?;
                page.entries.iter().for_each(&mut show);
                match page.entries.last() {
                    Some(last) if page.more => range = range.after(&last.key),
                    _ => return Ok(page.revision),
                }
            }
        })
    }

    /// Writes a compact copy of the open store, as of one moment, into the new directory `target`, while it goes on working.
    /// The copy is opened like any other store. It appears under its name only when it is complete and durable.
    pub async fn backup(&self, target: &Path) -> Result<()> {
        let target = target.to_owned();
        self.inner.open()?;
        self.inner.readers.run_outside_transaction(move |view| backup(view, &target)).await
    }
}

fn backup(view: &View<'_>, target: &Path) -> Result<()> {
    let failed = |error: std::io::Error| Error::system("back up to", target, error);
    if target.exists() {
        return Err(Error::io("back up to", target, "it exists already"));
    }
    let mut name =
        target.file_name().ok_or_else(|| Error::io("back up to", target, "not a directory's name"))?.to_owned();
    name.push(".partial");
    let partial = target.with_file_name(name);
    if partial.exists() {
        std::fs::remove_dir_all(&partial).map_err(failed)?;
    }
    std::fs::create_dir_all(&partial).map_err(failed)?;
    let file = partial.join(FILE);
    let path = file.to_str().ok_or_else(|| Error::io("back up to", target, "the name is not UTF-8"))?;
    // The flag that keeps a reading connection from writing by mistake forbids this, too.
    let copied = view.place.sql("back up", || {
        view.connection.pragma_update(None, "query_only", false)?;
        let copied = view.connection.execute("VACUUM INTO ?1", [path]);
        view.connection.pragma_update(None, "query_only", true)?;
        copied
    });
    if let Err(error) = copied {
        let _ = std::fs::remove_dir_all(&partial);
        return Err(error);
    }
    for path in [file.as_path(), partial.as_path()] {
        std::fs::File::open(path).and_then(|file| file.sync_all()).map_err(failed)?;
    }
    std::fs::rename(&partial, target).map_err(failed)?;
    let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::File::open(parent).and_then(|dir| dir.sync_all()).map_err(failed)
}

fn verify(view: &View<'_>) -> Result<Verified> {
    let place = view.place;
    let said: String =
        place.sql("verify", || view.connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)))?;
    if said != "ok" {
        return Err(place.corrupt(said));
    }
    let meta = view.meta()?;
    let mut found = Verified { revision: meta.revision, compacted: meta.compacted, keys: 0, changes: 0 };
    let mut statement = place.sql("verify", || {
        view.connection.prepare("SELECT id, previous, created, version, crc, key, value FROM log ORDER BY id")
    })?;
    let mut rows = place.sql("verify", || statement.query([]))?;
    while let Some(row) = place.sql("verify", || rows.next()?.map(LogRow::read).transpose())? {
        let row = row.checked(place)?;
        if revision_of(row.id) > meta.revision || row.previous >= row.id {
            return Err(place.corrupt(format!("a change at revision {} is out of order", revision_of(row.id))));
        }
        found.changes += 1;
    }
    // Every key must end in its last change, and every change's key must be listed.
    let orphan: Option<Vec<u8>> = place.sql("verify", || {
        view.connection.query_row(
            "SELECT min(key) FROM (
                SELECT cur.key FROM cur LEFT JOIN log ON log.id = cur.id
                WHERE log.id IS NULL OR log.key != cur.key OR (log.value IS NOT NULL) != cur.live
                UNION ALL
                SELECT key FROM (SELECT key, max(id) AS id FROM log GROUP BY key) AS newest
                WHERE NOT EXISTS (SELECT 1 FROM cur WHERE cur.key = newest.key AND cur.id = newest.id))",
            [],
            |row| row.get(0),
        )
    })?;
    if let Some(key) = orphan {
        return Err(place.corrupt(format!("{} and its history disagree", String::from_utf8_lossy(&key))));
    }
    found.keys = place.sql("verify", || {
        view.connection.query_row("SELECT count(*) FROM cur WHERE live", [], |row| row.get::<_, i64>(0))
    })? as u64;
    Ok(found)
}

//! Listings: page by page where the store can, each page a request of its own, and with the lengths
//! of large objects, whose commit objects are looked into once.

use crate::deadline::{Deadline, Patience};
use crate::engine::check_free_key;
use crate::pointer::{HEADER, Pointer, may_be_pointer};
use crate::remote::Remote;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::list::PaginatedListOptions;
use object_store::path::Path;
use object_store::{Error as StoreError, ObjectMeta, ObjectStore, ObjectStoreExt};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tensorkeep::Result;
use tensorkeep::engine::Entry;

/// Requests of one listing at a time.
const IN_FLIGHT: usize = 16;

/// How many pages of a thousand objects one listing of a whole run may have.
const MOST_PAGES: usize = 3;

/// An object and its version: none is written twice, but another program may have replaced it.
type Version = (Path, Option<String>);

/// Lengths of large objects: of each folder, those that its last listing had.
#[derive(Debug, Default)]
pub(crate) struct Lengths(Mutex<HashMap<String, HashMap<Version, u64>>>);

impl Remote {
    /// The committed objects directly under a folder.
    pub(crate) fn list(&self, folder: &str, lengths: &Lengths) -> Result<Vec<Entry>> {
        let objects = self.list_objects(folder, true)?;
        self.entries(folder, objects, lengths)
    }

    /// The same of several folders, out of one listing of all that is under the run. None where
    /// that is long, or where the store shows no pages, so that it would be read to its end: other
    /// runs may lie below this one.
    pub(crate) fn list_together(
        &self,
        folders: &[&str],
        lengths: &Lengths,
    ) -> Result<Option<Vec<Vec<Entry>>>> {
        let Some(objects) = self.list_pages("", false, MOST_PAGES)? else { return Ok(None) };
        self.note_left(&objects);
        let in_each = folders.iter().map(|folder| {
            let directly = self.path(folder);
            let is_in = |meta: &&ObjectMeta| parent(meta.location.as_ref()) == directly.as_ref();
            self.entries(folder, objects.iter().filter(is_in).cloned().collect(), lengths)
        });
        in_each.collect::<Result<_>>().map(Some)
    }

    fn entries(&self, folder: &str, objects: Vec<ObjectMeta>, lengths: &Lengths) -> Result<Vec<Entry>> {
        let key = |meta: &ObjectMeta| {
            let name = meta.location.filename()?;
            let key = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
            check_free_key(&key).is_ok().then_some(key)
        };
        let (mut maybe_large, mut entries) = (Vec::new(), Vec::new());
        for meta in objects {
            match key(&meta) {
                Some(key) if may_be_pointer(meta.size) => maybe_large.push((key, meta)),
                Some(key) => entries.push(Entry { key, len: meta.size }),
                None => {}
            }
        }
        entries.extend(self.look_into(folder, maybe_large, lengths)?);
        Ok(entries)
    }

    /// All objects under a folder, or those directly in it.
    pub(crate) fn list_objects(&self, folder: &str, direct: bool) -> Result<Vec<ObjectMeta>> {
        if self.pages.is_some() {
            return Ok(self.list_pages(folder, direct, usize::MAX)?.unwrap_or_default());
        }
        let (remote, path, patience) = (self.clone(), self.path(folder), self.patience());
        self.run(
            "listing",
            folder,
            async move { list_at_once(&*remote.store, &path, direct, patience).await },
        )
    }

    /// Page by page; None when there are more pages than that, and on a store without them.
    fn list_pages(&self, folder: &str, direct: bool, most: usize) -> Result<Option<Vec<ObjectMeta>>> {
        let (remote, path, patience) = (self.clone(), self.path(folder), self.patience());
        self.run("listing", folder, async move {
            let Some(pages) = &remote.pages else { return Ok(None) };
            let prefix = (!path.as_ref().is_empty()).then(|| format!("{path}/"));
            let (mut objects, mut page_token) = (Vec::new(), None);
            for _ in 0..most {
                let deadline = patience.begin(0);
                let page = deadline.retry(0, || {
                    let delimiter = direct.then_some("/".into());
                    let page_token = page_token.clone();
                    let options =
                        PaginatedListOptions { delimiter, page_token, ..PaginatedListOptions::default() };
                    pages.list_paginated(prefix.as_deref(), options)
                });
                let page = page.await?;
                objects.extend(page.result.objects);
                page_token = page.page_token;
                if page_token.is_none() {
                    return Ok(Some(objects));
                }
            }
            Ok(None)
        })
    }

    /// Entries of what may be commit objects: each is looked into once and remembered, since none
    /// ever changes.
    fn look_into(
        &self,
        folder: &str,
        objects: Vec<(String, ObjectMeta)>,
        lengths: &Lengths,
    ) -> Result<Vec<Entry>> {
        let version = |meta: &ObjectMeta| (meta.location.clone(), meta.e_tag.clone());
        let mut known = lengths.of(folder);
        let listed: Vec<Version> = objects.iter().map(|(_, meta)| version(meta)).collect();
        let unknown = objects.iter().filter(|(_, meta)| !known.contains_key(&version(meta)));
        let unknown: Vec<ObjectMeta> = unknown.map(|(_, meta)| meta.clone()).collect();
        let (store, patience) = (Arc::clone(&self.store), self.patience());
        let found = self.run("looking into commit objects", folder, async move {
            let requests = unknown.into_iter().map(|meta| {
                let (store, patience) = (Arc::clone(&store), patience.clone());
                async move {
                    let deadline = patience.begin(0);
                    read_pointer(&*store, &meta.location, &deadline).await.map(|pointer| (meta, pointer))
                }
            });
            stream::iter(requests).buffered(IN_FLIGHT).try_collect::<Vec<_>>().await
        })?;
        for (meta, header) in found {
            let Some(header) = header else { continue };
            // One that does not hold together is listed as it lies there: opening it says what is
            // wrong.
            let pointer = Pointer::parse(&header).ok().flatten();
            known.insert(version(&meta), pointer.map_or(meta.size, |pointer| pointer.len));
        }
        // What is not listed any more is forgotten: a run makes no end of checkpoints.
        let kept = listed.into_iter().filter_map(|version| known.remove_entry(&version)).collect();
        let kept = lengths.remember(folder, kept);
        // What has no length was deleted since it was listed.
        let entry = |(key, meta)| kept.get(&version(&meta)).map(|&len| Entry { key, len });
        Ok(objects.into_iter().filter_map(entry).collect())
    }

    /// Where the commit object of a key says that the bytes are, when they are its own.
    pub(crate) fn target(&self, key: &str, deadline: &Deadline) -> Result<Option<String>> {
        let (store, path, deadline) = (Arc::clone(&self.store), self.path(key), deadline.clone());
        let header =
            self.run("reading", key, async move { read_pointer(&*store, &path, &deadline).await })?;
        let pointer = header.and_then(|header| Pointer::parse(&header).ok().flatten());
        Ok(pointer.filter(|pointer| pointer.is_of(key)).map(|pointer| pointer.target))
    }
}

impl Lengths {
    fn of(&self, folder: &str) -> HashMap<Version, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(folder).cloned().unwrap_or_default()
    }

    fn remember(&self, folder: &str, lengths: HashMap<Version, u64>) -> HashMap<Version, u64> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match lengths.is_empty() {
            true => drop(all.remove(folder)),
            false => drop(all.insert(folder.to_owned(), lengths.clone())),
        }
        lengths
    }

    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().map(HashMap::len).sum()
    }
}

/// What comes before the last segment of a path.
fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// On a store that the caller built, which shows no pages: all of them are one request.
async fn list_at_once(
    store: &dyn ObjectStore,
    path: &Path,
    direct: bool,
    patience: Patience,
) -> Result<Vec<ObjectMeta>, StoreError> {
    let prefix = (!path.as_ref().is_empty()).then_some(path);
    patience
        .whole(0)
        .retry(0, || async {
            match direct {
                true => store.list_with_delimiter(prefix).await.map(|listed| listed.objects),
                false => store.list(prefix).try_collect().await,
            }
        })
        .await
}

/// The text of what may be a commit object; None when nothing is there.
pub(crate) async fn read_pointer(
    store: &dyn ObjectStore,
    path: &Path,
    deadline: &Deadline,
) -> Result<Option<Bytes>, StoreError> {
    match deadline.retry(0, || store.get_range(path, 0..HEADER as u64)).await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(StoreError::NotFound { .. }) => Ok(None),
        // One that is shorter is none.
        Err(error) => match deadline.retry(0, || store.head(path)).await {
            Ok(meta) if !may_be_pointer(meta.size) => Ok(Some(Bytes::new())),
            Err(StoreError::NotFound { .. }) => Ok(None),
            _ => Err(error),
        },
    }
}

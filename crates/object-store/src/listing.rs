//! Listings: page by page where the store can, each page a request of its own, and with the lengths
//! of large objects, whose commit objects are read once.

use crate::at_key::AtKey;
use crate::deadline::Patience;
use crate::pointer::may_be_pointer;
use crate::remote::{Remote, check_free_key};
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::list::{PaginatedListOptions, PaginatedListResult, PaginatedListStore};
use object_store::path::Path;
use object_store::{Error as StoreError, ObjectMeta, ObjectStore};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use tensorkeep::Result;
use tensorkeep::engine::Entry;

/// Requests of one listing at a time.
const IN_FLIGHT: usize = 16;

/// How many pages of a thousand objects one listing of a whole run may have.
const MOST_PAGES: usize = 3;

/// An object and its version: none is written twice, but another program may have replaced it.
type Version = (Path, Option<String>);

/// Lengths of large objects: for each folder, those in its last listing.
#[derive(Debug, Default)]
pub(crate) struct Lengths(Mutex<HashMap<String, HashMap<Version, u64>>>);

impl Remote {
    /// The committed objects directly under a folder.
    pub(crate) fn list(&self, folder: &str, lengths: &Lengths) -> Result<Vec<Entry>> {
        self.entries(folder, &self.list_objects(folder, true)?, lengths)
    }

    /// The same for several folders, from one listing of everything under the run. None where that
    /// is long, or where the store has no pages, so that it would be read to its end: other runs
    /// may lie below this one.
    pub(crate) fn list_together(
        &self,
        folders: &[&str],
        lengths: &Lengths,
    ) -> Result<Option<Vec<Vec<Entry>>>> {
        let Some(objects) = self.list_pages("", false, MOST_PAGES)? else { return Ok(None) };
        self.note_left(&objects);
        let in_each = folders.iter().map(|folder| self.entries(folder, &objects, lengths));
        in_each.collect::<Result<_>>().map(Some)
    }

    /// The keys directly under a folder among these objects.
    fn entries(&self, folder: &str, objects: &[ObjectMeta], lengths: &Lengths) -> Result<Vec<Entry>> {
        let directly = self.path(folder);
        let is_in = |meta: &&ObjectMeta| parent(meta.location.as_ref()) == directly.as_ref();
        let key = |meta: &ObjectMeta| {
            let name = meta.location.filename()?;
            let key = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
            check_free_key(&key).is_ok().then_some(key)
        };
        let mut maybe_large = Vec::new();
        let mut entries = Vec::new();
        for meta in objects.iter().filter(is_in) {
            match key(meta) {
                Some(key) if may_be_pointer(meta.size) => maybe_large.push((key, meta.clone())),
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

    /// Page by page; None when there are more than `most` pages, and on a store without pages.
    fn list_pages(&self, folder: &str, direct: bool, most: usize) -> Result<Option<Vec<ObjectMeta>>> {
        let (remote, path, patience) = (self.clone(), self.path(folder), self.patience());
        self.run("listing", folder, async move {
            let Some(pages) = &remote.pages else { return Ok(None) };
            let prefix = (!path.as_ref().is_empty()).then(|| format!("{path}/"));
            let (mut objects, mut page_token, mut tokens) = (Vec::new(), None, HashSet::new());
            for _ in 0..most {
                let deadline = patience.begin(0);
                let page = deadline
                    .retry(0, || page(&**pages, prefix.as_deref(), direct, page_token.clone()))
                    .await?;
                objects.extend(page.result.objects);
                page_token = page.page_token;
                let Some(token) = page_token.clone() else { return Ok(Some(objects)) };
                if !tokens.insert(token) {
                    let source = "the listing does not end: a page is named as its own successor".into();
                    return Err(StoreError::Generic { store: "tensorkeep", source });
                }
            }
            Ok(None)
        })
    }

    /// Entries of possible commit objects: each is read once and remembered, since none ever
    /// changes.
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
                    let at = AtKey::look(&*store, &meta.location, &deadline, AtKey::is_commit).await;
                    at.map(|at| (meta, at))
                }
            });
            stream::iter(requests).buffered(IN_FLIGHT).try_collect::<Vec<_>>().await
        })?;
        for (meta, at) in found {
            match at {
                AtKey::Commit(pointer) => known.insert(version(&meta), pointer.len),
                AtKey::Plain => known.insert(version(&meta), meta.size),
                AtKey::Nothing | AtKey::Damaged => None,
            };
        }
        // One that is damaged, or absent although it is listed, stays in the listing, with its own
        // length: opening it reports the error.
        let len = |meta: &ObjectMeta| known.get(&version(meta)).copied().unwrap_or(meta.size);
        let entries = objects.into_iter().map(|(key, meta)| Entry { len: len(&meta), key }).collect();
        // Objects that are no longer listed are forgotten: a run never stops making checkpoints.
        let kept = listed.into_iter().filter_map(|version| known.remove_entry(&version)).collect();
        lengths.remember(folder, kept);
        Ok(entries)
    }
}

impl Lengths {
    fn of(&self, folder: &str) -> HashMap<Version, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(folder).cloned().unwrap_or_default()
    }

    fn remember(&self, folder: &str, lengths: HashMap<Version, u64>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lengths.is_empty() {
            all.remove(folder);
        } else {
            all.insert(folder.to_owned(), lengths);
        }
    }

    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().map(HashMap::len).sum()
    }
}

/// One page of a listing.
async fn page(
    pages: &dyn PaginatedListStore,
    prefix: Option<&str>,
    direct: bool,
    page_token: Option<String>,
) -> Result<PaginatedListResult, StoreError> {
    let delimiter = direct.then_some("/".into());
    let options = PaginatedListOptions { delimiter, page_token, ..PaginatedListOptions::default() };
    let page = pages.list_paginated(prefix, options).await?;
    let is_elsewhere =
        |meta: &&ObjectMeta| prefix.is_some_and(|prefix| !meta.location.as_ref().starts_with(prefix));
    match page.result.objects.iter().find(is_elsewhere) {
        Some(other) => {
            let source =
                format!("the answer is the listing of another place, with {}", other.location).into();
            Err(StoreError::Generic { store: "tensorkeep", source })
        }
        None => Ok(page),
    }
}

/// The path without its last segment.
fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// On a store that the caller built, which has no pages: one request for all.
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
            if direct {
                store.list_with_delimiter(prefix).await.map(|listed| listed.objects)
            } else {
                store.list(prefix).try_collect().await
            }
        })
        .await
}

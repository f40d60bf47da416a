//! Surgery on a snapshot, such as one made of a checkpoint by
//! [`Inspect::to_snapshot`](crate::inspect::Inspect::to_snapshot): tensors are replaced, removed
//! and renamed before it is written.

use super::{IntoTensorSource, RESERVED_PREFIX, Record, Snapshot, taken};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{records, table};
use crate::names;
use std::collections::{BTreeMap, BTreeSet};

impl<'a> Snapshot<'a> {
    /// Names of all tensors, aliases included, sorted.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> =
            self.tensors.keys().chain(self.aliases.keys()).map(String::as_str).collect();
        names.sort_unstable();
        names
    }

    /// Puts another tensor in the place of one. Aliases of it have the new one, too; an alias that
    /// is replaced becomes a tensor of its own.
    ///
    /// ```
    /// use tensorkeep::{Checkpoint, Snapshot, WriteOptions};
    ///
    /// # let bytes = Snapshot::new().tensor("w", &[1.0_f32, 2.0])?.tensor("b", &[0.5_f32])?.to_bytes(&WriteOptions::new())?;
    /// let checkpoint = Checkpoint::from_bytes(&bytes)?;
    /// let doubled: Vec<f32> = checkpoint.tensor("w")?.elements::<f32>()?.iter().map(|w| 2.0 * w).collect();
    /// let snapshot = checkpoint.inspect().to_snapshot()?.replace("w", &doubled)?.remove("b")?;
    /// # assert_eq!(snapshot.names(), ["w"]);
    /// # drop(snapshot);
    /// # Ok::<(), tensorkeep::Error>(())
    /// ```
    ///
    /// # Errors
    /// `NotFound` with the nearest name; `Invalid` for a tensor that cannot be saved.
    pub fn replace(mut self, name: &str, source: impl IntoTensorSource<'a>) -> Result<Self> {
        self.check_whole()?;
        self.find(name)?;
        let source = source.into_source().map_err(|error| error.in_tensor(name))?;
        self.aliases.remove(name);
        self.tensors.insert(name.to_owned(), source);
        Ok(self)
    }

    /// Takes a tensor out. Its aliases stay: the first of them is the tensor from then on.
    ///
    /// A nested state, as Python saves it, says in its records where its tensors are; a tensor that
    /// is gone, by this or by [`Snapshot::rename_tensors`], is no key of a dict there any more. As
    /// an element of a list it is None.
    ///
    /// # Errors
    /// `NotFound` with the nearest name; errors of reading a record.
    pub fn remove(self, name: &str) -> Result<Self> {
        self.remove_all([name])
    }

    /// As [`Snapshot::remove`], for several tensors.
    ///
    /// # Errors
    /// As [`Snapshot::remove`].
    pub fn remove_all<'n>(mut self, names: impl IntoIterator<Item = &'n str>) -> Result<Self> {
        let mut gone = BTreeSet::new();
        for name in names {
            self.take_out(name)?;
            gone.insert(name);
        }
        self.forget_places(&gone)?;
        Ok(self)
    }

    fn take_out(&mut self, name: &str) -> Result<()> {
        self.check_whole()?;
        self.find(name)?;
        self.aliases.remove(name);
        let Some(source) = self.tensors.swap_remove(name) else { return Ok(()) };
        let heir =
            self.aliases.iter().find(|(_, existing)| *existing == name).map(|(alias, _)| alias.clone());
        if let Some(heir) = heir {
            self.aliases.remove(&heir);
            for existing in self.aliases.values_mut().filter(|existing| *existing == name) {
                existing.clone_from(&heir);
            }
            self.tensors.insert(heir, source);
        }
        Ok(())
    }

    /// Takes the places of these tensors out of the records.
    fn forget_places(&mut self, gone: &BTreeSet<&str>) -> Result<()> {
        let with_places: BTreeSet<&str> =
            gone.iter().filter_map(|name| Some(name.split_once('/')?.0)).collect();
        let records = self.records.iter_mut().filter(|(name, _)| !name.starts_with(RESERVED_PREFIX));
        for (name, record) in records.filter(|(name, _)| with_places.contains(name.as_str())) {
            let Record::Here(bytes) = record.drawn()? else { continue };
            if let Some(without) = records::without_places(&bytes, name, &|path| gone.contains(path))? {
                *record = Record::Here(without);
            }
        }
        Ok(())
    }

    /// Gives every tensor the name that `new_name` has for it, all at once: two may change places.
    ///
    /// # Errors
    /// `Invalid` where two tensors would have one name, or one a name that no tensor may have.
    pub fn rename_tensors(mut self, new_name: impl Fn(&str) -> String) -> Result<Self> {
        self.check_whole()?;
        let mut taken_by = BTreeMap::<String, String>::new();
        for name in self.names() {
            let new = new_name(name);
            table::check_name(&new).map_err(|error| error.in_tensor(name))?;
            if let Some(other) = taken_by.insert(new.clone(), name.to_owned()) {
                return Err(taken(&new).found(format!("{other:?} and {name:?}, which would both have it")));
            }
        }
        let old: Vec<String> = self.names().into_iter().map(str::to_owned).collect();
        let gone = old.iter().map(String::as_str).filter(|name| !taken_by.contains_key(*name)).collect();
        self.forget_places(&gone)?;
        let (tensors, aliases) = (std::mem::take(&mut self.tensors), std::mem::take(&mut self.aliases));
        self.tensors = tensors.into_iter().map(|(name, source)| (new_name(&name), source)).collect();
        self.aliases =
            aliases.into_iter().map(|(name, existing)| (new_name(&name), new_name(&existing))).collect();
        Ok(self)
    }

    /// Takes a record out, the library's own included; nothing happens where there is none.
    pub fn remove_record(mut self, name: &str) -> Self {
        self.records.remove(name);
        self
    }

    /// Takes a line of metadata out; nothing happens where there is none.
    pub fn remove_metadata(mut self, key: &str) -> Self {
        self.metadata.remove(key);
        self
    }

    fn find(&self, name: &str) -> Result<()> {
        if self.tensors.contains_key(name) || self.aliases.contains_key(name) {
            return Ok(());
        }
        let error = Error::new(ErrorKind::NotFound, format!("no tensor {name:?} in the snapshot"));
        Err(match names::nearest(name, self.names().into_iter()) {
            Some(near) => error.help(format!("did you mean {near:?}?")),
            None => error,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Checkpoint, WriteOptions};

    fn with_aliases() -> Snapshot<'static> {
        let snapshot = Snapshot::new().tensor("b", &[1.0_f32, 2.0]).unwrap().tensor("x", &[9_i32]).unwrap();
        snapshot.alias("c", "b").unwrap().alias("d", "b").unwrap()
    }

    /// First element and alias of each tensor, as it is read back.
    fn saved(snapshot: &Snapshot<'_>) -> Vec<(String, f32, Option<String>)> {
        let checkpoint = Checkpoint::from_bytes(&snapshot.to_bytes(&WriteOptions::new()).unwrap()).unwrap();
        let floats = checkpoint.tensors().filter(|info| info.name != "x");
        let told = floats.map(|info| {
            let first = checkpoint.tensor(info.name).unwrap().elements::<f32>().unwrap()[0];
            (info.name.to_owned(), first, info.alias_of.map(str::to_owned))
        });
        told.collect()
    }

    fn row(name: &str, first: f32, alias_of: Option<&str>) -> (String, f32, Option<String>) {
        (name.to_owned(), first, alias_of.map(str::to_owned))
    }

    #[test]
    fn aliases_follow_what_is_replaced_and_survive_what_is_removed() {
        let replaced = with_aliases().replace("b", &[5.0_f32]).unwrap();
        assert_eq!(
            saved(&replaced),
            [row("b", 5.0, None), row("c", 5.0, Some("b")), row("d", 5.0, Some("b"))]
        );
        let own = with_aliases().replace("c", &[5.0_f32]).unwrap();
        assert_eq!(saved(&own), [row("b", 1.0, None), row("c", 5.0, None), row("d", 1.0, Some("b"))]);
        let removed = with_aliases().remove("b").unwrap();
        assert_eq!(saved(&removed), [row("c", 1.0, None), row("d", 1.0, Some("c"))]);
        let none = removed.remove("d").unwrap().remove("c").unwrap().remove("x").unwrap();
        assert!(none.names().is_empty());
    }

    #[test]
    fn names_change_all_at_once_and_never_clash() {
        let swapped = with_aliases().rename_tensors(|name| match name {
            "b" => "x".to_owned(),
            "x" => "b".to_owned(),
            other => format!("m.{other}"),
        });
        assert_eq!(swapped.unwrap().names(), ["b", "m.c", "m.d", "x"]);
        for (error, word) in [
            (with_aliases().rename_tensors(|_| "same".to_owned()).unwrap_err(), "\"b\" and \"c\""),
            (with_aliases().rename_tensors(|_| String::new()).unwrap_err(), "b"),
            (with_aliases().remove("bb").unwrap_err(), "no tensor \"bb\""),
            (with_aliases().replace("zzzzzz", &[1.0_f32]).unwrap_err(), "no tensor"),
        ] {
            assert!(error.to_string().contains(word), "{error}");
        }
    }
}

//! All ranks' declarations to one job: a pure function, so that every rank gets the same. What the
//! ranks disagree on is an error that names the tensor and the ranks.

use super::message::{Declared, Held};
use super::{Group, Settings};
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::format::aliases::Aliases;
use crate::layout::{Layout, Positions, TensorBox};
use crate::snapshot::{AnotherWorld, Replica};
use crate::writer::job::Job;
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// What all ranks agree on.
#[derive(Debug)]
pub(in crate::store::ranks) struct Agreed {
    /// Who stores what; its shards have no names yet.
    pub job: Job,
    /// The rank that stores everything, if one does: its file is the checkpoint.
    pub plain: Option<u32>,
    pub aliases: Aliases,
    pub per_rank: BTreeMap<String, AnotherWorld>,
    /// Ranks with records of their own.
    pub with_records: BTreeSet<u32>,
    pub compared: Vec<Compared>,
    /// Tensors whose replicas must not differ.
    pub required: BTreeSet<String>,
}

/// Boxes that the same ranks hold, to be compared.
#[derive(Debug)]
pub(in crate::store::ranks) struct Compared {
    who: Who,
    /// Tensors; and their boxes where no layout gives them.
    pub what: Vec<(String, Option<TensorBox>)>,
}

#[derive(Debug)]
enum Who {
    Layout(Layout),
    Ranks(Vec<u32>),
}

impl Compared {
    /// Ranks of one class hold the same boxes; None for a rank without any.
    pub(in crate::store::ranks) fn class(&self, rank: u32) -> Option<u32> {
        match &self.who {
            Who::Layout(layout) => Some(layout.first_with(layout.positions().of(rank)?)),
            Who::Ranks(ranks) => ranks.binary_search(&rank).ok().map(|_| 0),
        }
    }

    /// The box of a tensor that a rank holds.
    pub(in crate::store::ranks) fn box_of(&self, number: usize, shape: &[u64], rank: u32) -> TensorBox {
        let own = self.what.get(number).and_then(|(_, tensor_box)| tensor_box.clone());
        match (&self.who, own) {
            (Who::Layout(layout), _) => layout.box_of(shape, rank).unwrap_or_else(|| TensorBox::whole(shape)),
            (_, own) => own.unwrap_or_else(|| TensorBox::whole(shape)),
        }
    }
}

/// A tensor as it was first declared, and who else declared it.
struct Entry<'g> {
    first: &'g Declared,
    by: u32,
    groups: Vec<usize>,
    boxes: BTreeMap<TensorBox, Vec<u32>>,
}

/// The job of these declarations.
///
/// # Errors
/// `Mismatch` for what ranks disagree on; `Invalid` for boxes that do not tile their tensor.
pub(super) fn merge(groups: &[Group], world: u32, settings: Settings) -> Result<Agreed> {
    let entries = gather(groups, world)?;
    let mut agreed = Agreed {
        job: Job::new("unnamed", world)?,
        plain: None,
        aliases: Aliases::new(),
        per_rank: BTreeMap::new(),
        with_records: BTreeSet::new(),
        compared: Vec::new(),
        required: BTreeSet::new(),
    };
    let mut equal = Equal::default();
    let mut checked: HashSet<(Layout, Vec<usize>)> = HashSet::new();
    for (name, entry) in entries {
        let named = |error: Error| error.in_tensor(name);
        let (dtype, shape) = (dtype_of(entry.first).map_err(named)?, &entry.first.shape);
        let (layout, is_compared) = match &entry.first.held {
            Held::Replica(rule) if entry.boxes.is_empty() => {
                if *rule == Replica::Required {
                    agreed.required.insert(name.to_owned());
                }
                let holders = ranks_of(groups, &entry.groups);
                let layout = Layout::new(replicas(*rule, &holders, world).map_err(named)?, vec![])?;
                (layout, !matches!(rule, Replica::OfRank(_)))
            }
            Held::Layout(message) => {
                let layout = message.layout().map_err(named)?;
                if checked.insert((layout.clone(), entry.groups.clone())) {
                    let holders = ranks_of(groups, &entry.groups);
                    check_holders(&layout, &holders, world).map_err(named)?;
                }
                (layout, true)
            }
            Held::Boxes(_) | Held::Replica(_) => {
                equal.add_boxes(name, &entry.boxes);
                agreed.job.held_boxes(name, dtype, shape, entry.boxes).map_err(named)?;
                continue;
            }
        };
        agreed.job.layout(name, dtype, shape, &layout)?;
        if is_compared && layout.copies() > 1 {
            equal.add_layout(name, layout);
        }
    }
    agreed.job.assign_among_few(settings.cut, settings.least)?;
    if settings.compare {
        agreed.compared = equal.compared();
    }
    merge_aliases(&mut agreed, groups, world)?;
    merge_records(&mut agreed, groups, world)?;
    agreed.plain = if agreed.per_rank.is_empty() { agreed.job.only_rank() } else { None };
    Ok(agreed)
}

/// What several ranks hold and should hold the same of: by layout, and by the ranks of a box.
#[derive(Default)]
struct Equal {
    layouts: Vec<(Layout, Vec<String>)>,
    by_ranks: BTreeMap<Vec<u32>, Vec<(String, Option<TensorBox>)>>,
}

impl Equal {
    fn add_layout(&mut self, name: &str, layout: Layout) {
        match self.layouts.iter_mut().find(|(known, _)| *known == layout) {
            Some((_, names)) => names.push(name.to_owned()),
            None => self.layouts.push((layout, vec![name.to_owned()])),
        }
    }

    fn add_boxes(&mut self, name: &str, boxes: &BTreeMap<TensorBox, Vec<u32>>) {
        for (tensor_box, ranks) in boxes.iter().filter(|(_, ranks)| ranks.len() > 1) {
            let held = (name.to_owned(), Some(tensor_box.clone()));
            self.by_ranks.entry(ranks.clone()).or_default().push(held);
        }
    }

    fn compared(self) -> Vec<Compared> {
        let whole = |names: Vec<String>| names.into_iter().map(|name| (name, None)).collect();
        let of_layouts = self.layouts.into_iter().map(|(layout, names)| (Who::Layout(layout), whole(names)));
        let of_ranks = self.by_ranks.into_iter().map(|(ranks, what)| (Who::Ranks(ranks), what));
        of_layouts.chain(of_ranks).map(|(who, what)| Compared { who, what }).collect()
    }
}

/// The tensors of all ranks by name, compared with how they were first declared.
fn gather(groups: &[Group], world: u32) -> Result<BTreeMap<&str, Entry<'_>>> {
    let mut entries: BTreeMap<&str, Entry<'_>> = BTreeMap::new();
    let all = groups.iter().flat_map(|group| &group.plan.tensors);
    let in_boxes: HashSet<&str> = all
        .filter(|declared| matches!(declared.held, Held::Boxes(_)))
        .map(|declared| declared.name.as_str())
        .collect();
    for (number, group) in groups.iter().enumerate() {
        let rank = group.ranks.first().copied().unwrap_or_default();
        for declared in &group.plan.tensors {
            let entry = entries.entry(&declared.name).or_insert_with(|| Entry {
                first: declared,
                by: rank,
                groups: Vec::new(),
                boxes: BTreeMap::new(),
            });
            if !is_alike(entry.first, declared) {
                return Err(Error::new(ErrorKind::Mismatch, "ranks disagree on a tensor")
                    .expected(format!("{}, as on rank {} of {world}", words(entry.first), entry.by))
                    .found(format!("{} on rank {rank} of {world}", words(declared)))
                    .in_tensor(&declared.name));
            }
            entry.groups.push(number);
            match &declared.held {
                Held::Boxes(boxes) => {
                    for (offsets, lens) in boxes {
                        let tensor_box = TensorBox::new(&offsets[..], &lens[..])?;
                        entry.boxes.entry(tensor_box).or_default().extend(&group.ranks);
                    }
                }
                // Of boxes, one may be the whole.
                Held::Replica(Replica::Same) if in_boxes.contains(&*declared.name) => {
                    let whole = TensorBox::whole(&declared.shape);
                    entry.boxes.entry(whole).or_default().extend(&group.ranks);
                }
                _ => {}
            }
        }
    }
    for ranks in entries.values_mut().flat_map(|entry| entry.boxes.values_mut()) {
        ranks.sort_unstable();
        ranks.dedup();
    }
    Ok(entries)
}

fn is_alike(one: &Declared, other: &Declared) -> bool {
    let is_held_alike = match (&one.held, &other.held) {
        (Held::Replica(one), Held::Replica(other)) => one == other,
        (Held::Layout(one), Held::Layout(other)) => one == other,
        (Held::Boxes(_) | Held::Replica(Replica::Same), Held::Boxes(_))
        | (Held::Boxes(_), Held::Replica(Replica::Same)) => true,
        _ => false,
    };
    is_held_alike && one.dtype == other.dtype && one.shape == other.shape
}

/// How a tensor was declared, for people.
fn words(declared: &Declared) -> String {
    let dtype = Dtype::from_id(declared.dtype).map_or("an unknown dtype", Dtype::name);
    let held = match &declared.held {
        Held::Replica(Replica::Same) => "whole".to_owned(),
        Held::Replica(rule) => format!("whole, {rule:?}"),
        Held::Layout(layout) => match layout.layout() {
            Ok(layout) => format!("by {:?} over {} ranks", layout.levels(), layout.positions().count()),
            Err(error) => error.to_string(),
        },
        Held::Boxes(_) => "in boxes".to_owned(),
    };
    format!("{dtype} {:?} {held}", declared.shape)
}

fn dtype_of(declared: &Declared) -> Result<Dtype> {
    Dtype::from_id(declared.dtype).ok_or_else(|| {
        Error::new(ErrorKind::Unsupported, "a dtype that this version does not know").found(declared.dtype)
    })
}

fn ranks_of(groups: &[Group], numbers: &[usize]) -> Vec<u32> {
    let mut ranks: Vec<u32> = numbers.iter().flat_map(|&number| &groups[number].ranks).copied().collect();
    ranks.sort_unstable();
    ranks
}

/// The ranks of whose whole copies one is stored.
fn replicas(rule: Replica, holders: &[u32], world: u32) -> Result<Positions> {
    match rule {
        Replica::OfRank(rank) if holders.binary_search(&rank).is_ok() => Positions::among(&[rank]),
        Replica::OfRank(rank) => {
            Err(Error::new(ErrorKind::Mismatch, "the rank whose replica is saved does not have it")
                .expected(format!("it on rank {rank} of {world}"))
                .found(format!("it on {} other ranks", holders.len())))
        }
        Replica::Same | Replica::Required => Positions::among(holders),
    }
}

/// Every rank of a layout has the tensor. That no other one has was checked by each rank.
fn check_holders(layout: &Layout, holders: &[u32], world: u32) -> Result<()> {
    let lacking = layout.positions().ranks().find(|rank| holders.binary_search(rank).is_err());
    lacking.map_or(Ok(()), |rank| {
        Err(Error::new(ErrorKind::Mismatch, "a rank of the layout does not have the tensor")
            .expected(format!("it on all {} ranks of the layout", layout.positions().count()))
            .found(format!("nothing on rank {rank} of {world}")))
    })
}

/// Aliases by the numbers of the tensors in shards; the file of one rank makes its own.
fn merge_aliases(agreed: &mut Agreed, groups: &[Group], world: u32) -> Result<()> {
    let mut all: BTreeMap<&str, (&str, u32)> = BTreeMap::new();
    for group in groups {
        let rank = group.ranks.first().copied().unwrap_or_default();
        for (name, existing) in &group.plan.aliases {
            let (there, by) = *all.entry(name).or_insert((existing, rank));
            if there != existing {
                return Err(Error::new(ErrorKind::Mismatch, "ranks disagree on an alias")
                    .expected(format!("an alias of {there}, as on rank {by} of {world}"))
                    .found(format!("one of {existing} on rank {rank} of {world}"))
                    .in_tensor(name));
            }
        }
    }
    let numbers: BTreeMap<&str, u32> = agreed.job.names().zip(0..).collect();
    let mut aliases = Aliases::new();
    for (name, (existing, by)) in &all {
        let target = all.get(existing).map_or(*existing, |(existing, _)| *existing);
        match (numbers.get(name), numbers.get(target)) {
            (None, Some(&number)) => drop(aliases.insert((*name).to_owned(), number)),
            _ => {
                return Err(Error::new(ErrorKind::Mismatch, "ranks disagree on an alias")
                    .expected(format!("an alias of {target} on every rank, as on rank {by} of {world}"))
                    .found("a tensor of its own on another rank")
                    .in_tensor(name));
            }
        }
    }
    agreed.aliases = aliases;
    Ok(())
}

fn merge_records(agreed: &mut Agreed, groups: &[Group], world: u32) -> Result<()> {
    for group in groups {
        for (name, rule) in &group.plan.per_rank {
            let there = *agreed.per_rank.entry(name.clone()).or_insert(*rule);
            if there != *rule {
                let rank = group.ranks.first().copied().unwrap_or_default();
                return Err(Error::new(ErrorKind::Mismatch, "ranks disagree on the rule of a record")
                    .expected(format!("{there:?}"))
                    .found(format!("{rule:?} on rank {rank} of {world}"))
                    .in_record(name));
            }
        }
        if !group.plan.per_rank.is_empty() {
            agreed.with_records.extend(&group.ranks);
        }
    }
    Ok(())
}
